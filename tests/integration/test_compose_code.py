"""What passes through ``Edge(Gateway([… LoadBalancer]))`` in one process: deadlines, traces, addresses, leaves, slow readers, health, drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blocks import Edge, Gateway, LoadBalancer, Request, Response, Stream, chain, route, running
from blocks.core.status import Status
from blocks.http import Server, status_of
from blocks.http.filters import forwarded, timeout, trace_context

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def compose(blocks, *members, **of_route) -> Edge:
    """The whole stack over ``members`` (origins, or handlers)."""
    upstreams = [blocks.upstream(one) if hasattr(one, "url") else one for one in members]
    balancer = LoadBalancer(upstreams, health="1s", clock=blocks.clock, random=blocks.random)
    gateway = Gateway([route("/", balancer, **of_route)], clock=blocks.clock)
    return Edge(gateway, clock=blocks.clock, random=blocks.random)


class Work:
    """Takes for ever over ``/x``; counts who came and who was sent away. Health probes ask for something else, and get it."""

    direct = False

    def __init__(self) -> None:
        self.begun = self.cancelled = 0

    async def __call__(self, request: Request) -> Response:
        if request.path != "/x":
            return Response.text("well")
        self.begun += 1
        try:
            await asyncio.sleep(1e6)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        raise AssertionError("nobody waits so long")


# -- deadlines


async def test_the_deadline_of_a_route_holds_for_what_is_behind_it(blocks):
    work = Work()
    front = await blocks.serve(compose(blocks, await blocks.origin(work), timeout="2s"))
    began = blocks.clock.monotonic()
    response = await front.get("/x")
    assert response.status == 504
    assert 2 <= blocks.clock.monotonic() - began < 2.5
    await blocks.until(lambda: work.cancelled == 1)
    assert work.begun == 1


async def test_a_deadline_set_before_the_edge_is_kept_behind_the_balancer(blocks):
    seen = []

    async def member(request: Request) -> Response:
        seen.append(request.deadline - asyncio.get_running_loop().time())
        return Response.text("in time")

    member.direct = True
    front = await blocks.serve(chain(timeout("3s"), to=compose(blocks, member)))
    assert (await front.get("/x")).status == 200
    assert 2.5 < seen[-1] <= 3


# -- who asks, and which trace this is


async def test_trace_and_client_address_reach_the_origin(blocks):
    origin = await blocks.origin()
    app = chain(forwarded(), trace_context(), to=compose(blocks, origin))
    front = await blocks.serve(app)
    await front.get("/x", {"traceparent": TRACE, "tracestate": "a=1", "x-forwarded-for": "6.6.6.6"})
    entry = origin.journal.matching(path="/x")[-1]
    assert entry.headers["traceparent"] == TRACE
    assert entry.headers["tracestate"] == "a=1"
    assert entry.headers["x-forwarded-for"] == "127.0.0.1"  # what the client says of itself is dropped
    # An edge that is safe passes on no Forwarded: a service that makes URLs of its host would let one client decide what others get.
    assert "forwarded" not in entry.headers


async def test_a_trace_begins_at_the_door_when_the_client_has_none(blocks):
    origin = await blocks.origin()
    front = await blocks.serve(chain(trace_context(random=blocks.random), to=compose(blocks, origin)))
    await front.get("/x")
    await front.get("/y")
    first, second = (origin.journal.matching(path=path)[-1].headers["traceparent"] for path in ("/x", "/y"))
    assert first != second
    assert len(first) == len(TRACE)


async def test_limits_count_the_client_that_a_trusted_proxy_names(blocks):
    balancer = LoadBalancer([blocks.upstream(await blocks.origin())], clock=blocks.clock)
    gateway = Gateway([route("/", balancer, limit="1/min per ip")], trusted=["127.0.0.1"], clock=blocks.clock)
    front = await blocks.serve(Edge(gateway, clock=blocks.clock))
    answers = [await front.get("/x", {"x-forwarded-for": client}) for client in ("10.0.0.1", "10.0.0.1", "10.0.0.2")]
    assert [answer.status for answer in answers] == [200, 429, 200]


# -- clients that leave, clients that are slow


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_client_that_leaves_cancels_the_work_of_the_service(blocks, method: str):
    work = Work()
    front = await blocks.serve(compose(blocks, await blocks.origin(work)))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(front.url.rpartition(":")[2]))
    writer.write(f"{method} /x HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n".encode())
    await blocks.until(lambda: work.begun == 1)
    writer.transport.abort()
    await blocks.until(lambda: work.cancelled == 1)
    assert await reader.read() == b""
    writer.close()


def kernel(connections: int) -> int:
    """The most bytes that the kernel buffers for so many connections."""
    each = 0
    for kind in ("rmem", "wmem"):
        try:
            each += int(Path(f"/proc/sys/net/ipv4/tcp_{kind}").read_text().split()[2])
        except OSError:
            each += 16 * 1024 * 1024
    return connections * each


async def test_a_client_that_does_not_read_holds_the_service_back(blocks):
    made = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal made
        while True:
            made += 65536
            yield bytes(65536)

    async def answer(request: Request) -> Response:
        return Response(200, {"cache-control": "no-store"}, Stream.of(endless()))

    origin = await blocks.origin("well")
    origin.on("/x", answer)
    front = await blocks.serve(compose(blocks, origin))
    async with blocks.upstream(front) as client:
        response = await client(Request("GET", "/x", {"host": "shop.example"}))
        assert isinstance(response.body, Stream)
        settled = -1
        while settled != made:
            settled = made
            await asyncio.sleep(1)
        assert made < kernel(2) + 8 * 1024 * 1024
        taken = 0
        async for chunk in response.body:
            taken += len(chunk)
            if taken > settled:
                break
        assert made > settled


async def test_a_service_that_does_not_read_holds_the_client_back(blocks):
    go = asyncio.Event()
    sent = taken = 0

    async def slow(request: Request) -> Response:
        nonlocal taken
        if request.path != "/x":
            return Response.text("well")
        await go.wait()
        assert isinstance(request.body, Stream)
        async for chunk in request.body:
            taken += len(chunk)
        return Response.text("taken")

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < kernel(2) + 16 * 1024 * 1024:
            sent += 65536
            yield bytes(65536)

    front = await blocks.serve(compose(blocks, await blocks.origin(slow, keep_bodies=False)))
    async with blocks.upstream(front) as client:
        request = Request("POST", "/x", {"host": "shop.example"}, Stream.of(endless()))
        asking = asyncio.create_task(client(request))
        settled = -1
        while settled != sent:
            settled = sent
            await asyncio.sleep(1)
        assert 0 < sent < kernel(2) + 8 * 1024 * 1024
        go.set()
        response = await asking
        assert (response.status, await response.read()) == (200, b"taken")
        assert taken == sent


async def test_a_client_that_leaves_in_the_middle_of_an_answer_ends_its_making(blocks):
    made, ended = 0, asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        nonlocal made
        try:
            while True:
                made += 1
                yield bytes(1024)
                await asyncio.sleep(0.1)
        finally:
            ended.set()

    async def answer(request: Request) -> Response:
        return Response(200, {"cache-control": "no-store"}, Stream.of(endless()))

    origin = await blocks.origin(Response.text("well"))
    origin.on("/x", answer)
    front = await blocks.serve(compose(blocks, origin))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(front.url.rpartition(":")[2]))
    writer.write(b"GET /x HTTP/1.1\r\nHost: shop.example\r\n\r\n")
    await blocks.until(lambda: made > 10)
    writer.transport.abort()
    await asyncio.wait_for(ended.wait(), 10)
    assert await reader.read() != b""
    writer.close()


async def test_what_a_route_does_not_look_into_passes_through_untouched(blocks):
    """Repeats of fields and their order, a status of the service's own, an empty body."""
    origin = await blocks.origin(
        Response(203, [("x-b", "1"), ("x-a", "2"), ("x-b", "3"), ("set-cookie", "a=1"), ("set-cookie", "b=2")], b"")
    )
    front = await blocks.serve(compose(blocks, origin))
    response = await front.get("/x")
    assert (response.status, response.body) == (203, b"")
    assert response.headers.get_all("x-b") == ["1", "3"]
    assert response.headers.get_all("set-cookie") == ["a=1", "b=2"]


async def test_a_websocket_passes_through_the_whole_stack():
    websockets = pytest.importorskip("websockets")

    async def echo(connection) -> None:
        async for message in connection:
            await connection.send(message[::-1])

    async with websockets.serve(echo, "127.0.0.1", 0) as behind:
        port = behind.sockets[0].getsockname()[1]
        app = Edge(Gateway([route("/", LoadBalancer([f"http://127.0.0.1:{port}"]))]))
        async with Server(app, "127.0.0.1:0", drain=1.0) as front:
            async with websockets.connect(front.url.replace("http", "ws") + "/live") as connection:
                for message in ("abc", "d" * 100_000):
                    await connection.send(message)
                    assert await connection.recv() == message[::-1]


# -- health, drain, life


async def test_the_root_is_as_well_as_what_is_behind_it(blocks):
    a, b = await blocks.origins(2)
    app = compose(blocks, a, b)
    await blocks.serve(app)
    assert status_of(app) is Status.OPEN
    a.crash()
    await blocks.until(lambda: status_of(app) is Status.BUSY)
    b.crash()
    await blocks.until(lambda: status_of(app.parts[0]) is Status.CLOSED)  # the gateway can do nothing any more,
    assert status_of(app) is Status.BUSY  # and the edge still answers what it remembers
    await a.recover()
    await blocks.until(lambda: status_of(app.parts[0]) is Status.BUSY)
    await b.recover()
    await blocks.until(lambda: status_of(app) is Status.OPEN)


async def test_draining_the_root_lets_everything_finish_and_leaves_nothing(blocks):
    go = asyncio.Event()

    async def slow(request: Request) -> Response:
        if request.path == "/x":
            await go.wait()
        return Response.text("done")

    origin = await blocks.origin(slow)
    app = compose(blocks, origin)
    server = Server(app, "127.0.0.1:0", clock=blocks.clock)
    await server.start()
    client = await blocks.enter(blocks.upstream(server))
    asking = asyncio.create_task(client(Request("GET", "/x", {"host": "a"})))
    await blocks.until(lambda: origin.journal.matching(path="/x"))
    stopping = asyncio.create_task(server.stop(30))
    await asyncio.sleep(5)
    assert not stopping.done()
    go.set()
    response = await asking
    assert (response.status, await response.read()) == (200, b"done")
    await stopping
    with pytest.raises(ConnectionError):
        await asyncio.open_connection(*server.addresses[0].split(":"))
    asked = origin.journal.total
    await asyncio.sleep(10)
    assert origin.journal.total == asked  # nobody probes it any more


async def test_a_part_that_is_shared_is_entered_once_and_left_once():
    class Part:
        entered = left = 0

        async def __aenter__(self) -> Part:
            self.entered += 1
            return self

        async def __aexit__(self, *_: object) -> None:
            self.left += 1

        async def __call__(self, request: Request) -> Response:
            return Response.text("shared")

    shared = Part()
    first, second = LoadBalancer([shared]), LoadBalancer([shared])
    app = Edge([Gateway([route("/a", first), route("/b", second), route("/c", shared)]), shared])
    other = Gateway([route("/a", first)])
    async with running(app, other):
        assert (shared.entered, shared.left) == (1, 0)
        assert (await app(Request("GET", "/a", {"host": "a"}))).status == 200
    assert (shared.entered, shared.left) == (1, 1)


async def test_a_dead_service_takes_only_its_own_route_along(blocks):
    well, dead = await blocks.origins(2)
    dead.refuse()
    gateway = Gateway(
        [
            route("/a", LoadBalancer([blocks.upstream(well)], clock=blocks.clock)),
            route("/b", LoadBalancer([blocks.upstream(dead)], clock=blocks.clock)),
        ],
        clock=blocks.clock,
    )
    front = await blocks.serve(Edge(gateway, clock=blocks.clock))
    assert (await front.get("/a")).status == 200
    assert (await front.get("/b")).status in (502, 503)
    assert (await front.get("/a?again")).status == 200


async def test_a_refusal_says_that_trying_again_is_safe(blocks):
    front = await blocks.serve(Edge(Gateway([route("/", LoadBalancer([]))]), clock=blocks.clock))
    response = await front.request("POST", "/x", body=b"1")
    assert response.status == 503
    assert "blocks; " in response.headers["cache-status"]
