from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx
import pytest
from aiohttp import web
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from blocks.core.errors import Unavailable, UpstreamTimeout
from blocks.http import Headers, Request, Response, Server, Stream
from blocks.http.adapters import from_asgi, to_aiohttp, to_asgi


class Tool:
    """A handler with a life of its own."""

    def __init__(self) -> None:
        self.entered = 0
        self.requests: list[Request] = []

    async def __aenter__(self) -> Tool:
        self.entered += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.entered -= 1

    async def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        body = await request.read()
        return Response.json(
            {"target": request.target, "entered": self.entered, "body": body.decode(), "host": request.host}
        )


async def chunks(number: int, chunk: bytes = b"x") -> AsyncIterator[bytes]:
    for _ in range(number):
        yield chunk
        await asyncio.sleep(0)


class Script:
    """An ASGI server's side, by hand."""

    def __init__(self, *messages: dict[str, Any], method: str = "GET", headers: Any = (), **scope: Any) -> None:
        self.scope = {
            "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": "/x", "raw_path": b"/x",
            "query_string": b"q=1",
            "headers": [(b"host", b"a.test"), *headers], "client": ("203.0.113.1", 5), "server": ("127.0.0.1", 80), **scope,
        }  # fmt: skip
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for message in messages or ({"type": "http.request"},):
            self.inbox.put_nowait(message)
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        return await self.inbox.get()

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def run(self, app: Any) -> list[dict[str, Any]]:
        await app(self.scope, self.receive, self.send)
        return self.sent


async def test_a_request_and_its_answer() -> None:
    tool = Tool()
    parts = {"type": "http.request", "body": b"he", "more_body": True}, {"type": "http.request", "body": b"llo"}
    script = Script(*parts, method="POST", headers=[(b"content-length", b"5")])
    start, body = await script.run(to_asgi(tool))
    assert start["status"] == 200
    assert (b"content-type", b"application/json") in start["headers"]
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    assert b'"body":"hello"' in body["body"]
    (request,) = tool.requests
    assert request.target == "/x?q=1"
    assert request.peer.client == ("203.0.113.1", 5)


async def test_a_failure_is_its_response() -> None:
    async def down(request: Request) -> Response:
        raise Unavailable("nobody at 10.0.0.1")

    start, body = await Script().run(to_asgi(down))
    assert start["status"] == 503
    assert b"10.0.0.1" not in body["body"]


async def test_an_unexpected_error_reaches_the_asgi_server() -> None:
    async def broken(request: Request) -> Response:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Script().run(to_asgi(broken))


async def test_a_response_streams_and_trailers_go_where_they_are_known() -> None:
    def make() -> Response:
        stream = Stream()
        stream.feed(b"ab")
        stream.finish(Headers({"x-sum": "1"}))
        return Response(200, {"content-length": "99"}, stream)

    async def handler(request: Request) -> Response:
        return make()

    sent = await Script().run(to_asgi(handler))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body", "http.response.body"]
    assert sent[0]["headers"] == []
    sent = await Script(extensions={"http.response.trailers": {}}).run(to_asgi(handler))
    assert sent[0]["trailers"] is True
    assert sent[-1] == {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]}


async def test_back_pressure_reaches_the_handler() -> None:
    made = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal made
        for _ in range(1000):
            made += 1
            yield b"x" * 8192

    async def handler(request: Request) -> Response:
        return Response(200, None, Stream.of(counted()))

    script = Script()
    go = asyncio.Event()

    async def stuck(message: Any) -> None:
        script.sent.append(message)
        if len(script.sent) > 2:
            await go.wait()

    task = asyncio.ensure_future(to_asgi(handler)(script.scope, script.receive, stuck))
    for _ in range(200):
        await asyncio.sleep(0)
    assert made < 40
    go.set()
    await task
    assert made == 1000


async def test_a_client_that_leaves_cancels_the_handler() -> None:
    cancelled = asyncio.Event()

    async def slow(request: Request) -> Response:
        script.inbox.put_nowait({"type": "http.disconnect"})
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    script = Script()
    assert await script.run(to_asgi(slow)) == []
    assert cancelled.is_set()


async def test_a_client_that_leaves_in_its_body_fails_the_body() -> None:
    seen: list[BaseException] = []

    async def reader(request: Request) -> Response:
        try:
            await request.read()
        except BaseException as error:
            seen.append(error)
            raise
        raise AssertionError

    parts = {"type": "http.request", "body": b"he", "more_body": True}, {"type": "http.disconnect"}
    script = Script(*parts, method="POST", headers=[(b"content-length", b"5")])
    assert await script.run(to_asgi(reader)) == []
    assert len(seen) == 1


async def test_a_client_that_leaves_in_the_stream_gives_the_body_up() -> None:
    given_up = asyncio.Event()

    class Endless:
        def resume(self) -> None:
            self.stream.feed(b"x")

        def pause(self) -> None:
            pass

        def cancel(self) -> None:
            given_up.set()

        stream: Stream

    async def handler(request: Request) -> Response:
        source = Endless()
        source.stream = stream = Stream(source)
        return Response(200, None, stream)

    script = Script()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise OSError("closed")

    await to_asgi(handler)(script.scope, script.receive, send)
    assert given_up.is_set()


async def test_what_has_no_body_gets_none() -> None:
    async def handler(request: Request) -> Response:
        return Response(
            304 if request.method == "GET" else 200,
            {"content-length": "7"},
            b"" if request.method == "GET" else b"1234567",
        )

    start, body = await Script().run(to_asgi(handler))
    assert (start["status"], body["body"]) == (304, b"")
    start, body = await Script(method="HEAD").run(to_asgi(handler))
    assert dict(start["headers"]) == {b"content-length": b"7"}
    assert body["body"] == b""


async def test_other_scopes_are_refused_clearly() -> None:
    script = Script()
    script.scope["type"] = "smtp"
    with pytest.raises(ValueError, match="smtp"):
        await script.run(to_asgi(Tool()))


async def test_a_lifespan_that_fails_is_told() -> None:
    class Broken(Tool):
        async def __aenter__(self) -> Tool:
            raise RuntimeError("no store")

    script = Script({"type": "lifespan.startup"})
    script.scope["type"] = "lifespan"
    assert await script.run(to_asgi(Broken())) == [{"type": "lifespan.startup.failed", "message": "no store"}]

    class Sticky(Tool):
        async def __aexit__(self, *_: object) -> None:
            raise RuntimeError("cannot let go")

    script = Script({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    script.scope["type"] = "lifespan"
    assert [message["type"] for message in await script.run(to_asgi(Sticky()))] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.failed",
    ]


async def test_httpx_and_a_lifespan_drive_it() -> None:
    tool = Tool()
    app = to_asgi(tool)
    script = Script({"type": "lifespan.startup"})
    script.scope["type"] = "lifespan"
    life = asyncio.ensure_future(script.run(app))
    while not script.sent:  # the script is no event
        await asyncio.sleep(0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a.test") as client:
        answer = await client.post("/a%20b?x=1", content=b"hello")
        assert answer.json() == {"target": "/a%20b?x=1", "entered": 1, "body": "hello", "host": "a.test"}
    script.inbox.put_nowait({"type": "lifespan.shutdown"})
    assert [message["type"] for message in await life] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert tool.entered == 0


async def test_mounted_in_starlette_and_fastapi_and_served_by_us() -> None:
    async def stream(request: Request) -> Response:
        if request.path.endswith("/late"):
            raise UpstreamTimeout("late")
        return Response(200, {"content-type": "text/plain"}, Stream.of(chunks(3, request.headers["x-a"].encode())))

    fast = FastAPI()
    fast.mount("/inner", to_asgi(stream))
    app = Starlette(routes=[Mount("/blocks", to_asgi(stream)), Mount("/fast", fast)])
    async with Server(from_asgi(app), "127.0.0.1:0") as server, aiohttp.ClientSession() as session:
        for path in ("/blocks/x", "/fast/inner/x"):
            async with session.get(server.url + path, headers={"x-a": "ab"}) as answer:
                assert await answer.text() == "ababab"
        async with session.get(server.url + "/blocks/late") as answer:
            assert answer.status == 504


async def aiohttp_site(handler: Any) -> tuple[web.AppRunner, str]:
    adapter = to_aiohttp(handler)
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", adapter)
    app.cleanup_ctx.append(adapter.cleanup)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def test_aiohttp_serves_a_handler() -> None:
    tool = Tool()
    runner, url = await aiohttp_site(tool)
    try:
        async with aiohttp.ClientSession() as session:
            async with session.post(url + "/a?x=1", data=b"hello") as answer:
                assert await answer.json() == {
                    "target": "/a?x=1",
                    "entered": 1,
                    "body": "hello",
                    "host": url.removeprefix("http://"),
                }
            async with session.post(url + "/", data=chunks(3, b"ab")) as answer:
                assert (await answer.json())["body"] == "ababab"
            async with session.head(url + "/") as answer:
                assert answer.headers["content-type"] == "application/json"
                assert int(answer.headers["content-length"]) > 0
        assert tool.requests[0].peer.client[0] == "127.0.0.1"
    finally:
        await runner.cleanup()
    assert tool.entered == 0


async def test_aiohttp_streams_a_handlers_body_and_tells_failures() -> None:
    async def handler(request: Request) -> Response:
        if request.path == "/down":
            raise Unavailable("down")
        if request.path == "/304":
            return Response(304, {"etag": '"a"'})
        return Response(200, [("set-cookie", "a=1"), ("set-cookie", "b=2")], Stream.of(chunks(4)))

    runner, url = await aiohttp_site(handler)
    try:
        async with aiohttp.ClientSession() as session:
            async with session.get(url + "/") as answer:
                assert await answer.read() == b"xxxx"
                assert answer.headers.getall("set-cookie") == ["a=1", "b=2"]
            async with session.get(url + "/down") as answer:
                assert answer.status == 503
            async with session.get(url + "/304") as answer:
                assert (answer.status, answer.headers["etag"]) == (304, '"a"')
    finally:
        await runner.cleanup()
