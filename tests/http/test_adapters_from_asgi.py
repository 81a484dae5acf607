from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from fastapi import FastAPI, HTTPException
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from blocks.core.errors import ConfigError, Failure
from blocks.core.logging import events
from blocks.http import Peer, Request, Response, Server, Stream, running
from blocks.http.adapters import from_asgi
from blocks.http.adapters.lifespan import LifespanFailed

PEER = Peer(("203.0.113.9", 4711), ("127.0.0.1", 8080), "https")


@pytest.fixture(autouse=True)
def quiet() -> None:
    events().configure(format="off")


def app_of(*routes: Any, **more: Any) -> Starlette:
    return Starlette(routes=[Route(path, call, methods=["GET", "POST"]) for path, call in routes], **more)


async def test_starlette_sees_the_request_as_a_server_would_give_it() -> None:
    async def call(request: StarletteRequest) -> JSONResponse:
        return JSONResponse(
            {
                "url": str(request.url), "path": request.scope["path"], "raw": request.scope["raw_path"].decode(),
                "client": list(request.client or ()),
                "headers": request.headers.items(), "body": (await request.body()).decode(), "version": request.scope["http_version"],
            }
        )  # fmt: skip

    handler = from_asgi(app_of(("/{rest:path}", call)))
    response = await handler(Request("POST", "/a%20b/%C3%A9?x=1&y=%20", {"host": "example.com"}, b"hello", peer=PEER))
    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    assert response.body == await response.read()
    import json

    assert json.loads(response.body) == {
        "url": "https://example.com/a b/é?x=1&y=%20", "path": "/a b/é", "raw": "/a%20b/%C3%A9", "client": ["203.0.113.9", 4711],
        "headers": [["host", "example.com"], ["content-length", "5"]], "body": "hello", "version": "1.1",
    }  # fmt: skip


async def test_the_client_is_the_one_that_forwarded_found() -> None:
    async def call(request: StarletteRequest) -> PlainTextResponse:
        assert request.client is not None
        return PlainTextResponse(f"{request.client.host} {request.url.scheme}")

    request = Request("GET", "/", peer=Peer(("10.0.0.1", 1), ("127.0.0.1", 80)))
    request.state.update(client="198.51.100.7", scheme="https")
    assert (await from_asgi(app_of(("/", call)))(request)).body == b"198.51.100.7 https"


async def test_fastapi_answers_validates_and_refuses() -> None:
    app = FastAPI()

    @app.get("/items/{number}")
    async def item(number: int, q: str = "") -> dict[str, Any]:
        if number == 0:
            raise HTTPException(404, "no such item")
        return {"number": number, "q": q}

    @app.post("/items")
    async def create(item: dict[str, int]) -> dict[str, int]:
        return item

    async with running(from_asgi(app)) as handler:
        assert (await handler(Request("GET", "/items/3?q=x"))).body == b'{"number":3,"q":"x"}'
        assert (await handler(Request("GET", "/items/0"))).status == 404
        assert (await handler(Request("GET", "/items/x"))).status == 422
        created = await handler(Request("POST", "/items", {"content-type": "application/json"}, b'{"a":1}'))
        assert created.body == b'{"a":1}'


async def test_the_lifespan_runs_around_and_its_state_reaches_requests() -> None:
    happened: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        happened.append("start")
        yield {"greeting": "hello"}
        happened.append("stop")

    async def call(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse(request.state.greeting)

    async with running(from_asgi(app_of(("/", call), lifespan=lifespan))) as handler:
        assert happened == ["start"]
        assert (await handler(Request())).body == b"hello"
    assert happened == ["start", "stop"]


async def bare(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"bare"})


async def test_an_application_without_lifespan_is_served_all_the_same_unless_it_must_have_one() -> None:
    async with running(from_asgi(bare)) as handler:
        assert (await handler(Request())).body == b"bare"
    async with running(from_asgi(bare, lifespan="off")) as handler:
        assert (await handler(Request())).body == b"bare"
    with pytest.raises(LifespanFailed, match="does not know"):
        async with running(from_asgi(bare, lifespan="on")):
            pass
    with pytest.raises(ConfigError, match="maybe"):
        from_asgi(bare, lifespan="maybe")  # type: ignore[arg-type]


async def test_an_application_that_cannot_start_or_stop_says_so() -> None:
    @asynccontextmanager
    async def broken(app: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    with pytest.raises(LifespanFailed, match="no database"):
        async with running(from_asgi(app_of(lifespan=broken))):
            pass

    @asynccontextmanager
    async def sticky(app: Starlette) -> AsyncIterator[None]:
        yield
        raise RuntimeError("cannot let go")

    with pytest.raises(LifespanFailed, match="cannot let go"):
        async with running(from_asgi(app_of(lifespan=sticky))):
            pass


async def test_a_response_streams_with_back_pressure() -> None:
    made = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal made
        for _ in range(100):
            made += 1
            yield b"x" * 16384

    async def call(request: StarletteRequest) -> StreamingResponse:
        return StreamingResponse(chunks())

    response = await from_asgi(app_of(("/", call)))(Request())
    assert isinstance(response.body, Stream)
    for _ in range(50):
        await asyncio.sleep(0)
    assert made < 10
    assert await response.read() == b"x" * 1638400
    assert made == 100


async def test_a_head_that_stays_alone_is_given_at_once() -> None:
    go = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await go.wait()
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": False})

    response = await from_asgi(slow)(Request())
    assert response.headers["content-type"] == "text/event-stream"
    go.set()
    assert await response.read() == b"data: 1\n\n"


async def test_a_request_body_streams_in() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for part in (b"a", b"b", b"c"):
            yield part

    async def call(request: StarletteRequest) -> JSONResponse:
        return JSONResponse([part.decode() async for part in request.stream() if part])

    response = await from_asgi(app_of(("/", call)))(Request("POST", "/", body=Stream.of(chunks())))
    assert response.body == b'["a","b","c"]'


async def test_a_request_body_that_breaks_off_is_a_disconnect() -> None:
    seen: list[str] = []

    async def call(request: StarletteRequest) -> PlainTextResponse:
        try:
            await request.body()
        except ClientDisconnect:
            seen.append("disconnect")
            raise
        return PlainTextResponse("never")

    body = Stream()
    handler = from_asgi(app_of(("/", call)))
    task = asyncio.ensure_future(handler(Request("POST", "/", body=body)))
    await asyncio.sleep(0)
    body.feed(b"half")
    body.fail(ConnectionResetError())
    async with handler:
        pass
    assert seen == ["disconnect"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_client_that_leaves_before_the_answer_is_told_as_a_disconnect() -> None:
    heard: list[str] = []

    async def call(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        heard.append((await receive())["type"])
        with pytest.raises(OSError):
            await send({"type": "http.response.start", "status": 200, "headers": []})

    handler = from_asgi(call, lifespan="off")
    task = asyncio.ensure_future(handler(Request()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with handler:
        pass
    assert heard == ["http.disconnect"]


async def test_a_client_that_leaves_in_the_stream_ends_it() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 4096
            await asyncio.sleep(0)

    async def call(request: StarletteRequest) -> StreamingResponse:
        return StreamingResponse(endless())

    handler = from_asgi(app_of(("/", call)))
    response = await handler(Request())
    async for _ in response.body:
        break
    assert len(handler._tasks) == 1
    response.discard()
    async with asyncio.timeout(20):
        await asyncio.wait(handler._tasks)
    assert not handler._tasks


async def test_background_tasks_run_after_the_answer_and_are_waited_for() -> None:
    go, ran = asyncio.Event(), asyncio.Event()

    async def later() -> None:
        await go.wait()
        ran.set()

    async def call(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse("now", background=BackgroundTask(later))

    async with from_asgi(app_of(("/", call))) as handler:
        assert (await handler(Request())).body == b"now"
        assert not ran.is_set()
        go.set()
    assert ran.is_set()


async def test_background_tasks_that_do_not_end_are_cancelled() -> None:
    cancelled = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def call(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse("now", background=BackgroundTask(forever))

    async with from_asgi(app_of(("/", call)), grace=0) as handler:
        await handler(Request())
        await asyncio.sleep(0)
    assert cancelled.is_set()


async def test_an_application_that_fails_is_a_failure_and_an_event() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a secret")

    with events().captured() as seen, pytest.raises(Failure) as caught:
        await from_asgi(broken, lifespan="off")(Request("GET", "/x"))
    assert caught.value.status == 500
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert [(event["event"], event["path"], event["error"]) for event in seen] == [
        ("asgi-app-failed", "/x", "RuntimeError: a secret")
    ]


async def test_starlettes_own_500_is_passed_on() -> None:
    async def call(request: StarletteRequest) -> PlainTextResponse:
        raise RuntimeError

    assert (await from_asgi(app_of(("/", call)))(Request())).status == 500


async def test_an_application_that_fails_midway_breaks_the_body_off() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError

    response = await from_asgi(broken)(Request())
    with pytest.raises(Failure):
        await response.read()


@pytest.mark.parametrize(
    "script",
    [[], ["http.response.body"], ["http.response.start"], ["http.response.start", "http.response.start"], ["nonsense"]],
)
async def test_an_application_that_breaks_the_protocol_is_a_failure(script: list[str]) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        for kind in script:
            await send({"type": kind, "status": 200, "headers": []})

    async def whole() -> bytes:
        return await (await from_asgi(broken)(Request())).read()

    with pytest.raises(Failure):
        await whole()


async def test_what_belongs_to_a_connection_is_left_out() -> None:
    async def call(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"Connection", b"close"), (b"Transfer-Encoding", b"chunked"), (b"X-A", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    assert (await from_asgi(call)(Request())).headers.items() == [("x-a", "1")]


async def test_response_splitting_is_refused() -> None:
    async def call(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1\r\nset-cookie: a=b")]})
        await send({"type": "http.response.body", "body": b""})

    with pytest.raises(Failure):
        await from_asgi(call)(Request())


async def test_trailers_and_early_hints_go_through() -> None:
    informed: list[Response] = []

    async def call(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"x", "more_body": False})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

    response = await from_asgi(call)(Request(inform=informed.append))
    assert await response.read() == b"x"
    assert [(hint.status, hint.headers["link"]) for hint in informed] == [(103, "</a.css>; rel=preload")]


async def test_a_head_request_has_no_body() -> None:
    response = await from_asgi(bare)(Request("HEAD"))
    assert response.body == b""


async def test_an_upgrade_is_refused_clearly() -> None:
    assert (await from_asgi(bare)(Request(upgrade="h2c"))).status == 501


async def test_it_works_behind_a_real_server() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(3):
            yield f"{number};".encode()
            await asyncio.sleep(0)

    async def stream(request: StarletteRequest) -> StreamingResponse:
        return StreamingResponse(chunks())

    async def echo(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    async with (
        Server(from_asgi(app_of(("/stream", stream), ("/echo", echo))), "127.0.0.1:0") as server,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(server.url + "/stream") as answer:
            assert await answer.read() == b"0;1;2;"
        async with session.post(server.url + "/echo", data=b"x" * 800_000) as answer:
            assert await answer.read() == b"800000"
        async with session.head(server.url + "/stream") as answer:
            assert answer.status == 200
        async with session.get(server.url + "/none") as answer:
            assert answer.status == 404
