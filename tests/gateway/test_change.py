from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError
from blocks.gateway import Gateway, route
from blocks.gateway.change import Changes, Side, judge
from blocks.gateway.config.schema import ChangeTable
from blocks.gateway.site import Site
from blocks.gateway.snapshot import Snapshot
from blocks.http.handler import running
from blocks.http.message import Request, Response


class Service:
    def __init__(self, status: int = 200, clock: FakeClock | None = None, took: float = 0.0) -> None:
        self.status, self.clock, self.took = status, clock, took
        self.entered = self.left = 0

    async def __aenter__(self) -> Service:
        self.entered += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.left += 1

    async def __call__(self, request: Request) -> Response:
        if self.clock is not None:
            self.clock.advance(self.took)
        return Response(self.status)


def side(requests: int, errors: int = 0, took: float = 0.01) -> Side:
    made = Side()
    for number in range(requests):
        made.add(500 if number < errors else 200, took)
    return made


def snapshot(gateway: Gateway, service: Any, label: str, **options: Any) -> Snapshot:
    site = Site(clock=gateway.clock, kept=gateway.kept)
    return Snapshot([route("/", service, name="r", **options)], site, label=label)


@pytest.mark.parametrize(
    ("old", "new", "over", "verdict"),
    [
        (side(1000), side(50), False, "wait"),
        (side(1000), side(200), False, "wait"),
        (side(1000), side(200), True, "promote"),
        (side(1000), side(200, 10), False, "roll back"),
        (side(1000, 50), side(200, 10), True, "promote"),
        (side(1000), side(20, 12), False, "roll back"),
        (side(1000), side(9, 9), False, "wait"),
        (side(1000), side(200, took=0.03), False, "roll back"),
        (side(1000, took=0.0001), side(200, took=0.004), True, "promote"),
        (side(0), side(0), True, "promote"),
        (side(1000), side(3, 3), True, "roll back"),
    ],
)
def test_the_judge_compares_errors_and_p99(old: Side, new: Side, over: bool, verdict: str) -> None:
    assert judge(old, new, ChangeTable(), over).verdict == verdict


async def drive(gateway: Gateway, number: int) -> list[int]:
    return [(await gateway(Request("GET", "/", {"host": "a"}))).status for _ in range(number)]


async def test_a_bad_configuration_is_rolled_back_by_itself() -> None:
    good, bad = Service(), Service(503)
    gateway = Gateway([route("/", good, name="r")], clock=FakeClock())
    async with running(gateway):
        changes = Changes(gateway, ChangeTable(share=0.5, requests=40, watch=3600), random=Random(1))
        trial = asyncio.create_task(changes.apply(snapshot(gateway, bad, "two")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert changes.trial is not None
        with pytest.raises(ConfigError, match="another"):
            await changes.apply(snapshot(gateway, good, "three"))
        statuses = await drive(gateway, 400)
        judgement = await trial
        assert judgement.verdict == "roll back"
        assert "errors" in judgement.why
        assert set(await drive(gateway, 50)) == {200}
        assert 0 < statuses.count(503) < 60
        assert [entry.outcome for entry in changes.history] == ["running", "rolled back"]
        assert gateway.snapshot.label == "code"


async def test_a_slow_configuration_is_rolled_back() -> None:
    clock = FakeClock()
    gateway = Gateway([route("/", Service(clock=clock, took=0.01), name="r")], clock=clock)
    async with running(gateway):
        changes = Changes(gateway, ChangeTable(share=0.5, requests=40, watch=3600), random=Random(1))
        trial = asyncio.create_task(changes.apply(snapshot(gateway, Service(clock=clock, took=0.05), "slow")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await drive(gateway, 400)
        judgement = await trial
        assert judgement.verdict == "roll back"
        assert "p99" in judgement.why


async def test_a_good_configuration_is_promoted_when_the_time_is_over_and_state_survives() -> None:
    gateway = Gateway([route("/", Service(), name="r", limit="5/h")], clock=FakeClock())
    async with running(gateway):
        assert set(await drive(gateway, 3)) == {200}
        changes = Changes(gateway, ChangeTable(share=0.5, requests=1, watch=0.01), random=Random(1))
        new = Service()
        judgement = await changes.apply(snapshot(gateway, new, "two", limit="5/h"))
        assert judgement.verdict == "promote"
        assert gateway.snapshot.label == "two"
        assert new.entered == 1
        assert await drive(gateway, 3) == [200, 200, 429], "the limit goes on counting"
        assert await changes.roll_back() == "code"
        assert gateway.snapshot.label == "code"
        with pytest.raises(ConfigError):
            await changes.roll_back("never")
    assert new.left == 1


async def test_parts_are_started_once_and_stopped_when_no_snapshot_needs_them() -> None:
    gateway = Gateway([route("/", Service(), name="r")])
    shared, first, second = Service(), Service(), Service()

    def both(service: Service, label: str) -> Snapshot:
        site = Site(kept=gateway.kept)
        return Snapshot([route("/", service, name="r"), route("/s", shared, name="s")], site, label=label)

    async with running(gateway):
        changes = Changes(gateway, ChangeTable(history=1))
        await changes.apply(both(first, "1"), share=1)
        await changes.apply(both(second, "2"), share=1)
        assert (first.entered, first.left, shared.entered, shared.left) == (1, 0, 1, 0)
        await changes.apply(snapshot(gateway, Service(), "3"), share=1)
        assert (first.left, second.left, shared.left) == (1, 0, 0)
    assert (first.left, second.left, shared.entered, shared.left) == (1, 1, 1, 1)


async def test_parts_that_cannot_start_change_nothing() -> None:
    class Broken(Service):
        async def __aenter__(self) -> Service:
            raise RuntimeError("no")

    gateway = Gateway([route("/", Service(), name="r")])
    async with running(gateway):
        changes = Changes(gateway)
        with pytest.raises(RuntimeError):
            await changes.apply(snapshot(gateway, Broken(), "broken"))
        assert gateway.snapshot.label == "code"
        assert await drive(gateway, 1) == [200]


async def test_a_trial_can_be_aborted() -> None:
    gateway = Gateway([route("/", Service(), name="r")])
    async with running(gateway):
        changes = Changes(gateway, ChangeTable(watch=3600))
        trial = asyncio.create_task(changes.apply(snapshot(gateway, Service(), "two")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        changes.abort()
        assert (await trial).why == "aborted"
        assert gateway.snapshot.label == "code"


def test_rules_out_of_range_are_refused() -> None:
    for wrong in ({"share": 2.0}, {"slower": 0.5}, {"history": 0}, {"watch": "soon"}):
        with pytest.raises(ConfigError):
            Changes(Gateway([route("/", Service())]), ChangeTable(**wrong))
