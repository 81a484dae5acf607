"""A client's subscription: messages are handed out one by one, settled by ranges, and their leases kept alive meanwhile.

After an interruption it resumes or raises. What was buffered is dropped: of a group it comes again to whoever is there, and
a subscription without a group goes on after the last message that it handed out. An ack for a message of an earlier
connection is not sent: the message's lease ended with that connection.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol

from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds
from blocks.core.sweeper import sweeper

from .columns import error_of, spread_run
from .errors import BadRequest, BrokerError, Closed, LeaseLost
from .frames import ACK, DECLINE, EXTEND, NACK, REJECT, Credit, Frame, Settle, Subscribe, Unsubscribe
from .inboxes import CORRELATION
from .message import Deliveries, Message, Receipt

MAX_LEASE = 3600.0  # seconds a message may be worked on: Google Pub/Sub's max_lease_duration


MAX_SPAN = 31_536_000.0  # seconds, a year: what is due later is published with a delay
MAX_REASON = 4096  # characters that a dead letter keeps of its reason


class Connection(Protocol):
    """What a subscription needs of its client."""

    loop: asyncio.AbstractEventLoop

    def send(self, frame: Frame) -> bool:
        """Send ``frame`` now; False if there is no link."""
        ...

    def settle_soon(self, subscription: Subscription) -> None:
        """Call ``send_acks`` at the end of this tick."""
        ...

    def await_settled(self) -> tuple[int, asyncio.Future[int]]:
        """A number for a ``Settle``, and the future of its ``Settled``."""
        ...

    def enter(self, subscription: Subscription) -> None:
        """Hold ``subscription``: it is told of frames, losses and returns."""
        ...

    def leave(self, subscription: Subscription) -> None:
        """Hold it no longer."""
        ...

    async def publish(self, topic: str, payload: bytes, *, headers: Mapping[str, str] | None = None) -> Receipt:
        """Publish an answer."""
        ...


class Run(Deliveries):
    """Deliveries as a client holds them: how many are unsettled, and which acks have not been sent."""

    __slots__ = ("epoch", "left", "since", "unsent")

    def __init__(self, run: list[Any], epoch: int, since: float) -> None:
        super().__init__(**spread_run(run))
        self.epoch = epoch  # of the connection that it came over
        self.left = len(self.payloads)
        self.since = since
        self.unsent: list[int] = []


class RemoteMessage(Message):
    """A message from a broker on the other side of a socket; settling it is sent at the end of the tick."""

    __slots__ = ("_settled",)
    _run: Run
    _owner: Subscription  # type: ignore[assignment]  # the client's own, which sends what the engine's does

    def __init__(self, run: Run, index: int, owner: Subscription) -> None:
        self._run = run
        self._index = index
        self._owner = owner
        self._settled = False

    async def ack(self, wait: bool = False) -> None:
        """Say that it is done: the ack leaves with this tick's others. With ``wait``: return when the broker has it on disk.

        Raises ``LeaseLost``, with ``wait`` only, if the lease was lost and the message may be delivered to another.
        """
        if self._settled:
            return
        self._settled = True
        if wait:
            await self._owner.settle_and_wait(self._run, self._index)
        else:
            self._owner.settle_ack(self._run, self._index)

    async def nack(self, delay: float | None = None) -> None:
        """Give it back, to be delivered again after ``delay`` seconds (None: the subscription's back-off)."""
        self._settle(NACK, None if delay is None else _span("a delay", delay))

    async def reject(self, reason: str = "") -> None:
        """It can never be processed: to the dead letters, with ``reason``."""
        self._settle(REJECT, str(reason)[:MAX_REASON].encode("utf-8", "replace").decode())

    async def extend(self, seconds: float) -> None:
        """Keep it for ``seconds`` more, counted from now; without this the client extends leases by itself."""
        span = _span("an extension", seconds)
        if not self._settled:
            self._owner.settle_one(self._run, self._index, EXTEND, span)

    async def respond(self, payload: bytes, headers: Mapping[str, str] | None = None) -> Receipt:
        """Answer the one who asked with ``request``. Raises ``NotFound`` if they no longer wait, ``BadRequest`` if they never did."""
        if self.reply_to is None:
            raise BadRequest("the message asks for no answer: it has no reply_to")
        own = self.headers.get(CORRELATION)
        marked = {**(headers or {}), **({CORRELATION: own} if own is not None else {})}
        return await self._owner.client.publish(self.reply_to, payload, headers=marked)

    def _settle(self, verb: int, argument: Any) -> None:
        if not self._settled:
            self._settled = True
            self._owner.settle_one(self._run, self._index, verb, argument)


class Subscription:
    """Messages of the topics that match a pattern: ``async with`` opens and closes it, ``async for`` takes them."""

    __slots__ = (
        "_current",
        "_dirty",
        "_end",
        "_epoch",
        "_error",
        "_held",
        "_index",
        "_leased",
        "_max_lease",
        "_opened",
        "_options",
        "_positions",
        "_queue",
        "_start",
        "_subscribed",
        "_unsent",
        "_waiter",
        "client",
        "deadline",
        "lease",
        "number",
        "pattern",
        "stale",
    )

    def __init__(
        self, client: Connection, number: int, pattern: str, options: dict[str, Any], max_lease: float
    ) -> None:
        self.client = client
        self.number = number
        self.pattern = pattern
        self.stale = 0  # settlements that came too late, because the connection or the lease was lost
        self.lease: float = options["lease"]
        self.deadline = math.inf
        self._options = options
        self._max_lease = max_lease
        self._leased = options["ack"] and options["mode"] == "consume"
        self._queue: deque[Run] = deque()
        self._current: Run | None = None
        self._index = 0
        self._end = 0
        self._epoch = 0
        self._held: dict[int, Run] = {}
        self._dirty: list[Run] = []
        self._unsent = 0
        self._waiter: asyncio.Future[None] | None = None
        self._opened: asyncio.Future[None] | None = None
        self._error: BrokerError | None = None
        self._subscribed = False
        self._positions: dict[str, int] = {}
        self._start: float | None = None

    @property
    def buffered(self) -> int:
        """Messages that arrived and were not handed out yet."""
        current = self._end - self._index if self._current is not None else 0
        return current + sum(len(run) for run in self._queue)

    async def __aenter__(self) -> Subscription:
        self._opened = self.client.loop.create_future()
        self.client.enter(self)
        try:
            self._ask()
            await self._opened
        except BaseException:
            self._opened.cancel()  # nobody will ask it
            await self.close()
            raise
        return self

    def _ask(self) -> None:
        try:
            self.client.send(Subscribe(self.number, self.pattern, self._options))
        except (TypeError, ValueError, OverflowError) as error:
            raise BadRequest(f"a subscription cannot be asked for with these options: {error}") from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[RemoteMessage]:
        return self

    async def __anext__(self) -> RemoteMessage:
        while True:
            run = self._current
            if run is not None:
                index = self._index
                if index < self._end:
                    self._index = index + 1
                    return RemoteMessage(run, index, self)
                self._finish(run)
            if self._queue:
                self._current = self._queue.popleft()
                self._index, self._end = 0, len(self._current)
                continue
            if self._error is not None:
                if isinstance(self._error, Closed) and self._error.reason == "done":
                    raise StopAsyncIteration
                raise self._error
            await self._wait()

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("a subscription is iterated by one task at a time: open one for each worker")
        self._waiter = self.client.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _finish(self, run: Run) -> None:
        """Every message of ``run`` was handed out: without leases, as much may come again."""
        self._current = None
        if not self._leased and run.epoch == self._epoch:
            self.client.send(Credit(self.number, len(run), run.size))

    async def close(self) -> None:
        """End it: acks are sent, what was not settled goes to other members at once."""
        if self._error is None:
            self.send_acks()
            self._decline_unseen()
            self.client.send(Unsubscribe(self.number))
            done = Closed("the subscription is closed")
            done.reason = "done"
            self._end_with(done)
        self.client.leave(self)

    def _decline_unseen(self) -> None:
        """Give back what was never handed out, so that the failure of one message counts against no other."""
        unseen = list(self._queue) if self._leased else []
        rows = [[run.topic, run.token, _ranges(run.offsets)] for run in unseen]
        run = self._current
        if self._leased and run is not None and run.epoch == self._epoch and self._index < self._end:
            rows.append([run.topic, run.token, _ranges(run.offsets[self._index :])])
        if rows:
            self.client.send(Settle(self.number, DECLINE, rows, None, 0))

    # settling

    def settle_ack(self, run: Run, index: int) -> None:
        """Note that message ``index`` of ``run`` is done; acks leave as ranges at the end of the tick."""
        if not self._leased:
            return
        if run.epoch != self._epoch:
            self.stale += 1
            return
        offset = run.offsets[index]
        unsent = run.unsent
        if unsent:
            if unsent[-1] == offset - 1:
                unsent[-1] = offset
            else:
                unsent += (offset, offset)
        else:
            unsent += (offset, offset)
            self._dirty.append(run)
            if len(self._dirty) == 1:
                self.client.settle_soon(self)
        run.left -= 1
        if not run.left:
            self._held.pop(id(run), None)
        self._unsent += 1
        if self._unsent >= self._options["prefetch"] // 4:  # the broker sends on while this tick's work goes on
            self.send_acks()

    def settle_one(self, run: Run, index: int, verb: int, argument: Any) -> None:
        """Send ``verb`` for message ``index`` of ``run`` now."""
        if self._may_settle(run, verb):
            self._send_one(run, index, verb, argument, 0)

    async def settle_and_wait(self, run: Run, index: int) -> None:
        """Ack message ``index`` of ``run`` and return when that is durable. Raises ``LeaseLost``, ``Closed``."""
        if not self._leased:
            return
        if not self._may_settle(run, ACK):
            raise LeaseLost("the lease was lost with the connection: the message is delivered again")
        number, settled = self.client.await_settled()
        self._send_one(run, index, ACK, None, number)
        if await settled:
            raise LeaseLost("the lease was lost: another member has the message, or it was dead-lettered")

    def _may_settle(self, run: Run, verb: int) -> bool:
        if not self._leased:
            return False
        if run.epoch != self._epoch:
            self.stale += 1
            return False
        if verb != EXTEND:
            run.left -= 1
            if not run.left:
                self._held.pop(id(run), None)
        return True

    def _send_one(self, run: Run, index: int, verb: int, argument: Any, answer: int) -> None:
        offset = run.offsets[index]
        self.client.send(Settle(self.number, verb, [[run.topic, run.token, [offset, offset]]], argument, answer))

    def send_acks(self) -> None:
        """Send the acks that have gathered, in one frame."""
        dirty, self._dirty = self._dirty, []
        self._unsent = 0
        rows = []
        for run in dirty:
            if run.unsent and run.epoch == self._epoch:
                rows.append([run.topic, run.token, run.unsent])
            run.unsent = []
        if rows:
            self.client.send(Settle(self.number, ACK, rows, None, 0))

    def expire(self, now: float) -> None:
        """Extend the leases of all that is held, none beyond ``max_lease`` after it came (the sweeper calls this)."""
        self.deadline = now + self.lease / 3
        self.send_acks()
        longest = max(self._max_lease, self.lease)
        spans: dict[float, list[list[Any]]] = {}
        for run in self._held.values():
            span = min(self.lease, round(run.since + longest - now, 1))  # the broker ends leases ten times a second
            if span > 0:
                spans.setdefault(span, []).append([run.topic, run.token, _ranges(run.offsets)])
        for span, rows in spans.items():
            self.client.send(Settle(self.number, EXTEND, rows, span, 0))

    # what the client tells

    def subscribed(self, answer: dict[str, Any]) -> None:
        """The broker has opened it."""
        if self._start is None:
            began = answer.get("time")
            self._start = float(began) if isinstance(began, int | float) else 0.0
        self._subscribed = True
        if self._leased and self.deadline == math.inf:
            self.deadline = self.client.loop.time() + self.lease / 3
            sweeper(self.client.loop).add(self)
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)

    def deliver(self, runs: list[list[Any]]) -> None:
        """Messages have arrived."""
        now = self.client.loop.time()
        for fields in runs:
            run = Run(fields, self._epoch, now)
            self._queue.append(run)
            if self._leased:
                self._held[id(run)] = run
            if self._options["group"] is None:
                self._positions[run.topic] = max(run.offsets[-1] + 1, self._positions.get(run.topic, 0))
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def interrupted(self) -> None:
        """The connection was lost, and with it every lease."""
        self._epoch += 1
        self._held.clear()
        self._dirty.clear()
        if self._options["group"] is None:
            self._step_back()
        self._queue.clear()
        self._current = None

    def _step_back(self) -> None:
        """Resume with the first message that was not handed out: what is buffered is dropped, so that it cannot pile up."""
        for run in reversed(self._queue):
            self._positions[run.topic] = run.offsets[0]
        if self._current is not None and self._index < self._end:
            self._positions[self._current.topic] = self._current.offsets[self._index]

    def resume(self) -> None:
        """There is a new connection: subscribe again, from where this one stands."""
        options = dict(self._options)
        if self._subscribed and options["start"] == "latest" and self._start is not None:
            # a group, too, may have been lost with the power before it was on the medium; its log counts in microseconds
            options["start"] = self._start if options["group"] is None else self._start - 1e-5
        if options["group"] is None and self._subscribed:
            options["positions"] = dict(self._positions)
        self.client.send(Subscribe(self.number, self.pattern, options))

    def refused(self, code: str, message: str) -> None:
        """The broker did not open it, or ended it."""
        self._end_with(error_of(code, message))

    def fail_opening(self, error: BrokerError) -> None:
        """The broker dropped the connection for what was sent: if that may have been this, it is not sent again."""
        if not self._subscribed:
            self._end_with(error)

    def fail(self, error: BrokerError) -> None:
        """There will be no more messages: say so to whoever iterates."""
        self._end_with(error)

    def _end_with(self, error: BrokerError) -> None:
        if self._error is None:
            self._error = error
        self.deadline = math.inf
        self._held.clear()
        self._dirty.clear()
        if self._leased:
            self._queue.clear()
            self._current = None
        sweeper(self.client.loop).discard(self)
        for waiter in (self._opened, self._waiter):
            if waiter is None or waiter.done():
                continue
            if waiter is self._opened:
                waiter.set_exception(error)
            else:
                waiter.set_result(None)


def _span(what: str, value: Any) -> float:
    """``value`` as seconds. Raises ``BadRequest``: the broker would end the connection, and with it every lease."""
    try:
        span = seconds(value)
    except ConfigError as error:
        raise BadRequest(f"{what} is seconds: {error}") from error
    if span > MAX_SPAN:
        raise BadRequest(f"{what} is at most {MAX_SPAN:.0f} s, not {value!r:.80}")
    return span


def _ranges(offsets: Iterable[int]) -> list[int]:
    """Offsets that grow, as first, last, first, last, …"""
    if type(offsets) is range:
        return [offsets.start, offsets.stop - 1]
    ranges: list[int] = []
    for offset in offsets:
        if ranges and ranges[-1] == offset - 1:
            ranges[-1] = offset
        else:
            ranges += (offset, offset)
    return ranges
