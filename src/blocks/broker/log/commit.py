"""A commit is one round of writing: its batches go to the end of the active segment, or over it into new ones, and are synced.

``Commit.run`` is all that the commit thread does with a log; it touches files and nothing else.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from .batch import Batch
from .disk import Disk, File
from .index import Index
from .segment import SegmentHeader

FULL = (errno.ENOSPC, errno.EDQUOT)


class Segment:
    """One file of the log: its header, its index, and ``length`` bytes of committed batches."""

    __slots__ = ("file", "header", "index", "length", "retired", "synced", "window")

    def __init__(self, header: SegmentHeader, index: Index, length: int) -> None:
        self.header = header
        self.index = index
        self.length = length
        self.synced = length  # bytes that a finished sync covered
        self.file: File | None = None
        self.window: tuple[int, bytes] | None = None
        self.retired = False


class Write(NamedTuple):
    """One batch on its way to the disk."""

    segment: Segment
    batch: Batch
    data: bytes


class Commit:
    """What one round of the commit thread writes and syncs; ``error`` is set if it failed, ``full`` if for want of room."""

    __slots__ = ("active", "created", "error", "full", "lengths", "sync", "writes")

    def __init__(self, active: Segment | None, writes: list[Write], created: list[Segment], sync: bool) -> None:
        self.active = active
        self.writes = writes
        self.created = created
        self.sync = sync
        self.lengths = {write.segment.header.id: write.segment.length for write in writes}
        self.error: OSError | None = None
        self.full = False

    def run(self, disk: Disk) -> None:
        """Write and sync (in the commit thread). On a full disk cut what was written of it; never raises ``OSError``."""
        try:
            self._write(disk)
            if self.sync:
                self._sync()
        except OSError as error:
            self.error = error

    def _write(self, disk: Disk) -> None:
        try:
            start = 0
            while start < len(self.writes):
                segment = self.writes[start].segment
                stop = start
                while stop < len(self.writes) and self.writes[stop].segment is segment:
                    stop += 1
                if segment in self.created:
                    before = self.writes[start - 1].segment if start else self.active
                    if before is not None and before.file is not None:
                        before.file.sync()  # a segment is whole on the medium before there is a next one
                    create(disk, segment)
                assert segment.file is not None
                segment.file.write(self.writes[start].batch.position, [w.data for w in self.writes[start:stop]])
                start = stop
        except OSError as error:
            if error.errno in FULL:
                self._cut(disk)
                self.full = True
            raise

    def _sync(self) -> None:
        done: list[Segment] = []
        for write in self.writes:
            if write.segment not in done:
                done.append(write.segment)
                assert write.segment.file is not None
                write.segment.file.sync()

    def _cut(self, disk: Disk) -> None:
        for write in self.writes:
            segment = write.segment
            if segment in self.created:
                if segment.file is not None:
                    segment.file.close()
                    segment.file = None
                disk.unlink(segment.header.name)
            elif segment.file is not None:
                segment.file.truncate(self.lengths[segment.header.id])
                segment.file.sync()


def create(disk: Disk, segment: Segment) -> None:
    """Make the segment's file: after a crash it is there with its header, or not at all."""
    segment.file = disk.open(segment.header.name, create=True)
    segment.file.write(0, [segment.header.encode()])
    segment.file.sync()
    disk.sync_directory()
