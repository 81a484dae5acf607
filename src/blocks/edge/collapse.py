"""One request to the origin for all that ask the same at the same time (RFC 9111 §4: "collapsed forwarding")."""

from __future__ import annotations

from blocks.core.pending import Pending

from .entry import Entry
from .fill import Fill


class Abandoned(Exception):  # it is a turn of events, not an error
    """The one who asked for all is gone before there was an answer: the next one asks."""


class Flight:
    """A request to the origin under way, and those who wait for its head.

    They get the entry that it made (whose body may still be filling), None when its answer is not for others, or the failure.
    """

    __slots__ = ("_waiting", "entry", "over")

    def __init__(self) -> None:
        self.entry: Entry | None = None
        self.over = False
        self._waiting: list[Pending[Entry | None]] = []

    def land(self, entry: Entry | None) -> None:
        """The head is there."""
        self.entry = entry
        self.over = True
        waiting, self._waiting = self._waiting, []
        for pending in waiting:
            pending.resolve(entry)

    def crash(self, error: BaseException) -> None:
        """There will be no head: everybody gets the failure, or, when the leader only went away, the first in line leads on."""
        self.over = True
        waiting, self._waiting = [pending for pending in self._waiting if not pending.done], []
        if isinstance(error, Abandoned) and waiting:
            self._waiting = waiting[1:]
            waiting = waiting[:1]
        for pending in waiting:
            pending.fail(error)

    @property
    def waiting(self) -> list[Pending[Entry | None]]:
        """Those who still wait after a crash: for the next flight to take along."""
        return self._waiting

    def board(self, waiting: list[Pending[Entry | None]]) -> None:
        """Take over those who waited for another flight."""
        self._waiting.extend(waiting)

    async def wait(self) -> Entry | None:
        """The entry that the flight made, or None. Raises what it crashed with."""
        pending: Pending[Entry | None] = Pending()
        self._waiting.append(pending)
        return await pending


def is_joinable(entry: Entry) -> bool:
    """Whether its body may still be read from the first byte."""
    return not isinstance(entry.body, Fill) or entry.body.joinable
