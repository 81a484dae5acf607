"""Filters, adapters and TLS at the rims of a real server: what only sockets show."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import StreamingResponse
from starlette.routing import Route

from blocks.core.logging import events
from blocks.http import Request, Response, Server, Stream, TooLarge, Upstream, chain, direct
from blocks.http.adapters import from_asgi, to_asgi
from blocks.http.filters import body_limit, compress, forwarded, request_id, retry, timeout, trace_context
from blocks.http.inbound import Inbound
from blocks.http.tls import Certificates, client_context


@pytest.fixture(autouse=True)
def quiet() -> None:
    events().configure(format="off")


async def raw(server: Server, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = server.addresses[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    return reader, writer


async def test_a_handler_that_is_too_slow_is_504_and_the_connection_goes_on() -> None:
    cancelled = asyncio.Event()

    async def slow(request: Request) -> Response:
        if request.path == "/slow":
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
        return Response.text("fine")

    async with Server(chain(timeout(0.001), to=slow), "127.0.0.1:0") as server, Upstream(server.url) as upstream:
        response = await upstream(Request("GET", "/slow", {"host": "a"}))
        assert response.status == 504
        assert cancelled.is_set()
    async with Server(chain(timeout(30), to=slow), "127.0.0.1:0") as server, Upstream(server.url) as upstream:
        assert await (await upstream(Request("GET", "/", {"host": "a"}))).read() == b"fine"


async def test_a_client_that_aborts_is_a_disconnect_for_the_application() -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        heard.put_nowait("called")
        heard.put_nowait((await receive())["type"])

    async with Server(from_asgi(app, lifespan="off"), "127.0.0.1:0") as server:
        _, writer = await raw(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(20):
            assert await heard.get() == "called"
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )  # a reset
            writer.transport.abort()
            assert await heard.get() == "http.disconnect"


async def test_a_slow_reader_holds_the_application_back() -> None:
    made = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield b"x" * 65536

    async def call(request: StarletteRequest) -> StreamingResponse:
        return StreamingResponse(chunks())

    handler = from_asgi(Starlette(routes=[Route("/", call)]))
    async with Server(handler, "127.0.0.1:0") as server:
        _, writer = await raw(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        seen = -1
        async with asyncio.timeout(30):
            while seen != made or made == 0:  # the sockets' buffers fill up, then nothing more is made
                seen = made
                await asyncio.sleep(0.05)
        assert made < 1000
        writer.transport.abort()
        async with asyncio.timeout(20):
            await asyncio.wait(handler._tasks)


@pytest.mark.parametrize("pause", [0.0, 0.01])
async def test_a_body_without_length_is_cut_at_the_limit_with_413(pause: float) -> None:
    async def echo(request: Request) -> Response:
        return Response(200, None, await request.read())

    async with Server(chain(body_limit(1000), to=echo), "127.0.0.1:0") as server:
        reader, writer = await raw(server, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (b"3e8\r\n" + b"x" * 1000 + b"\r\n", b"1\r\ny\r\n0\r\n\r\n"):
            await asyncio.sleep(pause)  # in one piece or in several: the answer is the same
            writer.write(part)
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
        writer.transport.abort()


@pytest.mark.parametrize("driven", [True, False])
async def test_a_handler_that_gives_a_body_up_still_answers(driven: bool) -> None:
    async def picky(request: Request) -> Response:
        try:
            await request.read(10)
        except TooLarge:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return Response.text("no, thank you")

    if driven:
        direct(picky)
    async with Server(picky, "127.0.0.1:0") as server:
        reader, writer = await raw(server, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await asyncio.sleep(0.01)
        writer.write(b"14\r\n" + b"x" * 20 + b"\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.transport.abort()


async def test_events_are_compressed_one_by_one_through_two_servers() -> None:
    import zlib

    feed = Stream()

    async def source(request: Request) -> Response:
        return Response(200, {"content-type": "text/event-stream"}, feed)

    async with (
        Server(source, "127.0.0.1:0") as origin,
        Upstream(origin.url) as upstream,
        Server(chain(compress(), retry(), to=upstream), "127.0.0.1:0") as front,
        Upstream(front.url) as client,
    ):
        feed.feed(b"data: 0\n\n")
        response = await client(Request("GET", "/", {"host": "a", "accept-encoding": "gzip"}))
        decoder = zlib.decompressobj(31)
        text = b""
        number = 0
        async with asyncio.timeout(20):
            async for chunk in response.body:
                text += decoder.decompress(chunk)
                if text.endswith(b"data: %d\n\n" % number):
                    number += 1
                    if number == 4:
                        feed.finish()
                    else:
                        feed.feed(b"data: %d\n\n" % number)
        assert text == b"data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\n"


async def test_the_servers_peer_carries_the_clients_certificate_and_a_reload_holds(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    def issue(name: str) -> tuple[Path, Path]:
        issued = authority.issue_cert("127.0.0.1" if name == "server" else name)
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
        issued.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        return tmp_path / f"{name}.pem", tmp_path / f"{name}.key"

    async def who(request: Request) -> Response:
        names = [value for _, value in request.peer.certificate["subjectAltName"]] if request.peer.certificate else []
        return Response.json([request.scheme, *names])

    certificates = Certificates([issue("server")], client_ca=tmp_path / "ca.pem")
    alice = client_context(ca=tmp_path / "ca.pem", certificate=issue("alice.test"))
    async with (
        Server(who, "127.0.0.1:0", tls=certificates.context) as server,
        Upstream(server.url, tls=alice) as upstream,
    ):
        asked = Request("GET", "/", {"host": "a"})
        assert json.loads(await (await upstream(asked.copy())).read()) == ["https", "alice.test"]
        issue("server")
        certificates.reload()
        assert json.loads(await (await upstream(asked.copy())).read()) == ["https", "alice.test"]
        async with Upstream(server.url, tls=alice) as fresh:
            assert json.loads(await (await fresh(asked.copy())).read()) == ["https", "alice.test"]
    assert isinstance(certificates.context, ssl.SSLContext)


async def test_an_application_around_a_handler_around_an_application() -> None:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        total = len(message["body"])
        while message.get("more_body"):
            message = await receive()
            total += len(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"%d;" % total, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    handler = from_asgi(to_asgi(from_asgi(inner, lifespan="off")))
    async with Server(handler, "127.0.0.1:0") as server, Upstream(server.url) as upstream:
        for size in (0, 10, 500_000):
            response = await upstream(Request("POST", "/", {"host": "a"}, b"x" * size))
            assert await response.read() == b"%d;" % size * 3


async def test_a_request_through_all_filters_leaves_nothing_to_the_garbage_collector() -> None:
    async def hello(request: Request) -> Response:
        await asyncio.sleep(0)
        return Response.text("hello" * 1000)

    app = chain(forwarded(), request_id(), trace_context(), body_limit(5), compress(), timeout(30), retry(), to=hello)

    async def ask() -> None:
        await (await app(Request("GET", "/", {"host": "a", "accept-encoding": "gzip"}))).read()

    await ask()
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            await ask()
        assert gc.collect() < 100
    finally:
        gc.enable()


def test_closed_connections_on_uvloop_leave_nothing_to_the_garbage_collector() -> None:
    async def ask(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async def count() -> int:
        async def answer(request: Request) -> Response:
            return Response(204)

        async with Server(answer, "127.0.0.1:0") as server:
            port = int(server.addresses[0].rpartition(":")[2])
            await ask(port)
            gc.collect()
            gc.disable()
            try:
                for _ in range(20):
                    await ask(port)
                while server.service is not None and server.service.connections:
                    await asyncio.sleep(0)
                return sum(type(one) is Inbound for one in gc.get_objects())
            finally:
                gc.enable()

    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(count()) <= 2
