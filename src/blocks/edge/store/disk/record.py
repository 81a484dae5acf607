"""What a stored response looks like on disk, byte for byte (FORMAT.md), and how damage is told from data. Sans-IO."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

if TYPE_CHECKING:
    from mmap import mmap

    Buffer = bytes | memoryview | mmap

ALIGN = 64  # records begin at multiples of it, so that a scan finds its way past damage
BLOCK = 256 * 1024  # bytes of a blob that share one checksum, and the unit of reading it
MAX_META = 1024 * 1024  # bytes; header sections are limited far below it (RFC 6585 §5 has servers refuse them)

IN_BLOB = 1  # the body is a file of its own; the record holds its checksums
GONE = 2  # the key was deleted after what stands before
SOFT = 4  # purged softly: may be served stale only

HEAD = struct.Struct("<4sHH16sQIIQQII")
_SEGMENT = struct.Struct("<4sHHQQI")
_SEGMENT_MAGIC = b"BLS1"
SEGMENT_HEAD = ALIGN
_SIDE = struct.Struct("<4sIQQQI")
_SIDE_MAGIC = b"BLI1"
_SLOT = struct.Struct("<QQ")
_BLOB_SLOT = struct.Struct("<QQQQ")

BlobSlot = tuple[int, int, int, int]  # (short key, place of the record, blob, size of the blob in bytes)


class Head(NamedTuple):
    """A record's fixed part. ``digest`` names the key; ``generation`` orders it against purges; ``blob`` names the body's file."""

    flags: int
    digest: bytes
    generation: int
    meta_length: int
    meta_crc: int
    body_length: int
    blob: int
    body_crc: int

    @property
    def tail_length(self) -> int:
        """Bytes that follow the metadata: the body, or the checksums of its blocks."""
        if self.flags & GONE:
            return 0
        return 4 * blocks(self.body_length) if self.flags & IN_BLOB else self.body_length

    @property
    def length(self) -> int:
        """Bytes of the whole record, without what pads it to ``ALIGN``."""
        return HEAD.size + self.meta_length + self.tail_length


class Record(NamedTuple):
    """A record that was checked: ``tail`` is the body, or the checksums when the body is a blob."""

    head: Head
    meta: bytes
    tail: bytes


class Damaged(Exception):
    """The bytes are not what was written."""


def digest_of(key: bytes) -> bytes:
    """16 bytes that stand for a key (BLAKE2b-128); the key itself is in the metadata and compared on reading."""
    return blake2b(key, digest_size=16).digest()


def short(digest: bytes) -> int:
    """The part of a digest by which the index finds a record."""
    return int.from_bytes(digest[:8], "little")


def blocks(length: int) -> int:
    """How many checksummed blocks a blob of ``length`` bytes has."""
    return -(-length // BLOCK)


def padded(length: int) -> int:
    """``length`` rounded up to ``ALIGN``."""
    return -(-length // ALIGN) * ALIGN


class Codec:
    """Packs and reads the records of one store.

    ``secret`` (8 random bytes, made with the store) is in every head's magic and checksum. Behind a damaged head a scan walks through
    somebody's body; without the secret that body could hold a well-made record of another key, and poison the cache.
    """

    __slots__ = ("_magic", "_seed")

    def __init__(self, secret: bytes) -> None:
        self._magic = secret[:4]
        self._seed = int.from_bytes(secret[4:8], "little")

    def pack(
        self, digest: bytes, generation: int, meta: bytes, tail: bytes, *,
        flags: int = 0, body_length: int | None = None, blob: int = 0,
    ) -> bytes:  # fmt: skip
        """A record, padded. ``tail`` is the body, or the block checksums with ``IN_BLOB`` and ``body_length``."""
        length = len(tail) if body_length is None else body_length
        head = HEAD.pack(
            self._magic, flags, 0, digest, generation, len(meta), crc32(meta), length, blob, crc32(tail), 0
        )
        data = self._sealed(head) + meta + tail
        return data + bytes(-len(data) % ALIGN)

    def restamped(self, record: bytes, generation: int, flags: int) -> bytes:
        """The same record with another generation and flags: what was held against every purge so far need not be again."""
        head = bytearray(record[: HEAD.size])
        struct.pack_into("<H", head, 4, flags)
        struct.pack_into("<Q", head, 24, generation)
        return self._sealed(bytes(head)) + record[HEAD.size :]

    def read_head(self, data: Buffer) -> Head:
        """The head at the beginning of ``data``. Raises ``Damaged``."""
        if len(data) < HEAD.size:
            raise Damaged("the record's head is cut short")
        magic, flags, _, digest, generation, meta_length, meta_crc, body_length, blob, body_crc, crc = HEAD.unpack_from(
            data
        )
        if magic != self._magic or crc32(data[: HEAD.size - 4], self._seed) != crc:
            raise Damaged("the record's head does not match its checksum")
        if meta_length > MAX_META:
            raise Damaged("the record's metadata is longer than any that is written")
        return Head(flags, digest, generation, meta_length, meta_crc, body_length, blob, body_crc)

    def read(self, data: bytes) -> Record:
        """The record that ``data`` begins with, every checksum compared. Raises ``Damaged``."""
        head = self.read_head(data)
        cut = HEAD.size + head.meta_length
        meta, tail = data[HEAD.size : cut], data[cut : head.length]
        if len(data) < head.length or crc32(meta) != head.meta_crc or crc32(tail) != head.body_crc:
            raise Damaged("the record's content does not match its checksum")
        return Record(head, meta, tail)

    def scan(self, data: Buffer, start: int = ALIGN) -> Iterator[tuple[int, Head]]:
        """(offset, head) of every record whose head is whole and whose content is there, stepping over what is damaged."""
        with memoryview(data) as view:
            offset, end = start, len(view)
            while offset + HEAD.size <= end:
                head = None
                if view[offset : offset + 4] == self._magic:
                    try:
                        head = self.read_head(view[offset : offset + HEAD.size])
                    except Damaged:
                        pass
                if (
                    head is None or offset + head.length > end
                ):  # damaged, or cut off by the end: the next may begin anywhere
                    offset += ALIGN
                    continue
                yield offset, head
                offset += padded(head.length)

    def _sealed(self, head: bytes) -> bytes:
        return head[:-4] + crc32(head[:-4], self._seed).to_bytes(4, "little")


def segment_head(number: int, main: bool, generation: int) -> bytes:
    """The first ``ALIGN`` bytes of a segment file; no record in it is of an older ``generation``."""
    head = _SEGMENT.pack(_SEGMENT_MAGIC, 1 if main else 0, 0, number, generation, 0)
    return (head[:-4] + crc32(head[:-4]).to_bytes(4, "little")).ljust(SEGMENT_HEAD, b"\0")


def read_segment_head(data: bytes) -> tuple[bool, int]:
    """(whether it belongs to the main queue, generation). Raises ``Damaged``."""
    if len(data) < SEGMENT_HEAD:
        raise Damaged("the segment's head is cut short")
    magic, queue, _, _, generation, crc = _SEGMENT.unpack_from(data)
    if magic != _SEGMENT_MAGIC or crc32(data[: _SEGMENT.size - 4]) != crc:
        raise Damaged("the segment's head does not match its checksum")
    return bool(queue), generation


def place(offset: int, length: int) -> int:
    """Where a record is in its segment, as one number: the index keeps ``segment << 64 | place``."""
    return offset << 32 | length


def pack_side(number: int, slots: list[tuple[int, int]], blobs: list[BlobSlot]) -> bytes:
    """The side file of a sealed segment: (short key, place) of every record in order, place 0 for a deletion, and its blobs."""
    body = b"".join([_SLOT.pack(*slot) for slot in slots]) + b"".join([_BLOB_SLOT.pack(*blob) for blob in blobs])
    deletions = sum(not place for _, place in slots)
    head = _SIDE.pack(_SIDE_MAGIC, len(blobs), number, len(slots), deletions, 0)
    head = head[:-4] + crc32(body, crc32(head[:-4])).to_bytes(4, "little")
    return head + body


class Side(NamedTuple):
    """A side file that was checked."""

    slots: memoryview  # 16 bytes each, for ``slots_of``
    blobs: list[BlobSlot]
    deletions: int


def read_side(data: bytes, number: int) -> Side:
    """The side file of segment ``number``. Raises ``Damaged``."""
    if len(data) < _SIDE.size:
        raise Damaged("the side file is cut short")
    magic, blob_count, of, slot_count, deletions, crc = _SIDE.unpack_from(data)
    body = memoryview(data)[_SIDE.size :]
    expected = _SLOT.size * slot_count + _BLOB_SLOT.size * blob_count
    if magic != _SIDE_MAGIC or of != number or len(body) != expected:
        raise Damaged("the side file is not what its head says")
    if crc32(body, crc32(data[: _SIDE.size - 4])) != crc:
        raise Damaged("the side file does not match its checksum")
    cut = _SLOT.size * slot_count
    return Side(body[:cut], list(_BLOB_SLOT.iter_unpack(body[cut:])), deletions)


def slots_of(view: memoryview) -> Iterator[tuple[int, int]]:
    """(short key, place) of a side file's slots; 0.1 µs each, which is what makes a million warm within a second."""
    return _SLOT.iter_unpack(view)
