"""A broker in memory behind a real socket, whose server tests can stop, restart and cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from blocks.broker import Broker
from blocks.broker.server import Server


class Net:
    """A broker, and the server that listens for it now."""

    def __init__(self, broker: Any, options: dict[str, Any]) -> None:
        self.broker = broker
        self.options = options
        self.server = Server(broker, listen="127.0.0.1:0", **options)

    @property
    def url(self) -> str:
        return self.server.url

    async def down(self, grace: float = 0.0) -> None:
        await self.server.stop(grace)

    async def up(self) -> None:
        address = self.server.url.rpartition("/")[2]
        self.server = Server(self.broker, listen=address, **self.options)
        await self.server.start()

    def cut(self) -> None:
        """Every connection is lost at once, as by a reset."""
        for connection in list(self.server._connections):
            connection.cut()


@asynccontextmanager
async def serving(broker_options: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Net]:
    async with Broker(":memory:", **(broker_options or {})) as broker:
        net = Net(broker, options)
        await net.server.start()
        try:
            yield net
        finally:
            await net.down()


async def until(reached: Callable[[], bool], limit: float = 20.0) -> None:
    async with asyncio.timeout(limit):
        while not reached():  # what is waited for has no event of its own
            await asyncio.sleep(0.005)


async def within(work: Awaitable[Any], limit: float = 20.0) -> Any:
    async with asyncio.timeout(limit):
        return await work
