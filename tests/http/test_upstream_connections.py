"""An upstream's connections: kept, replaced, given up, and what a failure says about sending the request again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from blocks.core.errors import Again, Failure, UpstreamFault, UpstreamTimeout
from blocks.http import Request, Response, Server, Stream, Upstream
from blocks.http.handler import direct
from blocks.http.timeouts import Timeouts
from integration.wire import LAST, OK, WAIT, Backend, Client, Close, Reset, answers, jump, jumping, proxy, talk

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def ask(method: str = "GET", body: bytes | Stream = b"", **more: object) -> Request:
    return Request(method, "/", {"host": "a"}, body, **more)  # type: ignore[arg-type]


async def test_a_connection_is_used_again_and_the_last_used_first():
    async with Backend() as backend, Upstream(backend.url) as upstream:
        for _ in range(5):
            assert await (await upstream(ask())).read() == b"ok"
        assert len(backend.connections) == 1
        await asyncio.gather(*[upstream(ask()) for _ in range(3)])
        assert len(backend.connections) == upstream.pool.idle == 3
        used = [connection.raw.count(b"GET") for connection in backend.connections]
        for _ in range(4):
            await upstream(ask())
        assert sorted(
            after.raw.count(b"GET") - before for after, before in zip(backend.connections, used, strict=True)
        ) == [0, 0, 4]


@pytest.mark.parametrize("step", [Close, Reset])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_backend_that_accepts_and_closes_at_once_is_a_fault_and_not_a_hang(
    step: type[Close] | type[Reset], method: str
):
    async with Backend(on_connect=[step]) as backend, Upstream(backend.url) as upstream:
        for _ in range(5):
            with pytest.raises(UpstreamFault):
                await asyncio.wait_for(upstream(ask(method, b"x" if method == "POST" else b"")), WAIT)
        assert upstream.pool.open == 0


async def test_an_idempotent_request_on_a_connection_that_was_closed_meanwhile_goes_again():
    """The backend closes as the second request comes: no byte of an answer, so GET is repeated and POST is not."""

    for method, repeated in (("GET", True), ("PUT", True), ("DELETE", True), ("POST", False), ("PATCH", False)):
        backend = Backend(OK)
        async with backend, Upstream(backend.url) as upstream:
            await (await upstream(ask(method, b"x"))).read()
            backend.answer = lambda seen, count: [Close] if count == 2 else OK
            if repeated:
                assert await (await upstream(ask(method, b"x"))).read() == b"ok"
                assert len(backend.requests) == 3
            else:
                with pytest.raises(UpstreamFault) as caught:
                    await upstream(ask(method, b"x"))
                assert caught.value.again is Again.REUSED
                assert len(backend.requests) == 2


async def test_a_first_request_is_never_repeated_by_an_upstream():
    async with Backend([Close]) as backend, Upstream(backend.url) as upstream:
        with pytest.raises(UpstreamFault) as caught:
            await upstream(ask())
        assert caught.value.again is Again.NEVER
        assert len(backend.requests) == 1


@pytest.mark.parametrize(
    "partial", [b"HTTP/1.1 200 OK\r\n", b"H", b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
async def test_a_reused_connection_that_closed_after_a_byte_of_an_answer_is_not_repeated(partial: bytes):
    async with Backend() as backend, Upstream(backend.url) as upstream:
        await (await upstream(ask())).read()
        backend.answer = [partial, Close]
        with pytest.raises(UpstreamFault) as caught:
            await upstream(ask())
        assert caught.value.again is Again.NEVER
        assert len(backend.requests) == 2


async def test_a_body_that_was_read_from_a_stream_is_not_sent_again():
    async with Backend() as backend, Upstream(backend.url) as upstream:
        await (await upstream(ask())).read()
        backend.answer = lambda seen, count: [Close] if count == 2 else OK

        async def chunks():
            yield b"abc"

        with pytest.raises(UpstreamFault):
            await upstream(ask("PUT", Stream.of(chunks())))
        assert len(backend.requests) == 2


@jumping
async def test_idle_connections_that_were_closed_leave_nothing_in_the_pool():
    async with Backend() as backend, Upstream(backend.url, idle=5) as upstream:
        await asyncio.gather(*[upstream(ask()) for _ in range(4)])
        assert upstream.pool.idle == 4
        await jump(6)
        await backend.until(lambda: all(connection.lost.is_set() for connection in backend.connections))
        assert upstream.pool.idle == upstream.pool.open == 0
        await upstream(ask())
        assert upstream.pool.idle == 1


async def test_connections_that_the_backend_closed_leave_the_pool():
    async with Backend() as backend, Upstream(backend.url) as upstream:
        await asyncio.gather(*[upstream(ask()) for _ in range(3)])
        for connection in backend.connections:
            connection.transport.close()
        async with asyncio.timeout(WAIT):
            while upstream.pool.open:
                await asyncio.sleep(0)
        assert upstream.pool.idle == 0


async def test_uses_and_keep_bound_a_pool():
    async with Backend() as backend, Upstream(backend.url, uses=3) as upstream:
        for _ in range(7):
            await upstream(ask())
        assert len(backend.connections) == 3
    async with Backend() as backend, Upstream(backend.url, keep=2) as upstream:
        await asyncio.gather(*[upstream(ask()) for _ in range(5)])
        assert upstream.pool.idle == 2


@jumping
async def test_an_old_connection_is_not_kept():
    async with Backend() as backend, Upstream(backend.url, age=10, idle=1000) as upstream:
        await upstream(ask())
        await jump(11)
        await upstream(ask())
        await backend.until(lambda: backend.connections[0].lost.is_set())
        assert upstream.pool.idle == 0


@jumping
async def test_a_connection_that_nobody_came_for_is_closed_in_the_end():
    """Whoever wanted it was cancelled in the very moment it stood."""
    async with Backend() as backend, Upstream(backend.url, idle=5) as upstream:
        for turns in range(12):
            task = asyncio.create_task(upstream(ask()))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for _ in range(100):
            await jump(6)
            if not upstream.pool.open:
                break
        assert upstream.pool.open == 0


async def test_a_pool_that_closes_while_connecting_ends_what_is_under_way():
    async with Backend() as backend:
        for turns in range(6):
            upstream = Upstream(backend.url)
            pool = upstream.pool
            task = asyncio.create_task(upstream(ask()))
            for _ in range(turns):
                await asyncio.sleep(0)
            await upstream.close()
            await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), WAIT)
            assert task.exception() is None or isinstance(task.exception(), Failure)
            await upstream.close()
            async with asyncio.timeout(WAIT):
                while pool.open:
                    await asyncio.sleep(0)


# -- timeouts


@jumping
async def test_a_silent_upstream_is_given_up_after_its_timeout():
    async with Backend(b"") as backend, Upstream(backend.url, timeout=5) as upstream:
        task = asyncio.create_task(upstream(ask()))
        await backend.until_seen()
        await jump(4)
        assert not task.done()
        await jump(1.1)
        with pytest.raises(UpstreamTimeout) as caught:
            await task
        assert (caught.value.status, caught.value.again) == (504, Again.NEVER)
        await backend.until(lambda: backend.connections[0].lost.is_set())


@jumping
async def test_a_silence_in_the_middle_of_a_body_cuts_it():
    async with (
        Backend(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello") as backend,
        Upstream(backend.url, timeout=5) as upstream,
    ):
        response = await upstream(ask())
        await jump(6)
        with pytest.raises(UpstreamTimeout):
            await response.read()


@jumping
async def test_a_body_that_drips_within_the_timeout_is_read_to_its_end():
    async with (
        Backend(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n") as backend,
        Upstream(backend.url, timeout=5) as upstream,
    ):
        response = await upstream(ask())
        reading = asyncio.create_task(response.read())
        for _ in range(10):
            backend.connections[0].transport.write(b"x")
            await jump(4)
        assert await reading == b"x" * 10


@jumping
async def test_the_deadline_of_a_request_ends_it_whatever_the_upstream_does():
    loop = asyncio.get_running_loop()
    async with Backend(b"") as backend, Upstream(backend.url, timeout=60) as upstream:
        task = asyncio.create_task(upstream(ask(deadline=loop.time() + 3)))
        await backend.until_seen()
        await jump(3.1)
        with pytest.raises(UpstreamTimeout) as caught:
            await task
        assert caught.value.reason == "deadline"


@jumping
async def test_a_client_that_uploads_slowly_is_not_the_upstreams_silence():
    """The timeout runs from the request's last byte, as it says; the client has its own."""
    async with (
        Backend() as backend,
        proxy(backend, upstream={"timeout": 5}, timeouts=Timeouts(body=60, min_rate=0)) as server,
        Client(server) as client,
    ):
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 6\r\n\r\nabc")
        await backend.until(lambda: backend.requests and backend.requests[0].body == b"abc")
        await jump(20)
        client.send(b"def")
        assert [one.status for one in answers(await client.all(), "POST")] == [200]


@jumping
async def test_the_timeout_runs_once_an_upload_is_complete():
    async with (
        Backend(b"") as backend,
        proxy(backend, upstream={"timeout": 5}, timeouts=Timeouts(body=60, min_rate=0)) as server,
        Client(server) as client,
    ):
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 6\r\n\r\nabc")
        await backend.until(lambda: backend.requests and backend.requests[0].body == b"abc")
        await jump(20)
        client.send(b"def")
        await backend.until(lambda: backend.requests[0].complete)
        await jump(5.1)
        assert [one.status for one in answers(await client.all(), "POST")] == [504]


@jumping
async def test_an_upstream_that_takes_no_more_of_an_upload_is_given_up():
    async with Backend() as backend, proxy(backend, upstream={"timeout": 5}) as server, Client(server) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 100000000\r\n\r\nabc")
        await backend.until_seen()
        backend.connections[0].transport.pause_reading()
        client.send(b"x" * 30_000_000)
        before = -1
        while before != client.writer.transport.get_write_buffer_size():  # type: ignore[attr-defined]
            before = client.writer.transport.get_write_buffer_size()  # type: ignore[attr-defined]
            await asyncio.sleep(0.05)
        await jump(5.1)
        assert [one.status for one in answers(await client.all(), "POST")] == [504]
        await jump(2)  # nobody waits longer for what the client still sends


@jumping
async def test_a_body_follows_an_expectation_that_nobody_answers():
    async with Backend() as backend, proxy(backend) as server, Client(server) as client:
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        )
        await backend.until_seen()
        await jump(1.1)
        await client.until(b"100 Continue\r\n\r\n")
        client.send(b"abc")
        assert [one.status for one in answers(await client.all(), "POST")] == [100, 200]


async def test_connecting_to_nobody_is_safe_to_repeat():
    backend = Backend()
    async with backend:
        url = backend.url
    async with Upstream(url) as upstream:
        with pytest.raises(UpstreamFault) as caught:
            await upstream(ask("POST", b"x"))
        assert (caught.value.again, caught.value.reason, caught.value.status) == (Again.UNSENT, "connect-refused", 502)
    async with Upstream("http://name.invalid:1") as upstream:
        with pytest.raises(UpstreamFault) as caught:
            await upstream(ask())
        assert (caught.value.again, caught.value.reason) == (Again.UNSENT, "name-not-resolved")
    async with Upstream("unix:/nowhere/at.all") as upstream:
        with pytest.raises(UpstreamFault) as caught:
            await upstream(ask())
        assert caught.value.again is Again.UNSENT


# -- who leaves


@pytest.mark.parametrize("driven", [True, False])
@pytest.mark.parametrize("polite", [True, False])
async def test_a_client_that_leaves_ends_the_upstreams_work(driven: bool, polite: bool):
    """Closing or half-closing looks the same; that is waited out for ``half_close``, a reset is not."""
    async with Backend(b"") as backend, Upstream(backend.url) as upstream:

        async def through(request: Request) -> Response:
            return await upstream(request)

        handler = direct(through) if driven else through
        async with Server(handler, "127.0.0.1:0", timeouts=Timeouts(half_close=0.01)) as server:
            async with Client(server) as client:
                client.send(GET)
                await backend.until_seen()
                if polite:
                    client.end()
                    await backend.until(lambda: backend.connections[0].lost.is_set())
            await backend.until(lambda: backend.connections[0].lost.is_set())
            assert upstream.pool.open == 0


async def test_a_client_that_leaves_in_the_middle_of_an_answer_ends_it():
    async with Backend(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello") as backend, proxy(backend) as server:
        async with Client(server) as client:
            client.send(GET)
            await client.until(b"hello")
        for data in (b"wor", b"l"):  # what is sent to a closed socket is answered with a reset
            if not backend.connections[0].transport.is_closing():
                backend.connections[0].transport.write(data)
            await asyncio.sleep(0.02)
        await backend.until(lambda: backend.connections[0].lost.is_set())


async def test_a_response_that_is_discarded_ends_its_connection():
    async with (
        Backend(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello") as backend,
        Upstream(backend.url) as upstream,
    ):
        (await upstream(ask())).discard()
        await backend.until(lambda: backend.connections[0].lost.is_set())
        assert upstream.pool.open == 0


async def test_a_call_that_is_cancelled_ends_its_connection():
    async with Backend(b"") as backend, Upstream(backend.url) as upstream:
        task = asyncio.create_task(upstream(ask()))
        await backend.until_seen()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await backend.until(lambda: backend.connections[0].lost.is_set())
        assert upstream.pool.open == 0


# -- addresses


async def test_both_sides_on_unix_sockets(tmp_path: Path):
    async with Backend(path=str(tmp_path / "backend.sock")) as backend, Upstream(backend.url) as upstream:
        async with Server(upstream, f"unix:{tmp_path}/front.sock", "127.0.0.1:0") as server:
            for address in server.addresses:
                async with Client(address) as client:
                    client.send(LAST)
                    assert [one.status for one in answers(await client.all())] == [200]
        assert not (tmp_path / "front.sock").exists()
    assert len(backend.requests) == 2


async def test_a_path_and_a_host_of_its_own():
    async with Backend() as backend, Upstream(f"{backend.url}/api/", host="internal:8080") as upstream:
        await upstream(Request("GET", "/x?y", {"host": "public"}))
        assert (backend.requests[0].target, backend.requests[0].get("host")) == ("/api/x?y", "internal:8080")
    async with Backend() as backend, Upstream(backend.url) as upstream:
        await upstream(Request("GET", "/x", {}))
        assert backend.requests[0].get("host") == f"127.0.0.1:{backend.port}"


async def test_max_forwards_counts_down_on_options():
    async with Backend() as backend, proxy(backend) as server:
        got = await talk(
            server,
            b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n"
            + b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n"
            + LAST,
            "OPTIONS",
            "OPTIONS",
        )
        assert [one.status for one in got] == [200, 200, 200]
        assert backend.requests[0].get("max-forwards") == "2"
