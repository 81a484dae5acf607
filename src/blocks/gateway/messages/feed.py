"""A feed carries the messages of one subscription to one client: as fast as the client takes them, each acknowledged when it was passed on.

While the client is full nothing is taken from the subscription, so that the broker holds what waits, and no buffer grows here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from blocks.core.messaging import Delivery

Subscription = AbstractAsyncContextManager[AsyncIterator[Delivery]]


class Feed:
    """Runs in a task from ``open`` on. ``encode`` makes a message into bytes for ``write``; ``idle`` is written after ``quiet`` seconds.

    ``lifetime``: seconds after which the feed ends by itself. ``ended`` is called once, with the error if there was one.
    """

    __slots__ = (
        "_encode",
        "_ended",
        "_go",
        "_idle",
        "_lifetime",
        "_quiet",
        "_ready",
        "_subscription",
        "_task",
        "delivered",
        "write",
    )

    def __init__(
        self,
        subscription: Subscription,
        encode: Callable[[Delivery], bytes],
        write: Callable[[bytes], None],
        ended: Callable[[Exception | None], None],
        *,
        idle: bytes,
        quiet: float,
        lifetime: float,
    ) -> None:
        self._subscription = subscription
        self._encode = encode
        self.write = write
        self._ended = ended
        self._idle = idle
        self._quiet = quiet
        self._lifetime = lifetime
        self._go = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self.delivered = 0

    async def open(self) -> None:
        """Start, and return when the subscription stands. Raises what opening it raised."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            await asyncio.shield(self._ready)
        except asyncio.CancelledError:
            self.cancel()
            raise

    def resume(self) -> None:
        """The client takes more."""
        self._go.set()

    def pause(self) -> None:
        """The client is full."""
        self._go.clear()

    def cancel(self) -> None:
        """The client is gone."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        failure: Exception | None = None
        try:
            async with self._subscription as messages:
                self._ready.set_result(None)
                await self._go.wait()
                await self._pass_on(messages)
        except asyncio.CancelledError:
            if not self._ready.done():
                raise
        except Exception as error:
            failure = error
            if not self._ready.done():
                self._ready.set_exception(error)
                return
        self._ended(failure)

    async def _pass_on(self, messages: AsyncIterator[Delivery]) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._lifetime
        iterator = aiter(messages)
        coming: asyncio.Future[Delivery] | None = None
        try:
            while (left := until - loop.time()) > 0:
                if coming is None:
                    coming = asyncio.ensure_future(anext(iterator))
                await asyncio.wait([coming], timeout=min(self._quiet, left))
                if not coming.done():
                    if left > self._quiet and self._go.is_set():
                        self.write(self._idle)
                    continue
                try:
                    delivery = coming.result()
                except StopAsyncIteration:
                    return
                coming = None
                self.write(self._encode(delivery))
                self.delivered += 1
                await self._go.wait()
                await delivery.ack()
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
