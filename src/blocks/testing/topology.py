"""A whole stack.toml inside a test: on free ports, on the test's clock and seed, in memory, on the timeline."""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from blocks.app.source import Source, StackErrors, of_tables, read_stack
from blocks.app.stack import Stack
from blocks.core.clock import Clock
from blocks.core.errors import ConfigError
from blocks.http.message import Request, Response
from blocks.http.upstream import Upstream

from .timeline import Timeline

FREE = "127.0.0.1:0"


class Topology:
    """``stack = await blocks.stack("stack.toml")``: ``stack["users"]`` is the object of that name, ``stack.url`` the first server's URL.

    ``await stack.get("/")`` asks it, ``stack.servers["admin"].url`` is another server, ``await stack.reload()`` changes to what the file
    says now. What the file says of ports, workers, data folders and the admin listener does not hold in a test.
    """

    def __init__(self, stack: Stack, prepare: Prepared, timeline: Timeline) -> None:
        self.stack = stack
        self._prepare = prepare
        self._timeline = timeline
        self._clients: dict[str, Upstream] = {}

    async def start(self) -> Topology:
        """Start everything. When it returns, each server accepts."""
        await self.stack.start()
        self._watch()
        return self

    async def stop(self) -> None:
        """Stop everything."""
        await self._hang_up()
        await self.stack.stop()

    async def _hang_up(self) -> None:
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    async def reload(self, source: Any = None) -> None:
        """Change to what the file says now, or to another file, text or tables. Raises ``StackErrors``; then all goes on as it was."""
        tables = self._prepare.tables() if source is None else self._prepare.again(source)
        try:
            await self.stack.reload(tables)
        except StackErrors as error:
            raise self._prepare.placed(error) from None
        self._timeline.note("stack", "reloaded")
        await self._hang_up()  # a connection of before may still be answered by the server of before
        self._watch()

    def __getitem__(self, name: str) -> Any:
        return self.stack[name]

    @property
    def servers(self) -> dict[str, Any]:
        """The listeners by name; each has a ``url``."""
        return dict(self.stack.servers)

    @property
    def url(self) -> str:
        """Where the first server listens. Raises ``ConfigError`` when there is none."""
        for listener in self.stack.servers.values():
            return str(listener.url)
        raise ConfigError("the stack has no [servers]")

    async def request(
        self,
        method: str,
        path: str = "/",
        headers: dict[str, str] | None = None,
        body: bytes | str = b"",
        *,
        server: str | None = None,
    ) -> Response:
        """Ask a server, the first one by default, over a real connection; the answer's body is read."""
        url = self.url if server is None else str(self.stack.servers[server].url)
        client = self._clients.get(url)
        if client is None:
            client = self._clients[url] = Upstream(url, name=f"client of {server or 'the stack'}")
        content = body.encode() if isinstance(body, str) else body
        host = url.partition("://")[2]
        response = await client(Request(method, path, {"host": host, **(headers or {})}, content))
        await response.read()
        return response

    async def get(
        self, path: str = "/", headers: dict[str, str] | None = None, *, server: str | None = None
    ) -> Response:
        """``request("GET", …)``."""
        return await self.request("GET", path, headers, server=server)

    # -- the timeline

    def _watch(self) -> None:
        for name, listener in self.stack.servers.items():
            service = listener.server.service if listener.server is not None else None
            if service is not None and not isinstance(service.observer, _Watcher):
                service.observer = _Watcher(name, self._timeline, service.observer)
        for name, node in self.stack.of_kind("balancers").items():
            node.block.tape.listeners[:] = [_Noted(name, self._timeline)]
        for name, node in self.stack.of_kind("edges").items():
            node.block.told = _Noted(name, self._timeline)
        for name, node in self.stack.of_kind("brokers").items():
            node.block.engine.told = _Noted(name, self._timeline)

    def __repr__(self) -> str:
        return f"<Topology {', '.join(self.stack.nodes)}>"


class _Noted:
    """Writes what a block tells to the timeline."""

    def __init__(self, name: str, timeline: Timeline) -> None:
        self._name = name
        self._timeline = timeline

    def __call__(self, *told: object) -> None:
        self._timeline.note(self._name, " ".join(map(str, told)))


class _Watcher:
    """A server's observer that writes each answer to the timeline."""

    def __init__(self, name: str, timeline: Timeline, then: Any) -> None:
        self._name = name
        self._timeline = timeline
        self._then = then

    def __call__(self, request: Request, status: int, sent: int, began: float, error: BaseException | None) -> None:
        failed = f" ({getattr(error, 'reason', type(error).__name__)})" if error is not None else ""
        self._timeline.note(self._name, f"{request.method} {request.target} -> {status}{failed}")
        if self._then is not None:
            self._then(request, status, sent, began, error)


class Prepared:
    """A stack's tables made fit for a test. ``replace`` maps dotted keys to values: ``{"upstreams.users.url": a}``.

    ``disk`` keeps what the file says of data folders and stores.
    """

    def __init__(
        self, source: Any, replace: Mapping[str, Any] | None, environment: Mapping[str, str] | None, disk: bool
    ) -> None:
        self._given = source
        self._replace = dict(replace or {})
        self.environment: Mapping[str, str] = {**os.environ, **(environment or {})}
        self._disk = disk
        self._source = self._read()

    def _read(self) -> Source:
        given = self._given
        if isinstance(given, Mapping):
            return of_tables(given)
        if isinstance(given, str) and "\n" in given:
            with TemporaryDirectory() as folder:
                path = Path(folder) / "stack.toml"
                path.write_text(given, encoding="utf-8")
                found = read_stack(path, self.environment)
            found.base = Path.cwd()
            return found
        return read_stack(Path(given), self.environment)

    @property
    def base(self) -> Path:
        """What paths in the tables are relative to."""
        return self._source.base

    def again(self, source: Any) -> dict[str, Any]:
        """The tables of another source. Raises ``StackErrors``."""
        before, self._given = self._given, source
        try:
            return self.tables()
        except BaseException:
            self._given = before
            raise

    def tables(self) -> dict[str, Any]:
        """Read again what was given, and make it fit. Raises ``StackErrors``."""
        self._source = self._read()
        tables = deepcopy(dict(self._source.tables))
        tables.pop("include", None)
        for key in ("workers", "admin", "admin_token_file", "ports_file"):
            _table(tables, "process").pop(key, None)
        for server in _table(tables, "servers").values():
            if isinstance(server, dict) and "listen" in server:
                server["listen"] = _free(server["listen"])
        for broker in _table(tables, "brokers").values():
            if isinstance(broker, dict):
                broker.update({key: FREE for key in ("listen", "http") if key in broker})
                if not self._disk:
                    broker["data"] = ":memory:"
        for edge in _table(tables, "edges").values():
            if isinstance(edge, dict) and not self._disk:
                edge.pop("store", None)
                edge.pop("store_size", None)
        for key, value in self._replace.items():
            _put(tables, key, value)
        return tables

    def placed(self, error: StackErrors) -> StackErrors:
        """The error with the places of the file that was read."""
        return StackErrors(error.complaints, self._source)


def make(
    source: Any,
    *,
    replace: Mapping[str, Any] | None,
    environment: Mapping[str, str] | None,
    disk: bool,
    clock: Clock,
    random: Random,
    timeline: Timeline,
) -> Topology:
    """A topology that is not started. Raises ``StackErrors``, whose ``report()`` shows the lines of the file."""
    prepared = Prepared(source, replace, environment, disk)
    tables = prepared.tables()
    try:
        stack = Stack.load(
            tables, base=prepared.base, environment=prepared.environment, clock=clock, random=random, workers=1
        )
    except StackErrors as error:
        raise prepared.placed(error) from None
    return Topology(stack, prepared, timeline)


def _table(tables: dict[str, Any], name: str) -> dict[str, Any]:
    found = tables.get(name)
    return found if isinstance(found, dict) else {}


def _free(listen: Any) -> Any:
    return [FREE for _ in listen] if isinstance(listen, list) else FREE


def _put(tables: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    table: Any = tables
    for word in path:
        table = table.setdefault(word, {}) if isinstance(table, dict) else None
        if not isinstance(table, dict):
            raise ConfigError(f"replace: there is no table {word!r} for {key!r}")
    table[last] = [_plain(one) for one in value] if isinstance(value, list | tuple) else _plain(value)


def _plain(value: Any) -> Any:
    """An origin or a block stands for its URL."""
    url = getattr(value, "url", None)
    return url if isinstance(url, str) else value
