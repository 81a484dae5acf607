"""A balancer on real sockets, before backends that die, hang, cut and come back."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from blocks.balancer import Event, Health, LoadBalancer, Outlier, Retries
from blocks.core.status import Status
from blocks.http import Request, Response, Server, Upstream
from blocks.http import running as entered

pytestmark = pytest.mark.integration

BACKEND = """
import asyncio, sys
from blocks.http import Response, Server

async def answer(request):
    body = await request.read()
    print(request.method, request.target, flush=True)      # the journal
    await asyncio.sleep(0.002)
    return Response(200, {"x-backend": sys.argv[1]}, body or b"ok")

async def main():
    async with Server(answer, f"127.0.0.1:{sys.argv[1]}") as server:
        print("ready", server.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Backend:
    """A backend in a process of its own, with the journal of what reached it."""

    def __init__(self) -> None:
        self.port = 0
        self.journal: list[str] = []

    async def start(self) -> Backend:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", BACKEND, str(self.port), stdout=asyncio.subprocess.PIPE
        )
        assert self.process.stdout is not None
        ready = (await self.process.stdout.readline()).decode().split()
        assert ready[0] == "ready"
        self.url = ready[1]
        self.port = int(self.url.rpartition(":")[2])
        self._reader = asyncio.create_task(self._read(self.process.stdout))
        return self

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self.journal.append(line.decode().strip())

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reader


@asynccontextmanager
async def backends(many: int) -> AsyncIterator[list[Backend]]:
    started: list[Backend] = []
    try:
        while len(started) < many:
            started += [await Backend().start()]
        yield started
    finally:
        for backend in started:
            await backend.kill()


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, target: str, body: bytes
) -> int:
    """One request on a connection, by a client that shares no code with what is tested; the status."""
    head = f"{method} {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n")[1:] if line)
    await reader.readexactly(int(fields[b"content-length"]))
    return int(answer[9:12])


async def load(
    url: str, clients: int, stop: asyncio.Event, method: Callable[[int], str] = lambda n: "GET"
) -> list[tuple[str, str, int]]:
    """(method, target, status) of every request that ``clients`` sent until ``stop``; a broken connection has status 0."""
    host, _, port = url.removeprefix("http://").partition(":")
    done: list[tuple[str, str, int]] = []

    async def client(which: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        number = 0
        while not stop.is_set():
            number += 1
            verb, target = method(number), f"/{which}/{number}"
            try:
                status = await exchange(reader, writer, verb, target, b"body" if verb == "POST" else b"")
            except (OSError, asyncio.IncompleteReadError):
                status = 0
                writer.close()
                reader, writer = await asyncio.open_connection(host, int(port))
            done.append((verb, target, status))
        writer.close()

    await asyncio.gather(*(client(which) for which in range(clients)))
    return done


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # what is waited for is a state, which has no event
            await asyncio.sleep(0.01)


async def test_a_backend_killed_under_load_costs_no_idempotent_request_and_no_post_is_sent_twice() -> None:
    told: list[Event] = []
    stop = asyncio.Event()
    async with backends(2) as (a, b):
        lb = LoadBalancer([Upstream(a.url), Upstream(b.url)], health=Health(interval=0.1), on_event=told.append)
        async with Server(lb, "127.0.0.1:0") as server:
            running = asyncio.create_task(load(server.url, 16, stop, lambda n: "POST" if n % 5 == 0 else "GET"))
            await until(lambda: len(a.journal) > 100 and len(b.journal) > 100)
            await a.kill()
            reached = len(b.journal)
            await until(lambda: len(b.journal) > reached + 300)
            await until(lambda: lb.status is Status.BUSY)
            again = await Backend.start(a)
            await until(lambda: lb.status is Status.OPEN)
            await until(lambda: len(again.journal) > 200)
            stop.set()
            done = await running
        for backend in (a, b):
            await backend.kill()
    gets = Counter(status for method, _, status in done if method == "GET")
    assert set(gets) == {200}, gets
    posts = Counter(line for backend in (a, b) for line in backend.journal if line.startswith("POST"))
    assert max(posts.values()) == 1
    kinds = {event.kind for event in told}
    assert kinds & {"ejected", "unhealthy"}
    assert kinds & {"returned", "healthy"}


async def test_all_down_is_a_clear_error_and_the_way_back_is_quick() -> None:
    async with backends(1) as (a,):
        lb = LoadBalancer([Upstream(a.url)], health=Health(interval=0.1), on_event=lambda event: None)
        async with Server(lb, "127.0.0.1:0") as server:
            client = Upstream(server.url)
            async with client:
                assert (await client(Request())).status == 200
                await a.kill()
                await until(lambda: lb.status is Status.CLOSED)
                assert (await client(Request())).status == 502
                await a.start()
                await until(lambda: lb.status is Status.OPEN)
                assert (await client(Request())).status == 200


@asynccontextmanager
async def raw(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A backend that does with a connection whatever ``answer`` does."""

    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.sleep(0)


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def cuts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000)
    await writer.drain()


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()


async def babbles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"220 smtp.example.org ESMTP\r\n")
    await writer.drain()
    await reader.read()


async def well(request: Request) -> Response:
    return Response(200, None, b"well")


@pytest.mark.parametrize("bad", [hangs, resets, babbles])
async def test_a_bad_backend_is_hidden_from_idempotent_requests_and_ejected(
    bad: Callable[..., Awaitable[None]],
) -> None:
    told: list[Event] = []
    async with raw(bad) as url, Server(well, "127.0.0.1:0") as good:
        lb = LoadBalancer(
            [Upstream(url), Upstream(good.url)],
            policy="round-robin",
            retries=Retries(per_try=0.3),
            outlier=Outlier(failures=2),
            on_event=told.append,
        )
        async with Server(lb, "127.0.0.1:0") as server, Upstream(server.url) as client:
            for _ in range(10):
                response = await client(Request())
                assert (response.status, await response.read()) == (200, b"well")
    assert any(event.kind == "ejected" and event.endpoint == url for event in told)


async def test_a_body_that_breaks_off_reaches_the_client_as_broken_and_counts() -> None:
    async with raw(cuts) as url:
        lb = LoadBalancer([Upstream(url)], on_event=lambda event: None)
        async with Server(lb, "127.0.0.1:0") as server:
            host, _, port = server.url.removeprefix("http://").partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            body = b""
            try:
                body = await reader.read(-1)
            except ConnectionResetError:
                pass
            assert b"content-length: 100000" in head.lower()
            assert len(body) < 100_000
            writer.close()
            await until(lambda: lb.endpoints[0].active == 0)
            assert lb.endpoints[0].failures == 1


async def test_a_drain_and_a_removal_under_load_lose_nothing() -> None:
    stop = asyncio.Event()
    async with backends(2) as (a, b):
        lb = LoadBalancer([Upstream(a.url, name="a"), Upstream(b.url, name="b")], on_event=lambda event: None)
        async with Server(lb, "127.0.0.1:0") as server:
            running = asyncio.create_task(load(server.url, 16, stop, lambda n: "POST" if n % 2 else "GET"))
            await until(lambda: len(a.journal) > 100)
            assert await lb.drain("a", "30s") is True
            await a.kill()
            reached = len(b.journal)
            await until(lambda: len(b.journal) > reached + 200)
            c = await Backend().start()
            try:
                await lb.add(c.url, name="c")
                await lb.remove("b", "30s")
                await until(lambda: len(c.journal) > 200)
                stop.set()
                done = await running
            finally:
                stop.set()
                await c.kill()
    assert {status for _, _, status in done} == {200}


@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
def test_probes_of_a_backend_that_hangs_leave_nothing_open(loop_name: str) -> None:
    async def main() -> None:
        async with raw(hangs) as url, Server(well, "127.0.0.1:0") as good:
            lb = LoadBalancer(
                [Upstream(url), Upstream(good.url)],
                health=Health(interval=0.02, timeout=0.05),
                on_event=lambda event: None,
            )
            async with Server(lb, "127.0.0.1:0"):
                await until(lambda: lb.endpoints[0].probes >= 5)
                assert lb.status is Status.BUSY
                upstream = lb.endpoints[0].handler
                assert isinstance(upstream, Upstream)
                await until(lambda: upstream.pool.open <= 1)

    if loop_name == "uvloop":
        uvloop = pytest.importorskip("uvloop")
        uvloop.run(main())
    else:
        asyncio.run(main())


async def test_a_connection_that_is_never_accepted_takes_no_longer_than_a_try_may() -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    full = [socket.socket() for _ in range(4)]
    try:
        for filler in full:  # fill the backlog: from now on the kernel answers no handshake
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        blackhole = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with Server(well, "127.0.0.1:0") as good:
            lb = LoadBalancer(
                [Upstream(blackhole, connect_timeout=300), Upstream(good.url)],
                policy="round-robin",
                retries=Retries(per_try=0.1),
                on_event=lambda event: None,
            )
            async with entered(lb), asyncio.timeout(60):
                assert (await lb(Request("POST", body=b"x"))).status == 200
                assert lb.retried == 1
    finally:
        for opened in (*full, listener):
            opened.close()


async def test_an_ejected_endpoint_is_the_last_resort_when_all_others_fail_and_returns_by_answering() -> None:
    """Two backends are killed in turn, the first is back meanwhile, and nobody probes: no request may be lost to an ejection."""
    a, b = Server(well, "127.0.0.1:0"), Server(well, "127.0.0.1:0")
    await a.start()
    await b.start()
    address, told = a.addresses[0], list[Event]()
    lb = LoadBalancer([Upstream(a.url), Upstream(b.url)], policy="round-robin", on_event=told.append)
    async with Server(lb, "127.0.0.1:0") as front, Upstream(front.url) as client:

        async def ask(many: int) -> Counter[int]:
            found: Counter[int] = Counter()
            for number in range(many):
                response = await client(Request("POST" if number % 2 else "GET", "/", None, b""))
                found[response.status] += 1
            return found

        assert await ask(10) == {200: 10}
        await a.stop(0)
        assert await ask(40) == {200: 40}
        assert [event.kind for event in told if event.kind == "ejected"] == ["ejected"]
        a = Server(well, address)
        await a.start()
        await b.stop(0)
        assert await ask(40) == {200: 40}
        assert "returned" in [event.kind for event in told]
    await a.stop(0)
