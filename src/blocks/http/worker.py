"""One event loop that serves: what a process is with one worker, and what each worker is when there are several."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from blocks.core.clock import SYSTEM
from blocks.core.config.state import Configuration, digest_of
from blocks.core.errors import ConfigError
from blocks.core.logging import events
from blocks.core.notify import Notifier

from .handler import Handler, walk
from .meter import Meter
from .options import Serving
from .server import LAST_CALL, Server
from .service import Observer

if TYPE_CHECKING:
    import socket

    from aiohttp import web

    from .tls import Certificates

FINE, FAILURE, USAGE, CONFIGURATION, CANNOT_BIND, DRAIN_TIMED_OUT = range(6)
"""Exit codes."""

Extend = Callable[["web.Application", Any], None]  # with the composition whose block the routes are about
Ready = Callable[[dict[str, Any]], None]


def _nothing() -> None:
    """A handler without settings of its own has nothing to reload."""


class Place(NamedTuple):
    """Where one of several workers listens: ``addresses`` with ports resolved, shared by SO_REUSEPORT, and ``sockets`` of the parent's.

    When ``lifeline``, a pipe that the parent holds the other end of, comes to its end, the parent is gone and the worker leaves, too.
    ``notifier`` lets the parent know that the loop turns.
    """

    addresses: Sequence[str]
    sockets: Sequence[socket.socket]
    lifeline: int
    notifier: Notifier


class Worker:
    """A handler's life on one loop: set up, say ready, serve until told to stop, drain. ``run`` gives the exit code."""

    def __init__(
        self,
        block: str,
        build: Callable[[], Handler],
        serving: Serving,
        extend: Extend | None,
        ready: Ready,
        place: Place | None = None,
    ) -> None:
        self._block = block
        self._build = build
        self._serving = serving
        self._extend = extend
        self._ready = ready
        self._place = place
        self._notifier = Notifier() if place is None else place.notifier
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reloads: list[Callable[[], None]] = []
        self._loaded = SYSTEM.wall()
        self._last_error = ""
        self._meter: Meter | None = None

    async def run(self) -> int:
        """Serve. Raises ``ConfigError`` and ``CannotBind`` before it is ready, nothing of the kind afterwards."""
        async with AsyncExitStack() as stack:
            self._listen_to_signals(stack)
            certificates = self._certificates()
            observer = await self._access_log(stack)
            server = self._server(certificates, observer)
            await server.start()
            stack.push_async_callback(server.stop, 0)
            admin = await self._admin(server, stack)
            gc.collect()
            gc.freeze()
            # Imported here it would hold up the loop with the first event, 0.2 s in the middle of a failure.
            threading.Thread(target=import_module, args=("structlog",), daemon=True).start()
            self._ready(
                ready_line(self._block, server.addresses, certificates is not None, admin, self._serving.workers)
            )
            self._notifier.ready(f"serving on {', '.join(server.addresses)}")
            stack.callback(self._notifier.watch(asyncio.get_running_loop()).cancel)
            await self._stopping.wait()
            self._notifier.stopping(self._serving.drain)
            return await self._drain(server)

    def stop(self) -> None:
        """Drain and leave; called again, leave now."""
        (self._hurry if self._stopping.is_set() else self._stopping).set()

    def reload(self) -> None:
        """Reload certificates and the handler's own settings, reopen the log."""
        self._notifier.reloading()
        self._reload([*self._reloads, getattr(self._handler, "reload", _nothing)])
        self._notifier.ready()

    async def reload_now(self) -> dict[str, Any]:
        """The same, and how it went. Raises ``ConfigError`` when something old stays in force; the rest is reloaded all the same."""
        self._notifier.reloading()
        try:
            own = getattr(self._handler, "reload_now", None)
            told: dict[str, Any] = {"status": "reloaded"}
            wrong = self._reload(self._reloads if own else [*self._reloads, getattr(self._handler, "reload", _nothing)])
            if own is not None:
                told |= await own()
            if wrong:
                raise wrong[0]
            return told
        finally:
            self._notifier.ready()

    def _reload(self, reloads: Sequence[Callable[[], None]]) -> list[ConfigError]:
        wrong = []
        for reload in reloads:
            try:
                reload()
            except ConfigError as error:  # the old one stays in force, and the others still reload
                events().error("reload-failed", error=str(error))
                wrong.append(error)
        self._last_error = "; ".join(str(error) for error in wrong)
        self._loaded = self._loaded if wrong else SYSTEM.wall()
        return wrong

    def configuration(self) -> Configuration:
        """What is in force: the flags, and what the handler read from a file."""
        own = next((part for part in walk(self._handler) if hasattr(part, "configuration")), None)
        flags = self._serving.settings
        if own is None:
            return Configuration(digest_of(flags), self._loaded, self._last_error, flags)
        found: Configuration = own.configuration()
        return found._replace(
            tables={**flags, "file": found.tables},
            last_error="; ".join(filter(None, (self._last_error, found.last_error))),
        )

    def _listen_to_signals(self, stack: AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        for number, act in ((signal.SIGTERM, self.stop), (signal.SIGINT, self.stop), (signal.SIGHUP, self.reload)):
            loop.add_signal_handler(number, act)
            stack.callback(loop.remove_signal_handler, number)
        if self._place is not None:
            loop.add_reader(self._place.lifeline, self._orphaned, self._place.lifeline)

    def _orphaned(self, lifeline: int) -> None:
        asyncio.get_running_loop().remove_reader(lifeline)
        self.stop()

    def _certificates(self) -> Certificates | None:
        serving = self._serving
        if not serving.tls_cert:
            return None
        from .tls import Certificates

        pairs = list(zip(serving.tls_cert, serving.tls_key, strict=True))
        certificates = Certificates(pairs, client_ca=serving.tls_client_ca)
        self._reloads.append(certificates.reload)
        return certificates

    async def _access_log(self, stack: AsyncExitStack) -> Observer | None:
        if self._serving.access_log == "off":
            return None
        from .filters.access_log import AccessLog

        log = await stack.enter_async_context(AccessLog(self._serving.access_log, self._serving.access_log_format))
        self._reloads.append(log.reopen)
        return log.observe

    def _server(self, certificates: Certificates | None, observer: Observer | None) -> Server:
        serving, place = self._serving, self._place
        self._handler = self._build()
        if serving.admin is not None:
            self._meter = Meter(asyncio.get_running_loop().time, observer)
            observer = self._meter.observe
        return Server(
            self._handler,
            *(serving.listen if place is None else place.addresses),
            tls=certificates.context if certificates is not None else None,
            limits=serving.limits,
            timeouts=serving.timeouts,
            max_connections=serving.max_connections,
            observer=observer,
            reuse_port=place is not None,
            sockets=() if place is None else place.sockets,
            drain=serving.drain,
            last_call=LAST_CALL,
        )

    async def _admin(self, server: Server, stack: AsyncExitStack) -> str | None:
        """Where the admin API listens; None without one."""
        if self._serving.admin is None:
            return None
        from .admin import Admin, Subject

        service, meter = server.service, self._meter
        assert service is not None
        assert meter is not None
        subject = Subject(
            self._block,
            roots=lambda: (self._handler,),
            services=lambda: {"": service},
            meters=lambda: {"": meter},
            listen=lambda: server.addresses,
            settings=lambda: self.configuration().tables,
            secrets=lambda: self.configuration().secrets,
            facts=lambda: self.configuration().facts,
            draining=lambda: service.draining,
            drain=self.stop,
            reload=self.reload_now,
        )
        return await stack.enter_async_context(Admin(subject, self._serving, self._extend))

    async def _drain(self, server: Server) -> int:
        """Let requests finish until all are done, the time is up, or somebody is in a hurry."""
        loop = asyncio.get_running_loop()
        drained = loop.create_task(server.drain())
        hurried = loop.create_task(self._hurry.wait())
        try:
            await asyncio.wait({drained, hurried}, return_when=asyncio.FIRST_COMPLETED)
            if not drained.done():
                drained.cancel()
                await server.drain(0)
                return DRAIN_TIMED_OUT
            return FINE if drained.result() else DRAIN_TIMED_OUT
        finally:
            hurried.cancel()
            await asyncio.gather(drained, hurried, return_exceptions=True)


def ready_line(block: str, addresses: Sequence[str], tls: bool, admin: str | None, workers: int) -> dict[str, Any]:
    """What a process says when it is ready: where it really listens."""
    scheme = "https" if tls else "http"
    urls = [f"{scheme}://{address}" for address in addresses if not address.startswith("unix:")]
    ports = [int(address.rpartition(":")[2]) for address in addresses if not address.startswith("unix:")]
    line: dict[str, Any] = {
        "event": "ready",
        "block": block,
        "pid": os.getpid(),
        "workers": workers,
        "listen": list(addresses),
    }
    if urls:
        line |= {"url": urls[0], "port": ports[0]}
    if admin is not None:
        line["admin"] = admin if admin.startswith("unix:") else f"http://{admin}"
    return line
