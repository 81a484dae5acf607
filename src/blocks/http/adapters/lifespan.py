"""The lifespan protocol of ASGI: the application is told of startup and shutdown, and its state is kept for the requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from blocks.core.errors import BlocksError


class LifespanFailed(BlocksError, RuntimeError):
    """The application said, or showed, that it could not start or stop."""


class Lifespan:
    """Runs ``app``'s lifespan in a task between ``start`` and ``stop``. ``state`` is what it put into ``scope["state"]``, or None."""

    def __init__(self, app: Callable[[Any, Any, Any], Awaitable[None]], mode: str) -> None:
        self.state: dict[str, Any] | None = None
        self._app = app
        self._mode = mode
        self._task: asyncio.Task[None] | None = None
        self._asks: asyncio.Queue[dict[str, Any]] | None = None
        self._told: asyncio.Future[MutableMapping[str, Any]] | None = None

    async def start(self) -> None:
        """Returns when the application has started. Raises ``LifespanFailed``."""
        if self._mode == "off":
            return
        self._asks = asyncio.Queue()
        self.state = {}
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self._task = asyncio.get_running_loop().create_task(self._run(scope))
        try:
            told = await self._ask("lifespan.startup")
        except BaseException:
            await self._end()
            raise
        if told["type"] == "lifespan.startup.complete":
            return
        task = self._task
        await self._end()
        if told["type"] == "lifespan.startup.failed":
            raise LifespanFailed(f"the application could not start: {told.get('message') or 'it gave no reason'}")
        self.state = None
        if self._mode == "on":
            raise LifespanFailed(
                "the application does not know the lifespan protocol; say lifespan='off' or 'auto'"
            ) from _error_of(task)

    async def stop(self) -> None:
        """Returns when the application has stopped. Raises ``LifespanFailed``."""
        if self._task is None:
            return
        try:
            told = await self._ask("lifespan.shutdown")
        finally:
            task = self._task
            await self._end()
        if told["type"] == "lifespan.shutdown.failed":
            raise LifespanFailed(f"the application could not stop: {told.get('message') or 'it gave no reason'}")
        if told["type"] == "ended" and (error := _error_of(task)) is not None:
            raise LifespanFailed(f"the application failed while it stopped: {error!r}") from error

    async def _ask(self, what: str) -> MutableMapping[str, Any]:
        """What the application answers; ``ended`` when it returned or raised instead."""
        task, asks = self._task, self._asks
        assert task is not None
        assert asks is not None
        self._told = told = asyncio.get_running_loop().create_future()
        asks.put_nowait({"type": what})
        await asyncio.wait({told, task}, return_when=asyncio.FIRST_COMPLETED)
        return told.result() if told.done() else {"type": "ended"}

    async def _run(self, scope: dict[str, Any]) -> None:
        asks = self._asks
        assert asks is not None

        async def send(message: MutableMapping[str, Any]) -> None:
            if self._told is not None and not self._told.done():
                self._told.set_result(message)

        await self._app(scope, asks.get, send)

    async def _end(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            if not task.done():
                await asyncio.wait({task}, timeout=1.0)
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _error_of(task: asyncio.Task[None]) -> BaseException | None:
    return None if task.cancelled() else task.exception()
