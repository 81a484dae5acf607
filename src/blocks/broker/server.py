"""The broker on a socket: each connection is a protocol that feeds a session; no task a connection, no timer a client."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from blocks.core.activation import inherited, is_inherited
from blocks.core.descriptors import Descriptors, deepen
from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds
from blocks.core.sweeper import sweeper

from . import wire
from .address import Address
from .aside import Aside
from .errors import BrokerError
from .frames import Ping
from .security import Guard, Identity, check_exposure, read_guard
from .session import Session

if TYPE_CHECKING:
    from .broker import Broker

HEARTBEAT = 10.0  # seconds: a client that is silent pings so often; RabbitMQ advises 5 to 20
BACKLOG = 4096  # connections the kernel holds until they are accepted: a fleet that comes back at once
MAX_CONNECTIONS = 65_536  # nats-server's max_connections
WRITE_HIGH = 512 * 1024  # bytes unsent when deliveries stop
WRITE_LIMIT = 8 * 1024 * 1024  # bytes unsent when the peer is not read any more either
WRITE_TIMEOUT = (
    30.0  # seconds a peer may read nothing; half of nginx's send_timeout, since others wait for its messages
)
HELLO_TIMEOUT = 10.0  # seconds to say who one is

_UNANSWERED, _RATE, _UNREAD = 1, 2, 4  # why a connection is not read


class Connection(asyncio.Protocol):
    """One client's connection: bytes to frames for its session, and the session's bytes out (its ``Outlet``)."""

    __slots__ = (
        "_flush_handle",
        "_framer",
        "_held",
        "_loop",
        "_resume_handle",
        "_server",
        "_session",
        "_suspected",
        "_transport",
        "deadline",
        "full",
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = server.loop
        self._framer = wire.Framer(wire.MAX_HELLO)
        self._session = server.session(self)
        self._transport: asyncio.Transport | None = None
        self._flush_handle: asyncio.Handle | None = None
        self._resume_handle: asyncio.TimerHandle | None = None
        self._held = 0
        self._suspected = False  # silent for so long that it was pinged
        self.full = False
        self.deadline = math.inf

    @property
    def session(self) -> Session:
        """The session that this connection feeds."""
        return self._session

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there: it has ``HELLO_TIMEOUT`` to say who it is."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH, low=WRITE_HIGH // 4)
        self.deadline = self._loop.time() + HELLO_TIMEOUT
        if self._server.take(self, self._transport):
            sweeper(self._loop).add(self)
        else:
            self._session.close("full", "the broker has as many connections as it allows")

    def data_received(self, data: bytes) -> None:
        """Bytes of the client: every whole frame among them is acted on now."""
        self._suspected = False
        if not self.full:
            self.deadline = self._loop.time() + self._server.patience
        session = self._session
        try:
            for body in self._framer.receive(data):
                session.receive(wire.decode(body))
        except wire.ProtocolError as error:
            session.close("protocol", str(error))
        except Exception as error:
            self._loop.call_exception_handler(
                {"message": "a broker session failed", "exception": error, "protocol": self}
            )
            session.close("internal", "the broker failed on what was sent")
        if session.identity is not None:
            self._framer.limit = wire.MAX_FRAME

    def eof_received(self) -> bool:
        """The client writes no more: it is gone."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is over: so is the session."""
        self.deadline = math.inf
        sweeper(self._loop).discard(self)
        for handle in (self._flush_handle, self._resume_handle):
            if handle is not None:
                handle.cancel()
        self._session.lost()
        self._server.forget(self)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is written to."""
        self.full = True
        self.deadline = self._loop.time() + WRITE_TIMEOUT
        self._session.pause()

    def resume_writing(self) -> None:
        """The client has read."""
        self.full = False
        self.deadline = self._loop.time() + self._server.patience
        self._hold(_UNREAD, False)
        self._session.resume()

    def expire(self, now: float) -> None:
        """The client was silent, or did not read, for too long: it is pinged, and then its messages go to others."""
        if self._held & (_UNANSWERED | _RATE):  # it is we who do not listen: let it know that we live
            self.deadline = now + self._server.patience / 4
            self.write(self._server.ping)
            return
        if not self._suspected and not self.full and self._session.identity is not None and not self._session.closed:
            self._suspected = True
            self.deadline = now + self._server.patience / 2
            self.write(self._server.ping)
            return
        self.cut()

    def cut(self) -> None:
        """End the connection now."""
        self.deadline = math.inf
        if self._transport is not None:
            self._session.lost()
            self._transport.abort()

    # what a session asks of its outlet

    def write(self, data: bytes) -> None:
        """Send ``data``; a peer that lets ``WRITE_LIMIT`` bytes lie is not read until it has read."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(data)
        if self.full and transport.get_write_buffer_size() > WRITE_LIMIT:
            self._hold(_UNREAD, True)

    def wake(self) -> None:
        """Flush the session once this tick's work is done."""
        if self._flush_handle is None:
            self._flush_handle = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_handle = None
        self._session.flush()

    def hold(self, held: bool) -> None:
        """Stop reading while too much of what the peer sent waits for the disk."""
        self._hold(_UNANSWERED, held)

    def hold_for(self, wait: float) -> None:
        """Stop reading for ``wait`` seconds, so that the peer keeps to its rate."""
        if self._resume_handle is not None:
            self._resume_handle.cancel()
        self._hold(_RATE, True)
        self._resume_handle = self._loop.call_later(wait, self._hold, _RATE, False)

    def _hold(self, reason: int, held: bool) -> None:
        before = self._held
        self._held = before | reason if held else before & ~reason
        transport = self._transport
        if bool(before) == bool(self._held) or transport is None or transport.is_closing():
            return
        if self._held:
            transport.pause_reading()
            if not self.full:
                self.deadline = self._loop.time() + self._server.patience / 4
        else:
            transport.resume_reading()
            if not self.full:
                self.deadline = self._loop.time() + self._server.patience

    def finish(self) -> None:
        """Close when all is sent."""
        if self._transport is not None:
            self._transport.close()
            self.deadline = self._loop.time() + HELLO_TIMEOUT  # a peer that does not read what is left is cut off

    def login(self, options: dict[str, Any], done: Callable[[Identity | BrokerError], None]) -> None:
        """Check a password in the server's login thread."""
        self._server.login(self._session, options, done)


class Server:
    """Listens for the broker's protocol on one address, for a ``Broker`` that is open.

    ``listen`` is ``HOST:PORT`` (port 0: any), or ``fd:NAME`` for a TCP socket that the process was started with
    (``blocks.core.activation``). Off loopback it needs ``guard`` or ``token_file``. ``heartbeat`` seconds are told to clients; one that
    is silent for three of them, and does not answer a ping, is gone.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        listen: str,
        guard: Guard | None = None,
        token_file: str | Path | None = None,
        tls_cert: str | Path | None = None,
        tls_key: str | Path | None = None,
        tls_client_ca: str | Path | None = None,
        heartbeat: float | str = HEARTBEAT,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._broker = broker
        self._given = _given(listen)
        self._address = Address.parse(listen) if self._given is None else Address(*self._given.getsockname()[:2])
        self._guard = read_guard(token_file) if token_file is not None else guard
        check_exposure(self._address.host, self._guard)
        self._tls = server_tls(tls_cert, tls_key, tls_client_ca)
        self._heartbeat = seconds(heartbeat)
        if not 0.05 <= self._heartbeat <= 3600:
            raise ConfigError(f"a heartbeat of {heartbeat} is not between 50ms and 1h")
        self._max_connections = max_connections
        self._descriptors = Descriptors()
        self._encoder = wire.Encoder()
        self.ping = self._encoder.encode(Ping(0))
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._logins: ThreadPoolExecutor | None = None
        self.loop: asyncio.AbstractEventLoop
        self.patience = self._heartbeat * 2
        self._draining = False

    @property
    def url(self) -> str:
        """What clients connect to, with the real port."""
        scheme = "blocks+tls" if self._tls is not None else "blocks"
        return f"{scheme}://{self._address}"

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What its connections are secured with; certificates that are loaded into it hold for those to come."""
        return self._tls

    @property
    def connections(self) -> int:
        """Clients that are connected now."""
        return len(self._connections)

    async def start(self) -> None:
        """Listen. Raises ``OSError`` if the address cannot be had."""
        self.loop = asyncio.get_running_loop()
        where: dict[str, Any] = {"host": self._address.host.strip("[]"), "port": self._address.port}
        if self._given is not None:
            where = {"sock": self._given}
        self._server = await self.loop.create_server(
            partial(Connection, self), ssl=self._tls, backlog=self._descriptors.burst, **where
        )
        deepen(self._server, BACKLOG)
        self._address = self._address.with_port(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Listen no more and end every connection without a word, as a killed process does; ``stop`` comes after."""
        self._draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.cut()

    async def stop(self, grace: float = 5.0) -> bool:
        """Stop listening, let what is under way finish for ``grace`` seconds, close; gives whether all was finished."""
        if self._server is None:
            return True
        self._draining = True
        self._server.close()
        for connection in list(self._connections):
            connection.session.drain()
        await self._until(lambda: not self._busy(), grace)
        finished = not self._busy()
        for connection in list(self._connections):
            connection.session.close("stopped", "the broker has stopped")
        await self._until(lambda: not self._connections, 1.0)
        for connection in list(self._connections):
            connection.cut()
        await self._until(lambda: not self._connections, 1.0)
        await self._server.wait_closed()
        self._server = None
        if self._logins is not None:
            self._logins.shutdown(wait=False, cancel_futures=True)
        return finished

    async def _until(self, reached: Callable[[], bool], limit: float) -> None:
        """Return when ``reached`` says so, or after ``limit`` seconds."""
        end = self.loop.time() + limit
        while not reached():
            if self.loop.time() >= end:
                return
            await asyncio.sleep(0.005)

    def _busy(self) -> bool:
        return any(connection.session.busy for connection in self._connections)

    # what connections ask of their server

    def session(self, connection: Connection) -> Session:
        """A session whose bytes leave through ``connection``."""
        broker = self._broker
        limits = {
            "durability": broker.durability,
            "heartbeat": self._heartbeat,
            "max_frame": wire.MAX_FRAME,
            "message_bytes": broker.limits.message_bytes,
        }
        return Session(broker.engine, connection, self._encoder, broker.inboxes, broker.clock, self._guard, limits)

    def take(self, connection: Connection, transport: asyncio.Transport) -> bool:
        """Count ``connection`` in, if there is room."""
        if self._draining or len(self._connections) >= self._max_connections:
            return False
        sock = transport.get_extra_info("socket")
        if sock is not None and self._descriptors.refuses_client(sock.fileno(), self.loop.time()):
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """Count ``connection`` out."""
        self._connections.discard(connection)

    def login(self, session: Session, options: dict[str, Any], done: Callable[[Identity | BrokerError], None]) -> None:
        """Check a password in a thread of its own (one: a flood of logins takes one core at most), then call ``done``."""
        guard = self._guard
        assert guard is not None
        if self._logins is None:
            self._logins = ThreadPoolExecutor(1, thread_name_prefix="broker-login")
        aside = Aside(self.loop)
        aside.begin()

        def told(outcome: Identity | BrokerError | None) -> None:
            aside.end()
            if outcome is not None:
                done(outcome)

        self._logins.submit(self._login, session, guard, options, told)

    def _login(
        self,
        session: Session,
        guard: Guard,
        options: dict[str, Any],
        done: Callable[[Identity | BrokerError | None], None],
    ) -> None:
        outcome: Identity | BrokerError | None = None
        try:
            if not session.closed:  # else it did not wait
                outcome = guard.login(options)
        except BrokerError as error:
            outcome = error
        try:
            self.loop.call_soon_threadsafe(done, outcome)
        except RuntimeError:
            pass  # the loop has ended


def _given(listen: str) -> socket.socket | None:
    """The one TCP socket that ``fd:NAME`` means; None for another address. Raises ``ConfigError``."""
    if not is_inherited(listen):
        return None
    found = inherited(listen)
    if len(found) > 1 or found[0].family == socket.AF_UNIX:
        for one in found:
            one.close()
        raise ConfigError(f"{listen}: a broker listens on one TCP socket, and this is {len(found)} or a Unix socket")
    return found[0]


def server_tls(cert: str | Path | None, key: str | Path | None, client_ca: str | Path | None) -> ssl.SSLContext | None:
    """The context of a listener with that certificate; None without one. Raises ``ConfigError``."""
    if cert is None:
        if key is not None or client_ca is not None:
            raise ConfigError("tls_key and tls_client_ca need tls_cert")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot use the certificate {cert}: {error}") from error
    return context
