"""A batch is what one commit stores: messages in columns and state records, under one checksum (see FORMAT.md).

Nothing here does I/O: columns come in and bytes go out, and back.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any
from zlib import crc32

import msgpack

HEADER = struct.Struct("<IIIQQIIII")  # mark, crc, body length, number, µs, stable, count, meta length, attributes
_AFTER_CRC = struct.Struct("<IQQIIII")
HEADER_SIZE = HEADER.size
MAX_BODY = 1 << 30  # a length above this is damage, not a batch: it bounds what a bad header can make us read

_packer = msgpack.Packer(use_bin_type=True, autoreset=True, unicode_errors="surrogatepass")
COLUMNS = ("keys", "headers", "ids", "expires", "dues", "reply_tos", "times")


class Section:
    """The messages of one topic in a batch: ``offsets`` (a range, or a list after compaction) and one list a column."""

    __slots__ = (
        "dues", "expires", "headers", "ids", "keys", "offsets", "payloads", "reply_tos", "size", "times", "topic",
    )  # fmt: skip

    def __init__(self, topic: str, offsets: Sequence[int], payloads: list[bytes], size: int) -> None:
        self.topic = topic
        self.offsets = offsets
        self.payloads = payloads
        self.size = size  # bytes of payloads
        self.keys: list[bytes | None] | None = None
        self.headers: list[dict[str, str] | None] | None = None
        self.ids: list[str | None] | None = None
        self.expires: list[float | None] | None = None  # wall-clock seconds
        self.dues: list[float | None] | None = None  # wall-clock seconds
        self.reply_tos: list[str | None] | None = None
        self.times: list[float] | None = None  # only where they differ from the batch's

    def columns(self) -> dict[str, Any]:
        """The columns that are not all default."""
        return {name: column for name in COLUMNS if (column := getattr(self, name)) is not None}

    def pick(self, indexes: Sequence[int], time: float) -> Section:
        """A section of those entries only, which keeps their times."""
        picked = Section(self.topic, [self.offsets[i] for i in indexes], [self.payloads[i] for i in indexes], 0)
        picked.size = sum(map(len, picked.payloads))
        for name, column in self.columns().items():
            setattr(picked, name, [column[i] for i in indexes])
        if picked.times is None:
            picked.times = [time] * len(indexes)
        return picked


class Batch:
    """A stored batch, decoded. ``position`` and ``length`` are its place in segment ``segment``; ``time`` is in seconds."""

    __slots__ = ("frames", "length", "number", "position", "records", "sections", "segment", "stable", "time")

    def __init__(
        self, number: int, time: float, sections: list[Section], frames: list[Any], records: dict[str, Any]
    ) -> None:
        self.number = number
        self.time = time
        self.sections = sections
        self.frames = frames
        self.records = records
        self.segment = 0
        self.position = 0
        self.length = 0
        self.stable = 0

    def section(self, topic: str) -> Section | None:
        """The messages of ``topic``, if there are any."""
        for section in self.sections:
            if section.topic == topic:
                return section
        return None

    @property
    def cost(self) -> int:
        """Bytes of memory, roughly: what a cache counts."""
        return self.length + sum(96 * len(s.offsets) for s in self.sections) + 512


def encode_meta(sections: Iterable[Section], frames: list[Any], records: dict[str, Any]) -> bytes:
    """The part of the body that is not payloads."""
    table: list[Any] = []
    for section in sections:
        offsets = section.offsets
        spread = offsets.start if isinstance(offsets, range) else list(offsets)
        table.append((section.topic, spread, len(section.payloads), section.size, section.columns() or None))
    packed: bytes = _packer.pack((table, frames, records))
    return packed


def encode(batch: Batch, mark: int, seed: int, stable: int) -> bytes:
    """The bytes of ``batch`` for a segment of that ``mark`` and ``seed``, of which ``stable`` bytes are synced."""
    meta = encode_meta(batch.sections, batch.frames, batch.records)
    lengths = array("I")
    parts = [meta, b""]
    for section in batch.sections:
        lengths.extend(map(len, section.payloads))
        parts += section.payloads
    parts[1] = lengths.tobytes()
    body = b"".join(parts)
    after = _AFTER_CRC.pack(len(body), batch.number, int(batch.time * 1e6), stable, len(lengths), len(meta), 0)
    checksum = crc32(body, crc32(after, seed))
    return b"".join((struct.pack("<II", mark, checksum), after, body))


class BadBatch(Exception):
    """The bytes are not a whole batch of this segment; the message says what is wrong."""


def check(data: bytes | memoryview, position: int, mark: int, seed: int) -> int:
    """The length of the batch at ``position``, checked with its checksum; raises ``BadBatch``."""
    if len(data) - position < HEADER_SIZE:
        raise BadBatch("the header is cut off")
    found, checksum, length, _, _, _, count, meta, attributes = HEADER.unpack_from(data, position)
    if found != mark:
        raise BadBatch("there is no batch mark")
    end = position + HEADER_SIZE + length
    if not 0 < length <= MAX_BODY or end > len(data):
        raise BadBatch("the body is cut off")
    if crc32(memoryview(data)[position + 8 : end], seed) != checksum:
        raise BadBatch("the checksum does not match")
    if attributes or meta + 4 * count > length:
        raise BadBatch("the attributes are unknown")
    return HEADER_SIZE + int(length)


def decode(data: bytes | memoryview, position: int = 0, payloads: bool = True) -> Batch:
    """The batch at ``position``, which ``check`` found whole. Without ``payloads`` those lists stay empty."""
    _, _, length, number, time, stable, count, meta_length, _ = HEADER.unpack_from(data, position)
    view = memoryview(data)
    start = position + HEADER_SIZE
    lengths_at = start + meta_length
    table, frames, records = msgpack.unpackb(
        view[start:lengths_at], strict_map_key=False, use_list=True, unicode_errors="surrogatepass"
    )
    batch = Batch(number, time / 1e6, [], frames, records)
    batch.stable = stable
    batch.position = position
    batch.length = HEADER_SIZE + length
    if table:
        payloads_at = lengths_at + 4 * count
        ends = array("I")
        if payloads:
            ends.frombytes(view[lengths_at:payloads_at])
        first = 0
        body = bytes(view[payloads_at : start + length]) if payloads else b""
        bounds = list(accumulate(ends, initial=0)) if payloads else []
        for topic, spread, n, size, columns in table:
            offsets = range(spread, spread + n) if isinstance(spread, int) else spread
            taken = (
                [body[a:b] for a, b in zip(bounds[first : first + n], bounds[first + 1 : first + n + 1], strict=True)]
                if payloads
                else []
            )
            section = Section(topic, offsets, taken, size)
            if columns:
                for name, column in columns.items():
                    setattr(section, name, column)
            batch.sections.append(section)
            first += n
    return batch
