"""Endpoints come, go, drain and change weight while requests run."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from blocks.balancer import Endpoint, Event, LoadBalancer, Outlier, State
from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError
from blocks.core.status import Status
from blocks.http import Request, Response, Upstream, running

from .scripted import Gate, Scripted, refused, settle


class Entered(Scripted):
    """Notes when it is entered and left."""

    life = ""

    async def __aenter__(self) -> Entered:
        self.life += "+"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.sleep(0)
        self.life += "-"


def robin(*handlers: object) -> tuple[LoadBalancer, list[Event]]:
    told: list[Event] = []
    return LoadBalancer(handlers, policy="round-robin", on_event=told.append), told  # type: ignore[arg-type]


async def test_what_is_added_is_entered_and_gets_requests() -> None:
    new = Entered("new")
    lb, told = robin(Scripted("a"))
    async with running(lb):
        endpoint = await lb.add(new, weight=1, zone="z", metadata={"rack": 4})
        assert (new.life, endpoint.zone, endpoint.metadata) == ("+", "z", {"rack": 4})
        bodies = Counter([(await lb(Request())).body for _ in range(4)])
        assert bodies == {b"a": 2, b"new": 2}
    assert new.life == "+-"
    assert told[0].kind == "added"


async def test_what_is_removed_finishes_its_requests_and_is_left_then() -> None:
    class EnteredGate(Gate):
        life = ""

        async def __aenter__(self) -> None:
            self.life += "+"

        async def __aexit__(self, *exc_info: object) -> None:
            self.life += "-"

    gate = EnteredGate("gate")
    lb, _ = robin()
    async with running(lb):
        await lb.add(gate)
        task = asyncio.create_task(lb(Request()))
        await settle()
        leaving = lb.remove("gate")
        assert lb.endpoints == ()
        assert (leaving.done, gate.life) == (False, "+")
        waiting = asyncio.ensure_future(leaving)
        await settle()
        assert not waiting.done()
        gate.let()
        assert (await task).body == b"gate"
        assert await waiting is True
        assert gate.life == "+-"


async def test_removing_needs_no_await() -> None:
    lb, _ = robin(Scripted("a"), Scripted("b"))
    lb.remove("a")
    assert [(await lb(Request())).body for _ in range(2)] == [b"b", b"b"]
    with pytest.raises(KeyError):
        lb.remove("a")


async def test_a_drain_loses_nothing_and_says_when_it_is_done() -> None:
    a, b = Gate("a"), Scripted("b")
    lb, told = robin(a, b)
    task = asyncio.create_task(lb(Request()))
    await settle()
    draining = asyncio.ensure_future(lb.drain("a", "30s"))
    await settle()
    assert lb.endpoints[0].state is State.DRAINING
    assert [(await lb(Request())).body for _ in range(3)] == [b"b"] * 3
    assert lb.status is Status.OPEN, "a drain is no fault"
    assert not draining.done()
    a.let()
    assert await draining is True
    assert (await task).body == b"a"
    assert [event.kind for event in told] == ["draining", "drained"]


async def test_a_drain_that_takes_too_long_says_so() -> None:
    a = Gate("a")
    lb, _ = robin(a, Scripted("b"))
    task = asyncio.create_task(lb(Request()))
    await settle()
    assert await lb.drain("a", 0.005) is False
    a.let()
    await task


async def test_an_idle_endpoint_is_drained_at_once() -> None:
    lb, _ = robin(Scripted("a"), Scripted("b"))
    assert await lb.drain("a") is True


async def test_restoring_ends_a_drain() -> None:
    a = Gate("a")
    lb, _ = robin(a)
    task = asyncio.create_task(lb(Request()))
    await settle()
    draining = asyncio.ensure_future(lb.drain("a"))
    await settle()
    lb.restore("a")
    assert await draining is False
    assert lb.endpoints[0].usable
    a.let()
    await task


async def test_weights_change_at_once() -> None:
    lb, told = robin(Scripted("a"), Scripted("b"))
    lb.weigh("a", 3)
    bodies = Counter([(await lb(Request())).body for _ in range(40)])
    assert bodies == {b"a": 30, b"b": 10}
    assert told[0].reason == "weight 1 → 3"
    with pytest.raises(ConfigError):
        lb.weigh("a", 0)


async def test_a_name_that_is_taken_is_refused_and_the_handler_left() -> None:
    twin = Entered("a")
    lb, _ = robin(Scripted("a"))
    async with running(lb):
        with pytest.raises(ConfigError, match="already"):
            await lb.add(Endpoint(twin, name="a"))
    assert twin.life == "+-"


async def test_urls_become_upstreams() -> None:
    lb = LoadBalancer(["http://127.0.0.1:9", "http://127.0.0.1:10"])
    assert [endpoint.name for endpoint in lb.endpoints] == ["http://127.0.0.1:9", "http://127.0.0.1:10"]
    with pytest.raises(ConfigError):
        LoadBalancer(["127.0.0.1:9"])


async def test_an_ejection_ends_through_the_timer() -> None:
    a = Scripted("a", refused())
    lb = LoadBalancer(
        [a, Scripted("b")], policy="round-robin", outlier=Outlier(failures=1, base=0.005), on_event=lambda event: None
    )
    async with running(lb):
        for _ in range(2):
            await lb(Request())
        assert lb.endpoints[0].state is State.EJECTED
        async with asyncio.timeout(30):
            while lb.endpoints[0].state is not State.HEALTHY:  # a state has no event
                await asyncio.sleep(0.005)


async def test_slow_start_gives_a_returning_endpoint_little_at_first() -> None:
    clock = FakeClock()
    lb = LoadBalancer(
        [Scripted("a"), Scripted("b")], policy="round-robin", slow_start="30s", clock=clock, on_event=lambda event: None
    )
    async with running(lb):
        await lb.drain("a")
        lb.restore("a")
        bodies = Counter([(await lb(Request())).body for _ in range(110)])
        assert bodies[b"a"] == 10
        clock.advance(30)
        lb.table.tick(clock.monotonic())
        bodies = Counter([(await lb(Request())).body for _ in range(100)])
        assert bodies[b"a"] == 50


async def test_changes_under_load_lose_nothing() -> None:
    async def slow(request: Request) -> Response:
        for _ in range(3):
            await asyncio.sleep(0)
        return Response(200)

    lb, _ = robin(*[Endpoint(slow, name=f"e{n}") for n in range(4)])
    statuses: Counter[int] = Counter()

    async def client() -> None:
        for _ in range(50):
            statuses[(await lb(Request())).status] += 1

    async with running(lb), asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(client())
        for n in range(4, 20):
            await lb.add(slow, name=f"e{n}")
            await asyncio.sleep(0)
            lb.weigh(f"e{n}", 1 + n % 3)
            await lb.remove(f"e{n - 4}")
    assert statuses == {200: 400}
    assert all(endpoint.active == 0 for endpoint in lb.endpoints)


async def test_a_url_that_is_added_gets_the_settings_of_the_others():
    asked: list[str] = []

    def make(url: str) -> Upstream:
        asked.append(url)
        return Upstream(url, timeout=1.5)

    async with running(LoadBalancer(["http://a"], upstream=make)) as balancer:
        added = await balancer.add("http://b")
        assert asked == ["http://a", "http://b"]
        assert added.handler.pool.timeout == 1.5
