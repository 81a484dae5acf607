"""What a test left behind: tasks, sockets, threads."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass

TURNS = 200  # of the loop that what is closing gets to be gone; a closed transport needs two


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds at one moment. Sockets are seen on Linux only."""

    tasks: frozenset[asyncio.Task[object]]
    sockets: frozenset[str]
    threads: frozenset[threading.Thread]

    @classmethod
    def now(cls) -> Held:
        """As it is now, on the running loop."""
        return cls(frozenset(asyncio.all_tasks()), frozenset(_sockets()), frozenset(threading.enumerate()))

    def left(self) -> list[str]:
        """What is there now and was not then, in words. Threads of the loop's own executor live as long as the loop and do not count."""
        now = Held.now()
        tasks = [f"task {task.get_name()}: {task.get_coro()!r}" for task in now.tasks - self.tasks if not task.done()]
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


async def settled(before: Held) -> list[str]:
    """What is left once everything that was closing has had its turns; empty when nothing is."""
    left = before.left()
    for turn in range(TURNS):
        if not left:
            break
        await asyncio.sleep(0 if turn < 10 else 0.01)
        left = before.left()
    return left
