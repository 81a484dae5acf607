"""A stack as a process runs it: the job of ``blocks run``, alone or in each of several workers."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from blocks.core.config.complaint import Complaint
from blocks.core.errors import BlocksError, ConfigError
from blocks.http.job import Extend, Place, Spot, places_line
from blocks.http.options import Serving

from .change import Change
from .listeners import Ground, addresses_of
from .settings import NOTHING_LISTENS, serves
from .source import Source, StackErrors
from .stack import Stack, in_a_thread
from .version import Version

if TYPE_CHECKING:
    from blocks.http.admin import Subject


class StackJob:
    """Run ``first``, and what its file says later. ``grace`` goes before the file's drain_timeout."""

    block = "stack"
    together = True

    def __init__(self, first: Stack, serving: Serving, grace: float | None = None) -> None:
        self._grace = grace
        self.serving = serving
        self._first = first

    @property
    def spots(self) -> Sequence[Spot]:
        """Where its servers listen."""
        return [
            (name, address)
            for name, table in self._first.version.settings.servers.items()
            for address in addresses_of(table)
        ]

    def begin(self, place: Place | None) -> StackRun:
        """The stack, not started: in one of several workers made anew, of the version that is in force for all of them."""
        stack = self._first
        if place is not None:
            proposal = None if place.seat is None else place.seat.proposal
            stack = stack.anew(stack.version.source if proposal is None else pickle.loads(proposal))
            stack.ground = Ground(place.where, place.held, shared=True)
        stack.ground = stack.ground._replace(metered=self.serving.admin is not None)
        stack.aside = in_a_thread
        stack.grace = self._grace
        return StackRun(stack)

    def line(self, where: Mapping[Spot, Sequence[str]]) -> dict[str, Any]:
        """Where its workers listen."""
        servers: dict[str, list[str]] = {}
        for (name, _), found in where.items():
            servers.setdefault(name, []).extend(found)
        secure = {name for name, table in self._first.version.settings.servers.items() if table.tls}
        return line_of(servers, secure, {})


def line_of(servers: Mapping[str, Sequence[str]], secure: set[str], brokers: Mapping[str, Any]) -> dict[str, Any]:
    """``listen`` of all; ``url`` and ``port`` of the first server; each ``servers.NAME``, and ``brokers.NAME``."""
    each = {name: places_line(addresses, name in secure) for name, addresses in servers.items()}
    first = next(iter(each.values()), {})
    line: dict[str, Any] = {"listen": [address for addresses in servers.values() for address in addresses]}
    line |= {key: first[key] for key in ("url", "port") if key in first}
    return {**line, "servers": each, **({"brokers": dict(brokers)} if brokers else {})}


class StackRun:
    """A stack at work on one loop of a process."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.extend: Extend | None = self._extend
        self._reloading: asyncio.Task[None] | None = None
        self._again = False
        self._change: Change | None = None  # prepared, and not yet in force
        self._draining = False

    async def start(self) -> None:
        """Serve."""
        await self.stack.start()

    async def drain(self, timeout: float | None = None) -> bool:
        """Accept no more and let requests finish, then the brokers' clients; whether none had to be cut."""
        self._draining = True
        return await self.stack.drain(timeout)

    async def stop(self) -> None:
        """Close everything."""
        if self._reloading is not None:
            self._reloading.cancel()
            await asyncio.wait([self._reloading])
        if self._change is not None:
            await self._change.undo()
        await self.stack.stop()

    def line(self) -> dict[str, Any]:
        """Where it listens."""
        servers = {name: listener.addresses for name, listener in self.stack.servers.items()}
        secure = {name for name, listener in self.stack.servers.items() if listener.certificates is not None}
        houses: dict[str, Any] = {name: node.roots[0] for name, node in self.stack.of_kind("brokers").items()}
        return line_of(servers, secure, {name: house.where() for name, house in houses.items()})

    # -- reload

    def hang_up(self, done: Callable[[], None]) -> None:
        """Begin to reload. Any number of calls meanwhile is one more reading after it."""
        if self._reloading is not None and not self._reloading.done():
            self._again = True
            return
        self._reloading = asyncio.get_running_loop().create_task(self._reload(done))

    async def _reload(self, done: Callable[[], None]) -> None:
        try:
            self._again = True
            while self._again:
                self._again = False
                try:
                    await self.stack.reload()
                except ConfigError:
                    pass  # it was told as an event, and /v1/status says it
        finally:
            done()

    async def reload(self) -> dict[str, Any]:
        """Reload, and how it went. Raises ``ConfigError``: what ran goes on."""
        before = self.stack.version.digest
        return self._told(before, await self.stack.reload())

    def _told(self, before: str, version: Version) -> dict[str, Any]:
        return {
            "status": "reloaded",
            "digest": version.digest,
            "changed": before != version.digest,
            "warnings": [one.message for one in version.warnings],
        }

    # -- reload, with the other workers

    async def propose(self) -> bytes:
        """Read the file, prepare what it says, and give it to the others as it was read."""
        source = await self._read()
        self._change = await self.stack.prepare(source)
        return pickle.dumps(source)

    async def _read(self) -> Source:
        try:
            return await asyncio.to_thread(self.stack.read)
        except Exception as error:
            await self.stack.abandon(None, error)
            raise

    async def prepare(self, proposal: bytes) -> None:
        """Prepare what another worker has read."""
        self._change = await self.stack.prepare(pickle.loads(proposal))

    async def commit(self) -> dict[str, Any]:
        """Let it answer."""
        change, self._change = self._change, None
        assert change is not None
        return self._told(self.stack.version.digest, await self.stack.commit(change))

    async def abandon(self, error: Exception) -> None:
        """Forget it."""
        change, self._change = self._change, None
        await self.stack.abandon(change, error)

    def reason(self, error: Exception) -> bytes:
        """An error with the files that it is about, for another worker."""
        return pickle.dumps(error if isinstance(error, StackErrors) else ConfigError(_said(error)))

    def error(self, reason: bytes) -> Exception:
        """The error of another worker."""
        found: Exception = pickle.loads(reason)
        return found

    # -- the admin API

    def facts(self) -> dict[str, Any]:
        """Which configuration is in force, since when, and what was wrong with a later one that is not."""
        stack = self.stack
        return {
            "digest": stack.version.digest,
            "loaded": round(stack.loaded, 3),
            "last_error": stack.last_error,
            "retiring": stack.retiring,
        }

    def subject(self, drain: Callable[[], None]) -> Subject:
        """What the admin API is about."""
        from blocks.http.admin import Subject

        stack = self.stack

        def services() -> dict[str, Any]:
            found = {name: listener.server for name, listener in stack.servers.items()}
            return {name: server.service for name, server in found.items() if server is not None and server.service}

        return Subject(
            "stack",
            roots=lambda: (*stack.servers.values(), *(node.roots[0] for node in stack.of_kind("brokers").values())),
            services=services,
            meters=lambda: {name: one.meter for name, one in stack.servers.items() if one.meter is not None},
            listen=lambda: [address for listener in stack.servers.values() for address in listener.addresses],
            places=lambda: {key: value for key, value in self.line().items() if key in ("servers", "brokers")},
            settings=lambda: stack.version.source.tables,
            secrets=lambda: stack.version.source.secrets,
            facts=self.facts,
            draining=lambda: self._draining,
            drain=drain,
            reload=self.reload,
        )

    def _extend(self, app: Any, root: Any) -> None:
        from .doors import add_routes  # aiohttp's server costs 0.3 s, which a process without an admin API does not pay

        add_routes(app, self.stack)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, BlocksError) else f"{type(error).__name__}: {error}"


def refuse_unservable(stack: Stack) -> None:
    """Raise ``StackErrors`` when there is nothing that a process could serve."""
    if not serves(stack.version.settings):
        raise StackErrors([Complaint((), NOTHING_LISTENS)], stack.version.source)
