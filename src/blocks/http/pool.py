"""The connections to one upstream: the last used is the next used, so that a quiet pool shrinks by itself."""

from __future__ import annotations

import asyncio
import socket
from errno import EMFILE, ENFILE
from math import inf
from typing import TYPE_CHECKING

from blocks.core.descriptors import Descriptors, out_of_descriptors
from blocks.core.errors import Again, Failure, UpstreamFault, UpstreamTimeout
from blocks.core.sweeper import Sweeper, sweeper

from .h1 import Limits
from .outbound import Outbound
from .tunnel import OutboundTunnel

if TYPE_CHECKING:
    import ssl


class Pool:
    """Opens, keeps and closes connections to one address on one loop.

    ``idle`` seconds is how long an unused connection is kept (nginx upstream keepalive_timeout: 60 s), ``uses`` how many requests one
    carries (nginx keepalive_requests: 1000), ``age`` how old it gets (nginx keepalive_time: 1 h), ``keep`` how many idle ones stay.
    """

    __slots__ = (
        "_address", "_age", "_connect_timeout", "_descriptors", "_empty", "_free", "_idle", "_keep", "_open", "_server_name", "_sweeper",
        "_tls", "_tunnels", "_uses", "closed", "connects", "limits", "loop", "timeout",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: tuple[str, int] | str,
        *,
        tls: ssl.SSLContext | None,
        server_name: str | None,
        limits: Limits,
        connect_timeout: float,
        timeout: float,
        idle: float,
        uses: int,
        age: float,
        keep: int,
    ) -> None:
        self.loop = loop
        self.limits = limits
        self.timeout = timeout
        self.closed = False
        self.connects = 0
        self._address = address
        self._tls = tls
        self._server_name = server_name
        self._connect_timeout = connect_timeout
        self._descriptors = Descriptors()
        self._idle = idle
        self._uses = uses
        self._age = age
        self._keep = keep
        self._free: list[Outbound] = []
        self._open: set[Outbound] = set()
        self._tunnels: set[OutboundTunnel] = set()
        self._sweeper: Sweeper = sweeper(loop)
        self._empty: asyncio.Future[None] | None = None

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return len(self._free)

    @property
    def open(self) -> int:
        """Connections, busy and idle, tunnels included."""
        return len(self._open) + len(self._tunnels)

    def take(self) -> Outbound | None:
        """The connection used last, or None when all are busy."""
        free = self._free
        while free:
            connection = free.pop()
            if not connection.closing:
                return connection
        return None

    def release(self, connection: Outbound) -> None:
        """``connection`` has done its exchange and may carry another."""
        now = self.loop.time()
        if (
            self.closed
            or connection.uses >= self._uses
            or now - connection.born > self._age
            or len(self._free) >= self._keep
        ):
            connection.close()
            return
        connection.deadline = now + self._idle
        self._free.append(connection)

    async def connect(self, deadline: float = inf) -> Outbound:
        """A new connection, by ``deadline`` on the loop's clock at the latest.

        Raises ``UpstreamFault`` or ``UpstreamTimeout``; nothing was sent then, so a retry is always safe.
        """
        # In a task of its own: a timeout needs one, and the caller may be driven without.
        connection = await self.loop.create_task(self._connect(deadline))
        if connection.closing:
            raise UpstreamFault(
                "the upstream closed the connection at once", reason="closed-on-connect", again=Again.UNSENT
            )
        return connection

    async def _connect(self, deadline: float) -> Outbound:
        self.connects += 1
        self._descriptors.check_upstream(self.loop.time())
        try:
            async with asyncio.timeout_at(min(self.loop.time() + self._connect_timeout, deadline)):
                if isinstance(self._address, str):
                    _, connection = await self.loop.create_unix_connection(
                        lambda: Outbound(self), self._address, ssl=self._tls, server_hostname=self._server_name
                    )
                else:
                    host, port = self._address
                    _, connection = await self.loop.create_connection(
                        lambda: Outbound(self), host, port, ssl=self._tls, server_hostname=self._server_name
                    )
        except TimeoutError as error:
            raise UpstreamTimeout(
                "the upstream did not accept in time", reason="connect-timeout", again=Again.UNSENT
            ) from error
        except OSError as error:
            raise _connect_failure(error) from error
        return connection

    def opened(self, connection: Outbound) -> None:
        """A connection stands."""
        connection.deadline = self.loop.time() + self._idle  # whoever wanted it may have gone
        self._open.add(connection)
        self._sweeper.add(connection)
        if self.closed:
            connection.close()

    def lost(self, connection: Outbound) -> None:
        """A connection is gone."""
        self._open.discard(connection)
        self._sweeper.discard(connection)
        try:
            self._free.remove(connection)
        except ValueError:
            pass
        self._all_gone()

    def became_tunnel(self, connection: Outbound, tunnel: OutboundTunnel) -> None:
        """A connection was upgraded."""
        self._open.discard(connection)
        self._sweeper.discard(connection)
        self._tunnels.add(tunnel)

    def tunnel_closed(self, tunnel: OutboundTunnel) -> None:
        """An upgraded connection is gone."""
        self._tunnels.discard(tunnel)
        self._all_gone()

    def _all_gone(self) -> None:
        if self._empty is not None and not self.open and not self._empty.done():
            self._empty.set_result(None)

    async def close(self) -> None:
        """Close every connection and wait until the loop has let go of them."""
        self.closed = True
        self._free.clear()
        if not self.open:
            return
        self._empty = self.loop.create_future()
        for connection in list(self._open):
            connection.cancel()
        for tunnel in list(self._tunnels):
            tunnel.cancel()
        try:
            async with asyncio.timeout(5.0):
                await self._empty
        except TimeoutError:
            pass
        finally:
            self._empty = None


def _connect_failure(error: OSError) -> Failure:
    """Why there is no connection, as a constant an operator can search for."""
    if error.errno in (EMFILE, ENFILE):
        return out_of_descriptors()
    if isinstance(error, socket.gaierror):
        reason = "name-not-resolved"
    elif isinstance(error, ConnectionRefusedError):
        reason = "connect-refused"
    elif type(error).__module__ == "ssl":
        reason = "tls-failed"
    else:
        reason = "connect-failed"
    return UpstreamFault(f"cannot connect to the upstream: {reason}", reason=reason, again=Again.UNSENT)
