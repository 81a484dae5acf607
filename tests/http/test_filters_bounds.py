"""body_limit, timeout, retry and its budget: how much, how long, how often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.errors import Again, ClientFault, ConfigError, Failure, Unavailable, UpstreamFault, UpstreamTimeout
from blocks.core.sweeper import sweeper
from blocks.http import Request, Response, Stream, TooLarge, chain, direct
from blocks.http.filters import Budget, body_limit, retry, timeout
from blocks.http.filters.retry import may_retry


async def reading(request: Request) -> Response:
    return Response(200, None, await request.read())


# -- body_limit


@pytest.mark.parametrize(("size", "status"), [(0, 200), (10, 200), (11, 413)])
async def test_bodies_over_the_limit_are_refused(size: int, status: int) -> None:
    app = chain(body_limit(10), to=reading)
    assert (await app(Request("POST", body=b"x" * size))).status == status
    stated = Stream(length=size)
    stated.feed(b"x" * size)
    stated.finish()
    assert (await app(Request("POST", body=stated))).status == status


async def test_a_body_that_states_too_much_is_given_up_unread() -> None:
    stated = Stream(length=11)
    assert (await chain(body_limit("10B"), to=reading)(Request("POST", body=stated))).status == 413
    assert stated.ended


async def test_a_body_of_unknown_length_is_cut_while_it_flows() -> None:
    body = Stream()
    task = asyncio.ensure_future(chain(body_limit(10), to=reading)(Request("POST", body=body)))
    await asyncio.sleep(0)
    body.feed(b"x" * 10)
    await asyncio.sleep(0)
    assert not task.done()
    body.feed(b"x")
    with pytest.raises(TooLarge):
        await task
    assert body.ended
    body = Stream()
    body.feed(b"12345")
    body.finish()
    assert (await chain(body_limit(10), to=reading)(Request("POST", body=body))).body == b"12345"


# -- timeout


class Clocked:
    """The running loop's sweep, done by hand."""

    @staticmethod
    def sweep() -> None:
        watch = sweeper()
        for member in list(watch._members):
            if member.deadline < inf:
                member.expire(member.deadline)


async def test_the_deadline_is_told_and_never_moved_further() -> None:
    seen: list[float] = []

    @direct
    async def handler(request: Request) -> Response:
        seen.append(request.deadline)
        return Response(204)

    now = asyncio.get_running_loop().time()
    for enforce in (True, False):
        app = chain(timeout("30s", enforce=enforce), to=handler)
        await app(Request())
        await app(Request(deadline=now + 5))
    assert seen[0] == pytest.approx(now + 30, abs=10)
    assert seen[1] == seen[3] == now + 5
    assert len(sweeper()) == 0


@pytest.mark.parametrize("driven", [True, False])
async def test_a_handler_that_does_not_answer_is_cancelled(driven: bool) -> None:
    cancelled: list[bool] = []

    async def stuck(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        raise AssertionError

    if driven:
        direct(stuck)
    task = asyncio.ensure_future(chain(timeout(30), to=stuck)(Request()))
    for _ in range(5):
        await asyncio.sleep(0)
    Clocked.sweep()
    with pytest.raises(UpstreamTimeout) as caught:
        await task
    assert (caught.value.status, caught.value.reason) == (504, "timeout")
    assert cancelled == [True]
    assert len(sweeper()) == 0


async def test_answers_and_failures_come_through_as_they_are() -> None:
    go = asyncio.Event()

    async def late(request: Request) -> Response:
        await go.wait()
        if request.target == "/bad":
            raise Unavailable("no")
        return Response(202)

    app = chain(timeout(30), to=late)
    good, bad = asyncio.ensure_future(app(Request())), asyncio.ensure_future(app(Request("GET", "/bad")))
    await asyncio.sleep(0)
    go.set()
    assert (await good).status == 202
    with pytest.raises(Unavailable):
        await bad


async def test_a_client_that_leaves_cancels_the_handler_below() -> None:
    cancelled = asyncio.Event()

    async def stuck(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    task = asyncio.ensure_future(chain(timeout(30), to=stuck)(Request()))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert cancelled.is_set()
    assert len(sweeper()) == 0


def test_no_time_at_all_is_refused() -> None:
    with pytest.raises(ConfigError):
        timeout(0)


# -- budget


def test_retries_are_a_share_of_the_requests_and_a_few_for_free() -> None:
    budget = Budget(0.2, 1.0, 10.0)
    assert [budget.withdraw(0.0) for _ in range(11)] == [True] * 10 + [False]
    for _ in range(10):
        budget.deposit(0.1)
    assert [budget.withdraw(0.1) for _ in range(3)] == [True, True, False]
    assert budget.refused == 2


def test_what_is_older_than_the_window_is_forgotten() -> None:
    budget = Budget(0.5, 0.0, 10.0)
    for _ in range(10):
        budget.deposit(0.0)
    assert budget.withdraw(9.0)
    assert not budget.withdraw(10.1)
    budget.deposit(1e6)
    budget.deposit(1e6)
    assert budget.withdraw(1e6)


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=200))
def test_a_window_never_gives_more_than_its_share(steps: list[tuple[float, bool]]) -> None:
    budget, now = Budget(0.2, 1.0, 10.0), 0.0
    deposits: list[float] = []
    withdrawals: list[float] = []
    for wait, is_retry in steps:
        now += wait
        if not is_retry:
            budget.deposit(now)
            deposits.append(now)
        elif budget.withdraw(now):
            withdrawals.append(now)
            recent = sum(at > now - 9 for at in withdrawals)
            assert recent <= 0.2 * sum(at >= now - 11 for at in deposits) + 10 + 1e-6


def test_a_budget_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError):
        Budget(-1)


# -- retry


def unsent() -> Failure:
    return UpstreamFault("refused", again=Again.UNSENT)


def reused() -> Failure:
    return UpstreamFault("closed", again=Again.REUSED)


def lost() -> Failure:
    return UpstreamFault("reset")


def status(code: int, **headers: str) -> Response:
    return Response(code, {name.replace("_", "-"): value for name, value in headers.items()})


class Scripted:
    """Gives outcomes in order; the last one again and again."""

    direct = True

    def __init__(self, *outcomes: Callable[[], Response | Failure]) -> None:
        self.outcomes = list(outcomes)
        self.requests: list[tuple[bytes, list[Any], float]] = []

    async def __call__(self, request: Request) -> Response:
        body = await request.read()
        self.requests.append((body, request.headers.raw, request.deadline))
        request.headers.add("x-by-handler", "1")
        outcome = (self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0])()
        if isinstance(outcome, Failure):
            raise outcome
        return outcome


def quick(**settings: Any) -> Any:
    return retry(wait=1e-6, longest=1e-6, random=Random(1), **settings)


def ok() -> Response:
    return Response(200)


@pytest.mark.parametrize(
    ("method", "outcome", "again"),
    [
        ("GET", unsent, True),
        ("GET", reused, True),
        ("GET", lost, True),
        ("POST", unsent, True),
        ("POST", reused, False),
        ("POST", lost, False),
        ("PUT", reused, True),
        ("DELETE", lost, True),
        ("PATCH", lost, False),
        ("GET", lambda: ClientFault("x"), False),
        ("GET", lambda: Failure("x"), False),
        ("GET", lambda: ClientFault("x", again=Again.UNSENT), False),
        ("GET", lambda: Unavailable("x"), True),
        ("GET", lambda: status(503), True),
        ("POST", lambda: status(503), False),
        ("GET", lambda: status(500), False),
        ("GET", lambda: UpstreamTimeout("x"), True),
    ],
)
async def test_a_request_is_tried_again_when_that_is_safe(method: str, outcome: Any, again: bool) -> None:
    scripted = Scripted(outcome, ok)
    app = chain(quick(), to=scripted)
    if again:
        assert (await app(Request(method, body=b"b"))).status == 200
    else:
        try:
            assert (await app(Request(method, body=b"b"))).status >= 500
        except Failure:
            pass
    assert len(scripted.requests) == (2 if again else 1)


async def test_each_try_sees_the_request_as_it_came() -> None:
    scripted = Scripted(lost, ok)
    inner = chain(quick(), timeout(20, enforce=False), to=scripted)
    await inner(Request("PUT", "/", {"a": "b"}, b"body"))
    assert [(body, raw) for body, raw, _ in scripted.requests] == [(b"body", [(b"a", b"b")])] * 2
    assert scripted.requests[1][2] >= scripted.requests[0][2]


async def test_the_last_outcome_is_the_answer() -> None:
    scripted = Scripted(lambda: status(503), lost, lambda: status(502))
    filter = quick(tries=3)
    assert (await chain(filter, to=scripted)(Request())).status == 502
    assert filter.retried == 2
    with pytest.raises(UpstreamFault):
        await chain(quick(tries=2), to=Scripted(lost))(Request())


async def test_a_response_that_is_not_used_is_released() -> None:
    body = Stream()
    await chain(quick(), to=Scripted(lambda: Response(503, None, body), ok))(Request())
    assert body.ended


async def test_without_a_budget_nothing_is_tried_again() -> None:
    scripted = Scripted(lost)
    with pytest.raises(UpstreamFault):
        await chain(quick(budget=Budget(0, 0)), to=scripted)(Request())
    assert len(scripted.requests) == 1


async def test_nothing_is_tried_past_the_deadline() -> None:
    scripted = Scripted(lost)
    with pytest.raises(UpstreamFault):
        await chain(quick(), to=scripted)(Request(deadline=asyncio.get_running_loop().time()))
    assert len(scripted.requests) == 1


async def test_retry_after_is_kept_or_ends_the_matter() -> None:
    scripted = Scripted(lambda: status(503, retry_after="30"), ok)
    assert (await chain(retry(), to=scripted)(Request())).status == 503
    scripted = Scripted(lambda: status(503, retry_after="0"), ok)
    assert (await chain(quick(), to=scripted)(Request())).status == 200
    scripted = Scripted(lambda: status(503, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"), ok)
    assert (await chain(quick(), to=scripted)(Request())).status == 200


def streamed(data: bytes, length: int | None) -> Stream:
    stream = Stream(length=length)
    stream.feed(data)
    stream.finish()
    return stream


async def test_a_short_body_is_held_and_a_long_one_is_tried_once() -> None:
    scripted = Scripted(lost, ok)
    await chain(quick(), to=scripted)(Request("PUT", body=streamed(b"short", 5)))
    assert [body for body, _, _ in scripted.requests] == [b"short", b"short"]
    for stream in (streamed(b"x" * 100, 100), streamed(b"x", None)):
        scripted = Scripted(lost, ok)

        async def no_read(request: Request, scripted: Scripted = scripted) -> Response:
            assert isinstance(request.body, Stream)
            async for _ in request.body:
                pass
            scripted.requests.append((b"", [], 0))
            raise lost()

        with pytest.raises(UpstreamFault):
            await chain(quick(buffer=10), to=no_read)(Request("PUT", body=stream))
        assert len(scripted.requests) == 1


async def test_a_body_of_which_nothing_was_read_can_be_sent_by_another_try() -> None:
    tries = 0

    async def refused_once(request: Request) -> Response:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise unsent()
        return Response(200, None, await request.read())

    assert (await chain(quick(buffer=0), to=refused_once)(Request("POST", body=streamed(b"xyz", None)))).body == b"xyz"


def test_may_retry_reads_values() -> None:
    assert may_retry(False, unsent(), frozenset())
    assert not may_retry(False, status(503), frozenset({503}))
    assert not may_retry(True, status(503), frozenset())


@pytest.mark.parametrize("settings", [{"tries": 0}, {"wait": 0}, {"wait": 2, "longest": 1}])
def test_wrong_settings_of_retry_are_refused(settings: Any) -> None:
    with pytest.raises(ConfigError):
        retry(**settings)
