"""The disk store's records: an index in memory over segments on disk, appended by one thread, bounded by S3-FIFO.

S3-FIFO (Yang et al., SOSP 2023) suits a log as it is: its two queues are two lists of segments. What is new goes to the small
queue (10 %); when its oldest segment goes, what was asked for meanwhile is copied to the main queue, the rest becomes a
ghost; what comes back while it is a ghost goes to the main queue at once.

Only the writing thread changes anything here; the loop's thread looks things up in ``index``, ``segments`` and marks ``touched``.
"""

from __future__ import annotations

import errno
from collections import OrderedDict, deque
from collections.abc import Callable

from . import record
from .files import Files
from .segment import Segment

SMALL_SHARE = 0.1  # of the capacity: the paper's small queue
SEGMENTS = 64  # segments that make up the capacity: what goes at once is 1/64 of it
MIN_SEGMENT, MAX_SEGMENT = 256 * 1024, 256 * 1024 * 1024  # bytes
MAX_TOUCHES = 3  # the paper's two bits

Judge = Callable[[record.Record], int | None]  # the flags to keep a record with, or None to drop it


class Counters:
    """What happened, since the start."""

    __slots__ = ("damaged", "dropped", "errors", "evicted", "promoted", "written")

    def __init__(self) -> None:
        self.damaged = self.dropped = self.errors = self.evicted = self.promoted = self.written = 0


class Waiting:
    """Records that will go out with the next ``flush`` of one queue."""

    __slots__ = ("data", "marks", "size")

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.marks: list[tuple[int, int, int, int]] = []  # short key, length (0: a deletion), blob, blob size
        self.size = 0


class Log:
    """Appends, looks up, forgets. ``capacity`` counts segments and blobs together, bytes."""

    def __init__(
        self, segments: str, capacity: int, codec: record.Codec, files: Files, drop_blob: Callable[[int], None]
    ) -> None:
        self.folder = segments
        self.capacity = capacity
        self.segment_size = min(max(capacity // SEGMENTS, MIN_SEGMENT), MAX_SEGMENT)
        self.files = files
        self.codec = codec
        self.counters = Counters()
        self.index: dict[int, int] = {}  # short key → segment << 64 | offset << 32 | length
        self.segments: dict[int, Segment] = {}
        self.queues: dict[bool, deque[Segment]] = {False: deque(), True: deque()}
        self.touched: dict[int, int] = {}
        self.filling = 0  # bytes of blobs that no record speaks of yet
        self.next_number = 1
        self.judge: Judge = lambda kept: kept.head.flags
        self.generation: Callable[[], int] = lambda: 0
        self._drop_blob = drop_blob
        self._waiting = {False: Waiting(), True: Waiting()}
        self._ghosts: OrderedDict[int, None] = OrderedDict()
        self._batch: dict[int, bool] = {}  # keys in the batch that waits, and the queue each went to

    @property
    def total(self) -> int:
        """Bytes on disk."""
        return sum(s.weight for s in list(self.segments.values())) + self.filling

    # -- looking

    def find(self, short: int) -> tuple[Segment, int, int] | None:
        """(segment, offset, length) of the record of a key."""
        found = self.index.get(short)
        if found is None:
            return None
        segment = self.segments.get(found >> 64)
        return None if segment is None else (segment, found >> 32 & 0xFFFFFFFF, found & 0xFFFFFFFF)

    def touch(self, short: int) -> None:
        """The key was asked for."""
        count = self.touched.get(short, 0)
        if count < MAX_TOUCHES:
            self.touched[short] = count + 1

    # -- changing: the writing thread only

    def append(self, digest: bytes, data: bytes, length: int, blob: int = 0, blob_size: int = 0) -> None:
        """Let a packed record go out with the next ``flush``."""
        short = record.short(digest)
        queue = self._batch.get(short)
        if queue is None:
            queue = self._batch[short] = self._queue_of(short)
        waiting = self._waiting[queue]
        waiting.data.append(data)
        waiting.marks.append((short, length, blob, blob_size))
        waiting.size += len(data)

    def delete(self, digest: bytes) -> None:
        """Forget a key, over restarts too."""
        short = record.short(digest)
        if short in self.index or short in self._batch:
            self.append(digest, self.codec.pack(digest, self.generation(), b"", b"", flags=record.GONE), 0)

    def flush(self) -> None:
        """Write what waits. What cannot be written is dropped, and what it would have replaced with it: a cache may forget."""
        self._batch.clear()
        for main in (False, True):
            waiting = self._waiting[main]
            if waiting.marks:
                self._waiting[main] = Waiting()
                self._write(waiting, main)

    def make_room(self, incoming: int) -> None:
        """Evict until ``incoming`` bytes more stay within the capacity."""
        rounds = (
            4 * len(self.segments) + 8
        )  # each round through the main queue lowers every count, so this is never reached
        while self.total + incoming > self.capacity and self.segments and rounds:
            rounds -= 1
            self._evict()

    def seal(self, main: bool) -> None:
        """End the queue's open segment."""
        queue = self.queues[main]
        if queue and not queue[-1].sealed:
            queue[-1].seal()
            self._remove_if_dead(queue[-1])

    def drop(self, short: int) -> None:
        """Take a key out of the index."""
        found = self.index.pop(short, None)
        self.touched.pop(short, None)
        if found is not None:
            self._release(found)

    # -- inside

    def _queue_of(self, short: int) -> bool:
        """The main queue? A new version stays in the queue of the old one: recovery reads main, then small, and the last one counts."""
        found = self.index.get(short)
        if found is not None:
            segment = self.segments.get(found >> 64)
            return segment.main if segment else False
        if short in self._ghosts:
            del self._ghosts[short]
            return True
        return False

    def _open_segment(self, main: bool, incoming: int) -> Segment:
        queue = self.queues[main]
        if queue and not queue[-1].sealed:
            if queue[-1].weight + incoming <= self.segment_size:
                return queue[-1]
            self.seal(main)
        segment = Segment(self.files, self.codec, self.folder, self.next_number, main)
        self.next_number += 1
        segment.generation = self.generation()
        segment.create()
        self.segments[segment.number] = segment
        queue.append(segment)
        return segment

    def _write(self, waiting: Waiting, main: bool) -> None:
        try:
            self.make_room(waiting.size)
            segment = self._open_segment(main, waiting.size)
            start = segment.size
            self.files.write(segment.fd, b"".join(waiting.data), start)
        except OSError as error:
            self._failed(waiting, main, error)
            return
        offset = start
        for data, (short, length, blob, blob_size) in zip(waiting.data, waiting.marks, strict=True):
            where = record.place(offset, length) if length else 0
            segment.slots.append((short, where))
            old = self.index.get(short)
            if length:
                self.index[short] = segment.number << 64 | where
                segment.live += 1
                if blob:
                    segment.blobs[where] = (short, blob, blob_size)
                    segment.blob_bytes += blob_size
                    self.filling -= blob_size
            else:
                self.index.pop(short, None)
                self.touched.pop(short, None)
            if old is not None:
                self._release(old, keep=blob)
            offset += len(data)
        segment.size = offset
        self.counters.written += len(waiting.marks)

    def _failed(self, waiting: Waiting, main: bool, error: OSError) -> None:
        """The disk is full or broken: nothing of the batch is believed, and older versions of it are not either."""
        self.counters.errors += 1
        self.counters.dropped += len(waiting.marks)
        for short, _, blob, blob_size in waiting.marks:
            self.drop(short)
            if blob:
                self.filling -= blob_size
                self._drop_blob(blob)
        self.seal(main)  # a torn write may lie at its end; a scan steps over it
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and len(self.segments) > 1:
            self._evict()  # somebody else needs the disk: give a segment back

    def _evict(self) -> None:
        small, main = self.queues[False], self.queues[True]
        share = sum(s.weight for s in small) + self.filling
        queue = small if small and (not main or share > SMALL_SHARE * self.capacity) else main
        if not queue:
            return
        segment = queue[0]
        if not segment.sealed:
            segment.seal()
        if segment.number in self.segments:
            self._salvage(segment)
            self._forget(segment)

    def _salvage(self, segment: Segment) -> None:
        """Copy what was asked for to the main queue's end; the rest goes, and is remembered as a ghost if it was new."""
        kept = Waiting()
        try:
            entries = segment.entries()
        except OSError:  # the disk does not give it back: whatever points there goes
            self.counters.errors += 1
            entries = []
            for short in [short for short, found in list(self.index.items()) if found >> 64 == segment.number]:
                self._evicted(short, segment)
        for short, where in entries:
            if not where or self.index.get(short) != segment.number << 64 | where:
                continue
            touches = self.touched.pop(short, 0)
            data = self._kept(segment, where) if touches else None
            if data is None:
                self._evicted(short, segment)
                continue
            if segment.main and touches > 1:
                self.touched[short] = touches - 1
            _, blob, blob_size = segment.blobs.pop(where, (0, 0, 0))
            segment.blob_bytes -= blob_size
            self.filling += blob_size
            kept.data.append(data)
            kept.marks.append((short, where & 0xFFFFFFFF, blob, blob_size))
            kept.size += len(data)
        if kept.marks:
            self.counters.promoted += len(kept.marks)
            self._move(kept)

    def _move(self, kept: Waiting) -> None:
        """Write survivors without making room for them: their old segment goes right after."""
        capacity, self.capacity = self.capacity, 1 << 62
        try:
            self._write(kept, True)
        finally:
            self.capacity = capacity

    def _kept(self, segment: Segment, where: int) -> bytes | None:
        try:
            data = self.files.read(segment.fd, record.padded(where & 0xFFFFFFFF), where >> 32)
            flags = self.judge(self.codec.read(data))
        except (OSError, record.Damaged):
            self.counters.damaged += 1
            return None
        return None if flags is None else self.codec.restamped(data, self.generation(), flags)

    def _evicted(self, short: int, segment: Segment) -> None:
        self.drop(short)
        self.counters.evicted += 1
        if not segment.main:
            self._ghosts[short] = None
            while len(self._ghosts) > max(1024, len(self.index)):
                self._ghosts.popitem(last=False)

    def _release(self, found: int, keep: int = 0) -> None:
        """A record died: its blob goes (unless ``keep`` is it), and its segment when it was the last one alive there."""
        segment = self.segments.get(found >> 64)
        if segment is None:
            return
        segment.live -= 1
        _, blob, size = segment.blobs.pop(found & 0xFFFFFFFFFFFFFFFF, (0, 0, 0))
        segment.blob_bytes -= size
        if blob and blob != keep:
            self._drop_blob(blob)
        self._remove_if_dead(segment)

    def _remove_if_dead(self, segment: Segment) -> None:
        # A segment that holds deletions may only go when nothing older of its queue is left for them to delete.
        if (
            segment.sealed
            and segment.live <= 0
            and self.queues[segment.main]
            and self.queues[segment.main][0] is segment
        ):
            self._forget(segment)

    def _forget(self, segment: Segment) -> None:
        if self.segments.pop(segment.number, None) is None:
            return
        self.queues[segment.main].remove(segment)
        for _, blob, _ in segment.blobs.values():
            self._drop_blob(blob)
        segment.remove()
