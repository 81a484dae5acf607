"""How full the process's table of descriptors is, and what is kept back of it.

A table that is quite full is worse than a refusal: accepting fails again and again without an error that anybody sees (libuv gives up
the one descriptor that it keeps for this, and then spins), the log cannot be written, modules cannot be imported. So clients are refused
while a reserve is left, upstreams while half of it is (nginx and HAProxy bound their connections by the same limit at the start).
"""

from __future__ import annotations

import asyncio
import os
import socket
from math import inf

from .errors import Again, Failure
from .logging import events

RESERVE = 64  # descriptors kept back: upstreams for the clients that are in, files, the loop's own
_PERIOD = 1.0  # seconds between two events


class Descriptors:
    """The bounds of one process. A descriptor gets the lowest free number (POSIX), so a number tells how full the table is.

    ``limit`` is what the process may open; None asks the system.
    """

    __slots__ = ("_refused", "_told", "burst", "clients", "limit", "upstreams")

    def __init__(self, limit: float | None = None) -> None:
        self.limit = limit = _limit() if limit is None else limit
        reserve = RESERVE if limit >= 4 * RESERVE else limit // 4
        self.clients = limit - reserve
        self.upstreams = limit - reserve // 2
        self.burst = max(int(reserve // 4), 1)  # connections to accept in one go: they are counted a few turns later
        self._told = -inf
        self._refused = 0

    def refuses_client(self, number: int, now: float) -> bool:
        """Whether the connection of that descriptor is one too many; told as an event at most once a second, with the count."""
        if number < self.clients:
            return False
        self._tell("client", now)
        return True

    def check_upstream(self, now: float) -> None:
        """Raises a ``Failure`` of our own, safe to retry, when a connection to an upstream would be one too many."""
        try:
            number = os.dup(2)
            os.close(number)
        except OSError:
            number = -1
        if not 0 <= number < self.upstreams:
            self._tell("upstream", now)
            raise out_of_descriptors()

    def _tell(self, who: str, now: float) -> None:
        self._refused += 1
        if now >= self._told + _PERIOD:
            self._told = now
            refused, self._refused = self._refused, 0
            events().error("out-of-descriptors", refused=who, count=refused, limit=self.limit)


def out_of_descriptors() -> Failure:
    """The failure of a request for which no descriptor is left: ours, and nothing was sent."""
    return Failure(
        "this process is out of file descriptors", reason="out-of-descriptors", status=503, again=Again.UNSENT
    )


def deepen(listener: asyncio.AbstractServer, backlog: int) -> None:
    """Let the kernel hold ``backlog`` connections of a listener made with ``burst``: asyncio accepts as many in one go as it is told."""
    for one in getattr(listener, "sockets", ()):
        with socket.socket(fileno=os.dup(one.fileno())) as twin:
            twin.listen(backlog)


def _limit() -> float:
    try:
        import resource
    except ImportError:  # Windows has no such table
        return inf
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return inf if soft == resource.RLIM_INFINITY else soft
