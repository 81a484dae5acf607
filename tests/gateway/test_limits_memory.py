from __future__ import annotations

import sys
from copy import deepcopy
from datetime import UTC, datetime
from fractions import Fraction
from math import inf
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.clock import FakeClock
from blocks.gateway.limits.concurrency import Concurrency, Places
from blocks.gateway.limits.gcra import Gcra
from blocks.gateway.limits.generations import Generations
from blocks.gateway.limits.quota import Quota, span_of
from blocks.gateway.limits.window import SlidingWindow

STEPS = st.lists(st.tuples(st.integers(0, 200), st.sampled_from("ab"), st.integers(1, 3)), max_size=120)
TICK = 1 / 64  # times are multiples of it: floats hold them exactly


class Bucket:
    """A reference: the token bucket, in exact fractions."""

    def __init__(self, amount: int, period: int, burst: int) -> None:
        self.fill = Fraction(amount, period)
        self.burst = Fraction(burst)
        self.tokens: dict[str, Fraction] = {}
        self.at: dict[str, Fraction] = {}

    def attempt(self, key: str, cost: int, now: Fraction) -> bool:
        tokens = self.tokens.get(key, self.burst) + (now - self.at.get(key, now)) * self.fill
        tokens = min(tokens, self.burst)
        passed = tokens >= cost
        self.tokens[key] = tokens - cost if passed else tokens
        self.at[key] = now
        return passed


@given(STEPS, st.sampled_from([(4, 1, 4), (1, 4, 1), (8, 2, 3), (16, 1, 20), (2, 1, 5)]))
def test_gcra_is_the_token_bucket(steps: list[tuple[int, str, int]], shape: tuple[int, int, int]) -> None:
    amount, period, burst = shape
    own = Gcra(Generations(1.0, 1000), amount, period, burst)
    own.memory.life = own.life
    reference = Bucket(amount, period, burst)
    now = 1000.0
    for ticks, key, cost in steps:
        now += ticks * TICK
        wait = own.attempt(key, cost, now)
        assert (wait == 0.0) is reference.attempt(key, cost, Fraction(now))
        if wait:
            assert own.wait(key, cost, now) == wait
            if wait < inf:
                assert deepcopy(own).wait(key, cost, now + wait) == 0.0, "what was told to wait for is enough"


class Windows:
    """A reference of the two-counter sliding window, in exact fractions."""

    def __init__(self, amount: int, period: int) -> None:
        self.amount, self.period = amount, period
        self.counts: dict[tuple[str, int], int] = {}

    def attempt(self, key: str, cost: int, now: Fraction) -> bool:
        index = now // self.period
        part = now / self.period - index
        used = self.counts.get((key, index - 1), 0) * (1 - part) + self.counts.get((key, index), 0)
        if used + cost > self.amount:
            return False
        self.counts[(key, index)] = self.counts.get((key, index), 0) + cost
        return True


@given(STEPS, st.sampled_from([(4, 1), (3, 2), (10, 4)]))
def test_the_sliding_window_is_its_two_counters(steps: list[tuple[int, str, int]], shape: tuple[int, int]) -> None:
    own = SlidingWindow(Generations(shape[1], 1000), *shape)
    reference = Windows(*shape)
    now = 1000.0
    for ticks, key, cost in steps:
        now += ticks * TICK
        wait = own.attempt(key, cost, now)
        assert (wait == 0.0) is reference.attempt(key, cost, Fraction(now))
        if 0 < wait < inf:
            assert deepcopy(own).wait(key, cost, now + wait + 1e-6) == 0.0
            assert 0 < wait <= 2 * shape[1] + 1e-6


def test_a_cost_that_can_never_pass_waits_for_ever() -> None:
    memory = Generations(10.0, 100)
    assert Gcra(memory, 5, 1, 5).attempt("a", 6, 1.0) == inf
    assert SlidingWindow(memory, 5, 1).attempt("a", 6, 1.0) == inf
    assert Concurrency(Places(), 5).attempt("a", 6, 1.0) == inf


def test_standing_tells_what_is_left_and_when_all_is_back() -> None:
    own = Gcra(Generations(10.0, 100), 10, 1, 10)
    for _ in range(4):
        own.attempt("a", 1, 100.0)
    left, reset = own.standing("a", 100.0)
    assert int(left) == 6
    assert reset == pytest.approx(0.4)
    window = SlidingWindow(Generations(10.0, 100), 10, 10)
    window.attempt("a", 4, 105.0)
    assert window.standing("a", 105.0) == (pytest.approx(6), pytest.approx(15))


def test_a_charge_afterwards_makes_a_debt_of_at_most_one_burst() -> None:
    own = Gcra(Generations(10.0, 100), 10, 1, 10)
    own.charge("a", 1_000_000, 50.0)
    assert own.wait("a", 1, 50.0) == pytest.approx(1.1)
    own.charge("b", 5, 50.0)
    own.charge("b", -5, 50.0)
    assert own.standing("b", 50.0)[0] == pytest.approx(10)


def test_idle_keys_leave_and_live_ones_stay() -> None:
    memory = Generations(1.0, 1_000_000)
    own = Gcra(memory, 1, 1, 1)
    memory.life = own.life
    for number in range(5000):
        own.attempt(f"k{number}", 1, 10.0)
    own.attempt("k0", 1, 10.0)
    assert own.attempt("k0", 1, 10.9) > 0  # still known
    for second in range(1, 8):
        own.attempt("live", 1, 10.0 + second * own.life)
    assert len(memory) <= 2


def test_a_full_table_lets_the_least_lately_touched_go_and_never_grows_beyond_its_bound() -> None:
    memory = Generations(1000.0, 100)
    own = Gcra(memory, 1, 1000, 1)
    for number in range(1000):
        own.attempt(f"k{number}", 1, 10.0)
        own.attempt("hot", 1, 10.0)
        assert len(memory) <= 100
    assert memory.evicted >= 800
    assert own.attempt("hot", 1, 10.0) > 0, "a key in use keeps its state through any flood"


def test_a_live_key_costs_at_most_250_bytes() -> None:
    memory = Generations(1e9, 10_000_000)
    own = Gcra(memory, 1, 50, 1)
    keys = [f"2001:db8:{number:x}:ffff::/64" for number in range(100_000)]
    for key in keys:
        own.attempt(key, 1, 10.0)
    young = memory.young
    size = sys.getsizeof(young) + sum(sys.getsizeof(key) + sys.getsizeof(value) for key, value in young.items())
    assert size / len(keys) <= 250


@pytest.mark.parametrize(
    ("unit", "moment", "zone", "begin", "end"),
    [
        ("day", "2026-03-29T12:00:00+00:00", "Europe/Berlin", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"),
        ("month", "2026-02-10T12:00:00+00:00", "UTC", "2026-02-01T00:00:00+00:00", "2026-03-01T00:00:00+00:00"),
        ("month", "2026-12-31T23:59:59+00:00", "UTC", "2026-12-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00"),
        ("week", "2026-11-22T12:00:00+00:00", "UTC", "2026-11-16T00:00:00+00:00", "2026-11-23T00:00:00+00:00"),
        ("hour", "2026-11-22T12:34:56+00:00", "UTC", "2026-11-22T12:00:00+00:00", "2026-11-22T13:00:00+00:00"),
    ],
)
def test_calendar_units_have_their_zone_s_borders(unit: str, moment: str, zone: str, begin: str, end: str) -> None:
    wall = datetime.fromisoformat(moment).timestamp()
    expected = (datetime.fromisoformat(begin).timestamp(), datetime.fromisoformat(end).timestamp())
    assert span_of(unit, wall, ZoneInfo(zone)) == expected


def test_a_quota_is_whole_again_in_the_next_unit_and_not_when_the_clock_steps_back() -> None:
    clock = FakeClock(wall=datetime(2026, 1, 31, 23, 0, tzinfo=UTC).timestamp())
    memory = Generations(1.0, 1000)
    own = Quota(memory, 2, "month", clock.wall)
    assert own.attempt("a", 2, 0.0) == 0.0
    assert own.attempt("a", 1, 0.0) == 3600.0
    assert own.standing("a", 0.0) == (0, 3600.0)
    again = Quota(memory, 2, "month", clock.wall)
    assert again.wait("a", 1, 0.0) == 3600.0, "a reload keeps the count"
    clock.advance(3600)
    assert own.attempt("a", 2, 0.0) == 0.0
    clock.jump(-7200)
    assert own.attempt("a", 1, 0.0) > 0.0


def test_places_are_given_back_and_idle_keys_are_not_kept() -> None:
    places = Places()
    own = Concurrency(places, 2)
    assert own.attempt("a", 1, 0.0) == own.attempt("a", 1, 0.0) == 0.0
    assert own.attempt("a", 1, 0.0) > 0
    own.charge("a", -1, 0.0)
    assert own.attempt("a", 1, 0.0) == 0.0
    own.charge("a", -1, 0.0)
    own.charge("a", -1, 0.0)
    assert len(places) == 0
