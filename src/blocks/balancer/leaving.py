"""Endpoints that come and go while requests run: entered when they are added, left when the last request on them is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack
from typing import Any

from blocks.core.quantities import seconds
from blocks.http.handler import running

from .endpoint import Endpoint
from .events import Tape
from .probes import Prober
from .table import Table


class Leaving:
    """An endpoint on its way out. Await it to wait until nothing is under way on it: True when that is so, False after the timeout."""

    __slots__ = ("_endpoint", "_members", "_timeout")

    def __init__(self, members: Members, endpoint: Endpoint, timeout: float | str | None) -> None:
        self._members = members
        self._endpoint = endpoint
        self._timeout = None if timeout is None else seconds(timeout)

    @property
    def done(self) -> bool:
        """Whether nothing is under way on it any more."""
        return self._endpoint.active == 0

    def __await__(self) -> Generator[Any, None, bool]:
        return self._members.wait(self._endpoint, self._timeout).__await__()


class Members:
    """The life of endpoints. Only those that were added at run time are entered and left here; the others belong to ``running``."""

    __slots__ = ("_leaving", "_now", "_prober", "_stacks", "_table", "_tape", "_waiting", "open")

    def __init__(self, table: Table, tape: Tape, prober: Prober | None, now: Callable[[], float]) -> None:
        self._table = table
        self._tape = tape
        self._prober = prober
        self._now = now
        self._stacks: dict[Endpoint, AsyncExitStack] = {}
        self._leaving: dict[Endpoint, asyncio.Task[None]] = {}
        self._waiting: dict[Endpoint, list[asyncio.Future[bool]]] = {}
        self.open = False

    async def enter(self, endpoint: Endpoint) -> None:
        """Enter the handler of an endpoint that joins while the balancer is open."""
        if not self.open:
            return
        stack = AsyncExitStack()
        await stack.enter_async_context(running(endpoint.handler))
        self._stacks[endpoint] = stack

    async def leave(self, endpoint: Endpoint) -> None:
        """Leave what was entered."""
        stack = self._stacks.pop(endpoint, None)
        if stack is not None:
            await stack.aclose()

    def drain(self, endpoint: Endpoint, timeout: float | str | None) -> Leaving:
        """Nothing new for it."""
        leaving = Leaving(self, endpoint, timeout)
        self._table.drain(endpoint, self._now())
        endpoint.awaited = True
        if endpoint.active == 0:
            self.emptied(endpoint)
        return leaving

    def restore(self, endpoint: Endpoint) -> None:
        """Into service again; whoever waits for its end is told that it will not come."""
        endpoint.awaited = False
        self._table.restore(endpoint, self._now())
        self._tell(endpoint, False)

    def remove(self, endpoint: Endpoint, timeout: float | str | None) -> Leaving:
        """Out of the table at once."""
        leaving = Leaving(self, endpoint, timeout)
        if self._prober is not None:
            self._prober.forget(endpoint)
        self._table.remove(endpoint, self._now())
        endpoint.awaited = True
        if endpoint.active == 0:
            self.emptied(endpoint)
        return leaving

    def emptied(self, endpoint: Endpoint) -> None:
        """The last request on an endpoint that is on its way out is done."""
        endpoint.awaited = False
        self._tape.tell("drained", endpoint.name, "nothing is under way", self._now())
        if endpoint.owner is None and endpoint in self._stacks:
            task = asyncio.get_running_loop().create_task(self.leave(endpoint))
            self._leaving[endpoint] = task
            task.add_done_callback(lambda _: self._left(endpoint))
        else:
            self._tell(endpoint, True)

    async def wait(self, endpoint: Endpoint, timeout: float | None) -> bool:
        """Until it is empty, and left if it was entered here; False after ``timeout`` seconds, or when it was restored."""
        if endpoint.active == 0 and endpoint not in self._leaving:
            return True
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        waiting = self._waiting.setdefault(endpoint, [])
        waiting.append(future)
        handle = None if timeout is None else loop.call_later(timeout, _resolve, future, False)
        try:
            return await future
        finally:
            if handle is not None:
                handle.cancel()
            if future in waiting:
                waiting.remove(future)

    async def close(self) -> None:
        """Leave everything that was entered here."""
        self.open = False
        for task in list(self._leaving.values()):
            await task
        for endpoint in list(self._stacks):
            await self.leave(endpoint)

    def _left(self, endpoint: Endpoint) -> None:
        task = self._leaving.pop(endpoint)
        if not task.cancelled() and task.exception() is not None:
            self._tape.tell("removed", endpoint.name, f"leaving it failed: {task.exception()!r}", self._now())
        self._tell(endpoint, True)

    def _tell(self, endpoint: Endpoint, outcome: bool) -> None:
        for future in self._waiting.pop(endpoint, ()):
            _resolve(future, outcome)


def _resolve(future: asyncio.Future[bool], outcome: bool) -> None:
    if not future.done():
        future.set_result(outcome)
