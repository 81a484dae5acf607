"""Segments are rewritten without what is not kept any longer, and removed when nothing in them is.

Only sealed segments whose state records a kept snapshot covers are cleaned. The new file takes the old one's place in one
rename; its header says that numbers may skip, and has another salt, so that the old index does not fit it.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import NamedTuple

from .batch import Batch, Section, check, decode, encode
from .commit import Segment
from .disk import Disk, read_whole, replace_whole
from .index import Index
from .recovery import index_name, our_files, removed_name
from .segment import HEADER_SIZE, REWRITTEN, SegmentHeader

TOMBSTONE_SECONDS = 86_400.0  # Kafka's delete.retention.ms: how long an empty value of a compacted key is kept


class Keep(NamedTuple):
    """What stays: of each topic the offsets from ``first`` on, and of compacted topics only the last value of a key."""

    first: dict[str, int]  # topics that are not in it are gone
    latest: dict[str, dict[bytes, int]]  # compacted topic -> key -> offset of its last value
    now: float  # wall-clock seconds

    def indexes(self, section: Section, time: float) -> list[int]:
        """The entries of a section that stay."""
        first = self.first.get(section.topic)
        if first is None or section.offsets[-1] < first:
            return []
        latest = self.latest.get(section.topic)
        if latest is None or section.keys is None:
            return [at for at, offset in enumerate(section.offsets) if offset >= first]
        old = self.now - time > TOMBSTONE_SECONDS
        kept = []
        for at, (offset, key) in enumerate(zip(section.offsets, section.keys, strict=True)):
            if offset < first or (key is not None and latest.get(key, offset) != offset):
                continue
            if key is None or section.payloads[at] or not old:
                kept.append(at)
        return kept


def last_values(
    disk: Disk, segments: Iterable[tuple[SegmentHeader, int]], topics: set[str]
) -> dict[str, dict[bytes, int]]:
    """The offset of the last value of each key of ``topics``, in segments given with their lengths."""
    latest: dict[str, dict[bytes, int]] = {topic: {} for topic in topics}
    for header, length in segments:
        for batch in _batches(read_whole(disk, header.name)[:length], header):
            for section in batch.sections:
                found = latest.get(section.topic)
                if found is not None and section.keys is not None:
                    found.update((k, o) for k, o in zip(section.keys, section.offsets, strict=True) if k is not None)
    return latest


def _batches(data: bytes, header: SegmentHeader) -> Iterable[Batch]:
    position = HEADER_SIZE
    while position < len(data):
        length = check(data, position, header.mark, header.seed)
        yield decode(data, position)
        position += length


class Rewritten(NamedTuple):
    """What became of a segment: its successor (None: nothing of it stays), how many messages went, whether any did."""

    segment: Segment | None
    gone: int
    changed: bool


def rewrite(disk: Disk, old: SegmentHeader, end: int, keep: Keep, random: Random) -> Rewritten:
    """Put a copy of segment ``old`` in its place that has only what stays; ``end`` is the number after its last batch.

    Where nothing stays, or all does, nothing is written. Raises ``BadBatch`` for a damaged segment, which is left as it
    is, and ``OSError``.
    """
    header = old._replace(salt=random.getrandbits(63) << 1 | 1, flags=old.flags | REWRITTEN, end=end)
    content = [header.encode()]
    index = Index()
    position, gone = HEADER_SIZE, 0
    for batch in _batches(read_whole(disk, old.name), old):
        sections = []
        for section in batch.sections:
            kept = keep.indexes(section, batch.time)
            gone += len(section.offsets) - len(kept)
            if len(kept) == len(section.offsets):
                sections.append(section)
            elif kept:
                sections.append(section.pick(kept, batch.time))
        if not sections:
            continue
        copy = Batch(batch.number, batch.time, sections, [], {})
        data = encode(copy, header.mark, header.seed, position)
        copy.segment, copy.position, copy.length = header.id, position, len(data)
        index.add(copy)
        content.append(data)
        position += len(data)
    if len(content) == 1:
        return Rewritten(None, gone, True)
    if not gone:
        return Rewritten(None, 0, False)
    index.length, index.end = position, end
    replace_whole(disk, header.name, b"".join(content))
    replace_whole(disk, index_name(header), index.encode(header))
    return Rewritten(Segment(header, index, position), gone, True)


def remove(disk: Disk, header: SegmentHeader, number: int) -> None:
    """Remove an emptied segment; a marker says that it went on purpose until snapshots newer than ``number`` are kept."""
    replace_whole(disk, removed_name(header.id), b"%d" % number)
    disk.unlink(header.name)
    disk.unlink(index_name(header))
    disk.sync_directory()


def drop_markers(disk: Disk, covered: int) -> None:
    """Forget the markers of segments that no snapshot up to batch ``covered`` knows any more."""
    for name in our_files(disk, ".removed"):
        if int(read_whole(disk, name) or b"0") < covered:
            disk.unlink(name)
