"""The shop's own code, which ``shop.toml`` names: a catalog, what is in stock, and the back office behind the broker."""

import asyncio
import contextlib
from collections import defaultdict

from blocks import Broker, Request, Response


class Service:
    """Answers with what it was asked for and who it is; ``cache`` is for how long that may be remembered."""

    def __init__(self, name: str, cache: str) -> None:
        self.name = name
        self._cache = cache

    async def __call__(self, request: Request) -> Response:
        return Response.json({"path": request.path, "by": self.name}, headers={"cache-control": self._cache})


class BackOffice:
    """Two kinds of workers, each of which handles every order; asked over HTTP, it says what they have done."""

    def __init__(self, bus: Broker, *groups: str) -> None:
        self.done: dict[str, list[str]] = defaultdict(list)
        self._bus = bus
        self._groups = groups
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "BackOffice":  # when the stack starts: the broker runs by now
        self._tasks = [asyncio.create_task(self._work(group)) for group in self._groups]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self, group: str) -> None:
        async with self._bus.subscribe("orders.*", group=group, start="earliest") as messages:
            async for message in messages:
                self.done[group].append(message.payload.decode())
                await message.ack()

    async def __call__(self, request: Request) -> Response:
        return Response.json(self.done, headers={"cache-control": "no-store"})


def back_office(bus: Broker) -> BackOffice:
    """Called with the broker of the stack, as ``needs`` says."""
    return BackOffice(bus, "billing", "notification")


alder, birch = Service("alder", "max-age=60"), Service("birch", "max-age=60")
cedar, oak = Service("cedar", "no-store"), Service("oak", "no-store")
