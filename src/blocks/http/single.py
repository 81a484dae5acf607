"""The job of ``blocks balancer``, ``blocks gateway`` and ``blocks edge``: one handler, served in one way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from blocks.core.clock import SYSTEM, exact
from blocks.core.config.state import Configuration, digest_of
from blocks.core.errors import ConfigError
from blocks.core.logging import events

from .handler import Handler, walk
from .job import Extend, Place, Spot, places_line
from .meter import Meter
from .options import Serving
from .server import LAST_CALL, Server
from .service import Observer

if TYPE_CHECKING:
    from .admin import Subject
    from .tls import Certificates


def _nothing() -> None:
    """A handler without settings of its own has nothing to reload."""


class SingleJob:
    """Serve what ``build`` makes, which each worker calls for itself, as ``serving`` says; ``extend`` adds the block's admin routes."""

    def __init__(self, block: str, build: Callable[[], Handler], serving: Serving, extend: Extend | None) -> None:
        self.block = block
        self.serving = serving
        self.build = build
        self.extend = extend

    @property
    def together(self) -> bool:
        """No: what each worker reloads is the handler's own."""
        return False

    @property
    def spots(self) -> Sequence[Spot]:
        """Where it listens."""
        return [("", address) for address in self.serving.listen]

    def begin(self, place: Place | None) -> Single:
        """The handler and its server, not started."""
        return Single(self, place)

    def line(self, where: Mapping[Spot, Sequence[str]]) -> dict[str, Any]:
        """Where its workers listen."""
        return places_line([one for found in where.values() for one in found], bool(self.serving.tls_cert))


class Single:
    """The job at work on one loop."""

    def __init__(self, job: SingleJob, place: Place | None) -> None:
        self.extend = job.extend
        self._job = job
        self._serving = job.serving
        self._place = place
        self._reloads: list[Callable[[], None]] = []
        self._loaded = SYSTEM.wall()
        self._last_error = ""
        self._meter: Meter | None = None
        self._stack = AsyncExitStack()
        self._server: Server
        self._handler: Handler

    async def start(self) -> None:
        """Serve."""
        async with AsyncExitStack() as stack:
            certificates = self._certificates()
            observer = await self._access_log(stack)
            self._server = self._make_server(certificates, observer)
            await self._server.start()
            stack.push_async_callback(self._server.stop, 0)
            self._stack = stack.pop_all()

    async def drain(self, timeout: float | None = None) -> bool:
        """Accept no more and let requests finish; whether none had to be cut."""
        return await self._server.drain(timeout)

    async def stop(self) -> None:
        """Close everything."""
        await self._stack.aclose()

    def line(self) -> dict[str, Any]:
        """Where it listens."""
        return places_line(self._server.addresses, bool(self._serving.tls_cert))

    # -- reload

    def hang_up(self, done: Callable[[], None]) -> None:
        """Reload certificates and the handler's own settings, reopen the log."""
        self._reload([*self._reloads, getattr(self._handler, "reload", _nothing)])
        done()

    async def reload(self) -> dict[str, Any]:
        """The same, and how it went. Raises ``ConfigError`` when something old stays in force; the rest is reloaded all the same."""
        own = getattr(self._handler, "reload_now", None)
        told: dict[str, Any] = {"status": "reloaded"}
        wrong = self._reload(self._reloads if own else [*self._reloads, getattr(self._handler, "reload", _nothing)])
        if own is not None:
            told |= await own()
        if wrong:
            raise wrong[0]
        return told

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

    def subject(self, drain: Callable[[], None]) -> Subject:
        """What the admin API is about."""
        from .admin import Subject

        server, service, meter = self._server, self._server.service, self._meter
        assert service is not None
        assert meter is not None
        return Subject(
            self._job.block,
            roots=lambda: (self._handler,),
            services=lambda: {"": service},
            meters=lambda: {"": meter},
            listen=lambda: server.addresses,
            settings=lambda: self.configuration().tables,
            secrets=lambda: self.configuration().secrets,
            facts=lambda: self.configuration().facts,
            draining=lambda: service.draining,
            drain=drain,
            reload=self.reload,
        )

    # -- setting up

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

    def _make_server(self, certificates: Certificates | None, observer: Observer | None) -> Server:
        serving, place = self._serving, self._place
        self._handler = self._job.build()
        if serving.admin is not None:
            self._meter = Meter(exact(asyncio.get_running_loop()), observer)
            observer = self._meter.observe
        listen: list[str] = []
        for address in serving.listen if place is None else dict.fromkeys(serving.listen):
            listen += (address,) if place is None else place.where.get(("", address), (address,))
        return Server(
            self._handler,
            *listen,
            tls=certificates.context if certificates is not None else None,
            limits=serving.limits,
            timeouts=serving.timeouts,
            max_connections=serving.max_connections,
            observer=observer,
            reuse_port=place is not None,
            lent={} if place is None else {address: held for (_, address), held in place.held.items()},
            drain=serving.drain,
            last_call=LAST_CALL,
        )
