"""Limits that are all buckets are decided in one pass of arithmetic: what they answer is what the general step answers."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from blocks.core.clock import FakeClock
from blocks.gateway import Gateway, route
from blocks.gateway.limits.cells import Cells
from blocks.gateway.limits.step import Limits
from blocks.http import Request, Response, direct

TWO = ["5/s per header:x-a", "20/10s per header:x-a burst 8"]
DRY = {"rate": "1000000/s", "dry_run": True}  # makes a route's limits a matter for the general step, and is never told


def drive(coroutine: Any) -> Response:
    """What the coroutine answers without waiting for anything."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # a handler answers with one
    raise AssertionError("it waited")


@direct
async def service(request: Request) -> Response:
    return Response(200, [("server", "s"), ("ratelimit", '"theirs";r=1')], b"ok")


def gateway(clock: FakeClock, *limits: Any) -> tuple[Gateway, Any]:
    app = Gateway([route("/", service, limit=list(limits))], clock=clock)
    (lane,) = app.snapshot.lanes.values()
    return app, lane.plan.steps[0]


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([0.0, 0.01, 0.1, 0.25, 1.0, 30.0])), max_size=60)
)
def test_the_short_way_answers_what_the_long_way_answers(requests: list[tuple[str, float]]) -> None:
    clock = FakeClock()
    (short, one), (long, other) = gateway(clock, *TWO), gateway(clock, *TWO, DRY)
    assert type(one) is Cells
    assert type(other) is Limits
    for name, pause in requests:
        answers = [drive(app(Request("GET", "/", {"x-a": name}))) for app in (short, long)]
        seen = [(answer.status, answer.headers.items(), answer.body) for answer in answers]
        assert seen[0] == seen[1]
        clock.advance(pause)


def test_nothing_is_taken_by_one_limit_when_another_refuses() -> None:
    clock = FakeClock()
    app, step = gateway(clock, "1/h", "5/s")
    assert drive(app(Request())).status == 200
    before = step.rules[1].default.own.standing("", clock.monotonic())
    assert [drive(app(Request())).status for _ in range(4)] == [429] * 4
    assert step.rules[1].default.own.standing("", clock.monotonic()) == before
    assert step.figures() == {"limit-1": 4, "limit-2": 0}


def test_a_client_who_stands_where_another_stood_gets_the_same_head() -> None:
    head = [("date", "Mon, 23 Nov 2026 03:45:23 GMT")]
    made = Response(200, head).headers.section

    @direct
    async def same(request: Request) -> Response:
        response = Response(200)
        response.headers.section = made
        return response

    app = Gateway([route("/", same, limit="5/s per header:x-a")], clock=FakeClock())
    sections = [drive(app(Request("GET", "/", {"x-a": name}))).headers.section for name in "aba"]
    assert sections[0] is sections[1]
    assert sections[2] is not sections[1]
    assert sections[2].index[b"ratelimit"] == [b'"default";r=3;t=1']
    assert sections[2].wire.endswith(b'Ratelimit-Policy: "default";q=5;w=1\r\nRatelimit: "default";r=3;t=1\r\n')
    assert sections[2].has_date


def test_steps_that_tell_of_the_same_head_in_turn_do_not_take_each_others_word() -> None:
    made = Response(200, [("date", "Mon, 23 Nov 2026 03:45:23 GMT")]).headers.section

    @direct
    async def same(request: Request) -> Response:
        response = Response(200)
        response.headers.section = made
        return response

    limit = {"rate": "9/s", "name": "one"}
    app = Gateway(
        [route("/a", same, limit=[limit]), route("/b", same, limit=[limit, DRY]), route("/c", same, limit="7/s")],
        clock=FakeClock(),
    )
    told = [drive(app(Request("GET", path))).headers.get("ratelimit") for path in ("/a", "/b", "/c", "/a", "/b")]
    assert told == ['"one";r=8;t=1', '"one";r=7;t=1', '"default";r=6;t=1', '"one";r=6;t=1', '"one";r=5;t=1']
    assert len(made.derived) == 1
