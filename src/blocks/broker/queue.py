"""A queue is one group's place in one topic: what it has not seen, what it holds, and what must be delivered again.

Every offset below ``cursor`` that is not done is in exactly one place: leased, ready (to be delivered again), delayed, blocked
behind an earlier message of its key, or leaving for the dead letters. An offset from ``cursor`` on was never looked at.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from .log.batch import Batch, Section
from .log.log import Log, Place

if TYPE_CHECKING:
    from .group import Group, Subscription
    from .topic import Topic


class Lease:
    """A run of messages that one member holds until ``deadline`` (monotonic seconds); ``token`` keeps older holders out."""

    __slots__ = ("attempts", "bucket", "deadline", "left", "offsets", "queue", "since", "subscription", "token", "unit")

    def __init__(
        self, token: int, queue: Queue, subscription: Subscription, offsets: Sequence[int], size: int, deadline: float
    ) -> None:
        self.token = token
        self.queue = queue
        self.subscription = subscription
        self.offsets = offsets
        self.left = len(offsets)
        self.unit = size / self.left  # bytes of credit that each message gives back
        self.deadline = deadline
        self.since = deadline  # when it began: set by who leases
        self.bucket = 0  # of the engine's timer
        self.attempts: dict[int, int] | None = None  # None: the first attempt of all of them

    def attempt(self, offset: int) -> int:
        """Which attempt this is for ``offset``."""
        return 1 if self.attempts is None else self.attempts.get(offset, 1)

    def held(self) -> list[int]:
        """The offsets that are still under this lease."""
        leased = self.queue.leased
        return [offset for offset in self.offsets if leased.get(offset) is self]


class Run(NamedTuple):
    """What a queue hands out at once: entries ``indexes`` of ``section``, or all of it where that is a slice."""

    section: Section
    indexes: Sequence[int]
    batch: Batch
    redelivered: bool


class Queue:
    """One group's place in one topic."""

    __slots__ = (
        "attempts", "blocked", "cursor", "delayed", "dying", "expired", "group", "history", "key_of", "keys", "leased",
        "newly_blocked", "place", "ready", "topic",
    )  # fmt: skip

    def __init__(self, group: Group, topic: Topic, cursor: int) -> None:
        self.group = group
        self.topic = topic
        self.cursor = cursor
        self.leased: dict[int, Lease] = {}
        self.ready: list[int] = []  # a heap
        self.delayed: dict[int, float] = {}
        self.dying: set[int] = set()  # on the way to the dead letters
        self.attempts: dict[int, int] = {}  # deliveries made, of messages that are not in their first lease
        self.keys: dict[bytes, deque[int]] = {}  # a key in flight -> the offsets that wait for it
        self.key_of: dict[int, bytes] = {}  # an offset in flight -> its key
        self.blocked = 0  # offsets in the deques of ``keys``
        self.expired: list[int] = []  # passed over since the last take
        self.history: dict[int, list[tuple[float, str]]] = {}  # of messages that came back: when (wall clock), and why
        self.newly_blocked: list[int] = []  # since the last take: below the cursor, but never delivered
        self.place: Place | None = None

    @property
    def waiting(self) -> bool:
        """Whether there may be something to take."""
        return bool(self.ready) or self.cursor < self.topic.committed

    @property
    def backlog(self) -> int:
        """Messages that nobody holds (those that expired or were compacted away are counted until they are met)."""
        fresh = max(0, self.topic.committed - max(self.cursor, self.topic.first))
        return fresh + len(self.ready) + len(self.delayed) + self.blocked

    def unacked(self) -> Iterator[int]:
        """Every offset below the cursor that is not done (of those that leave for the dead letters, the end is on its way)."""
        yield from self.leased
        yield from self.ready
        yield from self.delayed
        for offsets in self.keys.values():
            yield from offsets

    def made(self, offset: int) -> int:
        """How many deliveries of ``offset`` were begun."""
        lease = self.leased.get(offset)
        return lease.attempt(offset) if lease is not None else self.attempts.get(offset, 0)

    # -- what leaves -----------------------------------------------------------------------------------------------

    def take(self, log: Log, now: float, messages: int, size: int, blockable: int) -> Run | None:
        """The next run of up to ``messages`` and about ``size`` bytes (one message at least); None: nothing now.

        ``now`` is wall-clock seconds. Expired messages that were passed over are left in ``expired``.
        """
        while self.ready:
            run = self._again(log, now, messages, size)
            if run is not None:
                return run
        while self.cursor < self.topic.committed and self.blocked < blockable:
            run = self._fresh(log, now, messages, size, blockable)
            if run is not None:
                return run
        return None

    def _again(self, log: Log, now: float, messages: int, size: int) -> Run | None:
        """Ready offsets that lie in one batch."""
        offset = self.ready[0]
        found = log.read(self.topic.name, offset) if offset >= self.topic.first else None
        if found is None:
            self._gone(heappop(self.ready))
            return None
        batch, section = found
        indexes: list[int] = []
        last = section.offsets[-1]
        while self.ready and self.ready[0] <= last and len(indexes) < messages and (size > 0 or not indexes):
            offset = heappop(self.ready)
            at = _index(section.offsets, offset)
            if at < 0:
                self._gone(offset)
            elif _is_expired(section, at, now):
                self.expired.append(offset)
                self.done(offset)
            elif self._locks(section, at, offset):
                indexes.append(at)
                size -= len(section.payloads[at])
        return Run(section, indexes, batch, True) if indexes else None

    def _fresh(self, log: Log, now: float, messages: int, size: int, blockable: int) -> Run | None:
        topic = self.topic
        if self.cursor < topic.first:
            self.cursor = topic.first
        found = log.read(topic.name, self.cursor, self.place)
        if found is None:
            self.cursor = topic.committed
            return None
        batch, section = found
        self.place = log.place(batch)
        offsets = section.offsets
        start = 0 if offsets[0] >= self.cursor else bisect_left(offsets, self.cursor)
        stop = _until(section, start, messages, size)
        if section.keys is None and section.expires is None and (section.dues is None or not topic.scheduled):
            self.cursor = offsets[stop - 1] + 1
            return Run(section, range(start, stop), batch, False)
        indexes = self._choose(section, start, stop, now, blockable)
        return Run(section, indexes, batch, False) if indexes else None

    def _choose(self, section: Section, start: int, stop: int, now: float, blockable: int) -> Sequence[int]:
        """Which of the messages may leave now: not the expired, the scheduled, and those behind an earlier one of their key."""
        scheduled = self.topic.scheduled or ()
        chosen: list[int] = []
        offsets = section.offsets
        plain = section.keys is None
        for at in range(start, stop):
            offset = offsets[at]
            if offset in scheduled:
                pass
            elif _is_expired(section, at, now):
                self.expired.append(offset)
            elif plain or self._locks(section, at, offset):
                chosen.append(at)
            elif self.blocked >= blockable:
                self.cursor = offset + 1
                return chosen
        self.cursor = offsets[stop - 1] + 1
        return chosen

    def _locks(self, section: Section, at: int, offset: int) -> bool:
        """Take the message's key; False if an earlier message has it: then this one waits in line."""
        key = section.keys[at] if section.keys is not None else None
        if key is None or offset in self.key_of:
            return True
        line = self.keys.get(key)
        if line is None:
            self.keys[key] = deque()
            self.key_of[offset] = key
            return True
        line.append(offset)
        self.blocked += 1
        if offset not in self.attempts:
            self.newly_blocked.append(offset)
        return False

    # -- what comes back -------------------------------------------------------------------------------------------

    def done(self, offset: int) -> bool:
        """``offset`` is finished; True if that let another message of its key go."""
        if self.attempts:
            self.attempts.pop(offset, None)
        if self.history:
            self.history.pop(offset, None)
        if not self.key_of:
            return False
        key = self.key_of.pop(offset, None)
        if key is None:
            return False
        line = self.keys[key]
        if not line:
            del self.keys[key]
            return False
        following = line.popleft()
        self.blocked -= 1
        self.key_of[following] = key
        heappush(self.ready, following)
        return True

    def give_back(self, offset: int, made: int) -> None:
        """``offset`` is to be delivered again, after ``made`` attempts."""
        self.attempts[offset] = made
        heappush(self.ready, offset)

    def _gone(self, offset: int) -> None:
        """Retention or compaction took the message: there is nothing left to deliver."""
        self.done(offset)


def _index(offsets: Sequence[int], offset: int) -> int:
    if isinstance(offsets, range):
        return offset - offsets.start if offset in offsets else -1
    at = bisect_left(offsets, offset)
    return at if at < len(offsets) and offsets[at] == offset else -1


def _is_expired(section: Section, at: int, now: float) -> bool:
    if section.expires is None:
        return False
    expires = section.expires[at]
    return expires is not None and expires <= now


def _until(section: Section, start: int, messages: int, size: int) -> int:
    """Where a run from ``start`` ends: at ``messages``, or when ``size`` bytes are reached."""
    stop = min(len(section.payloads), start + messages)
    if section.size <= size:
        return stop
    for at in range(start, stop):
        size -= len(section.payloads[at])
        if size < 0:
            return max(at, start + 1)
    return stop
