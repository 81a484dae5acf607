"""A batch is the messages of one frame with those who wait for their receipts; what goes in is checked here.

A frame that the broker cannot decode would end the connection, and every one after it when sent again: so nothing gets in
that is not of its column's type, or over the wire's limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from blocks.core.quantities import seconds

from .columns import error_of
from .errors import Aborted, BadRequest, BrokerError, TooLarge
from .frames import Publish
from .message import Receipt

FRAME_BYTES = 64 * 1024  # a frame is cut here: larger ones gained nothing in the measurements of the design
FRAME_MESSAGES = 4_096
MAX_FIELD = 65_536  # bytes of a header, a name or an id: the broker's limit for all headers of a message
OVERHEAD = 64  # bytes counted for a message besides its payload


class Batch:
    """The messages of one frame, and who waits for their receipts: a future for each, or one for all."""

    __slots__ = (
        "atomic",
        "columns",
        "count",
        "data",
        "futures",
        "inbox",
        "number",
        "one",
        "payloads",
        "since",
        "size",
        "topics",
    )

    def __init__(self, since: float, *, inbox: bool = False, atomic: bool = False) -> None:
        self.topics: list[str] = []
        self.payloads: list[bytes] = []
        self.columns: dict[str, Any] = {}
        self.futures: list[asyncio.Future[Receipt]] = []
        self.one: asyncio.Future[list[Receipt]] | None = None
        self.count = 0
        self.size = 0
        self.number = 0
        self.data = b""
        self.since = since
        self.inbox = inbox
        self.atomic = atomic

    def add(self, topic: str, payload: bytes, options: dict[str, Any] | None) -> None:
        """One message more."""
        self.topics.append(topic)
        self.payloads.append(payload)
        self.size += len(payload) + OVERHEAD
        columns = self.columns
        if options:
            for name, value in options.items():
                column = columns.get(name)
                if column is None:
                    column = columns[name] = [None] * self.count
                column.append(value)
                self.size += _weight(value)
        self.count += 1
        if columns and (not options or len(options) < len(columns)):
            for column in columns.values():
                if len(column) < self.count:
                    column.append(None)

    def frame(self) -> Publish:
        """The frame that carries the messages."""
        first = self.topics[0]
        same = self.topics.count(first) == self.count or len(self.topics) == 1
        return Publish(self.number, first if same else self.topics, self.payloads, self.columns, self.atomic)

    def resolve(
        self, offsets: int | list[int], duplicates: list[int], errors: list[list[Any]], durability: str
    ) -> None:
        """Give every waiter its receipt or its error."""
        if type(offsets) is int:
            offsets = range(offsets, offsets + self.count)  # type: ignore[assignment]
        if len(self.topics) == 1:
            topics: Sequence[str] = self.topics * self.count
        else:
            topics = self.topics
        refused = {place: error_of(code, message) for place, code, message in errors}
        again = frozenset(duplicates)
        if self.one is not None:
            self._resolve_one(self.one, topics, offsets, again, refused, durability)  # type: ignore[arg-type]
            return
        plain = not refused and not again
        rows = zip(self.futures, topics, offsets, strict=True)  # type: ignore[arg-type]
        for place, (future, topic, offset) in enumerate(rows):
            if future.done():
                continue
            if plain:
                future.set_result(Receipt(topic, offset, False, durability))
            elif place in refused:
                future.set_exception(refused[place])
            else:
                future.set_result(Receipt(topic, offset, place in again, durability))

    def _resolve_one(
        self,
        future: asyncio.Future[list[Receipt]],
        topics: Sequence[str],
        offsets: Sequence[int],
        again: frozenset[int],
        refused: dict[int, BrokerError],
        durability: str,
    ) -> None:
        if future.done():
            return
        if refused:
            error = refused[min(refused, key=lambda place: (isinstance(refused[place], Aborted), place))]
            error.add_note(f"{len(refused)} of {self.count} messages were refused")
            future.set_exception(error)
        elif not again:
            future.set_result([Receipt(t, o, False, durability) for t, o in zip(topics, offsets, strict=True)])
        else:
            future.set_result(
                [Receipt(t, o, i in again, durability) for i, (t, o) in enumerate(zip(topics, offsets, strict=True))]
            )

    def fail(self, error: BrokerError) -> None:
        """Give every waiter ``error``."""
        if self.one is not None:
            if not self.one.done():
                self.one.set_exception(error)
            return
        for future in self.futures:
            if not future.done():
                future.set_exception(error)


def batches_of(
    topic: str,
    payloads: Iterable[bytes],
    keys: Sequence[bytes | None] | None,
    headers: Mapping[str, str] | Sequence[Mapping[str, str] | None] | None,
    ids: Sequence[str | None] | None,
    ttl: float | str | None,
    delay: float | str | None,
    now: float,
) -> list[Batch]:
    """The batches that ``publish_many`` sends: each of one frame's size, with the columns of its part."""
    wanted = [payload if type(payload) is bytes else checked_payload(payload) for payload in payloads]
    count = len(wanted)
    common = options_of(None, headers if isinstance(headers, Mapping) else None, None, ttl, delay, None, None) or {}
    columns: dict[str, list[Any]] = {}
    if keys is not None:
        columns["key"] = [_checked_key(key) if key is not None else None for key in keys]
    if ids is not None:
        columns["id"] = [_checked_text("an id", name) if name is not None else None for name in ids]
    if headers is not None and not isinstance(headers, Mapping):
        columns["headers"] = [checked_headers(row) if row else None for row in headers]
    for name, column in columns.items():
        if len(column) != count:
            raise BadRequest(f"{count} payloads, but {len(column)} values of {name}")
    batches = []
    start = 0
    while start < count:
        end, size = _end(wanted, columns, start)
        batch = Batch(now)
        batch.topics = [topic]
        batch.payloads = wanted[start:end]
        batch.count = end - start
        batch.columns = {**common, **{name: column[start:end] for name, column in columns.items()}}
        batch.size = size
        batches.append(batch)
        start = end
    return batches


def _end(payloads: list[bytes], columns: dict[str, list[Any]], start: int) -> tuple[int, int]:
    """Where the frame that begins with message ``start`` ends, and how many bytes it takes; it has one message at least."""
    end = min(start + FRAME_MESSAGES, len(payloads))
    size = sum(map(len, payloads[start:end])) + OVERHEAD * (end - start)
    if size <= FRAME_BYTES and not columns:
        return end, size
    size = 0
    for place in range(start, end):
        weight = len(payloads[place]) + OVERHEAD + sum(_weight(column[place]) for column in columns.values())
        if size + weight > FRAME_BYTES and place > start:
            return place, size
        size += weight
    return end, size


def options_of(
    key: bytes | None,
    headers: Mapping[str, str] | None,
    id: str | None,  # the fixed name of the argument
    ttl: float | str | None,
    delay: float | str | None,
    at: float | None,
    reply_to: str | None,
) -> dict[str, Any] | None:
    """What a message has besides topic and payload, by the names of the columns. Raises ``BadRequest``, ``TooLarge``."""
    options: dict[str, Any] = {}
    if key is not None:
        options["key"] = _checked_key(key)
    if headers:
        options["headers"] = checked_headers(headers)
    if id is not None:
        options["id"] = _checked_text("an id", id)
    for name, value in (("ttl", ttl), ("delay", delay), ("at", at)):
        if value is not None:
            options[name] = _checked_time(name, value)
    if reply_to is not None:
        options["reply"] = _checked_text("reply_to", reply_to)
    return options or None


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """``headers`` as a frame can carry them. Raises ``BadRequest``, ``TooLarge``."""
    if not isinstance(headers, Mapping):
        raise BadRequest(f"headers are a mapping of text to text, not {type(headers).__name__}")
    taken = dict(headers)
    for name, value in taken.items():
        _checked_text("a header's name", name)
        _checked_text(f"the header {name}", value)
    return taken


def checked_payload(payload: Any) -> bytes:
    """``payload`` as bytes. Raises ``BadRequest`` for what is not bytes-like."""
    if isinstance(payload, bytearray | memoryview):
        return bytes(payload)
    if isinstance(payload, bytes):
        return bytes(payload)
    raise BadRequest(f"a payload is bytes, not {type(payload).__name__}: encode it first")


def _checked_key(key: Any) -> bytes:
    if not isinstance(key, bytes | bytearray | memoryview):
        raise BadRequest(f"a key is bytes, not {type(key).__name__}")
    return bytes(key)


def _checked_time(name: str, value: Any) -> float:
    if isinstance(value, str):
        return seconds(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
        raise BadRequest(f"{name} is seconds that are not negative, not {value!r}")
    return float(value)


def _checked_text(what: str, text: Any) -> str:
    if not isinstance(text, str):
        raise BadRequest(f"{what} is text, not {type(text).__name__}")
    if len(text) * 4 > MAX_FIELD and len(text.encode()) > MAX_FIELD:
        raise TooLarge(f"{what} has more than {MAX_FIELD} bytes")
    return text


def _weight(value: Any) -> int:
    """Bytes, about, that a value takes in a frame."""
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(name) + len(text) + 4 for name, text in value.items())
    return 8
