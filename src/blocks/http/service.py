"""What all connections of one server share: the handler, the bounds, the counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING

from blocks.core.clock import SYSTEM, Clock, exact
from blocks.core.descriptors import Descriptors
from blocks.core.sweeper import Sweeper, sweeper

from .h1 import Limits
from .handler import Handler, is_direct
from .message import Request
from .timeouts import Timeouts

if TYPE_CHECKING:
    from .inbound import Inbound

# (request, status, bytes sent, begun at on the loop's clock (``core.clock.exact``), what went wrong or None), once an exchange has ended.
Observer = Callable[[Request, int, int, float, "BaseException | None"], None]


class Service:
    """A handler at work for many connections. Counters are plain ints: ``requests``, ``malformed``, ``refused``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handler: Handler,
        limits: Limits,
        timeouts: Timeouts,
        *,
        max_connections: int | None = None,
        last_call: float = 0.0,
        upgrades: frozenset[str] = frozenset({"websocket"}),
        observer: Observer | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.loop = loop
        self.handler = handler
        self.direct = is_direct(handler)
        self.limits = limits
        self.timeouts = timeouts
        self.max_connections = max_connections
        self.last_call = last_call
        self.upgrades = upgrades
        self.observer = observer
        self.draining = False
        self.requests = 0
        self.malformed = 0
        self.refused = 0
        self.connections: set[Inbound] = set()
        self.sweeper: Sweeper = sweeper(loop)
        self.exact = exact(loop)
        self._clock = clock
        self._descriptors = Descriptors()
        self.burst = self._descriptors.burst
        self._date = b""
        self._date_until = 0.0
        self._empty: asyncio.Future[None] | None = None

    def refuses(self, transport: asyncio.Transport) -> str:
        """Why the connection that has just come is one too many; empty when it is not."""
        reason = ""
        sock = transport.get_extra_info("socket")
        if self.max_connections is not None and len(self.connections) > self.max_connections:
            reason = "too-many-connections"
        elif sock is not None and self._descriptors.refuses_client(sock.fileno(), self.loop.time()):
            reason = "out-of-descriptors"
        self.refused += reason != ""
        return reason

    def date(self) -> bytes:
        """A Date line, made once a second (RFC 9110 §6.6.1)."""
        now = self._clock.wall()
        if not self._date_until - 1 <= now < self._date_until:
            second = int(now)
            self._date = b"Date: " + formatdate(second, usegmt=True).encode("ascii") + b"\r\n"
            self._date_until = second + 1.0
        return self._date

    def under_way(self) -> list[Request]:
        """The requests that are being answered now."""
        return [request for connection in self.connections if (request := connection.answering) is not None]

    def connection_gone(self) -> None:
        """A connection has closed."""
        if self._empty is not None and not self.connections and not self._empty.done():
            self._empty.set_result(None)

    async def drain(self, grace: float) -> bool:
        """Let what is under way finish, for at most ``grace`` seconds, then cut the rest. True when nothing was cut."""
        self.draining = True
        last_call = min(self.last_call, grace)
        for connection in list(self.connections):
            connection.retire(last_call)
        if grace > 0:
            await self._emptied(grace)
        if not self.connections:
            return True
        for connection in list(self.connections):
            connection.drop()
        await self._emptied(5.0)  # the loop tells each connection in its next turn; 5 s is for ever here
        return False

    async def _emptied(self, within: float) -> None:
        """Wait until no connection is left, or ``within`` seconds have passed."""
        if not self.connections:
            return
        self._empty = empty = self.loop.create_future()
        handle = self.loop.call_later(within, _settle, empty)
        try:
            await empty
        finally:
            handle.cancel()
            if self._empty is empty:  # a drain in a hurry may have taken over
                self._empty = None


def _settle(empty: asyncio.Future[None]) -> None:
    if not empty.done():
        empty.set_result(None)
