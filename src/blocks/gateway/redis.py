"""One pipelined connection to Redis: what a tick of the loop asks leaves in one write, and a server that hangs is given up.

A caller waits at most ``timeout``. While the server is away callers are told so at once (``Unavailable``), and one
connection attempt at a time, with growing waits, finds out when it is back. No timer and no task a call: one timer
watches the oldest call, because answers come in order.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from blocks.core.backoff import Backoff
from blocks.core.config.kinds import Duration
from blocks.core.errors import Again, ConfigError, MissingExtra, Unavailable
from blocks.core.pending import Pending
from blocks.core.quantities import seconds

from .site import Site

MAX_PENDING = 10_000  # calls under way; beyond it a call is refused, so that a slow server does not fill the memory


class RedisRefused(Unavailable):
    """Redis answered with an error; the message is Redis's own."""

    reason = "redis-error"


class RedisTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``[redis]``: ``url`` (``redis://user:password@host:6379/0``, ``rediss://`` for TLS, ``unix:///path``) or several, of which the one
    that takes writes is used; ``timeout`` of a call; ``connect_timeout``; ``prefix`` of all keys."""  # fmt: skip

    url: str | list[str] = "redis://127.0.0.1:6379/0"
    timeout: Duration = 0.1  # a limiter that makes requests wait longer than that harms more than it protects
    connect_timeout: Duration = 1.0
    prefix: str = "blocks:"


class Address(msgspec.Struct, frozen=True):
    """A parsed URL."""

    host: str
    port: int
    path: str
    tls: bool
    setup: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises ``ConfigError``."""
        try:
            parts = urlsplit(url)
            port = parts.port or 6379
        except ValueError as error:
            raise ConfigError(f"{url!r} is not a Redis URL: {error}") from error
        if parts.scheme not in ("redis", "rediss", "unix") or (parts.scheme == "unix" and not parts.path):
            raise ConfigError(f"{url!r} is not a Redis URL; write it like redis://127.0.0.1:6379/0")
        setup: list[tuple[str, ...]] = []
        if parts.password:
            user = (unquote(parts.username),) if parts.username else ()
            setup.append(("AUTH", *user, unquote(parts.password)))
        database = parts.path.strip("/") if parts.scheme != "unix" else ""
        if database and not database.isdecimal():
            raise ConfigError(f"{url!r}: the database must be a number")
        if database not in ("", "0"):
            setup.append(("SELECT", database))
        path = parts.path if parts.scheme == "unix" else ""
        return cls(parts.hostname or "127.0.0.1", port, path, parts.scheme == "rediss", tuple(setup))


class Link:
    """``await link.call("GET", key)``. Raises ``Unavailable`` when Redis is away, ``RedisRefused`` when it answers with an error."""

    def __init__(self, table: RedisTable) -> None:
        try:
            import hiredis
        except ImportError as error:
            raise MissingExtra("limits and stores in Redis", "redis") from error
        self._pack: Any = hiredis.pack_command
        self._reader: Any = hiredis.Reader
        urls = [table.url] if isinstance(table.url, str) else table.url
        if not urls:
            raise ConfigError("[redis] has no url")
        self._addresses = [Address.of(url) for url in urls]
        self._next = 0
        self.prefix = table.prefix
        self.timeout = seconds(table.timeout)
        self.connect_timeout = seconds(table.connect_timeout)
        self._wire: _Wire | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._waiting: list[tuple[Pending[Any], bytes]] = []  # calls made while the first connection is on its way
        self._backoff = Backoff(first=0.05, cap=1.0)
        self._users = 0
        self.failures = 0  # connections that broke or could not be made

    @property
    def up(self) -> bool:
        """Whether there is a connection that answers."""
        return self._wire is not None

    async def __aenter__(self) -> Link:
        """Connect; a server that is away now is tried for again in the background."""
        self._users += 1
        if self._wire is None and self._connecting is None:
            self._connect()
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._users -= 1
        if self._users <= 0:
            await self.close()

    async def close(self) -> None:
        """Close the connection; calls that wait fail."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        task, self._connecting = self._connecting, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.stop(_away("closed"))
            await asyncio.sleep(0)  # the transport's connection_lost comes with the loop's next turn

    def call(self, *words: bytes | str | int | float) -> Pending[Any]:
        """Ask; the awaitable gives Redis's answer. Raises ``Unavailable`` at once when Redis is known to be away."""
        command = self._pack(words)
        pending: Pending[Any] = Pending()
        wire = self._wire
        if wire is not None:
            wire.send(pending, command)
        else:
            self._wait_for_connection(pending, command)
        return pending

    def _wait_for_connection(self, pending: Pending[Any], command: bytes) -> None:
        if self._connecting is None and self._retry is None:
            self._connect()
        if self._retry is not None or self.failures or len(self._waiting) >= MAX_PENDING:
            raise _away("not connected")
        self._waiting.append((pending, command))

    def _connect(self) -> None:
        self._retry = None
        self._connecting = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        address = self._addresses[self._next % len(self._addresses)]
        wire = _Wire(self, loop)
        try:
            async with asyncio.timeout(self.connect_timeout):
                if address.path:
                    await loop.create_unix_connection(lambda: wire, address.path)
                else:
                    context = ssl.create_default_context() if address.tls else None
                    await loop.create_connection(lambda: wire, address.host, address.port, ssl=context)
                for words in (*address.setup, ("ROLE",)):
                    pending: Pending[Any] = Pending()
                    wire.send(pending, self._pack(words))
                    answer = await pending
                if answer[0] not in (b"master", "master"):
                    raise _away("this server is a replica")
        except (OSError, TimeoutError, Unavailable) as error:
            wire.stop(_away("not connected"))
            self.lost(wire, error)
            return
        self._connecting = None
        self._wire = wire
        self.failures = 0
        self._backoff.reset()
        waiting, self._waiting = self._waiting, []
        for pending, command in waiting:
            wire.send(pending, command)

    def lost(self, wire: _Wire, error: BaseException | None) -> None:
        """A connection broke, or could not be made: try again later, elsewhere if there is an elsewhere."""
        if self._wire is wire:
            self._wire = None
        elif self._connecting is None or asyncio.current_task() is not self._connecting:
            return  # one that was given up already
        self._connecting = None
        self.failures += 1
        self._next += 1
        waiting, self._waiting = self._waiting, []
        for pending, _ in waiting:
            pending.fail(_away("not connected"))
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(self._backoff.next(), self._connect)


class _Wire(asyncio.Protocol):
    """One connection: commands out in the order of the calls, answers in the same order."""

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._reader: Any = link._reader()
        self._pending: deque[tuple[Pending[Any], float]] = deque()
        self._out: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport

    def send(self, pending: Pending[Any], command: bytes) -> None:
        if self._stopped or len(self._pending) >= MAX_PENDING:
            raise _away("too many calls under way")
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(command)
        self._pending.append((pending, self._loop.time() + self._link.timeout))
        if self._timer is None:
            self._timer = self._loop.call_later(self._link.timeout, self._expire)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        readonly = False
        while True:
            try:
                answer = reader.gets()
            except Exception as error:  # not Redis's protocol
                self.stop(_away(f"bad answer: {error}"))
                return
            if answer is False:
                break
            if not self._pending:
                self.stop(_away("an answer that nobody asked for"))
                return
            pending, _ = self._pending.popleft()
            if isinstance(answer, Exception):
                readonly = readonly or str(answer).startswith(("READONLY", "LOADING", "MASTERDOWN"))
                pending.fail(RedisRefused(str(answer)))
            else:
                pending.resolve(answer)
        if readonly:  # the server became a replica: the writable one is elsewhere, or will be
            self.stop(_away("the server takes no writes"))

    def _expire(self) -> None:
        self._timer = None
        if not self._pending:
            return
        deadline = self._pending[0][1]
        if deadline <= self._loop.time() + 0.001:
            self.stop(_away("no answer in time"))
        else:
            self._timer = self._loop.call_later(deadline - self._loop.time(), self._expire)

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop(_away("connection lost"))

    def stop(self, error: Unavailable) -> None:
        """Give the connection up: every call that waits fails with ``error``."""
        if self._stopped:
            return
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        pending, self._pending = self._pending, deque()
        if self._link._wire is self:
            self._link.lost(self, error)
        for waiting, _ in pending:
            waiting.fail(Unavailable(str(error), reason=error.reason))


def _away(why: str) -> Unavailable:
    return Unavailable(f"Redis is away: {why}", reason="redis-away", again=Again.NEVER)


def make_link(site: Site) -> Link:
    """The link of a site's ``[redis]``. Raises ``ConfigError`` when there is no such table."""
    table: Mapping[str, Any] | None = site.tables.get("redis")
    if not table:
        raise ConfigError("store = 'redis' needs a table [redis] with a url")
    settings = site.decode(RedisTable, table)
    key = ("redis", msgspec.json.encode(settings).decode())
    return site.kept(key, lambda: Link(settings))
