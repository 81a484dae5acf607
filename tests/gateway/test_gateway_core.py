from __future__ import annotations

import asyncio
from typing import Any

import pytest

from blocks.core.clock import FakeClock
from blocks.core.errors import ClientFault, ConfigError, UpstreamTimeout
from blocks.core.metrics import Metrics
from blocks.core.status import Status
from blocks.gateway import Consumer, Gateway, Versions, context_of, route
from blocks.gateway.figures import Top
from blocks.http import Server, Upstream
from blocks.http.body import Stream
from blocks.http.handler import running
from blocks.http.message import Peer, Request, Response


async def echo(request: Request) -> Response:
    context = context_of(request)
    return Response.json({"target": request.target, "params": dict(context.params), "route": context.route.name})


async def ask(app: Gateway, target: str = "/", method: str = "GET", **headers: str) -> Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return await app(Request(method, target, {"host": "a", **names}, peer=Peer(("192.0.2.1", 1))))


class Log:
    def __init__(self, name: str, log: list[str], answer: Any = None, later: bool = False) -> None:
        self.name, self._log, self._answer, self._later = name, log, answer, later

    def check(self, request: Request, context: Any) -> Any:
        self._log.append(f"check {self.name}")
        return self._slow() if self._later else self._answer

    async def _slow(self) -> Any:
        return self._answer

    def after(self, request: Request, response: Response, context: Any) -> Response:
        self._log.append(f"after {self.name}")
        return response


class Round:
    name = "cache"

    def __init__(self, log: list[str]) -> None:
        self._log = log

    async def around(self, request: Request, context: Any, proceed: Any) -> Response:
        self._log.append("in")
        response: Response = await proceed(request)
        self._log.append("out")
        return response


async def test_one_route_or_many_may_be_given() -> None:
    assert (await ask(Gateway(route("/api", echo)), "/api/x")).status == 200
    assert (await ask(Gateway([route("/api", echo)], route("/b", echo)), "/b")).status == 200


async def test_the_service_sees_the_path_that_was_matched() -> None:
    app = Gateway([route("/api/{rest:path}", echo)])
    response = await ask(app, "/x/..//api/%61/./b?q=%2F..")
    assert b'"target":"/api/a/b?q=%2F.."' in response.body
    assert b'"rest":"a/b"' in response.body


async def test_what_is_not_routed_is_a_problem() -> None:
    app = Gateway([route("/a", echo, methods=["GET"])])
    missing = await ask(app, "/b")
    assert (missing.status, missing.headers["content-type"]) == (404, "application/problem+json")
    wrong = await ask(app, "/a", "DELETE")
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET, HEAD")
    assert (await ask(app, "*", "OPTIONS")).status == 204
    assert (await ask(app, "/a%2fb")).status == 400
    hosted = Gateway([route("/a", echo, host="x.com")])
    assert (await hosted(Request("GET", "/a", {"host": "X.com.:80"}))).status == 200
    assert (await hosted(Request("GET", "/a", {"host": "x.com/../y"}))).status == 400
    assert (await hosted(Request("GET", "/a", {}))).status == 404


async def test_steps_run_in_their_order_and_afters_in_reverse() -> None:
    log: list[str] = []
    app = Gateway([route("/", echo, validate=Log("v", log), access=Log("a", log, later=True), cache=Round(log))])
    await ask(app)
    assert log == ["check a", "check v", "in", "out", "after v", "after a"]


@pytest.mark.parametrize("later", [False, True])
async def test_a_refusal_passes_the_afters_of_the_steps_before_it_only(later: bool) -> None:
    log: list[str] = []
    refusing = Log("auth", log, Response(401), later)
    app = Gateway([route("/", echo, access=Log("a", log), auth=refusing, validate=Log("v", log))])
    assert (await ask(app)).status == 401
    assert log == ["check a", "check auth", "after a"]


async def test_a_step_that_needs_a_task_gets_one() -> None:
    class Slow:
        name = "auth"
        direct = False

        async def check(self, request: Request, context: Any) -> Response | None:
            async with asyncio.timeout(60):
                await asyncio.sleep(0)
            return Response(403) if request.query else None

        async def around(self, request: Request, context: Any, proceed: Any) -> Response:
            async with asyncio.timeout(60):
                return await proceed(request)

    async with (
        Server(Gateway([route("/", echo, auth=Slow())]), "127.0.0.1:0") as server,
        Upstream(server.url) as client,
    ):
        assert (await client(Request("GET", "/", {"host": "a"}))).status == 200
        assert (await client(Request("GET", "/?x", {"host": "a"}))).status == 403


async def test_failures_become_problems_that_say_no_secret() -> None:
    async def slow(request: Request) -> Response:
        raise UpstreamTimeout("10.0.0.7:9000 did not answer")

    response = await ask(Gateway([route("/", slow)]))
    assert response.status == 504
    assert b"10.0.0.7" not in response.body
    assert b'"reason": "upstream-timeout"' in response.body

    class Strict(Log):
        def check(self, request: Request, context: Any) -> Any:
            raise ClientFault("no", status=415, reason="type")

    assert (await ask(Gateway([route("/", echo, accept=Strict("s", []))]))).status == 415


async def test_what_a_request_holds_is_given_back_once_however_it_ends() -> None:
    ended: list[Any] = []

    class Hold:
        name = "auth"

        def check(self, request: Request, context: Any) -> None:
            context.at_end(ended.append)

    async def broken(request: Request) -> Response:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await ask(Gateway([route("/", broken, auth=Hold())]))
    assert ended == [None]
    stream = Stream()

    async def streamed(request: Request) -> Response:
        return Response(200, body=stream)

    response = await ask(Gateway([route("/", streamed, auth=Hold())]))
    stream.feed(b"ab")
    assert len(ended) == 1
    stream.feed(b"c")
    stream.finish()
    assert await response.read() == b"abc"
    assert len(ended) == 2
    assert ended[1] is response


async def test_parts_are_entered_and_left() -> None:
    class Part:
        entered = 0

        async def __aenter__(self) -> Part:
            self.entered += 1
            return self

        async def __aexit__(self, *_: object) -> None:
            self.entered -= 1

        async def __call__(self, request: Request) -> Response:
            return Response(200)

    part, step = Part(), Log("s", [])
    step.parts = (inner := Part(),)  # type: ignore[attr-defined]
    app = Gateway([route("/", part, auth=step)])
    async with running(app):
        assert (part.entered, inner.entered) == (1, 1)
    assert (part.entered, inner.entered) == (0, 0)


async def test_versions_in_the_path_and_the_end_of_one() -> None:
    app = Gateway(
        [
            route(
                "/o/{id}",
                echo,
                version="1",
                name="old",
                deprecated="2026-01-01",
                sunset="2026-12-31",
                successor="/v2/o",
            ),
            route("/o/{id}", echo, version="2", name="new"),
        ],
        versions=Versions(by="path"),
    )
    old = await ask(app, "/v1/o/7")
    assert old.headers["deprecation"] == "@1767225600"
    assert old.headers["sunset"] == "Thu, 31 Dec 2026 00:00:00 GMT"
    assert old.headers["link"] == '</v2/o>; rel="successor-version"'
    assert b'"route":"new"' in (await ask(app, "/v2/o/7")).body
    assert (await ask(app, "/o/7")).status == 404
    with pytest.raises(ConfigError, match="earlier"):
        Gateway([route("/", echo, deprecated="2026-02-01", sunset="2026-01-01")])


async def test_a_path_that_says_no_version_is_that_of_the_default_one_under_the_same_limits() -> None:
    async def told(request: Request) -> Response:
        return Response(200, body=request.target.encode())

    routes = [
        route("/orders/{id}", told, version="1", methods="GET", limit="3/h"),
        route("/orders/{id}", told, version="2"),
        route("/", told, version="1", exact=True),
        route("/plain", told),
    ]
    gateway = Gateway(routes, versions=Versions(default="1"))

    async def ask(target: str, method: str = "GET") -> tuple[int, bytes]:
        response = await gateway(Request(method, target, {"host": "a"}))
        return response.status, bytes(response.body) if response.status == 200 else b""

    assert await ask("/orders/7?a=1") == (200, b"/v1/orders/7?a=1")
    assert await ask("/v1/orders/7") == (200, b"/v1/orders/7")
    assert await ask("/orders/../orders/7") == (200, b"/v1/orders/7")
    assert [status for status, _ in (await ask("/orders/7"), await ask("/v1/orders/7"))] == [429, 429], (
        "no second allowance"
    )
    assert await ask("/v2/orders/7") == (200, b"/v2/orders/7")
    assert await ask("/") == (200, b"/v1")
    assert await ask("/plain") == (200, b"/plain")
    assert [(await ask(target))[0] for target in ("/v3/orders/7", "/nowhere", "/v1/plain")] == [404, 404, 404]
    assert (await ask("/orders/7", "POST"))[0] == 405
    without = Gateway(routes)
    assert [
        (await without(Request("GET", target, {"host": "a"}))).status for target in ("/orders/7", "/v1/orders/7")
    ] == [404, 200]


async def test_a_version_by_field_says_so_in_vary() -> None:
    app = Gateway([route("/", echo, version="1")], versions=Versions(by="header", default="1"))
    assert (await ask(app)).headers["vary"] == "api-version"


async def test_a_preflight_goes_to_the_route_of_the_method_that_it_asks_for() -> None:
    log: list[str] = []
    cors = Log("cors", log, Response(204))
    app = Gateway([route("/a", echo, methods=["PUT"], cors=cors), route("/b", echo, methods=["PUT"])])
    asked = {"origin": "https://x", "access_control_request_method": "PUT"}
    assert (await ask(app, "/a", "OPTIONS", **asked)).status == 204
    assert (await ask(app, "/b", "OPTIONS", **asked)).status == 405
    assert (await ask(app, "/a", "OPTIONS")).status == 405


async def test_figures_are_counted_by_route_and_rendered() -> None:
    app = Gateway([route("/a", echo, name="a", limit="2/h")], clock=FakeClock())
    for _ in range(3):
        await ask(app, "/a")
    await ask(app, "/nowhere")
    metrics = Metrics()
    metrics.collect(app.readings)
    text = metrics.render()
    assert 'blocks_gateway_requests_total{route="a",code="2xx"} 2' in text
    assert 'blocks_gateway_requests_total{route="a",code="4xx"} 1' in text
    assert 'blocks_gateway_requests_total{route="(none)",code="4xx"} 1' in text
    assert 'blocks_gateway_refusals_total{route="a",step="limit"} 1' in text
    assert 'blocks_gateway_request_seconds_count{route="a"} 3' in text
    assert app.top.most() == [{"name": "", "count": 1, "error": 0}]


async def test_default_options_hold_for_routes_that_say_nothing_else() -> None:
    log: list[str] = []
    mine = Log("mine", log)
    app = Gateway([route("/a", echo), route("/b", echo, auth=mine)], auth=Log("default", log))
    await ask(app, "/a")
    await ask(app, "/b")
    assert [line for line in log if line.startswith("check")] == ["check default", "check mine"]


async def test_a_request_from_no_gateway_has_no_context() -> None:
    with pytest.raises(LookupError):
        context_of(Request("GET", "/"))


async def test_one_dead_service_does_not_take_the_others_away() -> None:
    class Service:
        def __init__(self, status: Status) -> None:
            self.status = status

        async def __call__(self, request: Request) -> Response:
            return Response(999)

    up, down = Service(Status.OPEN), Service(Status.CLOSED)
    assert Gateway([route("/a", up), route("/b", up)]).status is Status.OPEN
    assert Gateway([route("/a", up), route("/b", down)]).status is Status.BUSY
    assert Gateway([route("/a", down), route("/b", down)]).status is Status.CLOSED
    assert (await ask(Gateway([route("/", up)]))).status == 999


async def test_consumers_have_figures_of_their_own_in_a_bounded_number() -> None:
    class Who:
        name = "auth"

        def check(self, request: Request, context: Any) -> None:
            context.consumer = Consumer(request.query)

    app = Gateway([route("/", echo, auth=Who(), limit="2/h per consumer")], clock=FakeClock())
    app.consumers.size = 2
    for name in ("ann", "ann", "ann", "bob", "carl", "dora"):
        await ask(app, f"/?{name}")
    assert app.consumers.counts == {"ann": [3, 0, 1], "bob": [1, 0, 0], "other": [2, 0, 0]}
    metrics = Metrics()
    metrics.collect(app.readings)
    assert 'blocks_gateway_consumer_limited_total{consumer="ann"} 1' in metrics.render()
    assert app.top.most(1)[0]["name"] == "ann"


def test_the_sketch_keeps_the_most_frequent_in_bounded_memory() -> None:
    top = Top(size=10)
    for number in range(2000):
        top.add("often" if number % 3 == 0 else f"k{number}")
    [first, *_] = top.most()
    assert first["name"] == "often"
    assert first["count"] - first["error"] <= 667 <= first["count"]
    assert len(top.most(100)) == 10
