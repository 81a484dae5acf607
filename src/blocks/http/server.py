"""``Server`` listens and hands connections to a handler; ``serve`` is a process's whole life around it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from blocks.core.activation import inherited, is_inherited
from blocks.core.clock import SYSTEM, Clock
from blocks.core.descriptors import deepen
from blocks.core.errors import BlocksError, ConfigError

from .h1 import DEFAULT as DEFAULT_LIMITS
from .h1 import Limits
from .handler import Handler, running
from .inbound import Inbound
from .service import Observer, Service
from .timeouts import DEFAULT as DEFAULT_TIMEOUTS
from .timeouts import Timeouts

if TYPE_CHECKING:
    import ssl

LAST_CALL = 0.5  # seconds that a process which was told to stop answers on idle connections: a few round trips
BACKLOG = 2048  # connections the kernel holds until they are accepted (nginx: 511, too few for a burst of 1,000)


class CannotBind(BlocksError, OSError):
    """An address cannot be listened on: it is in use, not ours, or not allowed."""


def parse_address(address: str) -> tuple[str, int] | str:
    """(host, port) of ``127.0.0.1:8080``, ``[::1]:8080`` or ``:8080``; the path of ``unix:/run/app.sock``. Raises ``ConfigError``."""
    if address.startswith("unix:"):
        path = address[5:].removeprefix("//")
        if not path:
            raise ConfigError(f"{address!r} names no path; write unix:/run/app.sock")
        return path
    try:
        parts = urlsplit("//" + address)
        port = parts.port
    except ValueError as error:
        raise ConfigError(
            f"{address!r} is not an address: {error}; write 127.0.0.1:8080, [::1]:8080 or unix:PATH"
        ) from None
    if port is None or parts.path or parts.query or parts.username is not None:
        raise ConfigError(f"{address!r} is not an address; write 127.0.0.1:8080, [::1]:8080 or unix:PATH")
    return parts.hostname or "0.0.0.0", port


class Server:
    """Serves ``handler`` on ``addresses`` while it is open.

    >>> async with Server(app, "127.0.0.1:0") as server:        # doctest: +SKIP
    ...     print(server.url)                                   # the port is known now

    An address is ``HOST:PORT``, ``unix:PATH``, or ``fd:NAME`` for a socket that the process was started with (``blocks.core.activation``).
    ``tls`` is an ``ssl.SSLContext`` (see ``blocks.http.tls``) for every TCP listener. ``handler``'s parts are entered first and left last.
    ``drain`` is how many seconds ``stop`` lets requests finish, ``last_call`` how long of that an idle connection may still ask:
    a request on its way when the drain began is answered, and told to close (Envoy drains so; with 0, as in nginx, it is lost).
    ``lent`` are sockets that listen already, by the address of ``addresses`` that they stand for.
    Raises ``CannotBind``, and ``ConfigError`` for an address that is none.
    """

    def __init__(
        self,
        handler: Handler,
        *addresses: str,
        tls: ssl.SSLContext | None = None,
        limits: Limits = DEFAULT_LIMITS,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        max_connections: int | None = None,
        upgrades: Sequence[str] = ("websocket",),
        observer: Observer | None = None,
        reuse_port: bool = False,
        sockets: Sequence[socket.socket] = (),
        lent: Mapping[str, Sequence[socket.socket]] | None = None,
        drain: float = 10.0,
        last_call: float = 0.0,
        clock: Clock = SYSTEM,
    ) -> None:
        self.handler = handler
        self.parts = (handler,)
        self._addresses = [(text, None if is_inherited(text) else parse_address(text)) for text in addresses]
        self._sockets = list(sockets)
        self._lent = dict(lent or {})
        self._tls = tls
        self._limits = limits
        self._timeouts = timeouts
        self._max_connections = max_connections
        self._upgrades = frozenset(name.lower() for name in upgrades)
        self._observer = observer
        self._reuse_port = reuse_port
        self._drain = drain
        self._last_call = last_call
        self._clock = clock
        self._listeners: list[asyncio.AbstractServer] = []
        self._at: dict[str, list[asyncio.AbstractServer]] = {}  # those of each of the addresses
        self._bound: list[str] = []
        self._paths: list[str] = []
        self._stack: AsyncExitStack | None = None
        self._accepting = False
        self.service: Service | None = None

    @property
    def addresses(self) -> list[str]:
        """Where it listens, ports resolved: ``127.0.0.1:8080`` or ``unix:/run/app.sock``."""
        return self._bound

    @property
    def url(self) -> str:
        """The first TCP listener as a URL."""
        scheme = "http" if self._tls is None else "https"
        return next(f"{scheme}://{address}" for address in self._bound if not address.startswith("unix:"))

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, *, accept: bool = True) -> None:
        """Enter the handler's parts, then listen. When it returns, a connection is accepted.

        With ``accept`` False it only listens, and the kernel lets clients wait until ``accept`` is called.
        """
        self._accepting = accept
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(running(self.handler))
            self.service = service = Service(
                loop,
                self.handler,
                self._limits,
                self._timeouts,
                max_connections=self._max_connections,
                last_call=self._last_call,
                upgrades=self._upgrades,
                observer=self._observer,
                clock=self._clock,
            )
            stack.push_async_callback(self._close_listeners)
            for address, parsed in self._addresses:
                before = len(self._listeners)
                await self._open(loop, service, address, parsed)
                self._at.setdefault(address, []).extend(self._listeners[before:])
            for given in self._sockets:
                await self._adopt(loop, service, given)
            self._stack = stack.pop_all()

    async def accept(self) -> None:
        """Take the connections that come from now on, and those that wait."""
        if not self._accepting:
            self._accepting = True
            for listener in self._listeners:
                await listener.start_serving()
                deepen(listener, BACKLOG)

    async def _open(
        self, loop: asyncio.AbstractEventLoop, service: Service, address: str, parsed: tuple[str, int] | str | None
    ) -> None:
        """Listen on one address: on the sockets that were lent for it, or handed to the process, or on a new one."""
        lent = self._lent.pop(address, None)
        if lent is None and parsed is not None:
            await self._listen(loop, service, parsed)
            return
        for given in inherited(address) if lent is None else lent:
            await self._adopt(loop, service, given)

    def lend(self, address: str) -> list[socket.socket]:
        """The sockets of one of its addresses once more, for a server that takes its place; both accept until this one stops."""
        return _twins(self._at.get(address, ()))

    def bequeath(self, heir: Server) -> None:
        """Leave to ``heir`` the paths of Unix sockets that it listens on, too: it removes them, at its end."""
        theirs = [parsed for _, parsed in heir._addresses]
        shared = [path for path in self._paths if path in theirs]
        self._paths = [path for path in self._paths if path not in shared]
        heir._paths += shared

    def where(self, address: str) -> list[str]:
        """Where one of its addresses really is, ports resolved."""
        return [name_of(one) for listener in self._at.get(address, ()) for one in getattr(listener, "sockets", ())]

    async def _listen(self, loop: asyncio.AbstractEventLoop, service: Service, address: tuple[str, int] | str) -> None:
        def accept() -> Inbound:
            return Inbound(service)

        burst = service.burst
        try:
            if isinstance(address, str):
                _remove_stale(address)
                bound = _bind_path(
                    address
                )  # by create_unix_server the path would go with it, also when a successor has it (3.13)
                listener = await loop.create_server(accept, sock=bound, backlog=burst, start_serving=self._accepting)
                self._paths.append(address)
                self._bound.append(f"unix:{address}")
            else:
                host, port = address
                more: dict[str, Any] = {"start_serving": self._accepting}
                more |= {"reuse_port": True} if self._reuse_port else {}
                listener = await loop.create_server(accept, host, port, ssl=self._tls, backlog=burst, **more)
                self._bound.extend(name_of(one) for one in listener.sockets)
        except OSError as error:
            shown = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
            raise CannotBind(
                error.errno, f"cannot listen on {shown}: {os.strerror(error.errno) if error.errno else error}"
            ) from error
        deepen(listener, BACKLOG)
        self._listeners.append(listener)

    async def _adopt(self, loop: asyncio.AbstractEventLoop, service: Service, given: socket.socket) -> None:
        """Listen on a socket that somebody else has bound: a parent process, or systemd."""
        tls = self._tls if given.family != socket.AF_UNIX else None
        listener = await loop.create_server(
            lambda: Inbound(service), sock=given, ssl=tls, backlog=service.burst, start_serving=self._accepting
        )
        deepen(listener, BACKLOG)
        self._bound.append(name_of(given))
        self._listeners.append(listener)

    def stop_listening(self) -> None:
        """Accept no more; what is connected stays."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for path in self._paths:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
        self._paths.clear()

    async def _close_listeners(self) -> None:
        self.stop_listening()

    async def drain(self, timeout: float | None = None) -> bool:
        """Stop listening and let requests finish for ``timeout`` seconds; True when none had to be cut."""
        grace = self._drain if timeout is None else timeout
        twins = _twins(self._listeners) if min(self._last_call, grace) > 0 else []
        self.stop_listening()
        if self.service is None:
            return True
        if twins:
            await asyncio.sleep(0)  # the loop lets go of its own descriptors
            await self._welcome(self.service, _accept_waiting(twins))
        return await self.service.drain(grace)

    async def _welcome(self, service: Service, accepted: Sequence[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for one in accepted:
            one.setblocking(False)
        made = [
            loop.connect_accepted_socket(
                lambda: Inbound(service), one, ssl=self._tls if one.family != socket.AF_UNIX else None
            )
            for one in accepted
        ]
        await asyncio.gather(*made, return_exceptions=True)

    async def stop(self, timeout: float | None = None) -> bool:
        """Drain, then leave the handler's parts. Safe to call twice. True when no request had to be cut."""
        stack, self._stack = self._stack, None
        if stack is None:
            return True
        async with stack:
            return await self.drain(timeout)


def _twins(listeners: Sequence[asyncio.AbstractServer]) -> list[socket.socket]:
    """The listening sockets once more, so that the kernel keeps them, and who waits in them, when the loop closes its own."""
    bound = [one for listener in listeners for one in getattr(listener, "sockets", ())]
    return [socket.socket(fileno=os.dup(one.fileno())) for one in bound]


def _accept_waiting(listening: Sequence[socket.socket]) -> list[socket.socket]:
    """Accept what was connected already, and close: closing alone would reset those connections, requests and all."""
    found: list[socket.socket] = []
    for one in listening:
        with one:
            one.setblocking(False)
            try:
                while True:
                    found.append(one.accept()[0])
            except OSError:
                pass  # none is left, or no descriptor
    return found


def name_of(bound: socket.socket) -> str:
    """Where a bound socket is, as an address is written."""
    name = bound.getsockname()
    if isinstance(name, tuple):
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
    return f"unix:{name}"


def _bind_path(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(path)
    except OSError:
        made.close()
        raise
    return made


def _remove_stale(path: str) -> None:
    """Take away the socket that a killed process left behind, and nothing else: a live one answers, a file is not ours."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            os.unlink(path)


async def serve(handler: Handler, *addresses: str, **settings: Any) -> None:
    """Serve ``handler`` until SIGTERM or SIGINT (a second one stops at once), or until cancelled; then drain.

    ``settings`` are ``Server``'s.

    >>> asyncio.run(serve(app, "127.0.0.1:8080"))        # doctest: +SKIP
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    now = asyncio.Event()

    def on_signal() -> None:
        (now if stopping.is_set() else stopping).set()

    caught: list[signal.Signals] = []
    async with AsyncExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                loop.add_signal_handler(number, on_signal)
            except (NotImplementedError, RuntimeError, ValueError):
                break  # not the main thread, or a platform without: the caller cancels
            caught.append(number)
        stack.callback(lambda: [loop.remove_signal_handler(number) for number in caught])
        server = Server(handler, *addresses, **({"last_call": LAST_CALL} | settings))
        async with server:
            await stopping.wait()
            drained = loop.create_task(server.drain())
            hurried = loop.create_task(now.wait())
            try:
                await asyncio.wait({drained, hurried}, return_when=asyncio.FIRST_COMPLETED)
                if not drained.done():
                    await server.drain(0)
            finally:
                hurried.cancel()
                await asyncio.gather(drained, hurried, return_exceptions=True)
