"""The steps about the service: cache, mirror, canary."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from blocks.core.errors import ConfigError, Failure
from blocks.edge.edge import Edge
from blocks.gateway.cache import Cache
from blocks.gateway.canary import Canary
from blocks.gateway.canary import Settings as CanarySettings
from blocks.gateway.consumer import Consumer
from blocks.gateway.mirror import Mirror
from blocks.gateway.mirror import Settings as MirrorSettings
from blocks.http.body import Stream
from blocks.http.handler import running
from blocks.http.message import Request, Response
from gateway.gateway_kit import context, until

ALICE, BOB = Consumer("alice", method="jwt"), Consumer("bob", method="jwt")


class Service:
    def __init__(self, status: int = 200, **fields: str) -> None:
        self.asked: list[Request] = []
        self.status = status
        self.fields = {name.replace("_", "-"): value for name, value in fields.items()}

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        await asyncio.sleep(0)
        return Response(self.status, self.fields, b"%d" % len(self.asked))


def edge(inner: Any) -> Any:
    return Edge(inner, memory="1MiB")


async def through(step: Any, service: Any, who: Consumer | None = None, target: str = "/a", **fields: str) -> Response:
    request = Request("GET", target, {"host": "h", **fields})
    response: Response = await step.around(request, context(consumer=who), service)
    await response.read()
    return response


async def test_the_edge_remembers_a_routes_answers_and_keeps_consumers_apart() -> None:
    service = Service(cache_control="max-age=60", vary="Accept")
    step = Cache(edge)
    async with running(step.handler):
        for _ in range(3):
            assert (await through(step, service, ALICE, authorization="Bearer a")).body == b"1"
        response = await through(step, service, BOB, authorization="Bearer b")
        assert response.body == b"2"
        assert response.headers["vary"] == "Accept"
        assert (await through(step, service, ALICE, authorization="Bearer a")).body == b"1"
        assert (await through(step, service)).body == b"3"
        assert (await through(step, service)).body == b"3"
    assert [one.headers.get("authorization") for one in service.asked] == ["Bearer a", "Bearer b", None]
    assert all("gateway-consumer" not in one.headers for one in service.asked)


async def test_nobody_can_name_himself_another_consumer_and_all_can_share() -> None:
    service = Service(cache_control="max-age=60")
    step = Cache(edge)
    async with running(step.handler):
        await through(step, service, ALICE)
        forged = await through(step, service, None, **{"gateway-consumer": "jwt:alice"})
        assert forged.body == b"2"
    shared, service = Cache(edge, per="all"), Service(cache_control="max-age=60")
    async with running(shared.handler):
        assert (await through(shared, service, ALICE, authorization="Bearer a")).body == b"1"
        assert (await through(shared, service, BOB, authorization="Bearer b")).body == b"1"


async def test_a_cache_is_a_function_from_handler_to_handler() -> None:
    for bad in (lambda inner: None, "edge"):
        with pytest.raises(ConfigError):
            Cache(bad)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ConfigError):
        Cache(edge, per="nobody")
    behind: list[Any] = []

    def factory(inner: Any) -> Any:
        behind.append(inner)
        return inner

    Cache(factory)
    with pytest.raises(Failure):
        await behind[0](Request())


def mirror(service: Any, **settings: Any) -> Mirror:
    return Mirror(service, MirrorSettings(service=service, **settings), Random(1))


async def test_a_copy_goes_its_own_way() -> None:
    real, shadow = Service(), Service(500)
    async with mirror(shadow) as step:
        request = Request("POST", "/a?x", {"host": "h"}, b"body", deadline=5.0)
        request.state["x"] = 1
        assert (await step.around(request, context(), real)).status == 200
        await until(lambda: step.failed == 1)
    copy = shadow.asked[0]
    assert (copy.method, copy.target, copy.body) == ("POST", "/a?x", b"body")
    assert copy.headers["gateway-mirror"] == "1"
    assert "gateway-mirror" not in real.asked[0].headers
    assert not copy.state
    assert step.figures() == {"copied": 1, "failed": 1, "skipped": 0}


async def test_copies_are_bounded_and_hang_nobody_up() -> None:
    gate = asyncio.Event()

    async def stuck(request: Request) -> Response:
        await gate.wait()
        return Response()

    real = Service()
    async with mirror(stuck, at_once=2, max_body=3, timeout=0.05) as step:
        for body in (b"", b"abc", b"", b"abcd", Stream(), Stream(length=9)):
            await step.around(Request("POST", "/", {}, body), context(), real)
        assert (step.copied, step.skipped) == (2, 4)
        await until(lambda: step.failed == 2 and not step._running)
        stream = Stream(length=2)
        stream.feed(b"ab")
        stream.finish()
        await step.around(Request("POST", "/", {}, stream), context(), real)
        assert real.asked[-1].body == b"ab"
    assert not step._running


async def test_a_share_and_some_methods_are_mirrored() -> None:
    real, shadow = Service(), Service()
    async with mirror(shadow, share=0.5, methods=["get"], at_once=1000) as step:
        for _ in range(200):
            await step.around(Request(), context(), real)
            await step.around(Request("POST"), context(), real)
        assert 70 < step.copied < 130
        assert step.skipped == 0
    with pytest.raises(ConfigError):
        mirror(shadow, share=2)


def canary(**settings: Any) -> Canary:
    return Canary(Service(), CanarySettings(service=None, **settings), Random(1), "r")


def test_a_canary_grows_without_moving_anybody_back() -> None:
    people = [context(consumer=Consumer(f"c{n}")) for n in range(2000)]
    chosen = [
        {n for n, who in enumerate(people) if canary(share=share).chooses(Request(), who)}
        for share in (0.0, 0.05, 0.2, 1.0)
    ]
    assert not chosen[0]
    assert 60 < len(chosen[1]) < 140
    assert chosen[1] < chosen[2] < chosen[3]
    assert len(chosen[3]) == 2000


def test_headers_and_groups_choose_before_the_share() -> None:
    step = canary(share=0.0, header="X-Canary", groups=["staff"])
    assert step.chooses(Request("GET", "/", {"x-canary": "always"}), context())
    assert not step.chooses(Request("GET", "/", {"x-canary": "other"}), context())
    staff = context(consumer=Consumer("a", groups={"staff"}))
    assert step.chooses(Request(), staff)
    assert not step.chooses(Request("GET", "/", {"x-canary": "never"}), staff)


async def test_the_chosen_service_answers_and_both_are_counted() -> None:
    old = Service()
    step = canary(share=0.5, sticky="none")
    given = context()
    for _ in range(100):
        await step.around(Request(), given, old)
    assert step.new + step.old == 100
    assert len(old.asked) == step.old
    assert 30 < step.new < 70
    assert given.notes["canary"] in ("new", "old")
    same = canary(share=0.5, sticky="client")
    assert len({same.chooses(Request(), context(client="192.0.2.1")) for _ in range(20)}) == 1
    for bad in ({"share": -1}, {"sticky": "x"}):
        with pytest.raises(ConfigError):
            canary(**bad)
