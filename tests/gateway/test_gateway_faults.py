"""Bodies that are huge or slow, on either side; services that are silent, lying or dead; floods of keys and tokens: what is held stays small."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from joserfc import jws as jose
from joserfc.jwk import OctKey

from blocks.gateway import Gateway, route
from blocks.gateway.limits import Limit
from blocks.http import Server, Upstream
from blocks.http.handler import running
from blocks.http.message import Peer, Request, Response
from blocks.http.timeouts import Timeouts
from gateway.gateway_kit import until

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
LINE = b"x" * 65536
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def service(talk: Talk, timeout: float = 0.5) -> AsyncIterator[Upstream]:
    """A service that does what the function does with each of its connections."""
    open: set[asyncio.Task[Any]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open.add(task)
        try:
            await talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            open.discard(task)

    server = await asyncio.start_server(one, "127.0.0.1", 0, limit=65536)
    try:
        async with Upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=timeout) as upstream:
            yield upstream
    finally:
        server.close()
        for task in open:
            task.cancel()
        await asyncio.gather(*open, return_exceptions=True)
        await server.wait_closed()


@asynccontextmanager
async def client(
    server: Server, *, receive: int = 0
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = server.url.removeprefix("http://").partition(":")
    sock = socket.create_connection((host, int(port)))
    if receive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    reader, writer = await asyncio.open_connection(sock=sock, limit=65536)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def status_of(reader: asyncio.StreamReader) -> int:
    """Of the next answer, whose head is read."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    return int(head.split()[1])


async def pour(writer: asyncio.StreamWriter, reader: asyncio.StreamReader, limit: int) -> int:
    """Send chunks until the answer comes, the other side ends, ``limit`` bytes are gone, or nothing is taken any more; what was sent."""
    sent = 0
    answer = asyncio.ensure_future(reader.read(1))
    try:
        while sent < limit and not answer.done():
            writer.write(b"10000\r\n" + LINE + b"\r\n")
            drained = asyncio.ensure_future(writer.drain())
            await asyncio.wait([drained, answer], timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            if not drained.done():
                drained.cancel()
                await asyncio.gather(drained, return_exceptions=True)
                break
            if drained.exception() is not None:
                break
            sent += len(LINE)
    finally:
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)
    return sent


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


async def hello(request: Request) -> Response:
    return Response.json({"read": len(await request.read())})


# -- bodies of clients

READING: dict[str, dict[str, Any]] = {
    "accept": {"accept": {"max_body": "1MiB"}},
    "validate": {"validate": {"schema": {"type": "object"}, "max_body": "1MiB"}},
    "idempotency": {"idempotency": {"max_body": "1MiB"}},
    "transform": {"transform": {"body": {"set": {"a": "b"}}, "max_body": "1MiB"}},
}


@pytest.mark.parametrize("what", READING)
async def test_an_endless_body_is_refused_where_it_goes_over(what: str) -> None:
    async with Server(Gateway([route("/", hello, **READING[what])]), "127.0.0.1:0") as server:
        fields = b"Content-Type: application/json\r\nIdempotency-Key: a\r\nTransfer-Encoding: chunked\r\n"
        async with client(server) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
            assert await pour(writer, reader, 64 * MIB) < 32 * MIB
        async with client(server) as (reader, writer):
            writer.write(
                b"POST / HTTP/1.1\r\nHost: a\r\n"
                + fields.replace(b"Transfer-Encoding: chunked", b"Content-Length: 99999999999")
                + b"\r\n"
            )
            assert await status_of(reader) == 413


async def test_a_body_that_the_service_does_not_take_is_not_held_here() -> None:
    go, took = asyncio.Event(), Counter[str]()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        while not (data := await reader.read(65536)).endswith(b"0\r\n\r\n"):
            took["bytes"] += len(data)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with service(slow, 60.0) as upstream, Server(Gateway([route("/", upstream)]), "127.0.0.1:0") as server:
        async with client(server) as (reader, writer):
            before = resident()
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            sent = await pour(writer, reader, 256 * MIB)
            assert sent < 64 * MIB, "the client is held back"
            assert resident() - before < 48 * MIB
            go.set()
            writer.write(b"0\r\n\r\n")
            assert await status_of(reader) == 200
            assert took["bytes"] >= sent


async def test_a_client_that_stalls_in_its_body_is_told_and_frees_the_service() -> None:
    ended = asyncio.Event()

    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass
        ended.set()

    routes = [route("/read", hello, validate={"schema": {"type": "object"}})]
    async with service(patient) as upstream:
        limits = Timeouts(body=0.1, min_rate=1000.0)
        async with Server(Gateway([*routes, route("/pass", upstream)]), "127.0.0.1:0", timeouts=limits) as server:
            for path in (b"/read", b"/pass"):
                async with client(server) as (reader, writer):
                    writer.write(
                        b"POST "
                        + path
                        + b" HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
                    )
                    assert await status_of(reader) == 408
            await asyncio.wait_for(ended.wait(), 30)
            async with client(server) as (reader, writer):
                writer.write(
                    b"GET /read HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
                )
                assert await status_of(reader) == 200, "and the others are served"


# -- answers of services


async def test_an_answer_that_the_client_does_not_take_is_not_held_here() -> None:
    sent = Counter[str]()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        try:
            while True:
                writer.write(LINE)
                await writer.drain()
                sent["bytes"] += len(LINE)
        finally:
            sent["over"] += 1

    async with service(endless) as upstream, Server(Gateway([route("/", upstream)]), "127.0.0.1:0") as server:
        before = resident()
        async with client(server, receive=65536) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await status_of(reader) == 200
            last = -1
            while last != sent["bytes"]:
                last = sent["bytes"]
                await asyncio.sleep(0.3)
            assert last < 64 * MIB, "the service is held back"
            assert resident() - before < 48 * MIB
        await until(lambda: sent["over"] == 1)


@pytest.mark.parametrize("settings", [
    {"transform": {"response": {"body": {"remove": ["a"]}}, "max_body": "1MiB"}},
    {"validate": {"response": {"type": "object"}, "response_mode": "enforce", "max_body": "1MiB"}},
    {"pagination": {"offer": "cursor", "items": "items", "max_answer": "1MiB"}},
])  # fmt: skip
async def test_an_endless_answer_that_must_be_whole_is_a_502(settings: dict[str, Any]) -> None:
    over = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
        try:
            while True:
                writer.write(b"1," * 32768)
                await writer.drain()
        finally:
            over.set()

    async with service(endless) as upstream:
        gateway = Gateway([route("/", upstream, **settings)])
        async with Server(gateway, "127.0.0.1:0") as server, client(server) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await status_of(reader) == 502
            await asyncio.wait_for(over.wait(), 30)


ANSWERS: dict[str, tuple[list[bytes | float], int]] = {
    "silent": ([9.0], 504),
    "half a head, then silent": ([b"HTTP/1.1 200 OK\r\nContent-", 9.0], 504),
    "gone": ([], 502),
    "no HTTP": ([b"SSH-2.0-OpenSSH_9.6\r\n"], 502),
    "two lengths": ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"], 502),
    "a length and chunks": (
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
        502,
    ),
    "a bad field": ([b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 0\r\n\r\n"], 502),
    "a huge head": ([b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 300_000 + b"\r\n\r\n"], 502),
    "an answer before the question ends": ([b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"], 401),
}


@pytest.mark.parametrize("what", ANSWERS)
async def test_a_service_that_is_silent_lying_or_dead(what: str) -> None:
    script, expected = ANSWERS[what]

    async def liar(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for step in script:
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                writer.write(step)
                await writer.drain()

    async with service(liar) as upstream:
        gateway = Gateway([route("/", upstream, limit="1000/s", security_headers=True), route("/well", hello)])
        async with Server(gateway, "127.0.0.1:0") as server, client(server) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            assert int(head.split()[1]) == expected
            if expected > 500:
                assert b"application/problem+json" in head
                assert b"nosniff" in head, "the answer has passed the steps"
                assert b"127.0.0.1" not in await reader.read(200), "and says nothing of what is inside"
        async with Server(gateway, "127.0.0.1:0") as server, client(server) as (reader, writer):
            writer.write(b"GET /well HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await status_of(reader) == 200


async def test_an_answer_that_breaks_off_is_not_made_to_look_whole() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()

    async with service(cut) as upstream, Server(Gateway([route("/", upstream)]), "127.0.0.1:0") as server:
        async with client(server) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await status_of(reader) == 200
            rest = b""
            try:
                rest = await asyncio.wait_for(reader.read(), 30)
            except ConnectionResetError:
                pass
            assert not rest.endswith(b"0\r\n\r\n")


# -- floods


async def test_a_flood_of_distinct_keys_leaves_bounded_memory_and_bounded_series() -> None:
    limits = [
        Limit(rate="5/h", per="header:x-k", max_keys=4_000, name="key"),
        Limit(rate="5/h", per="ip", max_keys=4_000, name="ip"),
    ]
    gateway = Gateway([route("/", hello, limit=limits)], trusted=["10.0.0.0/8"])
    peer = Peer(("10.0.0.1", 1), ("127.0.0.1", 80))

    async def some(first: int, count: int) -> None:
        for number in range(first, first + count):
            fields = {
                "host": f"h{number}.example",
                "x-k": f"key-{number}",
                "x-forwarded-for": f"2001:db8:{number >> 16:x}:{number & 65535:x}::1",
            }
            await gateway(Request("GET", f"/{number}?{number}", fields, peer=peer))

    async with running(gateway):
        await some(0, 10_000)  # all bounds are reached
        before, series = resident(), sum(1 for _ in gateway.readings())
        await some(10_000, 40_000)
        assert resident() - before < 16 * MIB
        assert sum(1 for _ in gateway.readings()) == series
        rules = list(gateway.snapshot.rules())
        assert [rule.limit.name for rule in rules] == ["key", "ip"]
        assert (await gateway(Request("GET", "/", {"host": "a", "x-k": "new"}, peer=peer))).status == 200


async def test_a_flood_of_distinct_tokens_costs_a_bounded_number_of_verifications() -> None:
    secret = b"a secret of thirty-two bytes and more"
    key = OctKey.import_key(secret)

    def token(number: int) -> str:
        claims = json.dumps({"sub": f"user-{number}", "exp": 9_999_999_999}).encode()
        return str(jose.serialize_compact({"alg": "HS256"}, claims, key))

    gateway = Gateway(
        [route("/", hello, auth="people", limit="1000000/s per consumer")],
        tables={"auth": {"people": {"type": "jwt", "secret": secret.decode(), "verifications": "200/min", "cache": 500}}},
        trusted=["10.0.0.0/8"],
    )  # fmt: skip

    async def ask(text: str, client: str) -> int:
        peer = Peer(("10.0.0.1", 1), ("127.0.0.1", 80))
        fields = {"host": "a", "authorization": f"Bearer {text}", "x-forwarded-for": client}
        return (await gateway(Request("GET", "/", fields, peer=peer))).status

    async with running(gateway):
        mine = token(0)
        assert await ask(mine, "192.0.2.1") == 200
        flood = Counter([await ask(token(number), "203.0.113.9") for number in range(1, 1200)])
        assert flood[200] <= 210
        assert flood[429] == 1199 - flood[200]
        spoilt = Counter([await ask(token(number)[:-4] + "AAAA", "198.51.100.1") for number in range(1, 300)])
        assert spoilt[401] <= 20, "a wrong signature costs more than a right one"
        assert spoilt[429] > 250
        assert await ask(mine, "203.0.113.9") == 200, "who is known already is served, also from there"
        assert await ask(token(5000), "192.0.2.2") == 200, "and others' tokens are looked at"
        assert sum(1 for _ in gateway.consumers.readings()) <= 3 * 202
