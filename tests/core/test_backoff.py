from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.backoff import Backoff


@given(st.floats(0.001, 10), st.floats(1, 100), st.floats(1, 5), st.integers(0, 80), st.integers())
def test_waits_stay_between_the_floor_and_what_has_grown(
    first: float, spread: float, factor: float, tries: int, seed: int
):
    backoff = Backoff(first, first * spread, factor, floor=first / 2, random=Random(seed))
    for number in range(tries):
        assert first / 2 <= backoff.next() <= min(first * spread, first * factor**number) * 1.000001
    assert backoff.tries == tries


def test_those_who_failed_together_do_not_return_together():
    waits = {round(Backoff(1.0, random=Random(seed)).next(), 6) for seed in range(100)}
    assert len(waits) > 95


def test_a_success_starts_anew():
    backoff = Backoff(0.1, 100.0, random=Random(1))
    for _ in range(20):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 0.1


def test_ever_more_tries_do_not_overflow():
    backoff = Backoff(1.0, 10.0, 1000.0, random=Random(1))
    assert all(backoff.next() <= 10.0 for _ in range(1000))


@pytest.mark.parametrize(
    "settings", [{"first": 0}, {"first": -1}, {"first": 2, "cap": 1}, {"factor": 0.5}, {"floor": -1}, {"floor": 5}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]):
    with pytest.raises(ValueError, match="a backoff needs"):
        Backoff(**settings)
