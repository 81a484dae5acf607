"""Coded twins and minified bodies: made once for each entry, chosen by what the client takes, gone with what they were made of."""

from __future__ import annotations

import asyncio
import gzip
from random import Random
from typing import Any

from blocks.core.clock import FakeClock
from blocks.edge import Edge
from blocks.http import Request, Response, Section

TEXT = b"all work and no play makes jack a dull boy\n" * 200
Pairs = list[tuple[bytes, bytes]]


class Gzip:
    """The least of a transform; counts what it codes."""

    def __init__(self) -> None:
        self.made = 0

    def variants(self, section: Section, status: int) -> bool:
        return status == 200 and (section.index.get(b"content-type") or [b""])[0].startswith(b"text/")

    def choose(self, accept_encoding: bytes | None, section: Section) -> str:
        return "gzip" if accept_encoding and b"gzip" in accept_encoding else ""

    def apply(self, coding: str, pairs: Pairs, body: bytes) -> tuple[Pairs, bytes] | None:
        self.made += 1
        return [*pairs, (b"content-encoding", b"gzip")], gzip.compress(body)

    def vary(self, pairs: Pairs) -> Pairs:
        return [*[pair for pair in pairs if pair[0] != b"vary"], (b"vary", b"accept-encoding")]


class Squeeze:
    """A minifier that takes doubled spaces out."""

    def variants(self, section: Section, status: int) -> bool:
        return False

    def choose(self, accept_encoding: bytes | None, section: Section) -> str:
        return ""

    def apply(self, coding: str, pairs: Pairs, body: bytes) -> None:
        return None

    def minify(self, pairs: Pairs, body: bytes) -> tuple[Pairs, bytes] | None:
        return pairs, body.replace(b"  ", b" ")


def edge_with(transform: Any, body: bytes = TEXT, kind: str = "text/plain") -> tuple[Edge, FakeClock]:
    async def origin(request: Request) -> Response:
        if request.headers.get("if-none-match"):
            return Response(304, {"etag": '"a"'})
        return Response(200, [("cache-control", "max-age=10"), ("content-type", kind), ("etag", '"a"')], body)

    clock = FakeClock()
    return Edge(
        origin, "8MiB", clock=clock, random=Random(1), ttl_jitter=0, transforms=[transform], refresh_ahead=0
    ), clock


def get(*fields: tuple[str, str]) -> Request:
    return Request("GET", "/x", [("host", "site"), *fields])


ACCEPTS = ("accept-encoding", "gzip")


async def test_each_client_gets_what_it_takes_and_it_is_made_once() -> None:
    transform = Gzip()
    edge, _ = edge_with(transform)
    for _ in range(3):
        coded, plain = await edge(get(ACCEPTS)), await edge(get())
        assert gzip.decompress(coded.body) == plain.body == TEXT
        assert coded.headers["content-encoding"] == "gzip"
        assert coded.headers["vary"] == plain.headers["vary"] == "accept-encoding"
        assert "content-encoding" not in plain.headers
    assert transform.made == 1


async def test_what_is_not_of_its_kind_is_left_alone() -> None:
    transform = Gzip()
    edge, _ = edge_with(transform, kind="image/png")
    assert (await edge(get(ACCEPTS))).body == TEXT
    assert "vary" not in (await edge(get(ACCEPTS))).headers
    assert transform.made == 0


async def test_a_twin_goes_with_its_entry_and_is_made_again_after_a_304() -> None:
    transform = Gzip()
    edge, clock = edge_with(transform)
    await edge(get(ACCEPTS))
    assert len(edge.memory) == 2
    clock.advance(11)
    assert (await edge(get(ACCEPTS))).headers["vary"] == "accept-encoding"
    assert gzip.decompress((await edge(get(ACCEPTS))).body) == TEXT
    assert transform.made == 2
    assert edge.purge(url="/x")
    assert len(edge.memory) == 0


async def test_a_large_body_is_coded_behind_and_served_plain_meanwhile() -> None:
    transform = Gzip()
    edge, _ = edge_with(transform, TEXT * 10)
    async with edge:
        assert (await edge(get(ACCEPTS))).body == TEXT * 10
        while not transform.made or len(edge.memory) < 2:  # a thread works on it; nothing to wait for but its end
            await asyncio.sleep(0.001)
        assert gzip.decompress((await edge(get(ACCEPTS))).body) == TEXT * 10
        assert transform.made == 1


async def test_a_body_is_minified_once_on_its_way_into_the_store() -> None:
    edge, _ = edge_with(Squeeze(), b"a  b")
    await edge(get())
    assert (await edge(get())).body == b"a b"
    edge, _ = edge_with(Squeeze(), b"a  b" * 20_000)
    async with edge:
        await edge(get())
        while len((await edge(get())).body) == 80_000:  # as above
            await asyncio.sleep(0.001)
        assert (await edge(get())).body == b"a b" * 20_000
        assert edge.memory.bytes == sum(entry.size for entry in edge.memory)
