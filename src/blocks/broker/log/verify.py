"""Reading a whole log while no broker has it open: ``verify`` changes nothing, ``repair`` keeps damage aside and goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from blocks.broker.errors import NotFound

from .disk import Disk, RealDisk
from .loss import accept_loss
from .recovery import Recovery

Progress = Callable[[int, int], None]  # bytes read, bytes there are


@dataclass(slots=True)
class Report:
    """What was found. ``ok``: every byte that a sync covered is as it was written."""

    path: str
    ok: bool = True
    segments: int = 0
    bytes: int = 0
    messages: int = 0
    topics: int = 0
    next_batch: int = 0
    repaired: bool = False
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def verify(path: str | Path, progress: Progress | None = None, *, disk: Disk | None = None) -> Report:
    """Check every byte of the log in ``path``. Raises ``NotFound`` without a log, ``WrongVersion`` for another format's."""
    return _read(path, progress, disk, repair=False)


def repair(path: str | Path, progress: Progress | None = None, *, disk: Disk | None = None) -> Report:
    """As ``verify``; damaged files are moved to ``quarantine/``, and what is whole in them is kept. Raises ``Locked``."""
    return _read(path, progress, disk, repair=True)


def _read(path: str | Path, progress: Progress | None, disk: Disk | None, repair: bool) -> Report:
    if disk is None:
        if not Path(path).is_dir():
            raise NotFound(f"{path} is not a directory")
        disk = RealDisk(path)
    if repair:
        disk.lock()
    try:
        recovery = Recovery(disk, Random(), repair=repair, whole=True, progress=progress)
        log = recovery.run().log
        if repair and recovery.problems:
            accept_loss(disk, log, recovery.known)
        spans = [span for segment in log.segments.values() for span in segment.index.spans.values()]
        report = Report(
            str(path),
            ok=not recovery.problems,
            segments=len(log.segments),
            bytes=log.size,
            messages=sum(span.count for span in spans),
            topics=len(log.spans),
            next_batch=log.next_number,
            repaired=repair and bool(recovery.problems),
            problems=recovery.problems,
        )
        log.close()
        return report
    finally:
        if repair:
            disk.close()
