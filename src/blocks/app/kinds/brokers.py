"""``[brokers.NAME]``: a broker in this process and loop, with its listeners and webhooks."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from blocks.core.config.complaint import below
from blocks.core.errors import ConfigError
from blocks.core.status import Status
from blocks.http.server import CannotBind

from ..bench import Bench
from ..node import Node
from ..tables import BrokerTable, given

_SETTINGS = ("durability", "interval", "segment_bytes", "cache_bytes")


def make(name: str, table: BrokerTable, bench: Bench) -> Node:
    """The broker, not started. Gateways of the stack publish to it by its name."""
    from blocks.broker import Broker, TopicOptions

    if bench.shards > 1:
        raise ConfigError(
            "a broker lives in one process: give [process] workers = 1, or run it by itself (blocks broker)"
        )
    where = table.data if table.data == ":memory:" else bench.path(table.data)
    topics = {topic: TopicOptions(**given(options)) for topic, options in table.topics.items()}
    broker = Broker(where, **given(table, *_SETTINGS), topics=topics, clock=bench.clock, random=bench.draw())
    node = Node("brokers", name, broker, roots=(_House(name, broker, table, bench),))
    bench.brokers[name] = broker
    return node


class _House:
    """The doors to a broker: its server, its HTTP listener and its webhooks, which are opened when it is open."""

    def __init__(self, name: str, broker: Any, table: BrokerTable, bench: Bench) -> None:
        from blocks.broker.address import Address
        from blocks.broker.security import check_exposure, read_guard
        from blocks.broker.server import server_tls

        self.name = name
        self.broker = broker
        self.parts = (broker,)
        self.server: Any = None
        self.door: Any = None
        self._listen, self._http = table.listen, table.http
        with below("token_file"):
            self._guard = read_guard(bench.path(table.token_file)) if table.token_file is not None else None
        for listen in (table.listen, table.http):
            if listen is not None and not listen.startswith("fd:"):
                check_exposure(Address.parse(listen).host, self._guard)
        self._tls: dict[str, Any] = {}
        if table.tls is not None:
            files = {"tls_cert": table.tls.cert, "tls_key": table.tls.key, "tls_client_ca": table.tls.client_ca}
            self._tls = {key: None if path is None else bench.path(path) for key, path in files.items()}
            server_tls(*self._tls.values())
        self._webhooks = None if table.webhooks is None else bench.path(table.webhooks)
        if self._webhooks is not None:
            from blocks.broker.push import read_webhooks

            read_webhooks(broker, self._webhooks)
        self._listening = False
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> _House:
        async with AsyncExitStack() as stack:
            try:
                await self._open(stack)
            except OSError as error:
                where = self._http if self._listening or self._listen is None else self._listen
                said = f"[brokers.{self.name}] cannot listen on {where}: {error.strerror or error}"
                raise CannotBind(error.errno, said) from error
            self._stack = stack.pop_all()
        return self

    async def _open(self, stack: AsyncExitStack) -> None:
        from blocks.broker.server import Server, server_tls

        if self._listen is not None:
            self.server = Server(self.broker, listen=self._listen, guard=self._guard, **self._tls)
            stack.push_async_callback(self.server.stop, 0.0)
            await self.server.start()
            self.broker.server = self.server
            self._listening = True
        if self._http is not None:
            from blocks.broker.frontdoor import FrontDoor

            tls = server_tls(*self._tls.values()) if self._tls else None
            self.door = FrontDoor(self.broker, listen=self._http, guard=self._guard, tls=tls)
            await stack.enter_async_context(self.door)
        if self._webhooks is not None:
            from blocks.broker.push import read_webhooks

            for hook in read_webhooks(self.broker, self._webhooks):
                await stack.enter_async_context(hook)

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def drain(self, grace: float) -> bool:
        """Let clients finish what is under way for ``grace`` seconds; whether all of them did."""
        return True if self.server is None else bool(await self.server.stop(grace))

    @property
    def status(self) -> Status:
        """The broker's."""
        found: Status = self.broker.status
        return found

    def where(self) -> dict[str, Any]:
        """Where it listens, for the ready line."""
        line: dict[str, Any] = {}
        if self.server is not None:
            line["url"] = self.server.url
        if self.door is not None:
            line["http"] = self.door.url
        if self.broker.engine.damage:
            line["damage"] = list(self.broker.engine.damage)
        return line
