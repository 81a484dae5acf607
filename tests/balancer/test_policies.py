"""Policies: shares in proportion to weights, nobody starves, and every candidate is yielded once."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.balancer import P2C, Chance, Endpoint, LeastRequests, Policy, Ring, RoundRobin, by_header, by_path
from blocks.balancer.load import PENALTY, observe, observe_failure, score
from blocks.balancer.policies import POLICIES, policy_of
from blocks.core.errors import ConfigError
from blocks.http import Peer, Request

from .scripted import Scripted

WEIGHTS = st.lists(st.integers(1, 20), min_size=1, max_size=12)
REQUEST = Request()


def row(*weights: float) -> list[Endpoint]:
    return [Endpoint(Scripted(), name=chr(97 + n), weight=weight) for n, weight in enumerate(weights)]


def picks(policy: Policy, number: int) -> Counter[str]:
    return Counter(policy.first(REQUEST, 0.0).name for _ in range(number))


def arranged(policy: Policy, endpoints: list[Endpoint]) -> Policy:
    policy.arrange(tuple(endpoints))
    return policy


def test_smooth_weighted_gives_the_order_of_nginx() -> None:
    policy = arranged(RoundRobin(), row(5, 1, 1))
    assert "".join(policy.first(REQUEST, 0.0).name for _ in range(14)) == "aabacaa" * 2


def test_round_robin_with_equal_weights_is_a_turn() -> None:
    policy = arranged(RoundRobin(), row(2, 2, 2))
    assert "".join(policy.first(REQUEST, 0.0).name for _ in range(7)) == "abcabca"


@given(WEIGHTS)
def test_round_robin_honours_weights_exactly_over_a_period(weights: list[int]) -> None:
    policy = arranged(RoundRobin(), row(*weights))
    counts = picks(policy, 3 * sum(weights))
    if len(set(weights)) == 1:
        assert max(counts.values()) - min(counts.values()) <= 1
    else:
        assert [counts[chr(97 + n)] for n in range(len(weights))] == [3 * weight for weight in weights]


@given(WEIGHTS, st.integers(1, 200))
def test_round_robin_is_never_far_from_its_shares(weights: list[int], number: int) -> None:
    policy = arranged(RoundRobin(), row(*weights))
    counts = picks(policy, number)
    for n, weight in enumerate(weights):
        due = number * weight / sum(weights)
        assert abs(counts[chr(97 + n)] - due) <= len(weights)


def test_a_change_of_the_rotation_favours_nobody() -> None:
    endpoints = row(3, 1, 1, 1)
    policy = RoundRobin()
    counts: Counter[str] = Counter()
    for n in range(300):  # one endpoint comes and goes all the time
        policy.arrange(tuple(endpoints if n % 2 else endpoints[:3]))
        counts += picks(policy, 5)
    assert counts["a"] > counts["b"] > 200
    assert abs(counts["b"] - counts["c"]) < 20


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.integers(0, 2**32))
def test_random_honours_weights_within_bounds(weights: list[int], seed: int) -> None:
    policy = arranged(Chance(Random(seed)), row(*weights))
    counts = picks(policy, 2000)
    for n, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(counts[chr(97 + n)] / 2000 - share) < 6 * (share * (1 - share) / 2000) ** 0.5


@given(st.lists(st.integers(1, 8), min_size=1, max_size=8))
def test_least_requests_fills_up_in_proportion_to_weights(weights: list[int]) -> None:
    endpoints = row(*weights)
    policy = arranged(LeastRequests(), endpoints)
    for _ in range(10 * sum(weights)):
        policy.first(REQUEST, 0.0).active += 1
    for endpoint in endpoints:
        assert abs(endpoint.active - 10 * endpoint.weight) <= 1


@pytest.mark.parametrize("many", [2, 3, 65, 100])
def test_least_requests_gives_equals_their_turn(many: int) -> None:
    endpoints = [Endpoint(Scripted(), name=str(n)) for n in range(many)]
    counts = picks(arranged(LeastRequests(), endpoints), 3 * many)
    assert set(counts.values()) == {3}


@given(st.integers(2, 10), st.integers(0, 2**32))
def test_p2c_with_equal_loads_spreads_evenly(many: int, seed: int) -> None:
    endpoints = [Endpoint(Scripted(), name=str(n)) for n in range(many)]
    policy = arranged(P2C(Random(seed)), endpoints)
    for _ in range(100 * many):
        policy.first(REQUEST, 0.0).active += 1
    for endpoint in endpoints:
        assert 100 - 3 * many < endpoint.active < 100 + 3 * many


@given(st.floats(1e-4, 1.0), st.floats(2.0, 50.0), st.integers(0, 2**32))
def test_p2c_prefers_the_faster_and_starves_nobody(fast: float, factor: float, seed: int) -> None:
    endpoints = row(1, 1, 1)
    policy = arranged(P2C(Random(seed)), endpoints)
    now = 0.0
    for endpoint in endpoints:
        observe(endpoint, fast, now)
    counts: Counter[str] = Counter()
    for _ in range(1500):  # "a" is slow: each of its answers takes ``factor`` times as long
        endpoint = policy.first(REQUEST, now)
        counts[endpoint.name] += 1
        now += 0.1
        observe(endpoint, fast * factor if endpoint.name == "a" else fast, now)
    assert counts["a"] < counts["b"]
    assert counts["a"] < counts["c"]
    assert counts["a"] >= 1


def test_p2c_honours_weights_under_load() -> None:
    endpoints = row(3, 1)
    policy = arranged(P2C(Random(1)), endpoints)
    for endpoint in endpoints:
        observe(endpoint, 0.01, 0.0)
    for _ in range(400):
        policy.first(REQUEST, 0.0).active += 1
    assert endpoints[0].active == pytest.approx(300, abs=5)


@given(WEIGHTS, st.sampled_from(sorted(POLICIES)), st.integers(0, 2**32))
def test_every_policy_yields_each_candidate_once_whatever_was_chosen(weights: list[int], name: str, seed: int) -> None:
    endpoints = row(*weights)
    policy = arranged(policy_of(name, Random(seed)), endpoints)
    for _ in range(3):
        assert policy.first(REQUEST, 1.0) in endpoints
        found = list(policy.candidates(REQUEST, 1.0))
        assert len(found) == len(endpoints)
        assert set(found) == set(endpoints)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_stands_an_empty_rotation(name: str) -> None:
    policy = arranged(policy_of(name, Random(1)), row(1, 2))
    policy.arrange(())
    assert list(policy.candidates(REQUEST, 0.0)) == []


@pytest.mark.parametrize("name", ["p2c", "round-robin", "least-requests", "random"])
def test_nobody_starves(name: str) -> None:
    endpoints = row(1, 1, 1, 1, 1)
    policy = arranged(policy_of(name, Random(7)), endpoints)
    assert set(picks(policy, 400)) == {"a", "b", "c", "d", "e"}


# -- the load that p2c chooses by


def test_a_peak_counts_at_once_and_fades_slowly() -> None:
    (endpoint,) = row(1)
    observe(endpoint, 0.010, 0.0)
    observe(endpoint, 1.0, 1.0)
    assert endpoint.ewma == 1.0
    observe(endpoint, 0.010, 2.0)
    assert 0.8 < endpoint.ewma < 1.0
    assert score(endpoint, 100.0) < 0.001


def test_who_fails_fast_does_not_look_fast() -> None:
    good, bad = row(1, 1)
    observe(good, 0.2, 0.0)
    observe_failure(bad, 0.0001, 0.0)
    assert bad.ewma == PENALTY
    assert score(good, 0.0) < score(bad, 0.0)


def test_a_single_failure_does_not_silence_an_endpoint() -> None:
    (endpoint,) = row(1)
    observe(endpoint, 0.01, 0.0)
    observe_failure(endpoint, 0.001, 0.0)
    assert endpoint.ewma == pytest.approx(0.04)
    for _ in range(10):
        observe_failure(endpoint, 0.001, 0.0)
    assert endpoint.ewma == PENALTY


def test_an_endpoint_without_a_reading_gets_one_request_and_no_flood() -> None:
    known, new = row(1, 1)
    observe(known, 0.05, 0.0)
    assert score(new, 0.0) < score(known, 0.0)
    new.active = 1
    assert score(new, 0.0) > score(known, 0.0)


# -- consistent hashing


def keyed(number: int) -> Request:
    return Request("GET", f"/{number}")


def test_the_same_key_goes_to_the_same_endpoint() -> None:
    policy = arranged(Ring(by_path), row(1, 1, 1, 1))
    for number in range(50):
        assert policy.first(keyed(number), 0.0) is policy.first(keyed(number), 9.0)


@given(st.integers(2, 8), st.data())
def test_when_one_leaves_only_its_keys_move(many: int, data: st.DataObject) -> None:
    endpoints = row(*[1] * many)
    gone = data.draw(st.sampled_from(endpoints))
    policy = arranged(Ring(by_path), endpoints)
    before = {number: policy.first(keyed(number), 0.0) for number in range(100)}
    policy.arrange(tuple(endpoint for endpoint in endpoints if endpoint is not gone))
    for number, owner in before.items():
        if owner is not gone:
            assert policy.first(keyed(number), 0.0) is owner


def test_the_ring_honours_weights_roughly() -> None:
    policy = arranged(Ring(by_path), row(3, 1))
    counts = Counter(policy.first(keyed(number), 0.0).name for number in range(4000))
    assert 0.65 < counts["a"] / 4000 < 0.85


def test_no_endpoint_takes_more_than_the_bound() -> None:
    endpoints = row(1, 1, 1, 1)
    policy = arranged(Ring(by_path, bound=1.25), endpoints)
    for _ in range(400):
        policy.first(keyed(1), 0.0).active += 1  # one hot key
    assert max(endpoint.active for endpoint in endpoints) <= 1.25 * 401 / 4


def test_keys_come_from_headers_or_the_client() -> None:
    key = by_header("X-User")
    assert key(Request(headers={"x-user": "ann"})) == b"ann"
    assert key(Request(peer=Peer(client=("10.0.0.1", 5)))) == b"10.0.0.1"


# -- names


@pytest.mark.parametrize("name", ["p2c", "round_robin", "Weighted", "least-conn", "random", "consistent-hash"])
def test_policies_have_names(name: str) -> None:
    assert policy_of(name, Random()).name in POLICIES


def test_a_wrong_name_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="did you mean 'round-robin'"):
        policy_of("round-robbin", Random())
