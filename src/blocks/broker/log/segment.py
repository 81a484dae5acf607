"""A segment is a file of batches under a salted header; scanning one tells a torn tail from damage (see FORMAT.md)."""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

from blocks.broker.errors import BrokerError, Damaged

from .batch import HEADER, MAX_BODY, BadBatch, check
from .batch import HEADER_SIZE as BATCH_HEADER

MAGIC = b"BLKLOG"
VERSION = 1
REWRITTEN = 1  # a flag: batches were taken out, so numbers may skip
_HEADER = struct.Struct("<6sHIQQQQQQI")  # magic, version, flags, id, salt, first number, end number, stream, µs, crc
HEADER_SIZE = 2 * _HEADER.size  # written twice, so that one bad byte cannot cost a segment
_KNOWN_FLAGS = REWRITTEN


class WrongVersion(BrokerError):
    """The file was written by a version whose format this one does not read."""

    code = "wrong-version"


class SegmentHeader(NamedTuple):
    """What stands at the head of a segment. ``end`` is 0 until the segment is rewritten; ``created`` in seconds."""

    id: int
    salt: int
    first: int
    stream: int
    created: float
    flags: int = 0
    end: int = 0

    @property
    def mark(self) -> int:
        """The four bytes that each batch of this segment begins with."""
        return self.salt & 0xFFFFFFFF

    @property
    def seed(self) -> int:
        """What each checksum of this segment starts from."""
        return self.salt >> 32

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.id:012d}.log"

    def encode(self) -> bytes:
        """The header's bytes, twice."""
        packed = _HEADER.pack(
            MAGIC,
            VERSION,
            self.flags,
            self.id,
            self.salt,
            self.first,
            self.end,
            self.stream,
            int(self.created * 1e6),
            0,
        )[:-4]
        return (packed + struct.pack("<I", crc32(packed))) * 2


def decode_header(data: bytes) -> SegmentHeader:
    """The header, from whichever copy is whole; raises ``Damaged``, or ``WrongVersion`` for another format's file."""
    for start in (0, _HEADER.size):
        copy = data[start : start + _HEADER.size]
        if len(copy) < _HEADER.size or crc32(copy[:-4]) != int.from_bytes(copy[-4:], "little"):
            continue
        magic, version, flags, number, salt, first, end, stream, created, _ = _HEADER.unpack(copy)
        if magic != MAGIC:
            continue
        if version != VERSION or flags & ~_KNOWN_FLAGS:
            raise WrongVersion(
                f"segment {number} has format version {version}, flags {flags}; this reads version {VERSION}"
            )
        return SegmentHeader(number, salt, first, stream, created / 1e6, flags, end)
    if data[:6] == MAGIC and len(data) >= 8 and int.from_bytes(data[6:8], "little") > VERSION:
        raise WrongVersion(f"the file says format version {int.from_bytes(data[6:8], 'little')}; this reads {VERSION}")
    raise Damaged("the segment's header is damaged")


class Scan(NamedTuple):
    """What a segment holds. ``batches`` are (position, length); ``end`` is where the good bytes end.

    ``torn`` bytes follow ``end`` that no sync ever covered; ``holes`` are (position, length) of acknowledged bytes that are bad.
    """

    batches: list[tuple[int, int]]
    end: int
    torn: int
    holes: list[tuple[int, int]]


def scan(data: bytes | memoryview, header: SegmentHeader) -> Scan:
    """Check every batch of a segment.

    What follows a bad batch decides what it was: if a later whole batch says that the bad one's place had been
    synced before (its ``stable`` field), acknowledged bytes were damaged; else it is a tail that a crash tore.
    """
    batches: list[tuple[int, int]] = []
    position, expected = HEADER_SIZE, header.first
    dense = not header.flags & REWRITTEN
    view = memoryview(data)
    mark, seed, size = header.mark, header.seed, len(data)
    while position + BATCH_HEADER <= size:  # a tight loop: small batches make it the price of a start
        found, checksum, length, number, _, _, count, meta, attributes = HEADER.unpack_from(data, position)
        end = position + BATCH_HEADER + length
        if found != mark or not 0 < length <= MAX_BODY or end > size or attributes or meta + 4 * count > length:
            break
        if (number != expected if dense else number < expected) or crc32(view[position + 8 : end], seed) != checksum:
            break
        batches.append((position, end - position))
        expected = number + 1
        position = end
    if position >= len(data):
        return Scan(batches, position, 0, [])
    return _after_bad(data, header, batches, position, expected)


def whole(data: bytes, header: SegmentHeader) -> list[tuple[int, int]]:
    """Every whole batch, whatever lies between them."""
    return _later(data, HEADER_SIZE, header, header.first)


def _after_bad(
    data: bytes | memoryview, header: SegmentHeader, batches: list[tuple[int, int]], position: int, expected: int
) -> Scan:
    later = _later(data, position + 1, header, expected)
    synced = max((HEADER.unpack_from(data, p)[5] for p, _ in later), default=0)
    if synced <= position:
        return Scan(batches, position, len(data) - position, [])
    holes: list[tuple[int, int]] = []
    end = position
    for at, length in later:
        if at >= synced and at != end:
            break  # beyond what was synced, a gap is a torn tail again
        if at > end:
            holes.append((end, at - end))
        batches.append((at, length))
        end = at + length
    if end < synced:
        holes.append((end, synced - end))
        end = synced
    return Scan(batches, end, len(data) - end, holes)


def _whole(data: bytes | memoryview, position: int, header: SegmentHeader, expected: int, dense: bool) -> int:
    """The length of a good batch at ``position`` with the expected number, or 0."""
    try:
        length = check(data, position, header.mark, header.seed)
    except BadBatch:
        return 0
    number = HEADER.unpack_from(data, position)[3]
    return length if (number == expected if dense else number >= expected) else 0


def _later(data: bytes | memoryview, position: int, header: SegmentHeader, expected: int) -> list[tuple[int, int]]:
    """Whole batches after ``position``, found by their mark."""
    found: list[tuple[int, int]] = []
    mark = header.mark.to_bytes(4, "little")
    whole = bytes(data)
    while (position := whole.find(mark, position)) >= 0:
        length = _whole(whole, position, header, expected, False)
        if length:
            found.append((position, length))
            expected = HEADER.unpack_from(whole, position)[3] + 1
            position += length
        else:
            position += 1
    return found
