"""The shop's own code, which ``shop.toml`` names: a catalog, what is in stock, and the back office behind the broker."""

import asyncio
import contextlib
import os
from collections import defaultdict

from blocks import Request, Response, connect


class Service:
    """Answers with what it was asked for and who it is; ``cache`` is for how long that may be remembered."""

    def __init__(self, name: str, cache: str) -> None:
        self.name = name
        self._cache = cache

    async def __call__(self, request: Request) -> Response:
        return Response.json({"path": request.path, "by": self.name}, headers={"cache-control": self._cache})


class BackOffice:
    """Two kinds of workers, each of which handles every order; asked over HTTP, it says what they have done."""

    def __init__(self, *groups: str) -> None:
        self.done: dict[str, list[str]] = defaultdict(list)
        self._groups = groups
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "BackOffice":  # when the stack starts: the broker listens by now
        url = f"blocks://127.0.0.1:{os.environ.get('SHOP_BROKER', '7400')}"
        self._tasks = [asyncio.create_task(self._work(url, group)) for group in self._groups]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self, url: str, group: str) -> None:
        async with connect(url) as client, client.subscribe("orders.*", group=group, start="earliest") as messages:
            async for message in messages:
                self.done[group].append(message.payload.decode())
                await message.ack()

    async def __call__(self, request: Request) -> Response:
        return Response.json(self.done, headers={"cache-control": "no-store"})


alder, birch = Service("alder", "max-age=60"), Service("birch", "max-age=60")
cedar, oak = Service("cedar", "no-store"), Service("oak", "no-store")
back_office = BackOffice("billing", "notification")
