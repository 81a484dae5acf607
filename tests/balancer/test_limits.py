"""Limits of requests under way, and the line of those who wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from blocks.balancer import Endpoint, Event, LoadBalancer, Queue, Retries
from blocks.balancer.queue import Line, Place
from blocks.core.pending import Driver, Pending
from blocks.core.status import Status
from blocks.http import Request, Response, Stream, running

from .scripted import Gate, Scripted, refused, settle


def limited(*handlers: Any, **settings: Any) -> tuple[LoadBalancer, list[Event]]:
    told: list[Event] = []
    settings = {"policy": "round-robin", "max_requests": 1} | settings
    return LoadBalancer(handlers, on_event=told.append, **settings), told


def ask(lb: LoadBalancer, *targets: str) -> list[asyncio.Task[Response]]:
    return [asyncio.create_task(lb(Request("GET", target))) for target in targets]


async def test_a_full_endpoint_is_passed_over() -> None:
    a, b = Gate("a"), Gate("b")
    lb, _ = limited(Endpoint(a, max_requests=1), Endpoint(b, max_requests=3), max_requests=None)
    tasks = ask(lb, *"1234")
    await settle()
    assert (a.inside, b.inside) == (1, 3)
    assert lb.endpoints[0].refusals > 0
    a.let(), b.let(3)
    assert {(await task).status for task in tasks} == {200}


async def test_those_who_wait_go_in_order_and_nobody_overtakes() -> None:
    a = Gate("a")
    lb, _ = limited(a)
    tasks = ask(lb, "0", "1", "2")
    await settle()
    assert lb.snapshot()["waiting"] == 2
    assert lb.status is Status.BUSY
    a.let()
    late = ask(lb, "late")
    await settle()
    for _ in range(3):
        a.let()
        await settle()
    await asyncio.gather(*tasks, *late)
    assert a.order == ["0", "1", "2", "late"]
    assert lb.endpoints[0].active == 0


async def test_a_full_line_is_a_503_that_says_when_to_come_back() -> None:
    a = Gate("a")
    lb, told = limited(a, queue=Queue(size=1, retry_after=7))
    tasks = ask(lb, "0", "1")
    await settle()
    response = await lb(Request())
    assert (response.status, response.headers["retry-after"]) == (503, "7")
    assert lb.shed == 1
    assert told[-1].kind == "queue-full"
    a.let()
    await settle()
    a.let()
    await asyncio.gather(*tasks)


async def test_without_a_queue_nobody_waits() -> None:
    a = Gate("a")
    lb, _ = limited(a, queue=0)
    (task,) = ask(lb, "0")
    await settle()
    assert (await lb(Request())).status == 503
    a.let()
    await task


async def test_waiting_ends_with_the_queues_time() -> None:
    a = Gate("a")
    lb, told = limited(a, queue=Queue(timeout=0.01))
    (task,) = ask(lb, "0")
    await settle()
    assert (await lb(Request())).status == 503
    assert told[-1].kind == "queue-timeout"
    a.let()
    await task
    assert lb.endpoints[0].active == 0


def test_a_place_expires_and_leaves_the_line() -> None:
    class Watch:
        members: set[Any] = set()

        def add(self, member: Any) -> None:
            self.members.add(member)

        def discard(self, member: Any) -> None:
            self.members.discard(member)

    watch: Any = Watch()
    line = Line(Queue(size=5, timeout=5), lambda endpoint: None)
    place = line.join(Request(), (), 100.0, 103.0, watch)
    assert isinstance(place, Place)
    assert place.deadline == 103.0
    place.expire(103.0)
    assert (place.done, line.head, watch.members) == (True, None, set())


async def test_one_who_leaves_the_line_gives_the_place_on() -> None:
    a = Gate("a")
    lb, _ = limited(a)
    first, second, third = ask(lb, "0", "1", "2")
    await settle()
    second.cancel()
    await settle()
    assert lb.snapshot()["waiting"] == 1
    a.let()
    await settle()
    a.let()
    assert [(await task).status for task in (first, third)] == [200, 200]


async def test_one_who_is_cancelled_just_when_called_up_gives_the_place_on() -> None:
    a = Gate("a")
    lb, _ = limited(a)
    first, second, third = ask(lb, "0", "1", "2")
    await settle()
    a.let()
    while lb.snapshot()["waiting"] == 2:  # until the place is given, in the tick before its owner runs
        await asyncio.sleep(0)
    second.cancel()
    await settle()
    a.let()
    await first
    assert (await third).status == 200
    assert a.order == ["0", "2"]
    assert lb.endpoints[0].active == 0


async def test_a_body_that_ends_makes_room() -> None:
    body = Stream()
    a = Scripted("a", Response(200, None, body))
    lb, _ = limited(a)
    await lb(Request())
    (task,) = ask(lb, "next")
    await settle()
    assert not task.done()
    body.finish()
    assert (await task).body == b"a"


async def test_a_long_line_before_a_quick_endpoint_needs_no_deep_stack() -> None:
    a = Gate("a")
    quick = Scripted("a")

    async def first_slow(request: Request) -> Response:
        return await (a(request) if request.target == "slow" else quick(request))

    lb, _ = limited(first_slow, queue=5000)
    tasks = ask(lb, "slow", *["quick"] * 3000)
    await settle()
    a.let()
    assert {(await task).status for task in tasks} == {200}


async def test_a_new_endpoint_makes_room_for_those_who_wait() -> None:
    a, b = Gate("a"), Scripted("b")
    lb, _ = limited(a)
    tasks = ask(lb, "0", "1")
    await settle()
    await lb.add(b)
    assert (await tasks[1]).body == b"b"
    a.let()
    await tasks[0]


async def test_a_retry_waits_for_one_that_was_not_tried() -> None:
    a, b = Scripted("a", refused()), Gate("b")
    lb, _ = limited(b, a)
    (busy,) = ask(lb, "0")
    await settle()
    (task,) = ask(lb, "1")
    await settle()
    assert not task.done()
    b.let()
    await settle()
    b.let()
    assert (await task).body == b"b"
    await busy


async def test_a_retry_that_waits_stands_in_nobodys_way() -> None:
    a, b = Scripted("a", refused()), Gate("b")
    lb, _ = limited(b, a)
    (busy,) = ask(lb, "0")
    await settle()
    (picky,) = ask(lb, "1")
    await settle()
    assert lb.snapshot()["waiting"] == 1
    assert (await lb(Request())).body == b"a"
    b.let()
    await settle()
    b.let()
    assert (await picky).body == b"b"
    await busy


async def test_an_answer_that_is_kept_while_a_retry_waits_is_released_with_it() -> None:
    body = Stream()
    a, b = Scripted("a", Response(503, None, body)), Gate("b")
    lb, _ = limited(b, a, retries=Retries(statuses={503}))
    (busy,) = ask(lb, "0")
    await settle()
    (task,) = ask(lb, "1")
    await settle()
    task.cancel()
    await settle()
    assert body.ended
    b.let()
    await busy
    assert [endpoint.active for endpoint in lb.endpoints] == [0, 0]


async def test_leaving_the_balancer_sends_the_line_away() -> None:
    a = Gate("a")
    lb, _ = limited(a)
    async with lb:
        first, second = ask(lb, "0", "1")
        await settle()
    assert (await second).status == 503
    a.let()
    await first


@pytest.mark.parametrize("setting", [Queue(size=3), 3])
def test_a_queue_from_its_size(setting: Any) -> None:
    assert Queue.of(setting).size == 3


async def test_those_who_wait_without_a_task_are_called_up_without_one_and_without_a_deep_stack() -> None:
    statuses: list[int] = []

    class Served(Driver):
        def returned(self, value: Response) -> None:
            statuses.append(value.status)

        def raised(self, error: BaseException) -> None:
            statuses.append(0)

    door: Pending[Response] = Pending()

    async def first_slow(request: Request) -> Response:
        return await door if request.target == "slow" else Response(200)

    first_slow.direct = True  # type: ignore[attr-defined]
    lb, _ = limited(first_slow, queue=5000)
    loop = asyncio.get_running_loop()
    tasks = len(asyncio.all_tasks())

    def arrive() -> None:
        for target in ["slow", *["quick"] * 3000]:
            Served(loop).start(lb(Request("GET", target)), direct=True)

    loop.call_soon(arrive)
    await settle()
    assert (statuses, lb.snapshot()["waiting"], len(asyncio.all_tasks())) == ([], 3000, tasks)
    loop.call_soon(lambda: door.resolve(Response(200)))
    await settle()
    assert statuses == [200] * 3001
    assert lb.endpoints[0].active == 0


async def test_a_thousand_starts_and_stops_leave_nothing() -> None:
    lb, _ = limited(Scripted("a"), health="1ms")
    before = len(asyncio.all_tasks())
    for _ in range(1000):
        async with running(lb):
            await lb(Request())
            await asyncio.sleep(0)  # some of the first probes begin
    await settle()
    assert len(asyncio.all_tasks()) == before
