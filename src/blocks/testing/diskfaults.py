"""What can happen to a call of a disk: ``disk.fault.next(1).sync_error()``, ``disk.fault.full(after="1MiB")``. No I/O here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from fnmatch import fnmatchcase
from random import Random
from typing import Any, NamedTuple

from blocks.core.quantities import size

from .medium import Medium
from .rules import Armed, Effect, Rules, Which


class Call(NamedTuple):
    """One call of a disk: ``kind`` is write, sync or read; ``name`` the file, below the disk's folder; ``size`` its bytes."""

    kind: str
    name: str
    size: int = 0


class DiskChoice(Which):
    """Says which calls, and then, with a verb, what happens to them. A verb counts only calls of its kind: writes, syncs or reads."""

    def matching(self, name: str) -> DiskChoice:
        """Calls on files of that name; ``*`` and ``?`` as in a shell: ``matching("*.log")``."""
        return self._with(match=lambda call: fnmatchcase(call.name, name))

    def write_error(self, after: int | str = 0) -> Armed:
        """The write fails with EIO when ``after`` bytes of it are written."""
        return self._of("write", Effect("write-error", size=size(after)))

    def torn(self, after: int | str = 0) -> Armed:
        """The write seems to succeed, but only its first ``after`` bytes ever reach the medium: it shows after a power cut."""
        return self._of("write", Effect("torn-write", size=size(after)))

    def sync_error(self) -> Armed:
        """The sync fails with EIO, and what waited for it is never written, whoever syncs again (Linux from 4.13 on)."""
        return self._of("sync", Effect("sync-error"))

    def read_error(self) -> Armed:
        """The read fails with EIO."""
        return self._of("read", Effect("read-error"))

    def corrupt(self) -> Armed:
        """The read gives one byte wrong, and says nothing."""
        return self._of("read", Effect("corrupt-read"))

    def _of(self, kind: str, effect: Effect) -> Armed:
        more = self._chosen.get("match")
        chosen = {
            **self._chosen,
            "match": lambda call: call is not None and call.kind == kind and (more is None or more(call)),
        }
        return self._rules.add(Armed(effect, **chosen))


class DiskFaults(DiskChoice):
    """The armed rules of one disk. Verbs without a choice hold for every call until the rule is disarmed."""

    def __init__(self, medium: Medium, random: Random | None = None) -> None:
        super().__init__(Rules(random))
        self._medium = medium

    def _with(self, **more: Any) -> DiskChoice:  # type: ignore[override]  # a choice among these, not more rules
        return DiskChoice(self._rules, **{**self._chosen, **more})

    def full(self, after: int | str = 0) -> None:
        """``after`` more bytes fit, then writes fail with ENOSPC, until something is removed or ``clear`` is called."""
        self._medium.capacity = self._medium.used + size(after)

    def clear(self) -> None:
        """Disarm everything; there is room again."""
        self._medium.capacity = None
        self._rules.clear()

    def decide(self, call: Call) -> Effect | None:
        """What happens to this call, the next in order."""
        return self._rules.decide(call) if self._rules.armed else None

    @property
    def log(self) -> deque[tuple[int, Effect]]:
        """(number, effect) of every hit, for ``replay``; calls are counted while rules are armed."""
        return self._rules.log

    def replay(self, log: Iterable[tuple[int, Effect]]) -> None:
        """Arm what another run's ``log`` holds."""
        self._rules.replay(log)
