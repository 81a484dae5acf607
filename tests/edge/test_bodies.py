"""Bodies: parts with holes, ranges, and a fill that many read at once, against what slices of bytes say."""

# a row of a table is a line

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.edge.fill import AHEAD, Fill
from blocks.edge.ranges import Parts, Range, parse_range, wanted
from blocks.http import Headers, Stream

WHOLE = bytes(range(64))


@given(st.lists(st.tuples(st.integers(0, 63), st.integers(1, 20)), max_size=20), st.integers(0, 63), st.integers(1, 64))
def test_parts_hold_what_was_put_in_and_nothing_else(pieces: list[tuple[int, int]], start: int, size: int) -> None:
    parts = Parts(64)
    held = set[int]()
    for at, length in pieces:
        data = WHOLE[at : at + length]
        parts.add(at, data)
        held |= set(range(at, at + len(data)))
    stop = min(64, start + size)
    cut = parts.cut(Range(start, stop))
    assert cut == (WHOLE[start:stop] if held >= set(range(start, stop)) else None)
    assert parts.held == len(held)
    assert (parts.whole == WHOLE) is (len(held) == 64)
    hole = parts.missing
    assert (hole is None) is (len(held) == 64)
    if hole is not None:
        assert held.isdisjoint(range(hole.start, hole.stop))


def test_pieces_are_bounded() -> None:
    parts = Parts(10_000, limit=8)
    for at in range(0, 10_000, 10):
        parts.add(at, b"abc")
    assert len(parts.pieces) == 8


@given(st.lists(st.one_of(st.tuples(st.integers(0, 70), st.none()), st.tuples(st.integers(0, 70), st.integers(0, 70)), st.tuples(st.none(), st.integers(0, 70))), min_size=1, max_size=6))  # fmt: skip
def test_ranges_are_slices(asked: list[tuple[int | None, int | None]]) -> None:
    text = ",".join(f"{'' if first is None else first}-{'' if last is None else last}" for first, last in asked)
    specs = parse_range(f"bytes={text}".encode())
    if any(first is not None and last is not None and last < first for first, last in asked):
        assert specs is None
        return
    assert specs is not None
    meant = set[int]()
    for first, last in asked:
        if first is None:
            meant |= set(range(64)[max(0, 64 - (last or 0)) :]) if last else set()
        else:
            meant |= set(range(64)[first : 64 if last is None else last + 1])
    cuts = wanted(specs, 64)
    covered = [place for cut in cuts for place in range(cut.start, cut.stop)]
    assert set(covered) == meant
    assert len(covered) == len(meant)  # no byte twice


class Source:
    """Pauses are noted."""

    held = False
    cancelled = False

    def resume(self) -> None:
        self.held = False

    def pause(self) -> None:
        self.held = True

    def cancel(self) -> None:
        self.cancelled = True


class Reader:
    """Takes bytes while it has an appetite."""

    def __init__(self, stream: Stream) -> None:
        self.data = b""
        self.ended = False
        self.error: BaseException | None = None
        self.stream = stream
        stream.pour(self)

    def write(self, data: bytes) -> None:
        self.data += data

    def end(self, trailers: Headers | None) -> None:
        self.ended = True

    def abort(self, error: BaseException) -> None:
        self.error = error


actions = st.lists(
    st.one_of(
        st.tuples(st.just("feed"), st.integers(1, 9)), st.tuples(st.just("join"), st.integers(0, 9)),
        st.tuples(st.just("pause"), st.integers(0, 9)), st.tuples(st.just("resume"), st.integers(0, 9)), st.tuples(st.just("leave"), st.integers(0, 9)),
    ),
    max_size=60,
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(actions)
def test_every_reader_of_a_kept_fill_gets_every_byte_in_order(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        source = Source()
        stream = Stream(source)
        fill = Fill(None, kept=True, limit=10**9)
        fill.pull(stream)
        sent = b""
        readers: list[tuple[Reader, int]] = []
        for action, number in steps:
            if action == "feed":
                data = bytes([len(sent) % 256]) * number
                sent += data
                stream.feed(data)
            elif action == "join":
                readers.append((Reader(fill.stream(min(number, len(sent)))), min(number, len(sent))))
            elif readers:
                reader, start = readers[number % len(readers)]
                if action == "pause":
                    reader.stream.pause()
                elif action == "resume":
                    reader.stream.resume()
                else:
                    reader.stream.cancel()
                    readers.remove((reader, start))
        stream.finish()
        for reader, start in readers:
            reader.stream.resume()
            assert reader.data == sent[start:]
            assert reader.ended
        assert fill.data() == sent

    asyncio.run(play())


async def test_the_origin_is_held_while_the_quickest_is_far_behind() -> None:
    source = Source()
    stream = Stream(source)
    fill = Fill(None, kept=True, limit=10**9)
    fill.pull(stream)
    reader = Reader(fill.stream())
    reader.stream.pause()
    while not source.held and fill.size < 3 * AHEAD:
        stream.feed(bytes(64 * 1024))
    assert AHEAD < fill.size < 2 * AHEAD
    reader.stream.resume()
    assert not source.held
    assert len(reader.data) == fill.size


async def test_a_fill_over_its_limit_becomes_a_window() -> None:
    source = Source()
    stream = Stream(source)
    fill = Fill(None, kept=True, limit=100)
    fill.pull(stream)
    reader = Reader(fill.stream())
    for _ in range(10):
        stream.feed(bytes(50))
    for _ in range(2):  # until then those who wait for the head may begin
        await asyncio.sleep(0)
    assert not fill.kept
    assert not fill.joinable
    stream.finish()
    assert len(reader.data) == 500
