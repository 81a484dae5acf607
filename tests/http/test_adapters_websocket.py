"""WebSockets through ``from_asgi`` and ``to_asgi``: an application behind our server, and the library websockets as its client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from blocks.balancer import LoadBalancer
from blocks.core.logging import events
from blocks.http import Request, Response, Server
from blocks.http.adapters import from_asgi, to_asgi
from blocks.http.adapters.conversation import Conversation, accept_key
from blocks.http.adapters.from_websocket import AsgiSocket

WAIT = 10
Act = Callable[[WebSocket], Awaitable[None]]


@asynccontextmanager
async def served(act: Act) -> AsyncIterator[str]:
    app = Starlette(routes=[WebSocketRoute("/ws", act)])
    async with Server(from_asgi(app), "127.0.0.1:0") as server:
        yield server.url.replace("http", "ws", 1) + "/ws"


def opened(url: str, **settings: Any) -> Any:
    return connect(url, compression=None, proxy=None, close_timeout=WAIT, **settings)


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            await socket.send({"type": "websocket.send", **{k: message[k] for k in ("text", "bytes") if k in message}})
    except WebSocketDisconnect:
        pass


async def test_text_and_bytes_go_both_ways_whole_fragmented_and_empty():
    async with served(echo) as url, opened(url) as client:
        for message in ("grüße", b"\x00\xff", "", b"", "x" * 300_000):
            await client.send(message)
            assert await client.recv() == message
        await client.send(["a", "", "b", "c"])
        assert await client.recv() == "abc"
        await (await client.ping())


async def test_the_scope_the_subprotocol_and_the_headers_of_the_handshake():
    seen: dict[str, Any] = {}

    async def act(socket: WebSocket) -> None:
        seen.update(socket.scope)
        await socket.accept(subprotocol="chat.v2", headers=[(b"x-room", b"1")])
        await socket.close(4001, "enough")

    async with served(act) as url:
        async with opened(url + "?a=b%20c", subprotocols=["chat.v1", "chat.v2"]) as client:
            assert client.subprotocol == "chat.v2"
            assert client.response.headers["x-room"] == "1"
            with pytest.raises(ConnectionClosed) as caught:
                await client.recv()
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "enough")
    assert (seen["type"], seen["scheme"], seen["path"], seen["query_string"]) == ("websocket", "ws", "/ws", b"a=b%20c")
    assert seen["subprotocols"] == ["chat.v1", "chat.v2"]
    assert "method" not in seen


async def refused(act: Act) -> InvalidStatus:
    async with served(act) as url:
        with pytest.raises(InvalidStatus) as caught:
            async with opened(url):
                pass
    return caught.value


async def test_an_application_may_refuse_with_a_403_or_an_answer_of_its_own():
    async def close(socket: WebSocket) -> None:
        await socket.close()

    async def answer(socket: WebSocket) -> None:
        await socket.send_denial_response(PlainTextResponse("no room", 429))

    assert (await refused(close)).response.status_code == 403
    told = (await refused(answer)).response
    assert (told.status_code, told.body) == (429, b"no room")


async def test_an_application_that_fails_is_a_500_before_and_a_1011_after_it_took_the_connection():
    async def early(socket: WebSocket) -> None:
        raise ZeroDivisionError

    async def late(socket: WebSocket) -> None:
        await socket.accept()
        raise ZeroDivisionError

    assert (await refused(early)).response.status_code == 500
    async with served(late) as url, opened(url) as client:
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1011
    assert [one["event"] for one in events().recent(2)] == ["asgi-app-failed"] * 2


async def test_an_application_that_returns_closes():
    async def act(socket: WebSocket) -> None:
        await socket.accept()

    async with served(act) as url, opened(url) as client:
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1000


@asynccontextmanager
async def passed_on(act: Act) -> AsyncIterator[str]:
    """The application behind a handler that is itself an ASGI application: each message leaves its frames and enters others."""
    inner = from_asgi(Starlette(routes=[WebSocketRoute("/ws", act)]))
    async with Server(inner, "127.0.0.1:0") as behind:
        async with Server(from_asgi(to_asgi(LoadBalancer([behind.url]))), "127.0.0.1:0") as server:
            yield server.url.replace("http", "ws", 1) + "/ws"


async def test_messages_closes_and_refusals_pass_through_to_asgi():
    async def ends(socket: WebSocket) -> None:
        await socket.accept(subprotocol="chat", headers=[(b"x-room", b"1")])
        await socket.receive_text()
        await socket.close(4001, "enough")

    async def answers(socket: WebSocket) -> None:
        await socket.send_denial_response(PlainTextResponse("no room", 429))

    async with passed_on(echo) as url, opened(url) as client:
        for message in ("grüße", b"\x00\xff", "", "x" * 300_000):
            await client.send(message)
            assert await client.recv() == message
    async with passed_on(ends) as url, opened(url, subprotocols=["chat"]) as client:
        assert (client.subprotocol, client.response.headers["x-room"]) == ("chat", "1")
        await client.send("x")
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "enough")
    async with passed_on(answers) as url:
        with pytest.raises(InvalidStatus) as refused:
            async with opened(url):
                pass
        assert (refused.value.response.status_code, refused.value.response.body) == (429, b"no room")


async def test_a_client_that_leaves_is_told_to_the_handler_behind_to_asgi():
    heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def act(socket: WebSocket) -> None:
        await socket.accept()
        try:
            await socket.receive_text()
        except WebSocketDisconnect as gone:
            heard.set_result(gone.code)

    async with passed_on(act) as url, opened(url) as client:
        await client.close(4002)
        assert await asyncio.wait_for(heard, WAIT) == 4002


async def test_without_the_extension_a_refusal_is_a_close_before_acceptance():
    async def handler(request: Request) -> Response:
        return Response(404)

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(event: Any) -> None:
        sent.append(event)

    scope = {
        "type": "websocket",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [],
        "http_version": "1.1",
    }
    await to_asgi(handler)(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1000}]


@asynccontextmanager
async def told(end: Callable[[ClientConnection], Awaitable[None]]) -> AsyncIterator[asyncio.Future[int]]:
    """The code that the application hears when the client does ``end``."""
    heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def act(socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                await socket.receive_text()
        except WebSocketDisconnect as gone:
            heard.set_result(gone.code)

    async with served(act) as url, opened(url) as client:
        await end(client)
        yield heard


async def test_the_application_hears_how_a_client_left():
    async def closes(client: ClientConnection) -> None:
        await client.close(4002, "bye")

    async def vanishes(client: ClientConnection) -> None:
        client.transport.abort()

    async def breaks(client: ClientConnection) -> None:
        client.transport.write(b"\x83\x80abcd")  # an opcode that there is not

    async def lies(client: ClientConnection) -> None:
        client.transport.write(b"\x81\x81\x00\x00\x00\x00\xff")  # text that is not UTF-8

    async def overdoes(client: ClientConnection) -> None:
        client.transport.write(b"\x81\xff" + (1 << 40).to_bytes(8, "big") + b"abcd")

    for end, code in ((closes, 4002), (vanishes, 1006), (breaks, 1002), (lies, 1007), (overdoes, 1009)):
        async with told(end) as heard:
            assert await asyncio.wait_for(heard, WAIT) == code


async def test_a_client_that_does_not_read_makes_the_application_wait_and_one_that_left_an_error():
    sent = 0
    failed = asyncio.Event()

    async def act(socket: WebSocket) -> None:
        nonlocal sent
        await socket.accept()
        try:
            while True:
                await socket.send({"type": "websocket.send", "bytes": b"x" * 65536})
                sent += 1
        except (OSError, WebSocketDisconnect):
            failed.set()

    async with served(act) as url, opened(url, max_queue=1) as client:
        await client.recv()
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 1000  # of the kernel's buffers, not of memory
        client.transport.abort()
        await asyncio.wait_for(failed.wait(), WAIT)


async def test_messages_that_the_application_does_not_take_pause_the_client():
    go = asyncio.Event()
    got = 0

    async def act(socket: WebSocket) -> None:
        nonlocal got
        await socket.accept()
        await go.wait()
        while got < 200:
            got += len(await socket.receive_bytes()) // 65536
        await socket.send_text("all")

    async with served(act) as url, opened(url) as client:
        sending = asyncio.create_task(client.send([b"y" * 65536]))
        await sending
        many = asyncio.create_task(_many(client, 199))
        await asyncio.sleep(0.3)
        assert not many.done()
        go.set()
        assert await asyncio.wait_for(client.recv(), WAIT) == "all"
        await many


async def _many(client: ClientConnection, number: int) -> None:
    for _ in range(number):
        await client.send(b"y" * 65536)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-websocket-version": "12", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}, 426),
        ({"sec-websocket-version": "13"}, 400),
        ({"sec-websocket-version": "13", "sec-websocket-key": "short"}, 400),
        ({"sec-websocket-version": "13", "sec-websocket-key": "*GhlIHNhbXBsZSBub25jZQ=="}, 400),
    ],
)
async def test_a_handshake_that_is_none_never_reaches_the_application(headers: dict[str, str], status: int):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    response = await from_asgi(app)(Request(headers=headers, upgrade="websocket"))
    assert response.status == status
    if status == 426:
        assert response.headers["sec-websocket-version"] == "13"


def test_the_accept_key_is_that_of_the_rfc():
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 §1.3


def test_any_split_of_the_bytes_gives_the_same_messages():
    client = Conversation(server=False)
    for message in ("one", b"\x00two", "", "x" * 70000):
        client.send(message)
    client.close(4000, "end")
    data = client.outgoing()[0]
    for step in (1, 7, 1000, len(data)):
        server = Conversation(server=True)
        got = [one for at in range(0, len(data), step) for one in server.receive(data[at : at + step])]
        assert got == ["one", b"\x00two", "", "x" * 70000]
        assert server.closed == (4000, "end")
        assert server.outgoing()[1]  # the server ends the connection (RFC 6455 §7.1.1)


class _End:
    """A client's connection, as a sink and a source."""

    def __init__(self) -> None:
        self.written = b""
        self.calls: list[str] = []

    def write(self, data: bytes) -> None:
        self.written += data

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append(name)


async def test_a_silent_client_is_asked_and_then_left():
    socket = AsgiSocket(Request(headers={"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}, upgrade="websocket"))
    accepting = asyncio.create_task(socket.send({"type": "websocket.accept"}))
    assert (await socket.answer()).status == 101
    end = _End()
    socket.connect(end, end)
    await accepting
    now = asyncio.get_running_loop().time()
    assert 19 < socket.deadline - now < 21
    socket.expire(now + 21)
    assert end.written == b"\x89\x00"  # a ping
    socket.expire(now + 42)
    assert end.calls == ["cancel"]
    assert await socket.receive() == {"type": "websocket.connect"}
    assert await socket.receive() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
