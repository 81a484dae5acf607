"""A subscription in the broker's own process: the same messages and the same answers as over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .errors import BrokerError, Closed
from .group import Subscription
from .message import Deliveries, Leases, Message, SubscribeOptions

if TYPE_CHECKING:
    from .broker import Broker


class LocalSubscription:
    """Iterate over it for messages, inside ``async with``; leaving gives back what was not answered."""

    def __init__(self, broker: Broker, options: SubscribeOptions, max_lease: float) -> None:
        self._broker = broker
        self._options = options
        self._max_lease = max_lease
        self._subscription: Subscription | None = None
        self._runs: list[Deliveries] = []
        self._at = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: BrokerError | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._subscription = self._broker.engine.subscribe(self._options, self)
        self._extend()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave the group; twice is once."""
        if self._timer is not None:
            self._timer.cancel()
        if self._subscription is not None:
            self._subscription.close()
        self._error = self._error or Closed("the subscription is closed")
        self._wake()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        """The next message, waiting for it; raises what ended the subscription."""
        while True:
            message = self.poll()
            if message is not None:
                return message
            if self._error is not None:
                raise StopAsyncIteration from self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def poll(self) -> Message | None:
        """The next message if there is one now."""
        subscription = self._subscription
        if subscription is None:
            raise Closed("the subscription is entered with `async with`")
        if not self._runs:
            self._runs = subscription.take()[::-1]
            self._at = 0
        if not self._runs:
            return None
        run = self._runs[-1]
        message = Message(run, self._at, subscription)
        self._at += 1
        if self._at == len(run):
            self._runs.pop()
            self._at = 0
        return message

    @property
    def subscription(self) -> Subscription | None:
        """The engine's side of it."""
        return self._subscription

    def ready(self, subscription: Leases) -> None:
        """The engine has something."""
        self._wake()

    def ended(self, subscription: Leases, error: BrokerError) -> None:
        """The engine ended it."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _extend(self) -> None:
        """Keep what is held leased, a third of a lease before it ends."""
        subscription = self._subscription
        if subscription is None or subscription.closed:
            return
        now = self._broker.clock.monotonic()
        lease = self._options.lease
        for held in list(subscription.leases):
            if now < held.deadline < now + lease * 0.7 and now - held.since < self._max_lease:
                self._broker.engine.prolong(held, lease)
        self._timer = asyncio.get_running_loop().call_later(lease / 3, self._extend)
