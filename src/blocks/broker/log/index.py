"""Where in a segment a topic's messages are: a cache that can be rebuilt from the segment, and is checked before use."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from zlib import crc32

import msgpack

from blocks.broker.errors import Damaged

from .batch import Batch
from .segment import SegmentHeader

MAGIC = b"BLKIDX\x01\x00"
SPACING = 16 << 10  # bytes of log between two entries of a topic (Kafka's log.index.interval.bytes is 4 KiB)


class Span:
    """One topic in one segment: offsets ``first`` to ``end`` (exclusive), how many messages and bytes, and where."""

    __slots__ = ("count", "end", "first", "offsets", "positions", "size", "spacing")

    def __init__(self, first: int, end: int, count: int, size: int, offsets: array[int], positions: array[int]) -> None:
        self.first = first
        self.end = end
        self.count = count
        self.size = size
        self.offsets = offsets
        self.positions = positions
        self.spacing = SPACING

    def locate(self, offset: int) -> int:
        """A position at or before the batch that has ``offset``, at most ``spacing`` before it."""
        return self.positions[max(0, bisect_right(self.offsets, offset) - 1)]

    def following(self, position: int) -> int:
        """The next place after ``position`` where a batch of the topic can be; -1 if there is none."""
        at = bisect_right(self.positions, position)
        before = self.positions[max(0, at - 1)]
        if position == before or position - before < self.spacing:
            return position
        return self.positions[at] if at < len(self.positions) else -1


class Index:
    """The spans of one segment, and what else is known of it without reading it. Times are wall-clock seconds."""

    __slots__ = ("end", "latest", "length", "spacing", "spans")

    def __init__(self, spacing: int = SPACING) -> None:
        self.spacing = spacing  # 0: every batch is indexed, so that those in between are never looked at
        self.spans: dict[str, Span] = {}
        self.length = 0
        self.end = 0  # the number after the last batch
        self.latest = 0.0  # the time of the last batch

    def add(self, batch: Batch) -> list[str]:
        """Take in a batch that follows; gives the topics that are new in this segment."""
        fresh = []
        position = batch.position
        for section in batch.sections:
            offsets = section.offsets
            first, end = offsets[0], offsets[-1] + 1
            span = self.spans.get(section.topic)
            if span is None:
                fresh.append(section.topic)
                self.spans[section.topic] = Span(
                    first, end, len(offsets), section.size, array("Q", (first,)), array("I", (position,))
                )
                self.spans[section.topic].spacing = self.spacing
                continue
            if position - span.positions[-1] >= self.spacing:
                span.offsets.append(first)
                span.positions.append(position)
            span.end = end
            span.count += len(offsets)
            span.size += section.size
        self.length = position + batch.length
        self.end = batch.number + 1
        self.latest = max(self.latest, batch.time)
        return fresh

    def encode(self, header: SegmentHeader) -> bytes:
        """The index file of the segment with that header."""
        spans = {
            topic: (s.first, s.end, s.count, s.size, s.offsets.tobytes(), s.positions.tobytes())
            for topic, s in self.spans.items()
        }
        body = msgpack.packb((header.id, header.salt, self.length, self.end, self.latest, spans))
        return b"".join((MAGIC, crc32(body).to_bytes(4, "little"), body))


def decode_index(data: bytes, header: SegmentHeader, length: int) -> Index:
    """The index of a segment of ``length`` bytes; raises ``Damaged`` if it is not whole or is another segment's."""
    body = data[12:]
    if data[:8] != MAGIC or int.from_bytes(data[8:12], "little") != crc32(body):
        raise Damaged("the index is damaged")
    number, salt, covered, end, latest, spans = msgpack.unpackb(body)
    if (number, salt, covered) != (header.id, header.salt, length):
        raise Damaged("the index is of another segment")
    index = Index()
    index.length, index.end, index.latest = covered, end, latest
    for topic, (first, last, count, size, offsets, positions) in spans.items():
        index.spans[topic] = Span(first, last, count, size, array("Q", offsets), array("I", positions))
    return index
