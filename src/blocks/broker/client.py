"""The broker's client: what a tick publishes leaves in one frame, and no interruption leaves anything silently dead.

Publishes in flight are sent again, as they were, over the next connection and are stored once. Subscriptions resume or raise.
Memory is bounded: ``publish`` waits while ``buffer`` bytes are unanswered. One task keeps the connection; ``close`` ends it.
"""

from __future__ import annotations

import asyncio
import ssl
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any

from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds, size

from . import wire
from .address import Target
from .asking import Asking, fail_all
from .batch import Batch, batches_of, checked_payload, options_of
from .errors import BadRequest, BrokerError, Closed
from .frames import Answer, Ask, Closing, Deliver, Ended, Frame, Receipts, Refused, Settled, Subscribed
from .link import Link
from .message import Message, Outgoing, Receipt
from .outbox import Outbox
from .reconnect import Keeper
from .requests import Requests
from .subscription import MAX_LEASE, Subscription

BUFFER = 32 * 1024 * 1024  # Kafka's buffer.memory
PUBLISH_TIMEOUT = 120.0  # Kafka's delivery.timeout.ms
GIVE_UP_AFTER = 120.0  # nats.py: 60 tries, 2 s apart
CONNECT_TIMEOUT = 5.0
DRAIN_TIMEOUT = 10.0


def connect(
    url: str,
    *,
    token: str | None = None,
    user: str | None = None,
    password: str | None = None,
    tls: ssl.SSLContext | str | Path | None = None,
    name: str = "",
    buffer: int | str = BUFFER,
    publish_timeout: float | str = PUBLISH_TIMEOUT,
    give_up_after: float | str = GIVE_UP_AFTER,
    connect_timeout: float | str = CONNECT_TIMEOUT,
    producer: str | None = None,
    epoch: int = 0,
    random: Random | None = None,
) -> Client:
    """A client for the broker at ``blocks://HOST:PORT`` (``blocks+tls://`` for TLS), connected by ``async with``.

    ``tls`` is a context or the path of the authority that the broker's certificate is checked against. ``producer`` and
    ``epoch`` name this publisher: one with a higher epoch shuts out those of a lower. Raises ``ConfigError``.
    """
    target = Target.parse(url)
    who = {"token": token or target.token, "user": user or target.user, "password": password or target.password}
    return Client(
        target,
        hello={**{key: value for key, value in who.items() if value is not None}, "name": name},
        tls=_client_tls(target, tls),
        buffer=size(buffer),
        publish_timeout=seconds(publish_timeout),
        give_up_after=seconds(give_up_after),
        connect_timeout=seconds(connect_timeout),
        producer=producer,
        epoch=epoch,
        # A named producer that is started again must not number its frames as it did before: they would be duplicates.
        sequence=time.time_ns() // 1000 if producer is not None else 0,
        random=random or Random(),
    )


class Client(Asking):
    """One connection to a broker, kept; publish and subscribe from any number of tasks of one loop. Made by ``connect``."""

    __slots__ = (
        "_closing",
        "_dirty",
        "_drained",
        "_encoder",
        "_flush",
        "_keeper",
        "_left",
        "_open",
        "_outbox",
        "_publish_timeout",
        "_requests",
        "_room",
        "_settling",
        "_subscriptions",
    )

    def __init__(
        self,
        target: Target,
        *,
        hello: dict[str, Any],
        tls: ssl.SSLContext | None,
        buffer: int,
        publish_timeout: float,
        give_up_after: float,
        connect_timeout: float,
        producer: str | None,
        epoch: int,
        sequence: int,
        random: Random,
    ) -> None:
        super().__init__()
        self._encoder = wire.Encoder()
        self._outbox = Outbox(self._encoder, producer or uuid.uuid4().hex, epoch, buffer, sequence)
        self._publish_timeout = publish_timeout
        self._open: Callable[[], Any] = lambda: Link.open(target, hello, self, self._encoder, tls, connect_timeout)
        self._keeper = Keeper(self, lambda: self._open(), give_up_after, random)
        self._flush: asyncio.Handle | None = None
        self._room: deque[asyncio.Future[None]] = deque()
        self._subscriptions: dict[int, Subscription] = {}
        self._dirty: list[Subscription] = []
        self._settling: dict[int, asyncio.Future[int]] = {}
        self._requests = Requests(lambda name: self.ask("inbox", name=name))
        self._over: BrokerError | None = Closed("the client is not connected: use `async with connect(...)`")
        self._closing = False
        self._left = False  # goodbye was said
        self._drained: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Client:
        if self._closing:
            raise Closed("a client that was closed is not opened again: call connect")
        self.loop = asyncio.get_running_loop()
        self._over = None
        try:
            await self._keeper.start()
        except BaseException:
            self._over = Closed("the client is not connected")
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(0.0 if kind is not None and issubclass(kind, asyncio.CancelledError) else DRAIN_TIMEOUT)

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._keeper.link is not None

    @property
    def reconnects(self) -> int:
        """How often a lost connection was replaced."""
        return self._keeper.reconnects

    @property
    def unanswered(self) -> int:
        """Frames of published messages that the broker has not answered."""
        return len(self._outbox)

    async def close(self, timeout: float = DRAIN_TIMEOUT) -> None:  # how long to drain, not when to be cancelled
        """Send acks, wait for unanswered publishes for ``timeout`` seconds, close. What is unanswered then raises ``Closed``."""
        if self._closing:
            return
        self._closing = True
        try:
            for subscription in list(self._subscriptions.values()):
                await subscription.close()
            if len(self._outbox) and self._over is None and timeout > 0:
                self._send()
                self._drained = self.loop.create_future()
                await asyncio.wait([self._drained], timeout=timeout)
            self._left = True
            self.send(Closing("", ""))
        finally:
            self._end(Closed("the client is closed"))
            await self._keeper.stop()

    # publishing

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        key: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,  # the fixed name of the argument
        ttl: float | str | None = None,
        delay: float | str | None = None,
        at: float | None = None,
        reply_to: str | None = None,
    ) -> Receipt:
        """Publish one message, and return when it is as durable as the broker's mode promises.

        ``key`` orders it among those of the same key; ``id`` makes a second publish within the topic's window a
        ``duplicate``; ``ttl`` and ``delay`` are seconds, ``at`` wall-clock seconds. Cancelled, it may be stored all the same.
        Raises ``BrokerError``: ``Closed`` if its fate is unknown, else what the broker has against it.
        """
        if type(payload) is not bytes:
            payload = checked_payload(payload)
        options = None
        if key is not None or headers or id is not None or ttl is not None or delay or at or reply_to is not None:
            options = options_of(key, headers, id, ttl, delay, at, reply_to)
        if self._outbox.room <= 0 or self._over is not None or self._closing:
            await self._wait_for_room()
        loop = self.loop
        future: asyncio.Future[Receipt] = loop.create_future()
        self._outbox.put(topic, payload, options, future, loop.time())
        if self._flush is None:
            self._flush = loop.call_soon(self._send)
        return await future

    async def publish_many(
        self,
        topic: str,
        payloads: Iterable[bytes],
        *,
        keys: Sequence[bytes | None] | None = None,
        headers: Mapping[str, str] | Sequence[Mapping[str, str] | None] | None = None,
        ids: Sequence[str | None] | None = None,
        ttl: float | str | None = None,
        delay: float | str | None = None,
    ) -> list[Receipt]:
        """Publish messages in order and return their receipts; frames of 64 KiB share one future each, so it is the fast way.

        ``keys`` and ``ids`` have one entry a message; ``headers`` are for all, or one mapping a message. Raises the first
        refused message's error; the others are stored (``publish_batch`` stores all or none).
        """
        batches = batches_of(topic, payloads, keys, headers, ids, ttl, delay, self.loop.time())
        self._outbox.check(topic, max((len(payload) for batch in batches for payload in batch.payloads), default=0))
        futures = []
        for batch in batches:
            if self._outbox.room <= 0 or self._over is not None or self._closing:
                await self._wait_for_room()
            futures.append(self._put(batch))
            self._send()
        receipts: list[Receipt] = []
        try:
            for future in futures:
                receipts += await future
        finally:
            for future in futures:
                if future.done() and not future.cancelled():
                    future.exception()
                else:
                    future.cancel()
        return receipts

    async def publish_batch(self, messages: Iterable[Outgoing]) -> list[Receipt]:
        """Publish messages, over several topics if you like, all or none, and return their receipts.

        Raises the first refused message's error, and then none is stored. A batch has at most 65,536 messages and 8 MiB.
        """
        batch = Batch(self.loop.time(), atomic=True)
        for m in messages:
            payload = checked_payload(m.payload)
            self._outbox.check(m.topic, len(payload))
            options = options_of(m.key, m.headers, m.id, m.ttl, m.delay, m.at, m.reply_to)
            batch.add(m.topic, payload, options)
        if not batch.count:
            return []
        if batch.count > wire.MAX_COUNT or batch.size > wire.MAX_FRAME // 2:
            raise BadRequest(f"an atomic batch has at most {wire.MAX_COUNT} messages and {wire.MAX_FRAME // 2} bytes")
        if self._outbox.room <= 0 or self._over is not None or self._closing:
            await self._wait_for_room()
        future = self._put(batch)
        self._send()
        return await future

    def _put(self, batch: Batch) -> asyncio.Future[list[Receipt]]:
        batch.one = self.loop.create_future()
        self._outbox.put_batch(batch)
        return batch.one

    async def _wait_for_room(self) -> None:
        """Return when there is room for bytes. Raises ``Closed`` if there will be none."""
        while True:
            if self._over is not None:
                raise self._over
            if self._closing:
                raise Closed("the client is closing and takes nothing new")
            if self._outbox.room > 0:
                return
            waiter: asyncio.Future[None] = self.loop.create_future()
            self._room.append(waiter)
            try:
                await waiter
            finally:
                if not waiter.done() or waiter.cancelled():
                    try:
                        self._room.remove(waiter)
                    except ValueError:
                        self._make_room()

    def _make_room(self) -> None:
        """Let as many wait no longer as there is room."""
        if self._outbox.room > 0:
            while self._room:
                waiter = self._room.popleft()
                if not waiter.done():
                    waiter.set_result(None)

    def _send(self) -> None:
        """Send frames while the link takes them and not too many are unanswered."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        link = self._keeper.link
        if link is None:
            return
        outbox = self._outbox
        while not link.full and (data := outbox.next()) is not None:
            link.write(data)

    # subscribing

    def subscribe(
        self,
        pattern: str,
        *,
        group: str | None = None,
        start: str | float = "latest",
        prefetch: int = 1000,
        prefetch_bytes: int | str = 16 * 1024 * 1024,
        lease: float | str = 30.0,
        max_lease: float | str = MAX_LEASE,
        max_deliveries: int = 16,
        dead_letter: str | None = None,
        backoff: float | str = 0.0,
        backoff_cap: float | str = 60.0,
        ack: bool = True,
        mode: str = "consume",
        exclusive: bool = False,
        single_active: bool = False,
    ) -> Subscription:
        """Messages of the topics that ``pattern`` matches, to be opened by ``async with`` and taken by ``async for``.

        Members of a ``group`` share its messages; without one everything comes to this subscription and its place is kept
        by the client. ``start`` is earliest, latest, last, an offset or wall-clock seconds (a float), and counts where the group
        has no place yet. Leases of ``lease`` seconds are extended by the client for up to ``max_lease``.
        """
        options = {
            "group": group,
            "start": start,
            "prefetch": prefetch,
            "prefetch_bytes": size(prefetch_bytes),
            "lease": seconds(lease),
            "max_deliveries": max_deliveries,
            "dead_letter": dead_letter,
            "backoff": seconds(backoff),
            "backoff_cap": seconds(backoff_cap),
            "ack": ack,
            "mode": mode,
            "exclusive": exclusive,
            "single_active": single_active,
        }
        return Subscription(self, self._numbered(), pattern, options, seconds(max_lease))

    # asking

    async def request(
        self,
        topic: str,
        payload: bytes,
        *,
        key: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,  # part of the request, as every client of a broker has it
    ) -> Message:
        """Publish a request and return the answer that a subscriber gives with ``message.respond``.

        Raises ``TimeoutError`` if none comes within ``timeout`` seconds; the request may be answered all the same.
        """

        async def publish(marked: dict[str, str], inbox: str) -> Receipt:
            return await self.publish(topic, payload, key=key, headers=marked, ttl=timeout, reply_to=inbox)

        return await self._requests.ask(publish, headers, timeout)

    # what subscriptions ask of their client

    def send(self, frame: Frame) -> bool:
        """Send ``frame`` now; False if there is no connection."""
        link = self._keeper.link
        if link is None:
            return False
        link.write(self._encoder.encode(frame))
        return True

    def settle_soon(self, subscription: Subscription) -> None:
        """Have ``subscription`` send its acks at the end of this tick."""
        self._dirty.append(subscription)
        if len(self._dirty) == 1:
            self.loop.call_soon(self._send_acks)

    def _send_acks(self) -> None:
        dirty, self._dirty = self._dirty, []
        for subscription in dirty:
            subscription.send_acks()

    def await_settled(self) -> tuple[int, asyncio.Future[int]]:
        """A number for a ``Settle``, and the future of its ``Settled``."""
        number = self._numbered()
        future = self._settling[number] = self.loop.create_future()
        return number, future

    def enter(self, subscription: Subscription) -> None:
        """Hold ``subscription``. Raises ``Closed``."""
        if self._over is not None or self._closing:
            raise self._over or Closed("the client is closing")
        self._subscriptions[subscription.number] = subscription

    def leave(self, subscription: Subscription) -> None:
        """Hold ``subscription`` no longer."""
        self._subscriptions.pop(subscription.number, None)

    # what a link tells

    def receive(self, link: Link, frame: Frame) -> None:
        """A frame of the broker."""
        act = _ACTS.get(type(frame))
        if act is not None:
            act(self, frame)

    def writable(self, link: Link) -> None:
        """The link takes bytes again."""
        self._send()

    def lost(self, link: Link, error: BrokerError) -> None:
        """The connection is gone: what cannot be resumed is told so, the rest waits for the next."""
        if link is not self._keeper.link or self._left:
            return
        if error.code in ("protocol", "internal") or error.reason in ("protocol", "internal"):
            self._outbox.fail(error, sent_only=True)  # sent again it would end the next connection too
            for subscription in list(self._subscriptions.values()):
                subscription.fail_opening(error)
        for subscription in list(self._subscriptions.values()):
            subscription.interrupted()
        self._requests.interrupted()
        fail_all(self._settling, error)
        self._fail_answers(error)
        self._keeper.lost(link, error)

    def attached(self, link: Link) -> None:
        """There is a connection: subscriptions resume, and what was not answered is sent again, as it was."""
        limit = link.limits.get("message_bytes")
        if isinstance(limit, int) and limit > 0:
            self._outbox.limit = min(limit, wire.MAX_FRAME // 2)
        for subscription in self._subscriptions.values():
            subscription.resume()
        if self._requests.inbox is not None:
            self.send(Ask(0, "inbox", {"name": self._requests.inbox}))
        for data in self._outbox.again():
            link.write(data)
        self._send()

    def still_away(self, now: float) -> None:
        """Another try to connect failed: what has waited too long is given up."""
        self._outbox.fail(
            Closed("no broker took the message in time; its fate is unknown"), now - self._publish_timeout
        )
        self._make_room()

    def given_up(self, error: BrokerError) -> None:
        """There will be no connection any more: everybody is told."""
        self._end(error)

    def _end(self, error: BrokerError) -> None:
        if self._over is None:
            self._over = error
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        self._outbox.fail(error)
        for subscription in list(self._subscriptions.values()):
            subscription.fail(error)
        fail_all(self._settling, error)
        self._fail_answers(error)
        self._requests.fail(error)
        for waiter in self._room:
            if not waiter.done():
                waiter.set_result(None)
        self._room.clear()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # what frames do

    def _receive_receipts(self, frame: Receipts) -> None:
        outbox = self._outbox
        outbox.receive(frame.durability, frame.entries)
        if outbox.waiting and self._flush is None:
            self._send()
        if self._room:
            self._make_room()
        if self._drained is not None and not len(outbox) and not self._drained.done():
            self._drained.set_result(None)

    def _receive_deliver(self, frame: Deliver) -> None:
        if frame.number == 0:
            self._requests.receive(frame.runs)
            return
        subscription = self._subscriptions.get(frame.number)
        if subscription is not None:
            subscription.deliver(frame.runs)

    def _receive_subscribed(self, frame: Subscribed) -> None:
        subscription = self._subscriptions.get(frame.number)
        if subscription is not None:
            subscription.subscribed(frame.options)

    def _receive_ended(self, frame: Ended) -> None:
        subscription = self._subscriptions.get(frame.number)
        if subscription is not None and frame.code:
            subscription.refused(frame.code, frame.message)

    def _receive_settled(self, frame: Settled) -> None:
        future = self._settling.pop(frame.answer, None)
        if future is not None and not future.done():
            future.set_result(frame.stale)

    def _receive_answer(self, frame: Answer) -> None:
        self._receive_outcome(frame.number, frame.value, None)

    def _receive_refused(self, frame: Refused) -> None:
        subscription = self._subscriptions.get(frame.number)
        if subscription is not None:
            subscription.refused(frame.code, frame.message)
        else:
            self._receive_outcome(frame.number, None, (frame.code, frame.message))


_ACTS: dict[type[Any], Callable[[Client, Any], None]] = {
    Receipts: Client._receive_receipts,
    Deliver: Client._receive_deliver,
    Subscribed: Client._receive_subscribed,
    Ended: Client._receive_ended,
    Settled: Client._receive_settled,
    Answer: Client._receive_answer,
    Refused: Client._receive_refused,
}


def _client_tls(target: Target, tls: ssl.SSLContext | str | Path | None) -> ssl.SSLContext | None:
    if not target.tls:
        if tls is not None:
            raise ConfigError("tls is given, but the URL is not blocks+tls://")
        return None
    if isinstance(tls, ssl.SSLContext):
        return tls
    try:
        return ssl.create_default_context(cafile=tls)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot use the authority {tls}: {error}") from error
