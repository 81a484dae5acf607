"""``[servers.NAME]``: where the stack listens. A server whose table changed is replaced by one that takes over its sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from blocks.core.activation import is_inherited
from blocks.core.clock import Clock, exact
from blocks.core.errors import ConfigError
from blocks.core.metrics import Reading
from blocks.core.quantities import rate, seconds, size
from blocks.http.h1 import Limits
from blocks.http.handler import Handler
from blocks.http.job import Spot
from blocks.http.server import LAST_CALL, CannotBind, Server, parse_address
from blocks.http.service import Observer
from blocks.http.timeouts import Timeouts

from .bench import Bench
from .tables import ServerTable, TlsTable

if TYPE_CHECKING:
    from blocks.http.filters.access_log import AccessLog
    from blocks.http.tls import Certificates

_TIMEOUTS = {"head": "head_timeout", "body": "body_timeout", "idle": "idle_timeout", "send": "send_timeout"}


def addresses_of(table: ServerTable) -> list[str]:
    """Where a server listens, as its table has it."""
    return [table.listen] if isinstance(table.listen, str) else list(table.listen)


def certificates_of(table: ServerTable) -> list[TlsTable]:
    """The certificates of a server; none: it speaks plain HTTP."""
    if table.tls is None:
        return []
    return [table.tls] if isinstance(table.tls, TlsTable) else table.tls


def check_server(table: ServerTable, bench: Bench) -> Handler:
    """The handler of a server; what is wrong with its table is noted."""
    single = isinstance(table.listen, str)
    listen = addresses_of(table)
    if not listen:
        bench.complain(("listen",), "a server listens somewhere: HOST:PORT, unix:PATH, or a list of them")
    for place, address in enumerate(listen):
        try:
            if not is_inherited(address):
                parse_address(address)
        except ConfigError as error:
            bench.complain(("listen",) if single else ("listen", place), str(error))
    authorities = {tls.client_ca for tls in certificates_of(table)}
    if len(authorities) > 1:
        bench.complain(("tls",), "client_ca is one for a server: its certificates are chosen after the client is asked")
    return bench.front(table.handler, "handler")


def is_unix(address: str) -> bool:
    """Whether it is the path of a Unix socket."""
    return address.startswith("unix:")


class Ground(NamedTuple):
    """What a process says of where its stack listens.

    ``where`` are (server, address) with the ports that a parent resolved, ``held`` sockets of the parent's; ``shared``: other workers
    listen there, too, by SO_REUSEPORT. ``metered`` servers count answers and times for an admin API.
    """

    where: Mapping[Spot, Sequence[str]] = {}
    held: Mapping[Spot, Sequence[socket.socket]] = {}
    shared: bool = False
    metered: bool = False


class Listener:
    """A server of the stack with its certificates and its access log, entered and left together."""

    def __init__(
        self, name: str, table: ServerTable, handler: Handler, *, folder: Any, clock: Clock, drain: float
    ) -> None:
        self.name = name
        self.table = table
        self.handler = handler
        self.server: Server | None = None
        self.log: AccessLog | None = None
        self.meter: Any = None
        self.certificates = self._certificates(table, folder)
        self._clock = clock
        self._drain = drain
        self._folder = folder
        self._texts: dict[str, list[str]] = {}  # what the server was given for each of the table's addresses
        self._stack = AsyncExitStack()

    def _certificates(self, table: ServerTable, folder: Any) -> Certificates | None:
        """Raises ``ConfigError`` for files that are no good."""
        found = certificates_of(table)
        if not found:
            return None
        from blocks.http.tls import Certificates

        authority = found[0].client_ca
        pairs = [(folder / one.cert, folder / one.key) for one in found]
        return Certificates(pairs, client_ca=None if authority is None else folder / authority)

    async def open(self, ground: Ground, lent: Mapping[str, Sequence[socket.socket]], *, accept: bool = True) -> None:
        """Listen, on what was ``lent`` for an address where there is something; without ``accept`` clients wait until it is called.

        Raises ``CannotBind``, and listens nowhere then.
        """
        table = self.table
        async with AsyncExitStack() as stack:
            observer = await self._observer(ground.metered, stack)
            sockets = self._resolve(ground, lent)
            server = Server(
                self.handler,
                *(text for texts in self._texts.values() for text in texts),
                tls=None if self.certificates is None else self.certificates.context,
                limits=_limits(table),
                timeouts=_timeouts(table),
                max_connections=table.max_connections,
                observer=observer,
                reuse_port=ground.shared,
                lent=sockets,
                drain=self._drain,
                last_call=min(LAST_CALL, self._drain),
                clock=self._clock,
            )
            await server.start(accept=accept)
            self.server = server
            self._stack = stack.pop_all()

    async def accept(self) -> None:
        """Take the connections that come from now on."""
        if self.server is not None:
            await self.server.accept()

    async def _observer(self, metered: bool, stack: AsyncExitStack) -> Observer | None:
        """What is told of every exchange: the meter, and behind it the access log."""
        observer: Observer | None = None
        if self.table.access_log != "off":
            from blocks.http.filters.access_log import AccessLog

            where = "-" if self.table.access_log == "-" else str(self._folder / self.table.access_log)
            self.log = AccessLog(where, self.table.access_log_format, clock=self._clock)
            observer = (await stack.enter_async_context(self.log)).observe
        if metered:
            from blocks.http.meter import Meter

            self.meter = Meter(exact(asyncio.get_running_loop()), observer)
            observer = self.meter.observe
        return observer

    def _resolve(
        self, ground: Ground, lent: Mapping[str, Sequence[socket.socket]]
    ) -> dict[str, Sequence[socket.socket]]:
        """Work out what the server is given for each address; the sockets that it need not open. Raises ``CannotBind``."""
        sockets: dict[str, Sequence[socket.socket]] = {}
        for address in addresses_of(self.table):
            spot = (self.name, address)
            found = lent.get(address) or ground.held.get(spot)
            if found:
                sockets[address] = found
                self._texts[address] = [address]
                continue
            if ground.shared and spot not in ground.where and (address.endswith(":0") or is_unix(address)):
                said = f"cannot listen on {address}: several workers share only what they were started with; restart for that"
                raise CannotBind(None, said)
            self._texts.setdefault(address, []).extend(ground.where.get(spot, (address,)))
        return sockets

    def lend(self, address: str) -> list[socket.socket]:
        """The sockets of one of the table's addresses once more, for a listener that takes its place."""
        if self.server is None:
            return []
        return [sock for text in dict.fromkeys(self._texts.get(address, ())) for sock in self.server.lend(text)]

    @property
    def parts(self) -> tuple[Handler, ...]:
        """What it asks."""
        return (self.handler,)

    def readings(self) -> Iterable[Reading]:
        """The access log's figures."""
        return () if self.log is None else self.log.readings()

    @property
    def url(self) -> str:
        """The first TCP address as a URL."""
        assert self.server is not None
        return self.server.url

    @property
    def addresses(self) -> list[str]:
        """Where it listens, ports resolved."""
        return [] if self.server is None else self.server.addresses

    def bequeath(self, heir: Listener) -> None:
        """Leave the paths of Unix sockets to a listener that took them over."""
        if self.server is not None and heir.server is not None:
            self.server.bequeath(heir.server)

    def refresh(self) -> Callable[[], None]:
        """Read the certificates anew; what it returns puts them into force and follows a rotated log. Raises ``ConfigError``."""
        take = None if self.certificates is None else self.certificates.prepare()

        def refreshed() -> None:
            if self.log is not None:
                self.log.reopen()
            if take is not None:
                take()

        return refreshed

    async def drain(self, timeout: float | None = None) -> bool:
        """Accept no more and let requests finish; whether none had to be cut."""
        return True if self.server is None else await self.server.drain(timeout)

    async def stop(self, timeout: float | None = None) -> bool:
        """Drain, then close everything."""
        async with self._stack:
            return True if self.server is None else await self.server.stop(timeout)


def _timeouts(table: ServerTable) -> Timeouts:
    settings = {name: seconds(value) for name, key in _TIMEOUTS.items() if (value := getattr(table, key)) is not None}
    if table.min_rate is not None:
        settings["min_rate"] = rate(table.min_rate).per_second
    return Timeouts(**settings)


def _limits(table: ServerTable) -> Limits:
    limits = Limits(body=None if table.max_body is None else size(table.max_body))
    if table.max_head is None:
        return limits
    head = size(table.max_head)
    return replace(limits, head=head, target=min(limits.target, head))
