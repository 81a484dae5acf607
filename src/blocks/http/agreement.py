"""Several workers change to a new version all together, or none of them does: two phases, decided by their parent.

One worker reads the new version and prepares it; the others prepare the very same. When all have, all swap; when one cannot, nobody does
(two-phase commit: Gray, "Notes on Data Base Operating Systems", 1978). The parent cannot fail alone: its end is the end of all.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

WITHIN = 45.0  # seconds until all have prepared; `blocks reload` waits 60 s for the answer
SETTLE = 30.0  # seconds for the swap, which takes one turn of a loop: who needs more is stuck and replaced


class Kind(IntEnum):
    """What a message says: the first five to a worker, the others by one."""

    PROPOSE = 1  # read what is to be in force, and prepare it
    PREPARE = 2  # prepare this
    COMMIT = 3  # swap
    ABANDON = 4  # forget what was prepared; data or text say why
    RESULT = 5  # of a change that it wanted: nothing when it was made, data or text when it was not
    HELLO = 6  # it serves; number is the version that it began with
    WANT = 7  # somebody asks for a change
    READY = 8  # prepared; from the one that was to propose, data is the proposal
    REFUSED = 9  # it cannot; data says why
    DONE = 10  # swapped


class Message(NamedTuple):
    """``number`` is that of the change. ``data`` is the workers' own affair, ``text`` the parent's words."""

    kind: int
    number: int = 0
    data: bytes = b""
    text: str = ""


class Phase(IntEnum):
    """Where a change stands."""

    IDLE = 0
    PROPOSING = 1
    PREPARING = 2
    COMMITTING = 3


class Agreement:
    """Decides what each worker is told. ``orders`` are (worker, message) to send; ``stale`` are workers that must be replaced.

    ``number`` and ``proposal`` are the version in force, for workers that are started; None is what the process began with.
    ``due`` is when ``tick`` has something to do. Whoever calls takes what is in ``orders`` and ``stale`` away.
    """

    def __init__(self, within: float = WITHIN, settle: float = SETTLE) -> None:
        self.number = 0
        self.proposal: bytes | None = None
        self.phase = Phase.IDLE
        self.due: float | None = None
        self.orders: list[tuple[int, Message]] = []
        self.stale: list[int] = []
        self.changes = 0  # that have ended, well or not
        self._within = within
        self._settle = settle
        self._members: set[int] = set()
        self._taking_part: set[int] = set()
        self._waiting: set[int] = set()
        self._last = 0
        self._candidate = b""
        self._asked: list[int] = []  # by whom this change was wanted
        self._next: list[int] = []  # and the one after it
        self._again = False

    def joined(self, worker: int, number: int, now: float) -> None:
        """A worker serves that began with version ``number``; one that missed a change meanwhile must begin anew."""
        if number != self.number:
            self.stale.append(worker)
            return
        self._members.add(worker)
        if self.phase is Phase.PREPARING:
            self._prepare(worker)
        elif self.phase is Phase.IDLE and self._again:
            self._begin(now)

    def left(self, worker: int, now: float) -> None:
        """A worker has died. While it prepared, the new version may be what it died of: nobody takes that."""
        self._members.discard(worker)
        self._asked = [one for one in self._asked if one != worker]
        self._next = [one for one in self._next if one != worker]
        self.orders = [order for order in self.orders if order[0] != worker]  # not for who comes in its place
        self._taking_part.discard(worker)
        if worker not in self._waiting:
            return
        self._waiting.discard(worker)
        if self.phase is Phase.COMMITTING:
            self._settled(now)
        else:
            self._refuse(now, text=f"worker {worker} died while it prepared the new version")

    def want(self, worker: int | None, now: float) -> None:
        """Somebody wants a change: a worker, which gets the result, or None. One that is wanted during another comes after it, once."""
        if worker is not None:
            self._next.append(worker)
        self._again = True
        if self.phase is Phase.IDLE:
            self._begin(now)

    def receive(self, worker: int, message: Message, now: float) -> None:
        """What a worker says. An answer that comes too late, to a change that was given up, is nothing."""
        if message.kind == Kind.HELLO:
            self.joined(worker, message.number, now)
        elif message.kind == Kind.WANT:
            self.want(worker, now)
        elif message.number == self._last and worker in self._waiting:
            self._answered(worker, message, now)

    def tick(self, now: float) -> None:
        """Give up on those who have had their time."""
        if self.due is None or now < self.due:
            return
        if self.phase is Phase.COMMITTING:
            self.stale += sorted(self._waiting)
            self._members -= self._waiting
            self._waiting.clear()
            self._settled(now)
            return
        who = ", ".join(map(str, sorted(self._waiting)))
        self._refuse(now, text=f"worker {who} had not prepared the new version after {self._within:g} s")

    # -- a change

    def _begin(self, now: float) -> None:
        if not self._members:
            return  # the first that serves again will be asked
        self._again = False
        self._asked, self._next = self._next, []
        self._last += 1
        first = min(self._members)
        self._taking_part = {first}
        self._waiting = {first}
        self.phase = Phase.PROPOSING
        self.due = now + self._within
        self.orders.append((first, Message(Kind.PROPOSE, self._last)))

    def _answered(self, worker: int, message: Message, now: float) -> None:
        if self.phase is Phase.COMMITTING:
            self._waiting.discard(worker)
            if message.kind == Kind.REFUSED:  # it has neither the old nor the new one for sure
                self.stale.append(worker)
                self._members.discard(worker)
            self._settled(now)
        elif message.kind == Kind.REFUSED:
            self._refuse(now, message.data, message.text, by=worker)
        elif message.kind == Kind.READY:
            self._waiting.discard(worker)
            if self.phase is Phase.PROPOSING:
                self._candidate = message.data
                self.phase = Phase.PREPARING
                for other in sorted(self._members - self._taking_part):
                    self._prepare(other)
            if not self._waiting:
                self._commit(now)

    def _prepare(self, worker: int) -> None:
        self._taking_part.add(worker)
        self._waiting.add(worker)
        self.orders.append((worker, Message(Kind.PREPARE, self._last, self._candidate)))

    def _commit(self, now: float) -> None:
        self.number, self.proposal = self._last, self._candidate
        self.phase = Phase.COMMITTING
        self.due = now + self._settle
        self._waiting = set(self._taking_part)
        self.orders += [(worker, Message(Kind.COMMIT, self._last)) for worker in sorted(self._waiting)]
        self._settled(now)  # all may have died meanwhile

    def _settled(self, now: float) -> None:
        if not self._waiting:
            self._end(Message(Kind.RESULT, self._last), now)

    def _refuse(self, now: float, data: bytes = b"", text: str = "", by: int | None = None) -> None:
        for worker in sorted(self._members - {by}):  # also those that have nothing to forget: they know why, if asked
            self.orders.append((worker, Message(Kind.ABANDON, self._last, data, text)))
        self._end(Message(Kind.RESULT, self._last, data, text), now)

    def _end(self, result: Message, now: float) -> None:
        self.orders += [(worker, result) for worker in self._asked]
        self._asked = []
        self._candidate = b""
        self._taking_part, self._waiting = set(), set()
        self.phase, self.due = Phase.IDLE, None
        self.changes += 1
        if self._again:
            self._begin(now)
