"""The shell that sends probes: through the handler, bounded, not counted, ended with the balancer."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from blocks.balancer import Endpoint, Event, Health, LoadBalancer, RoundRobin
from blocks.core.status import Status
from blocks.http import Request, Response, Stream, running

from .scripted import Gate, Scripted, refused

QUICK = {"interval": 0.004, "timeout": 5.0}


def probed(*handlers: Any, **settings: Any) -> tuple[LoadBalancer, list[Event]]:
    told: list[Event] = []
    health = Health(**(QUICK | settings))
    return LoadBalancer(handlers, health=health, on_event=told.append, random=Random(3)), told


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # what is waited for is a state, which has no event
            await asyncio.sleep(0.002)


async def test_an_endpoint_goes_out_and_comes_back_by_its_probes() -> None:
    a, b = Scripted("a", always=503), Scripted("b")
    lb, told = probed(a, b, path="/up")
    async with running(lb):
        await until(lambda: lb.status is Status.BUSY)
        assert {(await lb(Request())).body for _ in range(10)} == {b"b"}
        a.always = 204
        await until(lambda: lb.status is Status.OPEN)
    assert [(event.kind, event.endpoint) for event in told] == [("unhealthy", "a"), ("healthy", "a")]
    assert told[0].reason == "1 probes failed: status 503"
    assert a.asked[0] == ("GET", "/up")
    assert dict(a.seen[0]["headers"])["user-agent"] == "blocks-health-check"


async def test_probes_are_no_traffic() -> None:
    a = Scripted("a")
    lb, _ = probed(a)
    async with running(lb):
        await until(lambda: lb.endpoints[0].probes >= 3)
    row = lb.snapshot()["endpoints"][0]
    assert (row["requests"], row["active"], lb.requests) == (0, 0, 0)
    assert row["latency"]["p50"] == 0.0


async def test_nothing_is_left_when_the_balancer_ends() -> None:
    a = Gate("a")
    lb, _ = probed(a)
    async with running(lb):
        await until(lambda: a.inside == 1)
    assert a.inside == 0
    assert len(asyncio.all_tasks()) == 1
    asked = len(a.order)
    await asyncio.sleep(0.02)
    assert len(a.order) == asked


async def test_no_more_than_the_bound_are_under_way() -> None:
    gates = [Gate(str(n)) for n in range(12)]
    lb, _ = probed(*gates, parallel=3)
    async with running(lb):
        await until(lambda: sum(gate.inside for gate in gates) == 3)
        await asyncio.sleep(0.02)
        assert sum(gate.inside for gate in gates) == 3

        def everybody_had_a_turn() -> bool:
            for gate in gates:
                gate.let()
            return all(endpoint.probes for endpoint in lb.endpoints)

        await until(everybody_had_a_turn)


async def test_a_probe_that_gets_no_answer_fails() -> None:
    lb, told = probed(Gate("a"), Scripted("b"), timeout=0.005)
    async with running(lb):
        await until(lambda: told)
    assert told[0].reason == "1 probes failed: no answer within 0.005 s"


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [(refused(), "connect-refused"), (RuntimeError("bug"), "RuntimeError: bug"), (302, ""), (404, "status 404")],
)
async def test_what_went_wrong_is_kept(outcome: Any, reason: str) -> None:
    lb, _ = probed(Scripted("a", always=outcome), Scripted("b"))
    async with running(lb):
        await until(lambda: lb.endpoints[0].probes)
        assert lb.snapshot()["endpoints"][0]["probe_problem"] == reason


async def test_the_body_is_read_bounded_and_matched() -> None:
    def streamed(text: bytes) -> Any:
        async def answer(request: Request) -> Response:
            body = Stream()
            body.feed(text)
            body.finish()
            return Response(200, None, body)

        return answer

    texts = {"good": b"all ready", "bad": b"no", "huge": b"ready" * 100}
    good, bad, huge = (Scripted(name, always=streamed(text)) for name, text in texts.items())
    lb, _ = probed(good, bad, huge, expect_body="ready$", max_body=64)
    async with running(lb):
        await until(lambda: all(endpoint.probes for endpoint in lb.endpoints))
        problems = [row["probe_problem"] for row in lb.snapshot()["endpoints"]]
    assert problems == ["", "body does not match 'ready$'", "body is over 64 bytes"]


async def test_endpoints_that_come_are_probed_and_those_that_go_are_not() -> None:
    lb, _ = probed(Scripted("a"))
    late = Scripted("late")
    async with running(lb):
        await lb.add(late)
        await until(lambda: len(late.asked) >= 2)
        await lb.remove("late")
        asked = len(late.asked)
        await until(lambda: lb.endpoints[0].probes >= 5)
        assert len(late.asked) == asked


async def test_connecting_is_enough_in_tcp_mode() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    address = server.sockets[0].getsockname()

    class At(Scripted):
        def __init__(self, name: str, address: Any) -> None:
            super().__init__(name)
            self.address = address

    lb, _ = probed(At("a", address), At("gone", ("127.0.0.1", 1)), Endpoint(Scripted(), name="none"), mode="tcp")
    async with running(lb):
        await until(lambda: all(endpoint.probes for endpoint in lb.endpoints))
        a, gone, none = lb.endpoints
        assert (a.well, gone.well, none.well) == (True, False, False)
        assert a.handler.asked == []  # type: ignore[attr-defined]
        assert "cannot connect" in gone.probe_reason
        assert "mode='http'" in none.probe_reason
    server.close()
    await server.wait_closed()


async def test_a_fault_around_a_probe_is_told_and_does_not_end_the_probes() -> None:
    a = Scripted("a", asyncio.CancelledError(), always=200)
    b = Scripted("b", 503, 200)
    lb, _ = probed(a, b)
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))

    class Broken(RoundRobin):
        def arrange(self, endpoints: Any) -> None:
            if len(endpoints) == 1:
                raise LookupError("a policy's bug")
            super().arrange(endpoints)

    lb._policy = Broken()
    async with running(lb):
        await until(lambda: len(a.asked) >= 3 and len(b.asked) >= 3)
    asyncio.get_running_loop().set_exception_handler(None)
    assert isinstance(told[0], LookupError)


async def test_two_of_a_kind_do_not_probe_in_step() -> None:
    health = Health(interval=2, jitter=0.1)
    delays = set()

    class Loop:
        def call_later(self, delay: float, *args: Any) -> Any:
            delays.add(round(delay, 6))
            return asyncio.get_running_loop().call_later(60, lambda: None)

    lb = LoadBalancer([Scripted() for _ in range(20)], health=health, random=Random(5))
    prober = lb._prober
    assert prober is not None
    prober._loop = Loop()  # type: ignore[assignment]
    for endpoint in lb.endpoints:
        prober.watch(endpoint)
    await prober.stop()
    assert len(delays) == 20
    assert max(delays) <= 0.5
