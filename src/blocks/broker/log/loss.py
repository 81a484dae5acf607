"""What is lost for good is written down once, so that a repaired log is whole, and the same loss is not reported for ever."""

from __future__ import annotations

from .commit import create
from .disk import Disk, replace_whole
from .log import Log
from .recovery import removed_name


def accept_loss(disk: Disk, log: Log, known: list[tuple[int, int]]) -> None:
    """Go on after what is missing: a segment opens with the next number, and what the snapshot knows is marked as gone.

    ``known`` are the (id, salt) of the segments that the snapshot knows; ``log`` is one that was opened for repair.
    """
    there = set(log.segments)
    if max((segment.index.end for segment in log.segments.values()), default=1) < log.next_number:
        latest = log.active.index.latest if log.active is not None else 0.0
        opened = log.new_segment(log.next_number, latest)
        create(disk, opened)
        log.add_segment(opened)
        there.add(opened.header.id)
    for segment, _ in known:
        if segment not in there:
            replace_whole(disk, removed_name(segment), b"%d" % log.next_number)
    disk.sync_directory()
