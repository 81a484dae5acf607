"""Pull over HTTP: a subscription that the broker keeps for a group between requests, with a lease for each message taken.

Nobody extends these leases but the puller itself. A pull that was not used for ``IDLE`` seconds is closed, and what it
had not settled goes to others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from blocks.core.sweeper import sweeper

from .errors import BadRequest, BrokerError, QuotaExceeded
from .message import Deliveries, Message, SubscribeOptions
from .row import row_of

if TYPE_CHECKING:
    from .broker import Broker

IDLE = 120.0  # seconds without a request
PULLS = 1_000  # open at a time


class Pull:
    """One subscription that is pulled from; also its engine subscription's ``Member``."""

    __slots__ = ("_error", "_owner", "_waiters", "deadline", "key", "source", "waiting")

    def __init__(self, owner: Pulls, key: tuple[str, ...], options: SubscribeOptions) -> None:
        self._owner = owner
        self.key = key
        self._waiters: set[asyncio.Future[None]] = set()
        self._error: BrokerError | None = None
        self.waiting = 0
        self.deadline = 0.0
        self.source = owner.broker.engine.subscribe(options, self)

    def ready(self, subscription: Any) -> None:
        """There is something: whoever waits looks again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def ended(self, subscription: Any, error: BrokerError) -> None:
        """The engine ended it."""
        self._error = error
        self._owner.drop(self)
        self.ready(subscription)

    def expire(self, now: float) -> None:
        """It was idle for too long (the sweeper calls this)."""
        if self.waiting:
            self.deadline = now + IDLE
            return
        self.close()

    def close(self) -> None:
        """What was not settled goes to others."""
        if self._error is None:
            self._error = BrokerError("the pull is closed")
            self._owner.drop(self)
            self.source.close()
            self.ready(None)

    async def take(self, most: int, wait: float) -> list[dict[str, Any]]:
        """Up to ``most`` messages as JSON has them, after at most ``wait`` seconds; each with its ``lease``."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        self.waiting += 1
        self.source.resume()
        try:
            while True:
                self.deadline = loop.time() + IDLE
                if self._error is not None:
                    raise self._error
                runs = self.source.take(most, 4 * 1024 * 1024)
                if runs:
                    return [row for run in runs for row in _rows(run, self.key[2])]
                left = end - loop.time()
                if left <= 0:
                    return []
                waiter: asyncio.Future[None] = loop.create_future()
                self._waiters.add(waiter)
                try:
                    await asyncio.wait([waiter], timeout=left)
                finally:
                    self._waiters.discard(waiter)
        finally:
            self.waiting -= 1
            if not self.waiting and self._error is None:
                self.source.pause()  # nobody takes now: what comes is for the group's other members


class Pulls:
    """The open pulls of one front door, by who pulls, group, and pattern."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._open: dict[tuple[str, ...], Pull] = {}

    def find(self, who: str, group: str, pattern: str, start: str, lease: float) -> Pull:
        """The pull of ``who`` for ``group`` and ``pattern``, opened if need be. Raises ``BrokerError``."""
        key = (who, group, pattern)
        pull = self._open.get(key)
        if pull is None:
            if len(self._open) >= PULLS:
                raise QuotaExceeded(f"there are {PULLS} open pulls already")
            pull = Pull(self, key, SubscribeOptions(pattern, group=group, start=start, lease=lease, prefetch=10_000))
            self._open[key] = pull
            sweeper().add(pull)
        pull.deadline = asyncio.get_running_loop().time() + IDLE
        return pull

    def drop(self, pull: Pull) -> None:
        """Forget ``pull``."""
        if self._open.get(pull.key) is pull:
            del self._open[pull.key]
        sweeper().discard(pull)

    async def settle(self, who: str, group: str, verb: str, body: dict[str, Any]) -> int:
        """Do ``verb`` for the ``leases`` of ``body``; gives how many were stale. Acks return when they are durable."""
        stale = 0
        acks: list[asyncio.Future[int]] = []
        for lease in body["leases"]:
            pattern, topic, offset, token = _read_lease(lease)
            pull = self._open.get((who, group, pattern))
            if pull is None:
                stale += 1
            elif verb == "ack":
                acks.append(_ack(pull, topic, offset, token))
            elif verb == "nack":
                delay = body.get("delay")
                stale += pull.source.nack(
                    topic, (offset,), token, float(delay) if isinstance(delay, int | float) else None
                )
            elif verb == "reject":
                stale += pull.source.reject(topic, (offset,), token, str(body.get("reason", "")))
            else:
                stale += pull.source.extend(topic, (offset,), token, float(body.get("seconds", 30.0)))
        for ack in acks:
            stale += abs(await ack)
        return stale

    def close(self) -> None:
        """Close them all."""
        for pull in list(self._open.values()):
            pull.close()


def _ack(pull: Pull, topic: str, offset: int, token: int) -> asyncio.Future[int]:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def done(stale: int) -> None:
        if not future.done():
            future.set_result(stale)

    pull.source.ack(topic, (offset,), token, done)
    return future


def _rows(run: Deliveries, pattern: str) -> list[dict[str, Any]]:
    rows = []
    for index in range(len(run)):
        message = Message(run, index, _NOBODY)
        rows.append({**row_of(message), "lease": f"{message.offset} {run.token} {run.topic} {pattern}"})
    return rows


def _read_lease(text: Any) -> tuple[str, str, int, int]:
    parts = text.split(" ") if isinstance(text, str) else []
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts[:2]):
        raise BadRequest(f"{str(text)[:80]!r} is not a lease as it came with a message")
    return parts[3], parts[2], int(parts[0]), int(parts[1])


class _Nobody:
    """Owns a message that is settled by its lease alone."""

    def ack(self, *_: Any) -> int:
        return 0

    nack = reject = extend = ack


_NOBODY = _Nobody()
