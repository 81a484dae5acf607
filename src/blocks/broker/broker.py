"""A broker in this process: the engine, its data directory and its commit thread; with ``listen`` also a server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self, cast, get_args

from blocks.core.clock import SYSTEM, Clock
from blocks.core.errors import ConfigError
from blocks.core.logging import events
from blocks.core.quantities import seconds, size
from blocks.core.status import Status

from .checks import Check, Transform
from .committer import Committer
from .engine import Engine
from .errors import Aborted, Closed
from .inboxes import CORRELATION, Inboxes
from .local import Answered, LocalSubscription
from .log.disk import Disk, MemoryDisk, RealDisk
from .log.log import CACHE_BYTES, SEGMENT_BYTES
from .log.recovery import Recovery, write_clean
from .message import (
    Deliveries,
    Durability,
    Limits,
    Message,
    Mode,
    Outgoing,
    Publication,
    Receipt,
    Receipts,
    SubscribeOptions,
    TopicOptions,
)
from .retention import Retention
from .standing import Standing


class Broker:
    """A durable publish/subscribe broker over ``path``, a directory, or ``":memory:"``.

    ``durability`` says what a receipt promises: "fsync" (on the medium; the default), "interval" (in the operating
    system's page cache, synced every ``interval`` seconds; Redis's everysec is 1 s), "memory" (never synced).
    ``listen`` starts a server there ("127.0.0.1:0": any port, and the same one when it is started again); other keyword
    arguments are the server's. ``on_event(kind, detail)`` is told what becomes of messages (published, delivered, returned,
    dead-letter), for tests and for looking at one broker closely. Raises ``ConfigError``, ``Locked``, ``WrongVersion``.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        listen: str | None = None,
        durability: Durability = "fsync",
        interval: float | str = 0.1,
        clock: Clock = SYSTEM,
        random: Random | None = None,
        limits: Limits | None = None,
        topics: Mapping[str, TopicOptions] | None = None,
        topic_options: TopicOptions | None = None,
        segment_bytes: int | str = SEGMENT_BYTES,
        cache_bytes: int | str = CACHE_BYTES,
        disk: Disk | None = None,
        grace: float | str = 5.0,
        on_event: Callable[[str, str], None] | None = None,
        **server_options: Any,
    ) -> None:
        if durability not in get_args(Durability):
            raise ConfigError(f"durability is fsync, interval or memory, not {durability!r}")
        if server_options and listen is None:
            raise ConfigError(f"{', '.join(server_options)}: these are options of the server; give listen too")
        self.path = path
        self.durability: Durability = "memory" if str(path) == ":memory:" and disk is None else durability
        self.clock = clock
        self.limits = limits or Limits()
        self.inboxes = Inboxes()
        self.server: Any = None
        self._disk = disk
        self._random = random or Random()
        self._interval = seconds(interval)
        self._topics = dict(topics or {})
        self._topic_options = topic_options
        self._segment_bytes, self._cache_bytes = size(segment_bytes), size(cache_bytes)
        if not 4096 <= self._segment_bytes <= 1 << 30:
            raise ConfigError("segment_bytes is between 4KiB and 1GiB")
        self._listen = listen
        self._grace = seconds(grace)
        self._on_event = on_event
        self._server_options = server_options
        self._engine: Engine | None = None
        self._committer: Committer | None = None
        self._retention: Retention | None = None
        self._timer: asyncio.TimerHandle | None = None

    # -- life ------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the log, recover, and listen if that was asked for."""
        disk = self._disk
        if disk is None:
            disk = self._disk = MemoryDisk() if str(self.path) == ":memory:" else RealDisk(self.path)
        disk.lock()
        collecting = gc.isenabled()
        gc.disable()  # nothing of what is read is garbage: with 100,000 topics collecting costs three times the reading
        try:
            engine = self._engine = self._open(disk)
        except BaseException:
            disk.close()
            raise
        finally:
            if collecting:
                gc.enable()
        interval = self._interval if self.durability == "interval" else None
        self._committer = Committer(engine, disk, inline=isinstance(disk, MemoryDisk), interval=interval)
        engine.wake = self._committer.wake
        engine.told = self._on_event
        self._retention = Retention(engine, disk, self._random)
        self._retention.start()
        try:
            for name, options in self._topics.items():
                engine.configure(name, options)
            self._arm()
            if self._listen is not None:
                await self._serve(self._listen)
        except BaseException:
            await self.stop()
            raise

    def _open(self, disk: Disk) -> Engine:
        recovery = Recovery(disk, self._random, segment_bytes=self._segment_bytes, cache_bytes=self._cache_bytes)
        return Engine(
            recovery.run(),
            self.clock,
            self._random,
            durability=self.durability,
            limits=self.limits,
            topic_options=self._topic_options,
            arm=self._arm,
            report=_report,
        )

    async def _serve(self, listen: str) -> None:
        from .server import Server

        server = Server(self, listen=listen, **self._server_options)
        await server.start()
        self.server = server
        self._listen = server.url.partition("://")[2]  # whoever starts it again finds it where its clients look for it

    async def stop(self) -> None:
        """Drain the server, end the subscriptions, commit what waits, and mark the stop as clean; twice is once."""
        server, self.server = self.server, None
        if server is not None:
            await server.stop(self._grace)
        engine, committer, disk = self._engine, self._committer, self._disk
        if engine is None or committer is None or disk is None or self._retention is None:
            return
        self._committer = None
        broken = engine.failure is not None
        await self._retention.stop()
        engine.stop()
        await committer.drain()
        broken = broken or engine.full is not None or bool(engine.committing)
        await committer.close(engine.last_chores() if not broken else type(engine.last_chores())())
        if self._timer is not None:
            self._timer.cancel()
        if not broken:
            try:
                write_clean(disk, engine.log)
            except OSError as error:
                engine.note_problem(f"the clean stop could not be noted: {error}")
        engine.log.close()
        disk.close()
        if not isinstance(disk, MemoryDisk):
            self._disk = None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wait = self.engine.wait()
        if wait is not None:
            self._timer = asyncio.get_running_loop().call_later(wait, self.tick)

    def tick(self) -> None:
        """Do what is due by now (it is called by a timer; a test with a fake clock calls it after ``advance``)."""
        self._timer = None
        if self._committer is not None:
            self.engine.tick()
            self._arm()

    async def flush(self) -> None:
        """Return when everything so far, acks too, is as durable as it gets."""
        if self._committer is not None:
            await self._committer.drain()

    @property
    def engine(self) -> Engine:
        """What decides; raises ``Closed`` before ``start``."""
        if self._engine is None:
            raise Closed("the broker was not started")
        return self._engine

    @property
    def retention(self) -> Retention:
        """What removes old messages; raises ``Closed`` before ``start``."""
        if self._retention is None:
            raise Closed("the broker was not started")
        return self._retention

    def topic(self, name: str) -> Standing:
        """How the topic stands now: ``broker.topic("orders").lag("billing")``."""
        return Standing(self.engine, name)

    @property
    def url(self) -> str:
        """Where the server listens, as ``blocks://host:port``; raises ``Closed`` without one."""
        if self.server is None:
            raise Closed("the broker does not listen; give it listen='127.0.0.1:0'")
        return cast(str, self.server.url)

    @property
    def status(self) -> Status:
        """How well it can take messages."""
        return self._engine.status if self._committer is not None and self._engine is not None else Status.CLOSED

    # -- publishing ------------------------------------------------------------------------------------------------

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        key: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        ttl: float | str | None = None,
        delay: float | str | None = None,
        at: float | None = None,
        reply_to: str | None = None,
    ) -> Receipt:
        """Publish one message; returns when it is as durable as the broker promises.

        ``key``: messages of a key are processed one after another. ``id``: published again within the dedup window it
        comes back as a duplicate. ``ttl``: seconds after which it is not delivered any more. ``delay`` seconds, or
        ``at`` (wall-clock seconds): not delivered before. Raises ``BrokerError``.
        """
        if delay is not None:
            at = self.clock.wall() + seconds(delay)
        publication = Publication(
            topic,
            [payload if type(payload) is bytes else _bytes(payload)],
            keys=None if key is None else [key],
            headers=None if headers is None else [headers],
            ids=None if id is None else [id],
            ttls=None if ttl is None else [seconds(ttl)],
            dues=None if at is None else [at],
            reply_tos=None if reply_to is None else [reply_to],
        )
        return (await self._publish(publication)).receipt(0)

    async def publish_many(
        self,
        topic: str,
        payloads: Sequence[bytes],
        *,
        keys: Sequence[bytes | None] | None = None,
        headers: Mapping[str, str] | Sequence[Mapping[str, str] | None] | None = None,
        ids: Sequence[str | None] | None = None,
        ttl: float | str | None = None,
        delay: float | str | None = None,
    ) -> list[Receipt]:
        """Publish many messages to one topic in one commit; raises the first refusal, after the others were stored."""
        count = len(payloads)
        if not count:
            return []
        for column in (keys, ids, None if isinstance(headers, Mapping) else headers):
            if column is not None and len(column) != count:
                raise ConfigError(f"a column has {len(column)} entries for {count} messages")
        spread = [headers] * count if isinstance(headers, Mapping) else list(headers) if headers is not None else None
        pause = _span(delay)
        publication = Publication(
            topic,
            [_bytes(payload) for payload in payloads],
            keys=list(keys) if keys is not None else None,
            headers=cast("list[Mapping[str, str] | None] | None", spread),
            ids=list(ids) if ids is not None else None,
            ttls=[_span(ttl)] * count if ttl is not None else None,
            dues=[self.clock.wall() + pause] * count if pause is not None else None,
        )
        receipts = await self._publish(publication)
        return [receipts.receipt(at) for at in range(count)]

    async def publish_batch(self, messages: Sequence[Outgoing]) -> list[Receipt]:
        """Publish messages to any topics atomically: all are stored, or none."""
        if not messages:
            return []
        publication = self._collect(messages[0].topic, messages)
        publication.atomic = True
        receipts = await self._publish(publication)
        for error in receipts.errors.values():
            if not isinstance(error, Aborted):
                raise error
        return [receipts.receipt(at) for at in range(len(messages))]

    def _collect(self, topic: str, messages: Sequence[Outgoing]) -> Publication:
        now = self.clock.wall()

        def column(values: list[Any]) -> list[Any] | None:
            return values if any(value is not None for value in values) else None

        dues = [m.at if m.delay is None else now + m.delay for m in messages]
        return Publication(
            topic,
            [_bytes(m.payload) for m in messages],
            topics=None if len(messages) == 1 else [m.topic for m in messages],
            keys=column([m.key for m in messages]),
            headers=column([m.headers for m in messages]),
            ids=column([m.id for m in messages]),
            ttls=column([m.ttl for m in messages]),
            dues=column(dues),
            reply_tos=column([m.reply_to for m in messages]),
        )

    async def _publish(self, publication: Publication) -> Receipts:
        _check(publication)
        if publication.topic.startswith("$inbox."):
            return self.inboxes.route(publication, self.clock.wall())
        future: asyncio.Future[Receipts] = asyncio.get_running_loop().create_future()

        def done(receipts: Receipts) -> None:
            if not future.done():
                future.set_result(receipts)

        self.engine.publish(publication, done)
        return await future

    async def request(
        self,
        topic: str,
        payload: bytes,
        *,
        key: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | str = 5.0,
    ) -> Message:
        """Publish and wait for the first answer to it; raises ``TimeoutError``."""
        name = f"$inbox.{self._random.getrandbits(128):032x}"
        future: asyncio.Future[Deliveries] = asyncio.get_running_loop().create_future()

        def receive(run: Deliveries) -> None:
            if not future.done():
                future.set_result(run)

        self.inboxes.open(name, receive)
        try:
            marked = {**(headers or {}), CORRELATION: name}
            await self.publish(topic, payload, key=key, headers=marked, reply_to=name, ttl=timeout)
            async with asyncio.timeout(seconds(timeout)):
                return Message(await future, 0, Answered())
        finally:
            self.inboxes.close(name, receive)

    # -- subscribing -----------------------------------------------------------------------------------------------

    def subscribe(
        self,
        pattern: str,
        *,
        group: str | None = None,
        start: str | int | float = "latest",
        prefetch: int = 1000,
        prefetch_bytes: int | str = 16 << 20,
        lease: float | str = 30.0,
        max_lease: float | str = 3600.0,
        max_deliveries: int = 16,
        dead_letter: str | None = None,
        backoff: float | str = 0.0,
        backoff_cap: float | str = 60.0,
        ack: bool = True,
        mode: Mode = "consume",
        exclusive: bool = False,
        single_active: bool = False,
        positions: Mapping[str, int] | None = None,
    ) -> LocalSubscription:
        """Messages of the topics that match ``pattern``: ``async with broker.subscribe(…) as messages: async for …``.

        Members of a ``group`` share its messages; without one everything comes here and nothing is remembered. What is held
        stays leased for up to ``max_lease`` seconds; the other options are those of ``SubscribeOptions``.
        """
        options = SubscribeOptions(
            pattern,
            group,
            start,
            prefetch,
            size(prefetch_bytes),
            seconds(lease),
            max_deliveries,
            dead_letter,
            seconds(backoff),
            seconds(backoff_cap),
            ack,
            mode,
            exclusive,
            single_active,
            positions,
        )
        return LocalSubscription(self, options, seconds(max_lease))

    # -- hooks and administration ----------------------------------------------------------------------------------

    def transform(self, pattern: str, transform: Transform) -> None:
        """Pass each message to topics that match ``pattern`` through ``transform(payload, headers)`` before it is stored."""
        self.engine.checks.transforms.add(pattern, transform)
        self.engine.refresh_plain()

    def validate(self, pattern: str, check: Check) -> None:
        """Refuse messages to topics that match ``pattern`` for which ``check(payload, headers)`` raises ``ValueError``."""
        self.engine.checks.checks.add(pattern, check)
        self.engine.refresh_plain()

    async def redrive(self, group: str, limit: int | None = None) -> int:
        """Give the group's dead letters back to it; how many, when that is durable."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.engine.redrive(group, limit, lambda count: None if future.done() else future.set_result(count))
        return await future


def _report(event: str, text: str) -> None:
    log = events()
    (log.info if event == "disk-has-room" else log.error)(event, block="broker", text=text)


def _check(publication: Publication) -> None:
    """Refuse what could not be written, before it is with others' messages."""
    if publication.keys is not None and not all(key is None or type(key) is bytes for key in publication.keys):
        raise TypeError("key is bytes or None")
    for name, column in (("id", publication.ids), ("reply_to", publication.reply_tos)):
        if column is not None and not all(value is None or _is_text(value) for value in column):
            raise TypeError(f"{name} is a str that UTF-8 can write, or None")
    if publication.dues is not None and not all(due is None or 0 <= due < 1e15 for due in publication.dues):
        raise ConfigError("at is wall-clock seconds, finite and not negative")
    last = None
    for headers in publication.headers or ():
        if headers is last:
            continue  # one mapping for all of them
        last = headers
        mapping: Any = headers
        if mapping is not None and not (
            isinstance(mapping, Mapping) and all(_is_text(k) and _is_text(v) for k, v in mapping.items())
        ):
            raise TypeError("headers are a mapping of str to str, of what UTF-8 can write")


def _is_text(value: Any) -> bool:
    if type(value) is not str:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _span(value: float | str | None) -> float | None:
    return None if value is None else seconds(value)


def _bytes(payload: Any) -> bytes:
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, bytearray | memoryview):
        return bytes(payload)
    raise TypeError(f"a payload is bytes, not {type(payload).__name__}")


__all__ = ["Broker"]
