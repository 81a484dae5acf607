"""The balancer as a handler: tries, retries, limits, what is counted and what is told."""

from __future__ import annotations

import asyncio
from math import inf
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.balancer import Endpoint, Event, LoadBalancer, Outlier, Retries
from blocks.balancer.retries import Budget
from blocks.core.clock import FakeClock
from blocks.core.errors import ClientGone, ConfigError, Failure, Unavailable, UpstreamFault
from blocks.core.pending import Driver, Pending
from blocks.core.status import Status
from blocks.http import Request, Response, Stream, chain, direct, status_of, walk

from .scripted import Scripted, late, refused, reset, settle, stale


def balancer(*handlers: Any, **settings: Any) -> tuple[LoadBalancer, list[Event]]:
    told: list[Event] = []
    settings.setdefault("policy", "round-robin")
    settings.setdefault("retries", Retries(backoff=0.0001))
    return LoadBalancer(handlers, on_event=told.append, random=Random(1), **settings), told


def kinds(told: list[Event]) -> list[str]:
    return [event.kind for event in told]


async def test_requests_go_round_and_are_counted() -> None:
    a, b = Scripted("a"), Scripted("b", 404)
    lb, _ = balancer(a, b)
    bodies = [(await lb(Request("GET", f"/{n}"))).body for n in range(4)]
    assert bodies == [b"a", b"b", b"a", b"b"]
    row_a, row_b = lb.snapshot()["endpoints"]
    assert (row_a["requests"], row_a["active"], row_a["statuses"]["2xx"]) == (2, 0, 2)
    assert (row_b["statuses"]["4xx"], row_b["statuses"]["2xx"]) == (1, 1)
    assert lb.requests == 4
    assert lb.parts == (a, b)
    assert set(walk(lb)) == {a, b, lb}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"])
@pytest.mark.parametrize("make", [refused, stale, reset, late])
async def test_an_idempotent_request_goes_to_another(method: str, make: Any) -> None:
    a, b = Scripted("a", make()), Scripted("b")
    lb, told = balancer(a, b)
    response = await lb(Request(method, "/x", body=b"data"))
    assert response.body == b"b"
    assert (a.asked, b.asked) == ([(method, "/x")], [(method, "/x")])
    assert b.seen[0]["body"] == b"data"
    assert [(event.kind, event.endpoint) for event in told] == [("retry", "a")]


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("make", [stale, reset, late])
async def test_a_post_that_may_have_arrived_is_never_sent_twice(method: str, make: Any) -> None:
    a, b = Scripted("a", always=make()), Scripted("b", always=make())
    lb, told = balancer(a, b)
    with pytest.raises(UpstreamFault):
        await lb(Request(method, "/x", body=b"data"))
    assert len(a.asked) + len(b.asked) == 1
    assert kinds(told) == ["retry-refused"]


async def test_a_post_of_which_nothing_was_sent_goes_to_another() -> None:
    a, b = Scripted("a", refused()), Scripted("b")
    lb, _ = balancer(a, b)
    assert (await lb(Request("POST", "/x", body=b"data"))).body == b"b"


@given(
    st.lists(st.sampled_from([refused, stale, reset, late, 200, 503]), max_size=12), st.sampled_from(["GET", "POST"])
)
def test_whatever_happens_a_post_arrives_at_most_once(outcomes: list[Any], method: str) -> None:
    script = [outcome if isinstance(outcome, int) else outcome() for outcome in outcomes]
    shared = Scripted("x")
    shared.script = script
    handlers = [Scripted(str(n), always=shared) for n in range(3)]
    lb, _ = balancer(*handlers, retries=Retries(tries=5, statuses={503}, backoff=1e-6))
    before = list(script)

    async def run() -> None:
        try:
            await lb(Request(method))
        except Failure:
            pass

    asyncio.run(run())
    used = before[: len(before) - len(script)] or before
    arrived = [o for o in used if isinstance(o, int) or o.again.value != "unsent"]
    if method == "POST" and script:
        assert len(arrived) <= 1
    assert sum(endpoint.active for endpoint in lb.endpoints) == 0


async def test_the_last_failure_is_raised_when_the_tries_are_used_up() -> None:
    a, b, c = (Scripted(name, always=reset()) for name in "abc")
    lb, told = balancer(a, b, c)
    with pytest.raises(UpstreamFault, match="reset"):
        await lb(Request())
    assert [len(x.asked) for x in (a, b, c)] == [1, 1, 1]
    assert told[-1].kind == "retry-exhausted"
    assert told[-1].reason == "reset; after 3 tries"


async def test_no_endpoint_is_asked_twice_while_others_are_left() -> None:
    handlers = [Scripted(str(n), always=reset()) for n in range(5)]
    lb, _ = balancer(*handlers, retries=Retries(tries=5, backoff=1e-6), policy="random")
    with pytest.raises(UpstreamFault):
        await lb(Request())
    assert [len(handler.asked) for handler in handlers] == [1] * 5


async def test_a_single_endpoint_is_asked_again_after_a_pause() -> None:
    a = Scripted("a", refused(), refused())
    lb, _ = balancer(a)
    assert (await lb(Request("POST"))).body == b"a"
    assert len(a.asked) == 3


async def test_a_status_can_be_retried_and_the_response_is_released() -> None:
    released: list[object] = []
    body = Stream()
    body.watch(released.append)
    a, b = Scripted("a", Response(503, None, body)), Scripted("b")
    lb, _ = balancer(a, b, retries=Retries(statuses={503}))
    assert (await lb(Request())).body == b"b"
    assert released == [None]
    assert lb.endpoints[0].active == 0


async def test_when_no_try_is_left_the_answer_with_that_status_is_passed_on() -> None:
    a, b = Scripted("a", always=503), Scripted("b", always=503)
    lb, told = balancer(a, b, retries=Retries(tries=2, statuses={503}))
    assert (await lb(Request())).status == 503
    assert told[-1].kind == "retry-exhausted"
    assert (await lb(Request("POST"))).status == 503
    assert len(a.asked) + len(b.asked) == 3


async def test_a_stream_that_was_read_is_never_resent_and_an_untouched_one_is() -> None:
    async def reads_then_fails(request: Request) -> Response:
        await request.read()
        raise reset()

    async def chunks() -> Any:
        yield b"body"

    for first, expected in ((Scripted("a", reads_then_fails), False), (Scripted("a", refused()), True)):
        second = Scripted("b")
        lb, _ = balancer(first, second)
        try:
            await lb(Request("PUT", body=Stream.of(chunks())))
        except UpstreamFault:
            pass
        assert bool(second.asked) is expected


async def test_a_retry_gets_the_request_as_it_was() -> None:
    @direct
    async def changes(request: Request, next: Any) -> Response:
        request.headers.add("via", "1.1 me")
        request.target = "/v1" + request.target
        return await next(request)  # type: ignore[no-any-return]

    a, b = Scripted("a", reset()), Scripted("b")
    lb, _ = balancer(chain(changes, to=a), chain(changes, to=b))
    await lb(Request("GET", "/x", {"host": "h"}))
    assert b.asked == [("GET", "/v1/x")]
    assert b.seen[0]["headers"] == [("host", "h"), ("via", "1.1 me")]


async def test_deadlines_total_and_per_try() -> None:
    clock = FakeClock(monotonic=100.0)

    async def slow(request: Request) -> Response:
        clock.advance(4)
        raise late()

    a, b = Scripted("a", slow), Scripted("b", slow)
    lb, told = balancer(a, b, timeout=6, retries=Retries(per_try=5), clock=clock)
    with pytest.raises(UpstreamFault):
        await lb(Request())
    assert [a.seen[0]["deadline"], b.seen[0]["deadline"]] == [105.0, 106.0]
    assert told[-1].reason == "upstream-timeout; its deadline has passed"
    strict = Request(deadline=101.0)
    await lb(strict)
    assert a.seen[-1]["deadline"] == 101.0 or b.seen[-1]["deadline"] == 101.0


async def test_without_timeouts_the_deadline_is_the_requests_own() -> None:
    a = Scripted("a")
    lb, _ = balancer(a)
    await lb(Request())
    assert a.seen[0]["deadline"] == inf


async def test_retries_can_be_turned_off() -> None:
    a, b = Scripted("a", refused()), Scripted("b")
    lb, _ = balancer(a, b, retries=0)
    with pytest.raises(UpstreamFault):
        await lb(Request())
    assert b.asked == []


async def test_the_budget_bounds_retries() -> None:
    clock = FakeClock()
    a, b = Scripted("a", always=reset()), Scripted("b", always=reset())
    lb, told = balancer(a, b, retries=Retries(tries=2, budget=0.2, reserve=1), outlier=None, clock=clock)
    for _ in range(1000):
        with pytest.raises(UpstreamFault):
            await lb(Request())
    assert 200 <= lb.retried <= 230
    assert "retry; the budget" not in told[-1].reason
    assert any("budget" in event.reason for event in told)


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0, 5), st.integers(0, 500)), max_size=30))
def test_a_budget_never_gives_more_than_its_share(steps: list[tuple[int, float, int]]) -> None:
    budget, requests, now, spent = Budget(0.2, 5.0, 0.0), 0, 0.0, 0
    for more, passed, asked in steps:
        requests += more
        now += passed
        spent += sum(budget.spend(requests, now) for _ in range(asked))
        assert spent <= 50 + 0.2 * requests + 5.0 * now + 1


async def test_a_bug_of_a_handler_is_raised_not_retried_and_does_not_eject() -> None:
    a, b = Scripted("a", always=ValueError("bug")), Scripted("b")
    lb, _ = balancer(a, b, outlier=Outlier(failures=1))
    with pytest.raises(ValueError, match="bug"):
        await lb(Request())
    assert b.asked == []
    assert lb.endpoints[0].failures == 1
    assert lb.endpoints[0].usable


async def test_a_client_that_leaves_is_nobodys_failure() -> None:
    a = Scripted("a", ClientGone("gone"))
    lb, _ = balancer(a, Scripted("b"), outlier=Outlier(failures=1))
    with pytest.raises(ClientGone):
        await lb(Request())
    (row, _) = lb.snapshot()["endpoints"]
    assert (row["failures"], row["cancelled"], row["state"], row["active"]) == (0, 1, "healthy", 0)


async def test_cancelling_releases_the_endpoint() -> None:
    async def forever(request: Request) -> Response:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    lb, _ = balancer(Scripted("a", always=forever))
    task = asyncio.create_task(lb(Request()))
    await settle()
    assert lb.endpoints[0].active == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lb.endpoints[0].active == 0


async def test_a_request_is_under_way_until_its_body_has_ended() -> None:
    for end in ("finish", "cancel", "fail"):
        body = Stream()
        lb, _ = balancer(Scripted("a", Response(200, None, body)), outlier=Outlier(failures=1))
        await lb(Request())
        endpoint = lb.endpoints[0]
        assert endpoint.active == 1
        body.fail(UpstreamFault("cut")) if end == "fail" else getattr(body, end)()
        assert endpoint.active == 0
        assert endpoint.failures == (end == "fail")


async def test_failures_eject_and_the_others_take_over() -> None:
    a, b = Scripted("a", always=refused()), Scripted("b")
    lb, told = balancer(a, b, outlier=Outlier(failures=3))
    async with lb:
        for _ in range(20):
            assert (await lb(Request())).body == b"b"
        assert len(a.asked) == 3
        assert "ejected" in kinds(told)
        assert lb.status is Status.BUSY


async def test_statuses_count_as_failures_only_when_told() -> None:
    for statuses, state in (((), "healthy"), ((500, 503), "ejected")):
        lb, _ = balancer(Scripted("a", always=500), Scripted("b"), outlier=Outlier(failures=2, statuses=statuses))
        async with lb:
            for _ in range(6):
                assert (await lb(Request())).status in (200, 500)
            assert lb.snapshot()["endpoints"][0]["state"] == state


async def test_a_balancer_with_nobody_says_unavailable() -> None:
    lb, _ = balancer()
    with pytest.raises(Unavailable) as caught:
        await lb(Request())
    assert (caught.value.status, caught.value.reason) == (503, "no-endpoint")
    assert lb.status is Status.CLOSED


async def test_balancers_can_be_endpoints_of_balancers() -> None:
    inner, _ = balancer(Scripted("a"), Scripted("b"))
    empty, _ = balancer()
    outer, _ = balancer(empty, inner)
    assert (await outer(Request())).body == b"a"
    assert status_of(outer) is Status.BUSY


async def test_it_runs_without_a_task_when_its_endpoints_do() -> None:
    class Server(Driver):
        result: Any = None

        def returned(self, value: Any) -> None:
            self.result = value

        def raised(self, error: BaseException) -> None:
            self.result = error

    answers: list[Pending[Response]] = []

    async def waits(request: Request) -> Response:
        answers.append(Pending())
        return await answers[-1]

    lb, _ = balancer(Scripted("a", always=waits), Scripted("b", always=waits))
    loop = asyncio.get_running_loop()
    server = Server(loop)
    tasks = len(asyncio.all_tasks())
    loop.call_soon(lambda: server.start(lb(Request()), direct=True))
    await settle()
    loop.call_soon(lambda: answers[0].fail(reset()))
    await settle()
    assert len(asyncio.all_tasks()) == tasks
    loop.call_soon(lambda: answers[1].resolve(Response(200, None, b"second")))
    await settle()
    assert server.result.body == b"second"


async def test_a_handler_that_needs_a_task_gets_one() -> None:
    async def plain(request: Request) -> Response:
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
            return Response(200, None, b"plain")

    lb, _ = balancer(plain)
    assert (await lb(Request())).body == b"plain"


async def test_events_go_to_the_log_when_nobody_listens() -> None:
    from blocks.core.logging import events

    events().configure(format="off")
    try:
        with events().captured() as seen:
            lb = LoadBalancer([Endpoint(Scripted(), name="a"), Scripted("b")])
            lb.weigh("a", 2)
    finally:
        events().configure()
    assert [(event["event"], event["endpoint"]) for event in seen] == [("balancer-weighed", "a")]


@pytest.mark.parametrize(
    "settings",
    [
        {"panic": 2}, {"max_requests": 0}, {"policy": "nope"}, {"timeout": "soon"}, {"retries": -1}, {"queue": -1},
        {"slow_start": -1}, {"retries": "many"},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        LoadBalancer([Scripted()], **settings)


@pytest.mark.parametrize(
    "settings", [{"methods": "POST"}, {"per_try": 0}, {"tries": 0}, {"budget": -1}, {"backoff": 0}]
)
def test_wrong_retries_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Retries(**settings)


async def test_readings_are_valid_prometheus_text() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    from blocks.balancer import readings
    from blocks.core.metrics import Metrics

    lb, _ = balancer(Scripted("a"), Scripted("b"))
    await lb(Request())
    metrics = Metrics()
    metrics.collect(lambda: readings(lb))
    families = {family.name: family for family in text_string_to_metric_families(metrics.render())}
    assert families["blocks_balancer_requests"].samples[0].value == 1
    assert families["blocks_balancer_latency_seconds"].type == "histogram"
