from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError, Unavailable
from blocks.gateway.consumer import Consumer
from blocks.gateway.context import STATE_KEY
from blocks.gateway.job import wanted_wait
from blocks.gateway.jobs import Jobs, jobs
from blocks.gateway.records import MemoryRecords
from blocks.gateway.route import route
from blocks.http.message import Request, Response
from gateway.gateway_kit import context


class Slow:
    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.gate = asyncio.Event()
        self.calls = 0

    async def __call__(self, request: Request) -> Response:
        self.calls += 1
        await self.gate.wait()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer or Response.json({"asked": request.target, "body": (await request.read()).decode()}, 201)


async def ask(
    made: Jobs, method: str, path: str, *, who: str = "alice", template: str = "/reports", **fields: str
) -> Response:
    request = Request(method, path, fields, b"in")
    given = context(consumer=Consumer(who) if who else None)
    given.path = path
    given.route = route(template, made)
    if given.route.template.rest:
        given.params = {"rest": path[len("/reports/") :]}
    request.state[STATE_KEY] = given
    return await made(request)


def state(response: Response) -> Any:
    return json.loads(response.body)


async def until(made: Jobs, path: str, wanted: str) -> Any:
    while True:
        told = state(await ask(made, "GET", path))
        if told["state"] == wanted:
            return told
        await asyncio.sleep(0)


@pytest.mark.parametrize("template", ["/reports", "/reports/{rest:path}"])
async def test_a_job_is_started_asked_and_its_result_taken(template: str) -> None:
    service = Slow()
    async with jobs(service) as made:
        started = await ask(made, "POST", "/reports/sales", template=template)
        assert started.status == 202
        place = started.headers["location"]
        assert place.startswith("/reports/jobs/")
        assert state(started)["state"] == "running"
        told = await ask(made, "GET", place, template=template)
        assert told.headers["retry-after"] == "1"
        assert (await ask(made, "GET", place + "/result")).status == 409
        service.gate.set()
        done = await until(made, place, "done")
        result = await ask(made, "GET", done["result"])
        assert result.status == 201
        assert state(result) == {"asked": "/reports/sales", "body": "in"}
        assert (await ask(made, "DELETE", place)).status == 204
        assert (await ask(made, "GET", place)).status == 404


async def test_a_job_is_its_owners() -> None:
    async with jobs(Slow()) as made:
        place = (await ask(made, "POST", "/reports")).headers["location"]
        for method, path in (
            ("GET", place),
            ("DELETE", place),
            ("GET", place + "/result"),
            ("GET", "/reports/jobs/nonsense"),
        ):
            assert (await ask(made, method, path, who="bob")).status == 404
        assert (await ask(made, "GET", place)).status == 200
        assert (await ask(made, "PUT", place)).status == 405
        assert (await ask(made, "GET", "/reports/sales")).status == 405


async def test_a_job_is_cancelled() -> None:
    service = Slow()
    async with jobs(service) as made:
        place = (await ask(made, "POST", "/reports")).headers["location"]
        await asyncio.sleep(0)
        assert (await ask(made, "DELETE", place)).status == 204
        told = state(await ask(made, "GET", place))
        assert (told["state"], told["reason"]) == ("cancelled", "cancelled as asked")
        assert not made._running


async def test_a_job_is_cancelled_from_another_gateway() -> None:
    shared = MemoryRecords()
    async with jobs(Slow(), records=shared, lease=0.03) as one, jobs(Slow(), records=shared, lease=5.0) as two:
        place = (await ask(one, "POST", "/reports")).headers["location"]
        asked = await ask(two, "DELETE", place)
        assert asked.status == 202
        assert state(asked)["state"] == "cancelling"
        assert await until(two, place, "cancelled")


@pytest.mark.parametrize(("answer", "settings", "reason"), [
    (Unavailable("x", reason="connect-refused"), {}, "connect-refused"), (RuntimeError(), {}, "internal"), (None, {"timeout": 0.02},
    "timeout"),
    (Response(200, {}, b"x" * 100), {"max_answer": 10}, "the answer is too large to be kept"),
])  # fmt: skip
async def test_a_job_that_fails_says_why(answer: Any, settings: dict[str, Any], reason: str) -> None:
    service = Slow(answer)
    async with jobs(service, **settings) as made:
        place = (await ask(made, "POST", "/reports")).headers["location"]
        if "timeout" not in settings:
            service.gate.set()
        assert (await until(made, place, "failed"))["reason"] == reason
        assert made.figures()["failed"] == 1


async def test_jobs_are_bounded_for_each_and_for_all() -> None:
    async with jobs(Slow(), max_running=3, max_per_consumer=2, max_body=5) as made:
        answers = [(await ask(made, "POST", "/reports", who=who)).status for who in ("a", "a", "a", "b", "b")]
        assert answers == [202, 202, 429, 202, 503]
    assert (await ask(jobs(Slow(), max_body=1), "POST", "/reports")).status == 413


async def test_a_gateway_that_stops_says_so_and_one_that_died_loses_its_jobs() -> None:
    clock = FakeClock()
    shared = MemoryRecords(clock=clock)
    async with jobs(Slow(), records=shared, clock=clock) as made:
        place = (await ask(made, "POST", "/reports")).headers["location"]
        clock.advance(31)
        assert state(await ask(made, "GET", place))["state"] == "lost"
    told = state(await ask(made, "GET", place))
    assert told["state"] == "failed"


async def test_a_quick_job_answers_whoever_wants_to_wait() -> None:
    service = Slow()
    service.gate.set()
    async with jobs(service, max_wait="5s") as made:
        assert (await ask(made, "POST", "/reports", prefer="respond-async, wait=5")).status == 201
        service.gate.clear()
        async with jobs(service, max_wait=0.01) as short:
            assert (await ask(short, "POST", "/reports", prefer="wait=5")).status == 202
    assert wanted_wait(b'respond-async; wait="7"') == 7
    assert wanted_wait(b"wait=x") is wanted_wait(None) is None


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError):
        jobs(Slow(), segment="a/b")
