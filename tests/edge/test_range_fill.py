"""Ranges of what is not stored yet: the client gets its part at once, and what is large is fetched behind into the second tier."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from blocks.core.clock import FakeClock
from blocks.edge import Edge
from blocks.edge.ranges import parse_range, wanted
from blocks.edge.store.disk import DiskStore
from blocks.http import Request, Response, Stream

MIB = 1024 * 1024


class Origin:
    """A large file: ranges at once, the whole bit by bit when ``more`` is called."""

    direct = True

    def __init__(self, size: int, vary: bool = False) -> None:
        self.data = Random(5).randbytes(size)
        self.fields = [("cache-control", "max-age=60"), ("etag", '"v1"'), *([("vary", "accept")] if vary else [])]
        self.asked: list[str | None] = []
        self.whole: Stream | None = None
        self.sent = 0

    async def __call__(self, request: Request) -> Response:
        range_ = request.headers.get("range")
        self.asked.append(range_)
        if range_ is not None:
            (cut,) = wanted(parse_range(range_.encode()) or [], len(self.data))
            said = ("content-range", f"bytes {cut.start}-{cut.stop - 1}/{len(self.data)}")
            return Response(206, [*self.fields, said], self.data[cut.start : cut.stop])
        self.whole = Stream(None, len(self.data))
        self.sent = 0
        return Response(200, self.fields, self.whole)

    def more(self, count: int | None = None) -> None:
        assert self.whole is not None
        stop = len(self.data) if count is None else self.sent + count
        for at in range(self.sent, stop, 65536):
            self.whole.feed(self.data[at : min(stop, at + 65536)])
        self.sent = stop
        if stop >= len(self.data):
            self.whole.finish()


def get(range_: str | None = None, **fields: str) -> Request:
    pairs = [("host", "site"), *fields.items(), *([("range", f"bytes={range_}")] if range_ is not None else [])]
    return Request("GET", "/film", pairs)


async def until(condition: Callable[[], object]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to be")


@asynccontextmanager
async def running_edge(path: Path, origin: Origin, **options: Any) -> AsyncIterator[Edge]:
    clock = FakeClock()
    store = DiskStore(path / "store", "256MiB", clock=clock)
    async with Edge(origin, "4MiB", store, clock=clock, random=Random(3), **options) as edge:
        yield edge


@pytest.mark.parametrize("vary", [False, True])
async def test_a_range_of_a_large_object_brings_the_whole_behind(tmp_path: Path, vary: bool) -> None:
    origin = Origin(3 * MIB, vary)
    async with running_edge(tmp_path, origin) as edge:
        first = await edge(get("1000000-1000009", accept="*/*"))
        assert (first.status, await first.read()) == (206, origin.data[1000000:1000010])
        await until(lambda: origin.whole is not None)
        assert origin.asked == ["bytes=1000000-1000009", None]
        origin.more(2 * MIB)
        near = await edge(get("2000000-2000009", accept="*/*"))  # it is there, or will be in a moment
        assert await near.read() == origin.data[2000000:2000010]
        origin.more()
        await until(lambda: not edge.flights)
        last = await edge(get("-10", accept="*/*"))
        assert (last.status, await last.read()) == (206, origin.data[-10:])
        assert "hit" in last.headers["cache-status"]
        assert await (await edge(get(accept="*/*"))).read() == origin.data
        assert len(origin.asked) == 2


async def test_a_range_far_behind_what_has_come_is_asked_for_by_itself(tmp_path: Path) -> None:
    origin = Origin(12 * MIB)
    async with running_edge(tmp_path, origin) as edge:
        whole = await edge(get())
        origin.more(MIB)
        far = await edge(get("12000000-12000009"))
        assert (far.status, await far.read()) == (206, origin.data[12000000:12000010])
        assert origin.asked == [None, "bytes=12000000-12000009"]
        origin.more()
        assert await whole.read() == origin.data
        assert len(origin.asked) == 2


async def test_a_range_of_everything_is_a_whole(tmp_path: Path) -> None:
    origin = Origin(300_000)
    async with running_edge(tmp_path, origin) as edge:
        for _ in range(2):
            answer = await edge(get("0-"))
            assert (answer.status, await answer.read()) == (206, origin.data)
            assert answer.headers["content-range"] == "bytes 0-299999/300000"
        assert (await edge(get())).status == 200
        assert origin.asked == ["bytes=0-"]


async def test_how_much_a_range_makes_the_edge_fetch_is_bounded(tmp_path: Path) -> None:
    origin = Origin(3 * MIB)
    async with running_edge(tmp_path, origin, range_fill="2MiB") as edge:
        for _ in range(2):
            assert await (await edge(get("1000000-2000000"))).read() == origin.data[1000000:2000001]
        assert origin.asked == ["bytes=1000000-2000000"] * 2
        assert not edge.flights


async def test_ranges_of_many_objects_do_not_start_fills_without_bound(tmp_path: Path) -> None:
    origin = Origin(MIB)
    async with running_edge(tmp_path, origin) as edge:
        for number in range(100):
            request = Request("GET", f"/film/{number}", [("host", "site"), ("range", "bytes=500000-500009")])
            assert (await edge(request)).status == 206
            await asyncio.sleep(0)
        assert 16 <= origin.asked.count(None) <= 64


async def test_a_part_that_comes_bit_by_bit_is_shared_by_those_who_ask_for_it() -> None:
    fields = [("cache-control", "max-age=60"), ("etag", '"v1"'), ("content-range", "bytes 10-19/100")]
    coming, asked = Stream(None, 10), list[Request]()

    async def origin(request: Request) -> Response:
        asked.append(request)
        return Response(206, fields, coming)

    edge = Edge(origin, "8MiB", clock=FakeClock(), random=Random(3))
    answers = [await edge(get("10-19")) for _ in range(3)]
    reading = [asyncio.create_task(answer.read()) for answer in answers]
    await asyncio.sleep(0)
    coming.feed(b"01234")
    late = await edge(get("10-19"))
    coming.feed(b"56789")
    coming.finish()
    assert await asyncio.gather(*reading, late.read()) == [b"0123456789"] * 4
    for answer in (*answers, late, await edge(get("12-13"))):
        assert answer.status == 206
    assert answers[1].headers["content-range"] == late.headers["content-range"] == "bytes 10-19/100"
    assert len(asked) == 1
    assert not edge.flights
    assert not edge.fills


async def test_those_who_ask_for_the_same_part_at_once_all_get_it() -> None:
    origin, gate = Origin(100_000), asyncio.Event()

    async def slow(request: Request) -> Response:
        await gate.wait()
        return await origin(request)

    edge = Edge(slow, "8MiB", clock=FakeClock(), random=Random(3))
    asking = [asyncio.create_task(edge(get("10-19"))) for _ in range(4)]
    await asyncio.sleep(0)
    gate.set()
    for answer in await asyncio.gather(*asking):
        assert (answer.status, await answer.read()) == (206, origin.data[10:20])
    assert len(origin.asked) == 1
