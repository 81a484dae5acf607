"""Bodies on their way: streaming both ways, limits, back-pressure, 100-continue, trailers, early answers, who leaves when."""

from __future__ import annotations

import asyncio

import pytest

from blocks.core.errors import ClientFault
from blocks.http import Request, Response, Server, Stream, Upstream
from blocks.http.h1 import Limits
from blocks.http.timeouts import Timeouts
from integration.wire import LAST, OK, WAIT, Backend, Client, Close, Reset, answers, proxy, talk

POST = b"POST /p HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


async def echo(request: Request) -> Response:
    return Response(200, [], await request.read())


async def test_a_body_is_streamed_before_it_is_complete():
    async with Backend() as backend, proxy(backend) as server, Client(server) as client:
        client.send(POST + b"Content-Length: 6\r\n\r\nabc")
        await backend.until(lambda: backend.requests and backend.requests[0].body == b"abc")
        assert not backend.requests[0].complete
        client.send(b"def" + LAST)
        assert [one.status for one in answers(await client.all(), "POST")] == [200, 200]
        assert backend.requests[0].body == b"abcdef"
        assert backend.requests[0].get("content-length") == "6"


async def test_chunks_are_streamed_and_trailers_follow_both_ways():
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 2\r\nHost-Of: b\r\n\r\n"
    async with Backend(answer) as backend, proxy(backend) as server, Client(server) as client:
        client.send(POST + CHUNKED + b"3\r\nabc\r\n")
        await backend.until(lambda: backend.requests and backend.requests[0].body == b"abc")
        client.send(b"3\r\ndef\r\n0\r\nX-Checksum: 6\r\nAuthorization: no\r\n\r\n" + LAST)
        got = answers(await client.all(), "POST")
        assert [one.status for one in got] == [200, 200]
        assert got[0].trailers == {"x-sum": "2", "host-of": "b"}
        assert backend.requests[0].trailers == [("x-checksum", "6")]


@pytest.mark.parametrize("sent", [1000, 20_000_000])
async def test_an_early_answer_reaches_a_client_that_is_still_sending(sent: int):
    """A 413 while the upload runs: the answer must arrive, whole, and the upload must stop (RFC 9112 §9.5)."""
    refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig"
    async with (
        Backend(at_head=refusal) as backend,
        proxy(backend, timeouts=Timeouts(linger=0.1)) as server,
        Client(server) as client,
    ):
        client.send(POST + b"Content-Length: 100000000\r\n\r\n" + b"x" * sent)
        got = answers(await client.all(), "POST")
        assert [(one.status, one.body, one.whole) for one in got] == [(413, b"big", True)]
        assert got[0].headers["connection"] == "close"
        assert not client.reset
        await backend.until(lambda: backend.connections[0].lost.is_set())


async def test_an_early_answer_with_little_left_keeps_the_connection():
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    backend = Backend(lambda seen, count: OK)
    async with backend, proxy(backend) as server, Client(server) as client:
        backend.at_head = refusal
        client.send(POST + b"Content-Length: 10\r\n\r\nabc")
        await client.until(b"\r\n\r\nno")
        backend.at_head = None
        client.send(b"defghij" + LAST)
        assert [one.status for one in answers(await client.all(), "POST")] == [403, 200]


async def test_an_early_answer_whose_body_streams_on_while_the_upload_runs():
    backend = Backend(b"0\r\n\r\n", at_head=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
    async with backend, proxy(backend) as server, Client(server) as client:
        client.send(POST + CHUNKED + b"3\r\nabc\r\n")
        await client.until(b"ok\r\n")
        client.send(b"3\r\ndef\r\n0\r\n\r\n")
        await client.until(b"0\r\n\r\n")
        assert backend.requests[0].body == b"abcdef"


async def test_a_handler_that_gives_a_body_up_goes_on_with_its_work():
    """``read(limit)`` beyond the limit must not cancel whoever reads: it has an answer to give."""

    async def small(request: Request) -> Response:
        try:
            await request.read(10)
        except ClientFault:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return Response(413, [], b"over ten")
        return Response(200)

    async with Server(small, "127.0.0.1:0") as server:
        for framing in (b"Content-Length: 1000000\r\n\r\n", CHUNKED + b"100\r\n"):
            got = await talk(server, POST + framing + b"x" * 100, "POST")
            assert [(one.status, one.body) for one in got] == [(413, b"over ten")]


@pytest.mark.parametrize("framing", ["length", "chunked", "one-byte chunks"])
@pytest.mark.parametrize(("size", "status"), [(99, 200), (100, 200), (101, 413)])
@pytest.mark.parametrize("split", [False, True])
async def test_the_body_limit_counts_the_body_and_nothing_else(framing: str, size: int, status: int, split: bool):
    body = b"x" * size
    if framing == "length":
        data = POST + b"Content-Length: %d\r\n\r\n" % size + body
    elif framing == "chunked":
        data = POST + CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
    else:
        data = POST + CHUNKED + b"1\r\nx\r\n" * size + b"0\r\n\r\n"
    async with Server(echo, "127.0.0.1:0", limits=Limits(body=100)) as server, Client(server) as client:
        if split:
            at = data.index(b"\r\n\r\n") + 9
            client.send(data[:at])
            while not server.service.connections or next(iter(server.service.connections)).request is None:  # type: ignore[union-attr]
                await asyncio.sleep(0)
                if framing == "length" and status == 413:
                    break
            data = data[at:]
        client.send(data + b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 200 + b"\r\nConnection: close\r\n\r\n")
        got = answers(await client.all(), "POST")
        assert [one.status for one in got] == ([200, 200] if status == 200 else [413])
        if status == 200:
            assert got[0].body == body


async def test_a_body_over_the_limit_never_reaches_a_backend_whole():
    async with Backend() as backend, proxy(backend, limits=Limits(body=10)) as server:
        got = await talk(server, POST + CHUNKED + b"b\r\nhello world\r\n0\r\n\r\n" + LAST, "POST")
        assert [one.status for one in got] == [413]
        assert not any(seen.complete for seen in backend.requests)


async def test_100_continue_goes_end_to_end():
    backend = Backend(at_head=b"HTTP/1.1 100 Continue\r\n\r\n")
    async with backend, proxy(backend) as server, Client(server) as client:
        client.send(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n")
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hello")
        got = answers(await client.all(), "POST")
        assert [one.status for one in got] == [100, 200]
        assert backend.requests[0].body == b"hello"
        assert backend.requests[0].get("expect") == "100-continue"


async def test_a_refusal_instead_of_100_continue_ends_without_the_body():
    backend = Backend(at_head=b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
    async with backend, proxy(backend) as server:
        got = await talk(server, POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n", "POST")
        assert [(one.status, one.body) for one in got] == [(401, b"no")]
        assert backend.requests[0].body == b""


async def test_a_body_that_came_with_its_expectation_is_not_waited_for():
    async with Backend() as backend, proxy(backend) as server:
        got = await talk(server, POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello" + LAST, "POST")
        assert [one.status for one in got] == [200, 200]


async def test_an_upload_cut_short_is_never_whole_to_the_backend():
    async with Backend() as backend, proxy(backend) as server:
        for framing in (b"Content-Length: 10\r\n\r\nabc", CHUNKED + b"3\r\nabc\r\n"):
            before = len(backend.connections)
            async with Client(server) as client:
                client.send(POST + framing)
                await backend.until(
                    lambda before=before: len(backend.connections) > before and backend.requests[-1].body == b"abc"
                )
            await backend.until(lambda: backend.connections[-1].lost.is_set())
            assert not backend.requests[-1].complete


async def test_a_malformed_chunk_in_the_middle_is_never_whole_to_the_backend():
    async with Backend() as backend, proxy(backend) as server, Client(server) as client:
        client.send(POST + CHUNKED + b"3\r\nabc\r\n")
        await backend.until(lambda: backend.requests and backend.requests[0].body == b"abc")
        client.send(b"-1\r\n" + LAST)
        assert [one.status for one in answers(await client.all(), "POST")] == [400]
        await backend.until(lambda: backend.connections[0].lost.is_set())
        assert not backend.requests[0].complete


CUT = [
    ("a length", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", Close),
    ("a length, reset", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", Reset),
    ("chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", Close),
    ("chunks, reset", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", Reset),
    ("a bad chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"zz\r\n"),
    ("until close, reset", b"HTTP/1.1 200 OK\r\n\r\nhello", Reset),
]


@pytest.mark.parametrize(("name", "first", "then"), CUT, ids=[row[0] for row in CUT])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_an_answer_cut_short_is_seen_to_be(name: str, first: bytes, then: object, version: bytes):
    async with Backend(first) as backend, proxy(backend) as server, Client(server) as client:
        client.send(b"GET / HTTP/" + version + b"\r\nHost: a\r\n\r\n")
        await client.until(b"hello")
        backend.connections[0].steps([then])  # type: ignore[list-item]
        got = answers(await client.all(), closed=not client.reset)
        assert client.reset or not got[0].whole


async def test_an_answer_that_ends_with_its_connection_is_whole():
    async with Backend([b"HTTP/1.1 200 OK\r\n\r\nhello", Close]) as backend, proxy(backend) as server:
        got = await talk(server, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        assert [(one.status, one.body, one.whole) for one in got] == [(200, b"hello", True)]
        got = await talk(server, LAST)
        assert [(one.status, one.body, one.whole) for one in got] == [(200, b"hello", True)]
        assert got[0].headers["transfer-encoding"] == "chunked"


async def test_a_client_that_does_not_read_holds_a_bounded_part_of_an_answer():
    """The backend is paused: what is in flight is the kernel's buffers and ours, not the answer."""
    size = 64 * 1024 * 1024
    sent = 0

    async def endless(request: Request) -> Response:
        async def chunks():
            nonlocal sent
            while sent < size:
                sent += 65536
                yield b"x" * 65536

        return Response(200, [], Stream.of(chunks(), size))

    async with (
        Server(endless, "127.0.0.1:0") as origin,
        Upstream(origin.url) as upstream,
        Server(upstream, "127.0.0.1:0") as server,
        Client(server) as client,
    ):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        before = -1
        async with asyncio.timeout(WAIT):
            while sent == 0 or sent != before:
                before = sent
                await asyncio.sleep(0.05)
        assert sent < 24 * 1024 * 1024
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await client.until(b"\r\n\r\n")
        left = size
        while left:
            left -= len(await asyncio.wait_for(client.reader.read(1 << 20), WAIT))
        assert sent == size


class Sink(asyncio.Protocol):
    """A backend that takes what it is sent when it is told to, and answers at the end."""

    def __init__(self) -> None:
        self.taken = 0
        self.made = asyncio.Event()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        asyncio.get_running_loop().call_soon(transport.pause_reading)  # type: ignore[attr-defined]  # in here uvloop forgets it
        self.made.set()

    def data_received(self, data: bytes) -> None:
        self.taken += len(data)
        if data.endswith(b"the end"):
            self.transport.write(OK)  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


async def test_a_backend_that_does_not_read_holds_a_bounded_part_of_an_upload():
    size = 48 * 1024 * 1024
    sink = Sink()
    listener = await asyncio.get_running_loop().create_server(lambda: sink, "127.0.0.1", 0)
    async with (
        Upstream(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}") as upstream,
        Server(upstream, "127.0.0.1:0") as server,
        Client(server) as client,
    ):
        client.send(POST + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % size)
        await asyncio.wait_for(sink.made.wait(), WAIT)
        transport = client.writer.transport
        client.send(b"x" * (size - 7) + b"the end")
        before = -1
        while before != transport.get_write_buffer_size():
            before = transport.get_write_buffer_size()
            await asyncio.sleep(0.05)
        assert before > 16 * 1024 * 1024
        sink.transport.resume_reading()  # type: ignore[attr-defined]
        assert [one.status for one in answers(await client.all(), "POST")] == [200]
        assert sink.taken > size
    listener.close()
    await sink.lost.wait()


@pytest.mark.parametrize("driven", [False, True])
async def test_a_client_that_pipelines_and_never_reads_is_bounded(driven: bool):
    """Its answers fill the buffer, then we stop reading its requests; ten thousand more do not wait in our memory."""

    async def big(request: Request) -> Response:
        return Response(200, [], b"x" * 100_000)

    big.direct = driven  # type: ignore[attr-defined]
    async with Server(big, "127.0.0.1:0") as server, Client(server) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        request = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1000 + b"\r\n\r\n"
        for _ in range(200):
            client.send(request * 100)
            await asyncio.sleep(0)
        connection = next(iter(server.service.connections))  # type: ignore[union-attr]
        left = -1
        while left != (left := client.writer.transport.get_write_buffer_size()):
            await asyncio.sleep(0.05)
        assert connection.blocked
        assert connection.reader.buffered < 1024 * 1024


async def test_pipelined_requests_are_answered_in_order_though_later_ones_are_quicker():
    first = asyncio.Event()

    async def handler(request: Request) -> Response:
        if request.path == "/slow":
            await first.wait()
        return Response(200, [], request.path.encode())

    async with Server(handler, "127.0.0.1:0") as server, Client(server) as client:
        client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\nGET /quick HTTP/1.1\r\nHost: a\r\n\r\n" + LAST)
        await asyncio.sleep(0.01)
        first.set()
        assert [one.body for one in answers(await client.all())] == [b"/slow", b"/quick", b"/last"]


@pytest.mark.parametrize("driven", [False, True])
async def test_a_half_close_behind_many_pipelined_requests_still_gets_every_answer(driven: bool):
    async def big(request: Request) -> Response:
        return Response(200, [], b"x" * 100_000)

    big.direct = driven  # type: ignore[attr-defined]
    async with Server(big, "127.0.0.1:0") as server, Client(server) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
        client.end()
        await asyncio.sleep(0.05)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(answers(await client.all())) == 200


async def test_a_half_close_in_the_middle_of_a_pipelined_body_ends_the_connection():
    """The end came while the request before it was answered: nobody waits for the rest."""
    async with Backend(b"") as backend, proxy(backend) as server, Client(server) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + POST + b"Content-Length: 30\r\n\r\nabc")
        client.end()
        await backend.until_seen()
        await asyncio.sleep(0.02)
        backend.connections[0].transport.write(OK)
        assert [one.status for one in answers(await client.all())] == [200]
        assert len(backend.requests) == 1
