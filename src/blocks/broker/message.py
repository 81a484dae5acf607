"""What publishers hand in and subscribers are handed: column-wise, so that a thousand messages cost a few lists."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from blocks.core.quantities import seconds, size

from .errors import DiskFailed, LeaseLost

if TYPE_CHECKING:
    from .errors import BrokerError

Durability = Literal["fsync", "interval", "memory"]
Mode = Literal["consume", "browse"]


class Publication:
    """Messages of one publisher, as columns: entry i of every column is of message i; None holds defaults only.

    ``topic`` is for all of them unless ``topics`` has one for each. ``ttls`` are seconds from now, ``dues`` wall-clock
    seconds before which a message is not delivered. ``atomic``: all or none. ``producer``, ``epoch``, ``sequence``
    name the frame, so that it is stored once however often it is sent (``sequence`` counts frames from 1).
    """

    __slots__ = (
        "atomic",
        "dues",
        "epoch",
        "headers",
        "ids",
        "keys",
        "payloads",
        "producer",
        "reply_tos",
        "sequence",
        "topic",
        "topics",
        "ttls",
    )

    def __init__(
        self,
        topic: str,
        payloads: list[bytes],
        *,
        topics: list[str] | None = None,
        keys: list[bytes | None] | None = None,
        headers: list[Mapping[str, str] | None] | None = None,
        ids: list[str | None] | None = None,
        ttls: list[float | None] | None = None,
        dues: list[float | None] | None = None,
        reply_tos: list[str | None] | None = None,
        atomic: bool = False,
        producer: str | None = None,
        epoch: int = 0,
        sequence: int = 0,
    ) -> None:
        self.topic = topic
        self.payloads = payloads
        self.topics = topics
        self.keys = keys
        self.headers = headers
        self.ids = ids
        self.ttls = ttls
        self.dues = dues
        self.reply_tos = reply_tos
        self.atomic = atomic
        self.producer = producer
        self.epoch = epoch
        self.sequence = sequence


class Outgoing(NamedTuple):
    """One message of an atomic batch. ``ttl`` and ``delay`` are seconds from now, ``at`` wall-clock seconds."""

    topic: str
    payload: bytes
    key: bytes | None = None
    headers: Mapping[str, str] | None = None
    id: str | None = None
    ttl: float | None = None
    delay: float | None = None
    at: float | None = None
    reply_to: str | None = None


class Receipt(NamedTuple):
    """What the publisher of one message is told once it is as durable as ``durability`` says."""

    topic: str
    offset: int
    duplicate: bool = False
    durability: str = "fsync"


class Receipts:
    """The outcome of a ``Publication``: ``offsets[i]`` is message i's (-1 if refused), ``errors[i]`` says why.

    ``offsets`` is a ``range`` when the messages are of one topic, dense and new. ``duplicates`` has the indexes
    of messages that were there already; their offset is the first one's.
    """

    __slots__ = ("duplicates", "durability", "errors", "offsets", "publication")

    def __init__(
        self,
        publication: Publication,
        offsets: Sequence[int],
        durability: str,
        duplicates: frozenset[int] = frozenset(),
        errors: Mapping[int, BrokerError] | None = None,
    ) -> None:
        self.publication = publication
        self.offsets = offsets
        self.durability = durability
        self.duplicates = duplicates
        self.errors: Mapping[int, BrokerError] = errors or {}

    def receipt(self, index: int) -> Receipt:
        """Message ``index``'s receipt; raises its error if it was refused."""
        error = self.errors.get(index)
        if error is not None:
            raise error
        topics = self.publication.topics
        topic = self.publication.topic if topics is None else topics[index]
        return Receipt(topic, self.offsets[index], index in self.duplicates, self.durability)


class Deliveries:
    """A run of messages of one topic as handed to one member, in columns; None where all entries are the default.

    ``token`` names the lease and comes back with acks. ``offsets`` is a ``range`` when dense. ``attempts`` None: first
    attempt for all. ``timestamps`` are wall-clock seconds, one for all (float) or one each.
    """

    __slots__ = (
        "attempts",
        "headers",
        "ids",
        "keys",
        "offsets",
        "payloads",
        "reply_tos",
        "size",
        "timestamps",
        "token",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        token: int,
        offsets: Sequence[int],
        payloads: list[bytes],
        timestamps: float | list[float],
        size: int,
        *,
        keys: list[bytes | None] | None = None,
        headers: list[dict[str, str] | None] | None = None,
        ids: list[str | None] | None = None,
        reply_tos: list[str | None] | None = None,
        attempts: list[int] | None = None,
    ) -> None:
        self.topic = topic
        self.token = token
        self.offsets = offsets
        self.payloads = payloads
        self.timestamps = timestamps
        self.size = size  # bytes of payloads
        self.keys = keys
        self.headers = headers
        self.ids = ids
        self.reply_tos = reply_tos
        self.attempts = attempts

    def __len__(self) -> int:
        return len(self.payloads)


@dataclass(frozen=True, slots=True)
class SubscribeOptions:
    """What a member asks for.

    ``start`` counts where the group has no place yet: "earliest", "latest", "last" (the retained last value, then what
    follows), an int offset, or a float in wall-clock seconds.

    Defaults: lease 30 s (Amazon SQS), 16 deliveries then the dead letters, prefetch 1,000 messages or 16 MiB.
    """

    pattern: str
    group: str | None = None
    start: str | int | float = "latest"
    prefetch: int = 1000
    prefetch_bytes: int = 16 << 20
    lease: float = 30.0
    max_deliveries: int = 16
    dead_letter: str | None = None  # None: "$dead.<group>"
    backoff: float = 0.0  # seconds before the second attempt of a nacked message without a delay; doubles each time
    backoff_cap: float = 60.0
    ack: bool = True  # False: delivered is done
    mode: Mode = "consume"
    exclusive: bool = False  # refuse a second member of the group
    single_active: bool = False  # one member is served, the others stand by
    positions: Mapping[str, int] | None = None  # the next offset of a topic, before ``start``


@dataclass(frozen=True, slots=True)
class TopicOptions:
    """How a topic is kept. None: no limit (kept until something asks for its removal, as NATS JetStream does).

    Durations and sizes may be written ``"7d"`` and ``"1GiB"``. Raises ``ConfigError`` for text that is neither.
    """

    retain_seconds: float | None = None
    retain_bytes: int | None = None
    retain_messages: int | None = None
    compact: bool = False  # keep the last value of each key
    keep_last: bool = False  # retention never removes the last message (MQTT's retained message)
    dedup_seconds: float = 120.0  # NATS JetStream's duplicate window
    schema: str | None = None  # JSON Schema, its text or (when made) the document; needs blocks[schema]
    on_invalid: Literal["refuse", "dead-letter"] = "refuse"
    max_message_bytes: int | None = None

    def __post_init__(self) -> None:
        for names, parse in _PARSED.items():
            for name in names:
                value = getattr(self, name)
                if isinstance(value, str):
                    object.__setattr__(self, name, parse(value))
        document: Any = self.schema
        if isinstance(document, Mapping | bool):
            object.__setattr__(self, "schema", json.dumps(document, sort_keys=True))


_PARSED: dict[tuple[str, ...], Callable[[str], float]] = {
    ("retain_seconds", "dedup_seconds"): seconds,
    ("retain_bytes", "max_message_bytes"): size,
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer can make grow, and how far."""

    message_bytes: int = 8 << 20  # NATS allows up to 8 MiB for max_payload; RabbitMQ 16 MiB
    frame_bytes: int = 256 << 20  # payloads of one publish call; it goes into one batch, which readers decode whole
    header_bytes: int = 64 << 10
    headers: int = 256
    key_bytes: int = 4096
    id_chars: int = 256
    topics: int = 1_000_000
    groups: int = 100_000
    members: int = 100_000
    producers: int = 10_000  # the one that was silent the longest is forgotten
    dedup_ids: int = 1_000_000  # in all topics; the oldest are forgotten
    scheduled: int = 10_000_000
    waiting_bytes: int = 64 << 20  # bytes that wait for the disk before publishers are refused
    blocked_keys: int = 100_000  # messages of a group and topic that wait for an earlier one of the same key
    in_flight: int = 1_000_000  # leased messages of one group


class Member(Protocol):
    """Who takes deliveries: a session, or an in-process subscriber."""

    def ready(self, subscription: Leases) -> None:
        """There is something to take; not said again until ``take`` has returned nothing."""
        ...

    def ended(self, subscription: Leases, error: BrokerError) -> None:
        """The broker ended the subscription."""
        ...


class Leases(Protocol):
    """What deliveries are answered with; the engine's ``Subscription`` and the client's have it."""

    def ack(self, topic: str, offsets: Iterable[int], token: int, done: Callable[[int], None] | None = None) -> int:
        """These are done; gives how many were stale."""
        ...

    def nack(self, topic: str, offsets: Iterable[int], token: int, delay: float | None = None) -> int:
        """Deliver these again after ``delay`` seconds."""
        ...

    def reject(self, topic: str, offsets: Iterable[int], token: int, reason: str = "") -> int:
        """These can never be processed: to the dead letters."""
        ...

    def extend(self, topic: str, offsets: Iterable[int], token: int, seconds: float) -> int:
        """The lease of these ends ``seconds`` from now."""
        ...


class Message:
    """One delivered message; what it holds is read out of its run when asked for."""

    __slots__ = ("_index", "_owner", "_run")

    def __init__(self, run: Deliveries, index: int, owner: Leases) -> None:
        self._run = run
        self._index = index
        self._owner = owner

    @property
    def topic(self) -> str:
        """Where it was published."""
        return self._run.topic

    @property
    def payload(self) -> bytes:
        """Its bytes."""
        return self._run.payloads[self._index]

    @property
    def offset(self) -> int:
        """Its place in the topic."""
        return self._run.offsets[self._index]

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers."""
        column = self._run.headers
        return (column[self._index] or {}) if column is not None else {}

    @property
    def key(self) -> bytes | None:
        """Its ordering key."""
        column = self._run.keys
        return column[self._index] if column is not None else None

    @property
    def id(self) -> str | None:
        """Its publisher's id."""
        column = self._run.ids
        return column[self._index] if column is not None else None

    @property
    def reply_to(self) -> str | None:
        """The topic on which an answer is awaited."""
        column = self._run.reply_tos
        return column[self._index] if column is not None else None

    @property
    def attempt(self) -> int:
        """1 for the first delivery to this group."""
        column = self._run.attempts
        return column[self._index] if column is not None else 1

    @property
    def timestamp(self) -> float:
        """When the broker stored it: wall-clock seconds."""
        stamps = self._run.timestamps
        return stamps[self._index] if isinstance(stamps, list) else stamps

    async def ack(self, *, wait: bool = False) -> None:
        """Say that it is done. With ``wait``: return when the broker has that on disk."""
        await self._answer(self._owner.ack, wait)

    async def nack(self, delay: float | None = None) -> None:
        """Give it back, to be delivered again after ``delay`` seconds (None: the subscription's back-off)."""
        self._owner.nack(self._run.topic, (self.offset,), self._run.token, delay)

    async def reject(self, reason: str = "") -> None:
        """It can never be processed: to the dead letters, with ``reason``."""
        self._owner.reject(self._run.topic, (self.offset,), self._run.token, reason)

    async def extend(self, seconds: float) -> None:
        """Keep it for ``seconds`` more, counted from now."""
        self._owner.extend(self._run.topic, (self.offset,), self._run.token, seconds)

    async def _answer(self, verb: Callable[..., int], wait: bool) -> None:
        if not wait:
            verb(self._run.topic, (self.offset,), self._run.token)
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()

        def done(stale: int) -> None:
            if not future.done():
                future.set_result(stale)

        verb(self._run.topic, (self.offset,), self._run.token, done)
        stale = await future
        if stale < 0:
            raise DiskFailed("the broker could not store that the message is done")
        if stale:
            raise LeaseLost(f"{self!r} is not held by this member any more")

    def __repr__(self) -> str:
        return f"<Message {self.topic}@{self.offset} attempt={self.attempt} {len(self.payload)} B>"
