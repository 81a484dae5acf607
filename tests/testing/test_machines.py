"""State machines: our own blocks pass them, and a block that breaks its promise is found out."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from blocks import Request, Response
from blocks.http.h1.reader import RequestReader
from blocks.testing import Faults, strategies
from blocks.testing.faultline import arm
from blocks.testing.machines import CacheMachine, LimitMachine, QueueMachine, TopologyMachine

pytestmark = pytest.mark.exhaustive  # runs with the integration tests

FEW = settings(max_examples=3, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck))
MORE = settings(FEW, max_examples=40, stateful_step_count=30)
SEARCH = settings(
    FEW, max_examples=300, stateful_step_count=15, phases=[Phase.generate], derandomize=True, print_blob=False
)  # fmt: skip


class GatewayOverBalancers(TopologyMachine):
    async def build(self, members: list[Any]) -> Any:
        return await self.blocks.gateway({"/": await super().build(members)})


MACHINES = [TopologyMachine, GatewayOverBalancers, CacheMachine, LimitMachine, QueueMachine]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.__name__)
def test_our_blocks_keep_their_promises(machine):
    run_state_machine_as_test(machine, settings=FEW)


@pytest.mark.integration
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.__name__)
def test_our_blocks_keep_their_promises_for_longer(machine):
    run_state_machine_as_test(machine, settings=MORE)


class NoHealthChecks(TopologyMachine):
    async def build(self, members: list[Any]) -> Any:
        return await self.blocks.balancer(*members, health=None, outlier=None)


class TooGenerous(LimitMachine):
    async def build(self, origin: Any) -> Any:
        from blocks.gateway import route

        limit = {"rate": "11/min", "per": "header:x-client"}
        return await self.blocks.gateway(route("/", self.blocks.upstream(origin), limit=limit))


class Mixed(LimitMachine):
    async def build(self, origin: Any) -> Any:
        from blocks.gateway import route

        return await self.blocks.gateway(route("/", self.blocks.upstream(origin), limit="10/min"))


class Stale(CacheMachine):
    ttl: ClassVar[float] = 60.0

    def _answer(self, request: Request) -> Response:
        answer = super()._answer(request)
        answer.headers["cache-control"] = "max-age=300"
        return answer


class ForgetsPurges(CacheMachine):
    async def purge(self, page: str) -> None:
        pass


class Forgetful(QueueMachine):
    async def build(self) -> Any:
        return await self.blocks.broker(disk=self.disk, durability="memory")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (NoHealthChecks, "is in trouble for"),
        (TooGenerous, "are allowed"),
        (Mixed, "had not asked since"),
        (Stale, "are promised"),
        (ForgetsPurges, "was purged"),
        (Forgetful, "acknowledged and never delivered"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_promise_is_found_out(machine, says: str):
    with pytest.raises(AssertionError, match=says):
        run_state_machine_as_test(machine, settings=SEARCH)


@settings(max_examples=40)
@given(st.data(), strategies.requests())
def test_every_request_is_read_back_by_our_server_in_whatever_pieces_it_comes(data, request: Request):
    body = bytes(request.body)
    lines = [f"{request.method} {request.target} HTTP/1.1".encode(), b"Content-Length: %d" % len(body)]
    lines += [name + b": " + value for name, value in request.headers.section.pairs]
    reader = RequestReader()
    events = []
    for piece in data.draw(strategies.splits(b"\r\n".join(lines) + b"\r\n\r\n" + body)):
        reader.receive(piece)
        while (event := reader.event()) is not None:
            events.append(event)
    head = events[0]
    assert (head.method, head.target) == (request.method, request.target)
    assert b"".join(bytes(event.data) for event in events[1:-1]) == body
    kept = [pair for pair in head.facts.section.pairs if pair[0] != b"content-length"]
    assert kept == [(name.lower(), value) for name, value in request.headers.section.pairs]


@given(st.data(), st.binary(max_size=200))
def test_splits_join_to_what_they_were(data, whole: bytes):
    pieces = data.draw(strategies.splits(whole))
    assert b"".join(pieces) == whole
    assert all(pieces)


@given(strategies.fault_lines(), strategies.fault_lines(connections=True))
def test_every_fault_line_can_be_armed(line: str, other: str):
    faults = Faults()
    arm(faults, line)
    arm(faults, other)
    assert len(faults.rules) == len(faults.connections.rules) == 1


@given(strategies.schedules())
def test_schedules_are_in_order(schedule):
    assert schedule == sorted(schedule)
