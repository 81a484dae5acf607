"""What a nearly full descriptor table refuses, and what it tells."""

from __future__ import annotations

import os
from math import inf

import pytest

from blocks.core.descriptors import Descriptors
from blocks.core.errors import Again, Failure
from blocks.core.logging import events


@pytest.mark.parametrize(
    ("limit", "clients", "upstreams", "burst"),
    [(64, 48, 56, 4), (1024, 960, 992, 16), (1_000_000, 999_936, 999_968, 16), (inf, inf, inf, 16)],
)
def test_a_reserve_is_kept_back_and_half_of_it_from_upstreams(
    limit: float, clients: float, upstreams: float, burst: int
):
    made = Descriptors(limit)
    assert (made.clients, made.upstreams, made.burst) == (clients, upstreams, burst)


def test_the_number_of_a_new_descriptor_tells_how_full_the_table_is():
    made = Descriptors(64)
    assert [made.refuses_client(number, 0.0) for number in (3, 47, 48, 63)] == [False, False, True, True]


def test_refusals_are_told_once_a_second_with_their_count():
    made = Descriptors(64)
    told: list[dict[str, object]] = []
    end = events().subscribe(told.append)
    try:
        for tenth in range(25):
            made.refuses_client(60, tenth / 10)
    finally:
        end()
    assert [(one["event"], one["count"], one["limit"]) for one in told] == [
        ("out-of-descriptors", 1, 64),
        ("out-of-descriptors", 10, 64),
        ("out-of-descriptors", 10, 64),
    ]


def test_an_upstream_connection_too_many_is_our_own_failure_and_safe_to_retry():
    lowest = os.dup(2)
    os.close(lowest)
    Descriptors(4 * (lowest + 2)).check_upstream(0.0)
    with pytest.raises(Failure) as caught:
        Descriptors(1).check_upstream(0.0)
    assert (caught.value.status, caught.value.again, caught.value.reason) == (503, Again.UNSENT, "out-of-descriptors")
