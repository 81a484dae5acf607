"""A subscription in the broker's own process: the same messages and the same answers as over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .errors import BadRequest, BrokerError, Closed
from .group import Subscription
from .inboxes import CORRELATION
from .message import Deliveries, Leases, Message, Receipt, SubscribeOptions

if TYPE_CHECKING:
    from .broker import Broker


class LocalMessage(Message):
    """A message in the broker's own process."""

    __slots__ = ("_broker",)

    def __init__(self, run: Deliveries, index: int, owner: Leases, broker: Broker) -> None:
        super().__init__(run, index, owner)
        self._broker = broker

    async def respond(self, payload: bytes, headers: Mapping[str, str] | None = None) -> Receipt:
        """Answer a request: publish to its ``reply_to``, with its correlation. Raises ``BadRequest`` if none is awaited."""
        if self.reply_to is None:
            raise BadRequest("no answer is awaited: the message has no reply_to")
        marked = dict(headers or {})
        if CORRELATION in self.headers:
            marked[CORRELATION] = self.headers[CORRELATION]
        return await self._broker.publish(self.reply_to, payload, headers=marked)


class Answered:
    """Who holds an answer to a request: nobody, as it was never stored."""

    def ack(self, topic: str, offsets: Iterable[int], token: int, done: Callable[[int], None] | None = None) -> int:
        """There is nothing to be done."""
        if done is not None:
            done(0)
        return 0

    def nack(self, topic: str, offsets: Iterable[int], token: int, delay: float | None = None) -> int:
        """An answer is not delivered again."""
        return 0

    def reject(self, topic: str, offsets: Iterable[int], token: int, reason: str = "") -> int:
        """There is nothing to be done."""
        return 0

    def extend(self, topic: str, offsets: Iterable[int], token: int, seconds: float) -> int:
        """There is nothing to be done."""
        return 0


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
            self._decline(self._subscription)
            self._subscription.close()
        self._error = self._error or Closed("the subscription is closed")
        self._wake()

    def _decline(self, subscription: Subscription) -> None:
        """What was never looked at goes back without counting as an attempt."""
        at = self._at
        for run in reversed(self._runs):
            subscription.decline(run.topic, run.offsets[at:], run.token)
            at = 0
        self._runs.clear()

    def __aiter__(self) -> AsyncIterator[LocalMessage]:
        return self

    async def __anext__(self) -> LocalMessage:
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

    def poll(self) -> LocalMessage | None:
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
        message = LocalMessage(run, self._at, subscription, self._broker)
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
        """Keep what is held leased, a third of a lease before it ends, and never beyond ``max_lease`` after it was delivered."""
        subscription = self._subscription
        if subscription is None or subscription.closed:
            return
        now = self._broker.clock.monotonic()
        lease = self._options.lease
        for held in list(subscription.leases):
            span = min(lease, held.since + self._max_lease - now)
            if now < held.deadline < now + min(span, lease * 0.7):
                self._broker.engine.prolong(held, span)
        self._timer = asyncio.get_running_loop().call_later(lease / 3, self._extend)
