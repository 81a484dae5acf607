"""A server's connections over time: timeouts, limits, drains, tunnels, TLS. Minutes pass by jumping."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
import websockets

from blocks.http import Request, Response, Server, Stream, Upstream
from blocks.http.handler import direct
from blocks.http.timeouts import Timeouts
from integration.wire import LAST, OK, WAIT, Backend, Client, answers, jump, jumping, proxy, talk

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"


async def hello(request: Request) -> Response:
    return Response(200, [], b"hello")


async def settled(server: Server, count: int) -> None:
    """Wait until the server has ``count`` connections."""
    for _ in range(2000):
        if len(server.service.connections) == count:  # type: ignore[union-attr]
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"{len(server.service.connections)} connections")  # type: ignore[union-attr]


# -- timeouts


@jumping
async def test_a_head_that_drips_is_answered_with_408_whatever_its_pace():
    async with Server(hello, "127.0.0.1:0", timeouts=Timeouts(head=5)) as server, Client(server) as client:
        await settled(server, 1)
        for byte in b"GET / H":
            client.send(bytes([byte]))
            await jump(0.4)
        await jump(1)
        assert [one.status for one in answers(await client.all())] == [408]


@jumping
async def test_a_connection_without_a_byte_is_closed_without_a_word():
    async with Server(hello, "127.0.0.1:0", timeouts=Timeouts(head=5)) as server, Client(server) as client:
        await settled(server, 1)
        await jump(5.1)
        assert await client.all() == b""


@jumping
async def test_the_head_of_a_later_request_has_its_own_time():
    async with Server(hello, "127.0.0.1:0", timeouts=Timeouts(head=5, idle=60)) as server, Client(server) as client:
        client.send(GET)
        await client.until(b"hello")
        await jump(50)
        client.send(GET[:10])
        await jump(4)
        client.send(GET[10:20])
        await jump(1.1)
        assert [one.status for one in answers(await client.all())] == [200, 408]


@jumping
async def test_an_idle_connection_is_closed_without_a_word():
    async with Server(hello, "127.0.0.1:0", timeouts=Timeouts(idle=60)) as server, Client(server) as client:
        client.send(GET)
        await client.until(b"hello")
        await jump(59)
        client.send(GET)
        await client.until(b"hello")
        await jump(60.1)
        assert [one.status for one in answers(await client.all())] == [200, 200]


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 10\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"]
)
@jumping
async def test_a_body_that_stops_is_answered_with_408(framing: bytes):
    async with Backend() as backend, proxy(backend, timeouts=Timeouts(body=5)) as server, Client(server) as client:
        client.send(POST + framing)
        await backend.until(lambda: backend.requests and backend.requests[0].body == b"abc")
        await jump(5.1)
        assert [one.status for one in answers(await client.all(), "POST")] == [408]
        await backend.until(lambda: backend.connections[0].lost.is_set())
        assert not backend.requests[0].complete


@jumping
async def test_a_body_that_drips_below_the_least_rate_is_answered_with_408():
    async with (
        Backend() as backend,
        proxy(backend, timeouts=Timeouts(body=5, min_rate=500)) as server,
        Client(server) as client,
    ):
        client.send(POST + b"Content-Length: 1000\r\n\r\nabc")
        await backend.until(lambda: backend.requests and backend.requests[0].body == b"abc")
        for _ in range(3):
            await jump(2)
            if not client.writer.transport.is_closing():
                client.send(b"x")
            await asyncio.sleep(0.005)
        assert [one.status for one in answers(await client.all(), "POST")] == [408]


@jumping
async def test_a_body_above_the_least_rate_may_take_its_time():
    async with (
        Backend() as backend,
        proxy(backend, timeouts=Timeouts(body=5, min_rate=500)) as server,
        Client(server) as client,
    ):
        client.send(POST + b"Content-Length: 20003\r\n\r\nabc")
        await backend.until(lambda: backend.requests and backend.requests[0].body == b"abc")
        for number in range(10):
            await jump(1.5)
            client.send(b"x" * 2000)
            await backend.until(lambda number=number: len(backend.requests[0].body) == 3 + 2000 * (number + 1))
        client.send(LAST)
        assert [one.status for one in answers(await client.all(), "POST")] == [200, 200]


@jumping
async def test_the_time_in_which_we_do_not_read_does_not_count_against_the_client():
    go = asyncio.Event()

    async def late(request: Request) -> Response:
        await go.wait()
        return Response(200, [], b"%d" % len(await request.read()))

    async with Server(late, "127.0.0.1:0", timeouts=Timeouts(body=5)) as server, Client(server) as client:
        client.send(POST + b"Content-Length: 8000000\r\nConnection: close\r\n\r\n" + b"x" * 8_000_000)
        await settled(server, 1)
        await asyncio.sleep(0.05)
        await jump(100)
        go.set()
        assert [one.body for one in answers(await client.all(), "POST")] == [b"8000000"]


@jumping
async def test_a_client_that_takes_nothing_is_cut_and_one_that_takes_a_little_is_not():
    async def big(request: Request) -> Response:
        return Response(200, [], b"x" * 20_000_000)

    async with Server(big, "127.0.0.1:0", timeouts=Timeouts(send=5)) as server, Client(server) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(GET)
        await settled(server, 1)
        await asyncio.sleep(0.05)
        for _ in range(4):
            await jump(3)
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            await client.exactly(2_000_000)
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(0.02)
        assert len(server.service.connections) == 1  # type: ignore[union-attr]
        await jump(5.1)
        await jump(5.1)
        await settled(server, 0)


@jumping
async def test_a_half_closed_client_gets_its_answer_within_a_bound():
    async with (
        Backend(b"") as backend,
        proxy(backend, timeouts=Timeouts(half_close=1)) as server,
        Client(server) as client,
    ):
        client.send(GET)
        client.end()
        await backend.until_seen()
        backend.connections[0].transport.write(OK)
        assert [one.body for one in answers(await client.all())] == [b"ok"]
    async with (
        Backend(b"") as backend,
        proxy(backend, timeouts=Timeouts(half_close=1)) as server,
        Client(server) as client,
    ):
        client.send(GET)
        client.end()
        await backend.until_seen()
        await asyncio.sleep(0.01)
        await jump(1.1)
        assert await client.all() == b""
        await backend.until(lambda: backend.connections[0].lost.is_set())


@jumping
async def test_a_half_closed_client_keeps_a_response_that_moves_and_loses_one_that_stands_still():
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    async with (
        Backend(b"") as backend,
        proxy(backend, timeouts=Timeouts(half_close=1)) as server,
        Client(server) as client,
    ):
        client.send(GET)
        await backend.until_seen()
        backend.connections[0].transport.write(start)
        await client.until(b"\r\n\r\n")
        client.end()
        await asyncio.sleep(0.01)
        for _ in range(4):
            backend.connections[0].transport.write(b"x")
            await asyncio.sleep(0.01)
            await jump(0.8)
        assert not backend.connections[0].lost.is_set()
        await jump(1.1)
        await jump(1.1)
        await backend.until(lambda: backend.connections[0].lost.is_set())


# -- limits and drains


async def test_connections_over_the_limit_are_told_so():
    async with Server(hello, "127.0.0.1:0", max_connections=2) as server, Client(server) as one, Client(server) as two:
        for client in (one, two):
            client.send(GET)
            await client.until(b"hello")
        got = await talk(server, b"")
        assert (got[0].status, got[0].headers["retry-after"], got[0].headers["connection"]) == (503, "1", "close")
        one.send(GET)
        await one.until(b"hello")
        await two.__aexit__()
        await settled(server, 1)
        assert [answer.status for answer in await talk(server, LAST)] == [200]


async def test_a_drain_lets_requests_finish_and_says_close():
    go = asyncio.Event()

    async def slow(request: Request) -> Response:
        await go.wait()
        return Response(200, [], b"done")

    async with Server(slow, "127.0.0.1:0") as server, Client(server) as busy, Client(server) as idle:
        busy.send(GET)
        while server.service.requests == 0:  # type: ignore[union-attr]
            await asyncio.sleep(0)
        await settled(server, 2)
        draining = asyncio.create_task(server.drain(10))
        assert await idle.all() == b""
        with pytest.raises(OSError):
            await Client(server).__aenter__()
        assert not draining.done()
        go.set()
        got = answers(await busy.all())
        assert (got[0].body, got[0].headers["connection"]) == (b"done", "close")
        assert await draining is True


async def test_a_drain_that_takes_too_long_cuts_and_says_so():
    cancelled = asyncio.Event()

    async def forever(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return Response()

    async with Server(forever, "127.0.0.1:0") as server, Client(server) as client:
        client.send(GET)
        while server.service.requests == 0:  # type: ignore[union-attr]
            await asyncio.sleep(0)
        assert await server.drain(0.01) is False
        await asyncio.wait_for(cancelled.wait(), WAIT)
        await client.all()


async def test_several_listeners_are_one_server(tmp_path: Path):
    async with Server(hello, "127.0.0.1:0", "127.0.0.1:0", f"unix:{tmp_path}/s.sock") as server:
        assert len(set(server.addresses)) == 3
        for address in server.addresses:
            async with Client(address) as client:
                client.send(LAST)
                assert [one.body for one in answers(await client.all())] == [b"hello"]


async def test_what_a_handler_may_not_return_is_a_500_and_not_a_hang():
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    wrong = [
        None,
        "text",
        b"bytes",
        200,
        Response(100),
        Response(101),
        Response(200, [], "text"),
        Response(200, [], None),
        Response(200, [], 5),
        Response(200, [], ["x"]),
        Response(99),
    ]
    for value in wrong:
        for driven in (True, False):

            async def handler(request: Request, value: object = value) -> Response:
                return value  # type: ignore[return-value]

            handler.direct = driven  # type: ignore[attr-defined]
            async with Server(handler, "127.0.0.1:0") as server:
                assert [one.status for one in await talk(server, LAST)] == [500], value
    assert len(reported) == 2 * len(wrong)


async def test_a_handler_that_raises_is_a_500_and_the_connection_goes_on():
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))

    @direct
    async def broken(request: Request) -> Response:
        if request.path == "/last":
            return Response()
        raise KeyError("secret")

    async with Server(broken, "127.0.0.1:0") as server:
        got = await talk(server, GET + LAST)
        assert [one.status for one in got] == [500, 200]
        assert b"secret" not in got[0].body
    assert len(reported) == 1


@pytest.mark.parametrize(("length", "chunks"), [(10, [b"hello"]), (3, [b"hello"]), (3, [b"he", b"llo"])])
async def test_a_stream_that_is_not_as_long_as_it_said_is_never_whole(length: int, chunks: list[bytes]):
    async def handler(request: Request) -> Response:
        async def parts():
            for chunk in chunks:
                yield chunk
                await asyncio.sleep(0)

        return Response(200, [], Stream.of(parts(), length))

    async with Server(handler, "127.0.0.1:0") as server:
        got = await talk(server, GET + LAST)
        assert len(got) == 1
        assert not got[0].whole


@pytest.mark.parametrize(("status", "method"), [(204, "GET"), (304, "GET"), (200, "HEAD"), (404, "HEAD")])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_response_that_has_no_body_gets_none(status: int, method: str, streamed: bool):
    async def handler(request: Request) -> Response:
        async def parts():
            yield b"never"

        return Response(status if request.path == "/" else 200, [], Stream.of(parts(), 5) if streamed else b"never")

    async with Server(handler, "127.0.0.1:0") as server:
        got = await talk(server, method.encode() + GET[3:] + LAST, method)
        assert [(one.status, one.body) for one in got] == [(status, b""), (200, b"never")]
        assert got[0].headers.get("content-length") == (
            "5" if method == "HEAD" or (status == 304 and streamed) else None
        )


async def test_http_1_0_clients():
    async def parts():
        yield b"abc"

    async def handler(request: Request) -> Response:
        return Response(200, [], Stream.of(parts()) if request.path == "/s" else b"x")

    async with Server(handler, "127.0.0.1:0") as server:
        got = await talk(server, b"GET / HTTP/1.0\r\n\r\n")
        assert (got[0].headers["connection"], got[0].body) == ("close", b"x")
        got = await talk(server, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2 + b"GET / HTTP/1.0\r\n\r\n")
        assert [one.headers["connection"] for one in got] == ["keep-alive", "keep-alive", "close"]
        got = await talk(server, b"GET /s HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (got[0].body, got[0].headers.get("transfer-encoding"), got[0].headers["connection"]) == (
            b"abc",
            None,
            "close",
        )


# -- tunnels

UPGRADE = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n\r\n"
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n"
)


async def test_an_upgrade_becomes_a_tunnel_for_bytes_both_ways():
    async with Backend(SWITCH + b"early") as backend, proxy(backend) as server, Client(server) as client:
        client.send(UPGRADE + b"first")
        head = await client.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-Websocket-Accept: x\r\n" in head
        assert await client.exactly(5) == b"early"
        await backend.until(lambda: backend.connections[0].raw.endswith(b"first"))
        assert b"Upgrade: websocket\r\n" in backend.connections[0].raw
        client.send(b"\x00\xff" * 10)
        await backend.until(lambda: backend.connections[0].raw.endswith(b"\x00\xff" * 10))
        backend.connections[0].transport.write(b"GET / HTTP/1.1\r\n\r\n")
        await client.until(b"GET / HTTP/1.1\r\n\r\n")
        backend.connections[0].transport.close()
        assert client.raw == await client.all()


async def test_a_tunnel_closes_from_the_clients_side_too():
    async with Backend(SWITCH) as backend, proxy(backend) as server:
        async with Client(server) as client:
            client.send(UPGRADE)
            await client.until(b"\r\n\r\n")
        await backend.until(lambda: backend.connections[0].lost.is_set())
        await settled(server, 0)


@jumping
async def test_a_tunnel_lives_while_either_side_speaks():
    async with (
        Backend(SWITCH) as backend,
        proxy(backend, timeouts=Timeouts(tunnel=100)) as server,
        Client(server) as client,
    ):
        client.send(UPGRADE)
        await client.until(b"\r\n\r\n")
        for _ in range(4):
            await jump(80)
            backend.connections[0].transport.write(b"tick")
            await client.until(b"tick")
        for number in range(4):
            await jump(80)
            client.send(b"tock")
            await backend.until(lambda number=number: backend.connections[0].raw.endswith(b"tock" * (number + 1)))
        await jump(100.1)
        await client.all()
        await backend.until(lambda: backend.connections[0].lost.is_set())


async def test_a_tunnel_pauses_whoever_is_too_fast():
    async with Backend(SWITCH) as backend, proxy(backend) as server, Client(server) as client:
        client.send(UPGRADE)
        await client.until(b"\r\n\r\n")
        size = 40_000_000
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        transport = backend.connections[0].transport
        transport.write(b"x" * size)
        before = -1
        while before != transport.get_write_buffer_size():
            before = transport.get_write_buffer_size()
            await asyncio.sleep(0.05)
        assert before > 10_000_000
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await client.exactly(size)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("no upgrade", OK),
        ("another protocol", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
        ("no Upgrade field", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        ("not listed", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
    ],
)
async def test_an_upgrade_that_did_not_happen_opens_no_tunnel(name: str, answer: bytes):
    async with Backend(lambda seen, count: answer if seen.target == "/ws" else OK) as backend, proxy(backend) as server:
        got = await talk(server, UPGRADE + LAST)
        assert [one.status for one in got] == [200 if name == "no upgrade" else 502, 200]


async def test_websockets_through_a_proxy():
    async def echo(connection: websockets.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0) as origin:
        port = origin.sockets[0].getsockname()[1]
        async with Upstream(f"http://127.0.0.1:{port}") as upstream, Server(upstream, "127.0.0.1:0") as server:
            async with websockets.connect(f"ws://{server.addresses[0]}/chat", max_size=None, proxy=None) as client:
                for message in ("hello", b"\x00" * 70_000, "", "é" * 5000):
                    await client.send(message)
                    assert await asyncio.wait_for(client.recv(), WAIT) == message
                await asyncio.wait_for(await client.ping(), WAIT)


# -- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def test_tls_on_both_sides(authority: trustme.CA):
    ours, theirs = contexts(authority)
    big = b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 2_000_000
    async with (
        Backend(big, tls=ours) as backend,
        Upstream(backend.url, tls=theirs) as upstream,
        Server(upstream, "127.0.0.1:0", tls=ours) as server,
    ):
        assert server.url.startswith("https://")
        async with Client(server, theirs) as client:
            client.send(POST + b"Content-Length: 500000\r\n\r\n" + b"y" * 500_000 + LAST)
            got = answers(await client.all(), "POST")
            assert [(one.status, len(one.body), one.whole) for one in got] == [(200, 2_000_000, True)] * 2
        assert len(backend.requests[0].body) == 500_000
        assert len(backend.connections) == 1


async def test_an_upstream_whose_certificate_nobody_signed_is_a_502_and_safe_to_repeat(authority: trustme.CA):
    ours, _ = contexts(authority)
    async with (
        Backend(tls=ours) as backend,
        Upstream(backend.url) as upstream,
        Server(upstream, "127.0.0.1:0") as server,
    ):
        got = await talk(server, LAST)
        assert (got[0].status, b"tls-failed" in got[0].body) == (502, True)
        assert backend.requests == []


async def test_plain_http_to_a_tls_port_and_the_other_way_round_end(authority: trustme.CA):
    ours, theirs = contexts(authority)
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    async with Server(hello, "127.0.0.1:0", tls=ours) as server:
        async with Client(server) as client:
            client.send(GET)
            await client.all()
        async with Client(server, theirs) as client:
            client.send(LAST)
            assert [one.status for one in answers(await client.all())] == [200]
    async with Server(hello, "127.0.0.1:0") as server:
        with pytest.raises(ssl.SSLError):
            await Client(server, theirs).__aenter__()
        assert [one.status for one in await talk(server, LAST)] == [200]
