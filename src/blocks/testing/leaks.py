"""What a test left behind: tasks, sockets, threads, and warnings of what was never closed or never awaited."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import threading
import time
import warnings
from dataclasses import dataclass

NEVER_AWAITED = "coroutine .* was never awaited"
TURNS = 200  # of the loop that what is closing gets to be gone; a closed transport needs two


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds at one moment. Sockets are seen on Linux only."""

    tasks: frozenset[asyncio.Task[object]]
    sockets: frozenset[str]
    threads: frozenset[threading.Thread]

    @classmethod
    def now(cls) -> Held:
        """As it is now, on the running loop if there is one."""
        try:
            tasks = frozenset(asyncio.all_tasks())
        except RuntimeError:  # no loop runs here
            tasks = frozenset()
        return cls(tasks, frozenset(_sockets()), frozenset(threading.enumerate()))

    def left(self) -> list[str]:
        """What is there now and was not then, in words.

        The task that asks, and threads of the loop's own executor, which live as long as the loop, do not count.
        """
        now = Held.now()
        asking = asyncio.current_task() if now.tasks else None
        tasks = [
            f"task {task.get_name()}: {task.get_coro()!r}"
            for task in now.tasks - self.tasks
            if not task.done() and task is not asking
        ]
        threads = [
            f"thread {thread.name}"
            for thread in now.threads - self.threads
            if thread.is_alive() and not thread.name.startswith("asyncio_")
        ]
        return sorted(tasks) + sorted(now.sockets - self.sockets) + sorted(threads)


def _sockets() -> list[str]:
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return []
    found = []
    for name in names:
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found.append(target)
    return found


class Watch:
    """Hears, while it is entered, the warnings that Python gives too late for anybody to see: of what was dropped open.

    ``heard`` are those of sockets, files, transports and loops that were never closed (``ResourceWarning``) and of coroutines that were
    never awaited. Other warnings go on to whoever listens outside.
    """

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._catching = warnings.catch_warnings(record=True)
        self._seen: list[warnings.WarningMessage] = []

    def __enter__(self) -> Watch:
        gc.collect(1)  # what earlier tests dropped is not this one's
        seen = self._catching.__enter__()
        assert seen is not None, "it records"
        self._seen = seen
        warnings.simplefilter("always", ResourceWarning)
        warnings.filterwarnings("always", NEVER_AWAITED, RuntimeWarning)
        return self

    def __exit__(self, *_: object) -> None:
        gc.collect(1)
        self._catching.__exit__(None, None, None)
        for seen in self._seen:
            if issubclass(seen.category, ResourceWarning) or re.match(NEVER_AWAITED, str(seen.message)):
                self.heard.append(f"{seen.category.__name__}: {seen.message}")
            else:
                warnings.showwarning(seen.message, seen.category, seen.filename, seen.lineno)


def settled_now(before: Held) -> list[str]:
    """``settled`` for code without a loop; what closes gets a second."""
    left = before.left()
    for _ in range(100):
        if not left:
            break
        time.sleep(0.01)
        left = before.left()
    return left


async def settled(before: Held) -> list[str]:
    """What is left once everything that was closing has had its turns; empty when nothing is."""
    left = before.left()
    for turn in range(TURNS):
        if not left:
            break
        await asyncio.sleep(0 if turn < 10 else 0.01)
        left = before.left()
    return left
