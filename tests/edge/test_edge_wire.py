"""The edge between real sockets: what origins do to it, a thousand clients for one cold object, an edge behind an edge."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from blocks.edge import Edge
from blocks.http import Server, Upstream, running

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[bool]]
FRESH = b"Cache-Control: max-age=60\r\n"


def whole(body: bytes, fields: bytes = FRESH, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, fields, len(body), body)


class Wire:
    """An origin that answers with bytes; ``answers`` by path, or a function that writes them. Counts requests."""

    def __init__(self, answers: dict[str, bytes | Answer]) -> None:
        self.answers = answers
        self.asked: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.asked.append(head)
                answer = self.answers[head.split()[1].decode()]
                if callable(answer):
                    if not await answer(head, writer):
                        break
                else:
                    writer.write(answer)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def site(answers: dict[str, bytes | Answer], **options: object) -> AsyncIterator[tuple[Edge, str, Wire]]:
    wire = Wire(answers)
    listener = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.port = listener.sockets[0].getsockname()[1]
    edge = Edge(Upstream(f"http://127.0.0.1:{wire.port}"), **{"memory": "300MiB", "ttl_jitter": 0, **options})  # type: ignore[arg-type]
    async with listener, running(edge), Server(edge, "127.0.0.1:0") as server:
        yield edge, server.url, wire
        listener.close()


async def ask(url: str, path: str, fields: bytes = b"", method: bytes = b"GET") -> tuple[bytes, bytes]:
    """(head, body) of one exchange."""
    port = int(url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"%b %b HTTP/1.1\r\nHost: site\r\nConnection: close\r\n%b\r\n" % (method, path.encode(), fields))
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.lower(), body


async def close(head: bytes, writer: asyncio.StreamWriter) -> bool:
    """The origin closes the connection in place of an answer."""
    return False


async def test_fields_of_the_connection_are_neither_passed_on_nor_stored() -> None:
    said = b"Connection: a, b, keep-alive\r\na: 1\r\nb: 2\r\nc: 3\r\nKeep-Alive: x\r\nProxy-Connection: x\r\nTE: x\r\nUpgrade: x\r\n"
    async with site({"/": whole(b"x", FRESH + said)}) as (_, url, wire):
        for _ in range(2):
            head, body = await ask(url, "/")
            assert b"\r\nc: 3" in head
            assert not any(
                name in head
                for name in (b"\r\na:", b"\r\nb:", b"keep-alive", b"proxy-connection", b"\r\nte:", b"upgrade")
            )
        assert len(wire.asked) == 1
        assert body == b"x"


async def test_more_bytes_than_were_announced_do_not_get_into_the_next_answer() -> None:
    async with site({"/a": whole(b"0123456789")[:-10] + b"0123456789" + whole(b"evil"), "/b": whole(b"good")}) as (
        _,
        url,
        _wire,
    ):
        assert (await ask(url, "/a"))[1] == b"0123456789"
        assert (await ask(url, "/b"))[1] == b"good"
        assert (await ask(url, "/a"))[1] == b"0123456789"


async def test_a_cut_body_is_cut_for_the_client_and_not_stored() -> None:
    async def cut(head: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(whole(bytes(100_000))[:50_000])
        await writer.drain()
        return False

    async with site({"/": cut}) as (edge, url, wire):
        _, body = await ask(url, "/")
        assert len(body) < 100_000
        assert edge.entry("/") is None
        await ask(url, "/")
        assert len(wire.asked) == 2


async def test_chunked_bodies_and_their_trailers_pass_and_the_body_is_stored() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + FRESH + b"\r\n4\r\nbody\r\n0\r\nx-sum: 7\r\n\r\n"
    async with site({"/": chunked}) as (_, url, wire):
        assert b"body" in (await ask(url, "/"))[1]
        head, body = await ask(url, "/")
        assert body == b"body"
        assert b"content-length: 4" in head
        assert len(wire.asked) == 1


async def test_early_hints_pass() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    async with site({"/": hints + whole(b"x")}) as (_, url, wire):
        head, rest = await ask(url, "/")
        assert head.startswith(b"http/1.1 103")
        assert b"200 OK" in rest
        assert (await ask(url, "/"))[0].startswith(b"http/1.1 200")
        assert len(wire.asked) == 1


async def test_an_origin_that_closes_idle_connections_is_asked_again_on_a_fresh_one() -> None:
    first = True

    async def moody(head: bytes, writer: asyncio.StreamWriter) -> bool:
        nonlocal first
        writer.write(whole(b"x", b"Cache-Control: no-store\r\n"))
        await writer.drain()
        stay, first = not first, False
        return stay

    async with site({"/": moody}) as (_, url, wire):
        for _ in range(3):
            assert (await ask(url, "/"))[1] == b"x"
        assert len(wire.asked) == 3


async def test_a_dead_origin_is_bridged_from_the_store_and_is_502_without() -> None:
    async with site({"/": whole(b"old", b"Cache-Control: max-age=0, stale-if-error=60\r\n"), "/new": close}) as (
        _,
        url,
        wire,
    ):
        assert (await ask(url, "/"))[1] == b"old"
        wire.answers["/"] = close
        head, body = await ask(url, "/")
        assert body == b"old"
        assert b"detail=origin-failed" in head
        assert (await ask(url, "/new"))[0].startswith(b"http/1.1 502")


async def test_an_origin_that_hangs_is_given_up_and_bridged() -> None:
    async def hang(head: bytes, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(30)
        return False

    wire = Wire({"/": whole(b"old", b"Cache-Control: max-age=0, stale-if-error=60\r\n")})
    listener = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    edge = Edge(Upstream(f"http://127.0.0.1:{port}", timeout=0.3), "8MiB")
    tasks = asyncio.all_tasks()
    async with running(edge), Server(edge, "127.0.0.1:0") as server:
        await ask(server.url, "/")
        wire.answers["/"] = hang
        assert (await ask(server.url, "/"))[1] == b"old"
    listener.close()
    for task in asyncio.all_tasks() - tasks:
        task.cancel()
    await asyncio.sleep(0)


async def test_purge_over_the_wire() -> None:
    async with site({"/x": whole(b"x")}) as (_, url, wire):
        await ask(url, "/x")
        assert (await ask(url, "/x", method=b"PURGE"))[1] == b'{"purged":1}'
        await ask(url, "/x")
        assert len(wire.asked) == 2


async def test_an_edge_behind_an_edge_asks_the_origin_once() -> None:
    async with site({"/x": whole(b"x", FRESH + b"Surrogate-Key: t\r\n")}) as (shield, url, wire):
        edges = [Edge(Upstream(url), "8MiB", name=f"pop{place}") for place in range(2)]
        async with running(*edges), Server(edges[0], "127.0.0.1:0") as one, Server(edges[1], "127.0.0.1:0") as other:
            for server in (one, other, one):
                assert (await ask(server.url, "/x"))[1] == b"x"
        assert len(wire.asked) == 1
        assert b"cdn-loop" in wire.asked[0].lower()
        assert shield.stats()["hits"] == 1
        assert edges[0].purge(tag="t") == 1


def resident(pid: int) -> tuple[int, int]:
    """(now, at most) bytes of memory of a process."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line)
    return int(fields["VmRSS"].split()[0]) * 1024, int(fields["VmHWM"].split()[0]) * 1024


@pytest.mark.integration
async def test_a_thousand_clients_for_one_cold_object_are_one_fetch_and_less_than_two_objects_of_memory() -> None:
    size, clients = 10 * 1024 * 1024, 1000
    go = asyncio.Event()
    body = bytes(64 * 1024)

    async def slowly(head: bytes, writer: asyncio.StreamWriter) -> bool:
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\n" + FRESH + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(body)):
            writer.write(body)
            await writer.drain()
        return True

    async def answer(reader: asyncio.StreamReader) -> int:
        head = await reader.readuntil(b"\r\n\r\n")
        left = length = int(head.lower().partition(b"content-length:")[2].split()[0])
        while left:
            left -= len(await reader.read(min(left, 65536)))
        return length

    wire = Wire({"/x": slowly})
    listener = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    arguments = ("-m", "blocks", "edge", "--listen", "127.0.0.1:0", "--origin", origin)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    edge = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )
    try:
        assert edge.stdout is not None
        port = json.loads(await edge.stdout.readline())["port"]
        connections = [await asyncio.open_connection("127.0.0.1", port, limit=65536) for _ in range(clients)]
        for _, writer in connections:
            writer.write(b"GET /none HTTP/1.1\r\nHost: a\r\nCache-Control: only-if-cached\r\n\r\n")
        await asyncio.gather(*(answer(reader) for reader, _ in connections))
        before, _ = resident(edge.pid)  # with a thousand connections that were used
        for _, writer in connections:
            writer.write(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        while not wire.asked:  # it comes over a socket
            await asyncio.sleep(0.01)
        go.set()
        assert await asyncio.gather(*(answer(reader) for reader, _ in connections)) == [size] * clients
        assert len(wire.asked) == 1
        assert resident(edge.pid)[1] - before < 2 * size
        for _, writer in connections:
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        edge.terminate()
        await edge.wait()
        listener.close()
