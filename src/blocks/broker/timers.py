"""What the engine must do later: leases that end, messages that come back after a delay, and messages that fall due."""

from __future__ import annotations

from heapq import heappop, heappush

from .queue import Lease, Queue
from .topic import Topic

_TICKS = 10  # buckets a second: a lease ends up to 0.1 s late, never early


class Timers:
    """Leases and delays count in monotonic seconds, schedules in wall-clock seconds (they are dates)."""

    __slots__ = ("_buckets", "_delayed", "_due", "_heap", "_serial")

    def __init__(self) -> None:
        self._buckets: dict[int, set[Lease]] = {}
        self._heap: list[int] = []
        self._delayed: list[tuple[float, int, Queue, int]] = []
        self._due: list[tuple[float, int, Topic, int]] = []
        self._serial = 0

    def watch(self, lease: Lease) -> bool:
        """End ``lease`` at its deadline; True if nothing was to end before."""
        bucket = lease.bucket = int(lease.deadline * _TICKS) + 1
        members = self._buckets.get(bucket)
        if members is not None:
            members.add(lease)
            return False
        self._buckets[bucket] = {lease}
        heappush(self._heap, bucket)
        return self._heap[0] == bucket

    def unwatch(self, lease: Lease) -> None:
        """``lease`` is over."""
        members = self._buckets.get(lease.bucket)
        if members is not None:
            members.discard(lease)

    def delay(self, when: float, queue: Queue, offset: int) -> None:
        """Make ``offset`` ready again at ``when``."""
        self._serial += 1
        heappush(self._delayed, (when, self._serial, queue, offset))

    def schedule(self, when: float, topic: Topic, offset: int) -> None:
        """``offset`` falls due at ``when``."""
        self._serial += 1
        heappush(self._due, (when, self._serial, topic, offset))

    def ended(self, now: float) -> list[Lease]:
        """Leases whose deadline has passed."""
        over: list[Lease] = []
        while self._heap and self._heap[0] <= now * _TICKS:
            over += self._buckets.pop(heappop(self._heap))
        return sorted(over, key=lambda lease: lease.token)

    def returned(self, now: float) -> list[tuple[Queue, int]]:
        """Delayed messages whose time has come."""
        back = []
        while self._delayed and self._delayed[0][0] <= now:
            _, _, queue, offset = heappop(self._delayed)
            back.append((queue, offset))
        return back

    def fallen_due(self, wall: float) -> list[tuple[Topic, int]]:
        """Scheduled messages whose date has come."""
        due = []
        while self._due and self._due[0][0] <= wall:
            _, _, topic, offset = heappop(self._due)
            due.append((topic, offset))
        return due

    def wait(self, now: float, wall: float) -> float | None:
        """Seconds until something is to be done; None: nothing is.

        A schedule is looked at once a second at least, because the wall clock may be set.
        """
        waits = []
        if self._heap:
            waits.append(self._heap[0] / _TICKS - now)
        if self._delayed:
            waits.append(self._delayed[0][0] - now)
        if self._due:
            waits.append(min(1.0, self._due[0][0] - wall))
        return max(0.0, min(waits)) if waits else None
