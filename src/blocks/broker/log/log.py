"""The log: numbered batches in segments, written a commit at a time and read by topic and offset.

The loop plans commits, takes in finished ones and reads; only ``Commit.run`` is for another thread.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from blocks.broker.errors import Damaged

from .batch import HEADER, HEADER_SIZE, BadBatch, Batch, Section, check, decode, encode
from .cache import BatchCache
from .commit import Commit, Segment, Write
from .disk import Disk, File
from .index import Index, Span
from .segment import HEADER_SIZE as SEGMENT_START
from .segment import SegmentHeader, whole

SEGMENT_BYTES = 64 << 20  # etcd's write-ahead log cuts at 64 MiB
CACHE_BYTES = 32 << 20
_WINDOW = 128 << 10  # bytes read at once where batches are small
_WINDOWS = 32
_OPEN_FILES = 128


class Place(NamedTuple):
    """Where a reader is: the batch it read last."""

    segment: Segment
    position: int


class DamagedBatch(Damaged):
    """A batch of ``segment`` is not what was written."""

    def __init__(self, segment: Segment, message: str) -> None:
        super().__init__(message)
        self.segment = segment


class Log:
    """All segments of a broker, oldest first; the last one is written to."""

    def __init__(
        self,
        disk: Disk,
        stream: int,
        random: Random,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.disk = disk
        self.stream = stream
        self.segment_bytes = segment_bytes
        self.segments: dict[int, Segment] = {}
        self.spans: dict[str, array[int]] = {}  # topic -> segment id, first offset, segment id, first offset, …
        self.next_number = 1
        self.damage: list[str] = []
        self._random = random
        self._cache = BatchCache(cache_bytes)
        self._windows: OrderedDict[int, Segment] = OrderedDict()
        self._files: OrderedDict[int, Segment] = OrderedDict()
        self.active: Segment | None = None
        self._planned: int | None = None  # the newest id given to a segment, whether or not its commit succeeded

    # -- writing ---------------------------------------------------------------------------------------------------

    def plan(self, batches: list[Batch], now: float, sync: bool) -> Commit:
        """Number and encode ``batches`` as the next commit. One commit is planned, run and taken in at a time."""
        writes: list[Write] = []
        created: list[Segment] = []
        segment = self.active
        position = segment.length if segment else 0
        for batch in batches:
            if segment is None or position >= self.segment_bytes or self._skips(segment, batch, writes):
                segment = self.new_segment(batch.number, now)
                created.append(segment)
                position = SEGMENT_START
            data = encode(batch, segment.header.mark, segment.header.seed, segment.synced)
            batch.segment, batch.position, batch.length = segment.header.id, position, len(data)
            writes.append(Write(segment, batch, data))
            position += len(data)
        return Commit(self.active, writes, created, sync)

    @staticmethod
    def _skips(segment: Segment, batch: Batch, writes: list[Write]) -> bool:
        """Numbers are dense in a segment: after a loss at its end the next batch opens another."""
        return not writes and segment.index.end != batch.number

    def new_segment(self, first: int, now: float) -> Segment:
        """A segment to follow the active one; it joins the log with the commit that creates it."""
        number = max(self.segments, default=0) + 1
        if self._planned is not None:
            number = max(number, self._planned + 1)
        self._planned = number
        salt = 0
        while not salt & 0xFFFFFFFF:
            salt = self._random.getrandbits(64)
        index = Index()
        index.end = first
        return Segment(SegmentHeader(number, salt, first, self.stream, now), index, SEGMENT_START)

    def finish(self, commit: Commit) -> list[Segment]:
        """Take in a commit that was written; gives the segments that it sealed."""
        sealed: list[Segment] = []
        for segment in commit.created:
            if self.active is not None:
                sealed.append(self.active)
            self.add_segment(segment)
        for segment, batch, data in commit.writes:
            self.take_in(segment, batch)
            segment.length = batch.position + len(data)
            if commit.sync:
                segment.synced = segment.length
            if batch.sections:
                self._cache.put(segment.header.salt, batch)
        if commit.writes:
            self.next_number = commit.writes[-1].batch.number + 1
        for segment in sealed:
            segment.synced = segment.length
            self._keep_open(segment)
        return sealed

    def unsynced(self) -> list[tuple[Segment, int]]:
        """The segments that hold more than was synced, with their lengths now."""
        return [(s, s.length) for s in self.segments.values() if s.synced < s.length]

    def take_in(self, segment: Segment, batch: Batch) -> None:
        """Index one batch."""
        for topic in segment.index.add(batch):
            self.note_span(topic, segment, segment.index.spans[topic].first)

    def note_span(self, topic: str, segment: Segment, first: int) -> None:
        """Remember that ``topic`` has messages in ``segment``, which is the newest."""
        spans = self.spans.get(topic)
        if spans is None:
            spans = self.spans[topic] = array("Q")
        spans.append(segment.header.id)
        spans.append(first)

    def add_segment(self, segment: Segment) -> None:
        """Make ``segment`` the newest one."""
        self.segments[segment.header.id] = segment
        self.active = segment

    def end_of(self, topic: str) -> int:
        """The offset after the newest one of ``topic`` that is in the log; 0 if there is none."""
        spans = self.spans.get(topic)
        return self.segments[spans[-2]].index.spans[topic].end if spans else 0

    def replace(self, old: Segment, new: Segment | None) -> None:
        """A segment was rewritten to ``new``, or removed."""
        old.retired = True
        self._close(old)
        if new is None:
            del self.segments[old.header.id]
        else:
            self.segments[old.header.id] = new
        for topic in old.index.spans:
            spans = self.spans.get(topic)
            if spans is None:
                continue
            span = new.index.spans.get(topic) if new is not None else None
            at = spans[::2].index(old.header.id) * 2 if old.header.id in spans[::2] else -1
            if at >= 0:
                spans[at : at + 2] = array("Q", (old.header.id, span.first) if span else ())

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, topic: str, offset: int, place: Place | None = None) -> tuple[Batch, Section] | None:
        """The first stored messages of ``topic`` at or after ``offset``: their batch and section; None if there are none.

        ``place``, where the reader was before this offset, saves the search. Raises ``Damaged`` for a bad batch.
        """
        spans = self.spans.get(topic)
        if spans is None:
            return None
        if place is not None and not place.segment.retired:
            found = self._walk(place.segment, topic, offset, place.position)
            if found is not None:
                return found
            at = bisect_right(spans[::2], place.segment.header.id) * 2
        else:
            at = max(0, bisect_right(spans[1::2], offset) - 1) * 2
        while at < len(spans):
            segment = self.segments[spans[at]]
            span = segment.index.spans[topic]
            if span.end > offset:
                found = self._walk(segment, topic, offset, span.locate(offset))
                if found is not None:
                    return found
            at += 2
        return None

    def step_over(self, segment: Segment) -> None:
        """Find out which batches of a damaged segment are whole, and read only those from now on."""
        index = Index(spacing=0)
        data = self._open(segment).read(0, segment.length)
        for position, _ in whole(data, segment.header):
            index.add(decode(data, position, payloads=False))
        for name, span in segment.index.spans.items():
            index.spans.setdefault(name, Span(span.first, span.first, 0, 0, span.offsets[:1], span.positions[:1]))
        index.length, index.end = segment.index.length, segment.index.end
        segment.index = index
        segment.window = None

    def offset_at(self, topic: str, time: float) -> int | None:
        """The first offset of ``topic`` that was stored at ``time`` (wall-clock seconds) or later; None: there is none."""
        for number in self.spans.get(topic, ())[::2]:
            segment = self.segments[number]
            if segment.index.latest < time:
                continue
            span = segment.index.spans[topic]
            at = bisect_right(span.positions, time, key=lambda p: self.batch(segment, p).time)
            offset = span.offsets[max(0, at - 1)]
            found = self.read(topic, offset)
            while found is not None and found[0].time < time:
                offset = found[1].offsets[-1] + 1
                found = self.read(topic, offset, self.place(found[0]))
            if found is not None:
                return found[1].offsets[0]
        return None

    def place(self, batch: Batch) -> Place:
        """Where ``batch`` is, for the next ``read``."""
        return Place(self.segments[batch.segment], batch.position)

    def _walk(self, segment: Segment, topic: str, offset: int, position: int) -> tuple[Batch, Section] | None:
        span = segment.index.spans.get(topic)
        if span is None or span.end <= offset:
            return None
        while 0 <= position < segment.length:
            batch = self.batch(segment, position)
            section = batch.section(topic)
            if section is not None and section.offsets[-1] >= offset:
                return batch, section
            position = span.following(position + batch.length)
        return None

    def batch(self, segment: Segment, position: int) -> Batch:
        """The batch at ``position``; raises ``Damaged`` if the disk gives back other bytes than were written."""
        salt = segment.header.salt
        batch = self._cache.get(salt, position)
        if batch is None:
            data, at = self._bytes(segment, position)
            self._check(data, at, segment, position)
            batch = decode(data, at)
            batch.segment, batch.position = segment.header.id, position
            self._cache.put(salt, batch)
        return batch

    def batches(self, segment: Segment, start: int = SEGMENT_START) -> Iterator[Batch]:
        """Every batch of ``segment`` from ``start`` on, past the cache."""
        position = start
        while position < segment.length:
            data, at = self._bytes(segment, position)
            length = self._check(data, at, segment, position)
            batch = decode(data, at)
            batch.segment, batch.position = segment.header.id, position
            yield batch
            position += length

    @staticmethod
    def _check(data: bytes, at: int, segment: Segment, position: int) -> int:
        try:
            return check(data, at, segment.header.mark, segment.header.seed)
        except BadBatch as error:
            raise DamagedBatch(segment, f"{segment.header.name} at byte {position}: {error}") from error

    def _bytes(self, segment: Segment, position: int) -> tuple[bytes, int]:
        """Bytes that hold the batch at ``position`` whole, and where in them it starts."""
        window = segment.window
        if window is not None:
            start, data = window
            at = position - start
            if at >= 0 and at + HEADER_SIZE <= len(data):
                length: int = HEADER.unpack_from(data, at)[2]
                if at + HEADER_SIZE + length <= len(data):
                    return data, at
        file = self._open(segment)
        data = file.read(position, min(_WINDOW, segment.length - position))
        if len(data) >= HEADER_SIZE:
            need = HEADER_SIZE + HEADER.unpack_from(data, 0)[2]
            if need > len(data) and position + need <= segment.length:
                return data + file.read(position + len(data), need - len(data)), 0
        segment.window = (position, data)
        self._windows[segment.header.id] = segment
        self._windows.move_to_end(segment.header.id)
        if len(self._windows) > _WINDOWS:
            self._windows.popitem(last=False)[1].window = None
        return data, 0

    def hold(self, segment: Segment) -> None:
        """Have the file open, so that what is read stays the same while another takes its name."""
        self._open(segment)

    def _open(self, segment: Segment) -> File:
        if segment.file is None:
            segment.file = self.disk.open(segment.header.name)
            self._keep_open(segment)
        return segment.file

    def _keep_open(self, segment: Segment) -> None:
        self._files[segment.header.id] = segment
        while len(self._files) > _OPEN_FILES:
            _, other = self._files.popitem(last=False)
            if other is not self.active and other is not segment:
                self._close(other)

    def _close(self, segment: Segment) -> None:
        segment.window = None
        if segment.file is not None:
            segment.file.close()
            segment.file = None

    def close(self) -> None:
        """Close every file."""
        for segment in self.segments.values():
            self._close(segment)
        self._cache.clear()

    @property
    def size(self) -> int:
        """Bytes on disk, without indexes."""
        return sum(segment.length for segment in self.segments.values())
