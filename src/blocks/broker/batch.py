"""A batch is the messages of one frame with those who wait for their receipts; what goes in is checked here.

A frame that the broker cannot decode would end the connection, and every one after it when sent again: so nothing gets in
that is not of its column's type, or over the wire's limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import wire
from .columns import error_of
from .errors import Aborted, BadRequest, BrokerError, TooLarge
from .frames import Publish
from .message import Receipt

FRAME_BYTES = 64 * 1024  # a frame is cut here: larger ones gained nothing in the measurements of the design
FRAME_MESSAGES = 4_096
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
    ttl: float | None,
    delay: float | None,
    now: float,
) -> list[Batch]:
    """The batches that ``publish_many`` sends: each of one frame's size, with the columns of its part."""
    wanted = [payload if type(payload) is bytes else checked_payload(payload) for payload in payloads]
    count = len(wanted)
    for name, column in (("keys", keys), ("ids", ids), ("headers", None if isinstance(headers, Mapping) else headers)):
        if column is not None and len(column) != count:
            raise BadRequest(f"{count} payloads, but {len(column)} {name}")
    common = options_of(None, headers if isinstance(headers, Mapping) else None, None, ttl, delay, None, None) or {}
    batches = []
    start = 0
    while start < count:
        batch = Batch(now)
        batch.topics = [topic]
        end = min(start + FRAME_MESSAGES, count)
        part = wanted[start:end]
        weight = sum(map(len, part)) + OVERHEAD * len(part)
        if weight > FRAME_BYTES:
            part = _cut(part)
            weight = sum(map(len, part)) + OVERHEAD * len(part)
        end = start + len(part)
        batch.payloads = part
        batch.count = len(part)
        batch.columns = dict(common)
        _add_columns(batch, start, end, keys, headers, ids)
        batch.size = weight
        batches.append(batch)
        start = end
    return batches


def _cut(payloads: list[bytes]) -> list[bytes]:
    """As many of ``payloads`` as fit into a frame, and one at least."""
    room = FRAME_BYTES
    for place, payload in enumerate(payloads):
        room -= len(payload) + OVERHEAD
        if room < 0:
            return payloads[: max(1, place)]
    return payloads


def _add_columns(
    batch: Batch,
    start: int,
    end: int,
    keys: Sequence[bytes | None] | None,
    headers: Mapping[str, str] | Sequence[Mapping[str, str] | None] | None,
    ids: Sequence[str | None] | None,
) -> None:
    rows = (
        [
            options_of(key, None, name, None, None, None, None) or {}
            for key, name in zip(
                keys[start:end] if keys is not None else [None] * (end - start),
                ids[start:end] if ids is not None else [None] * (end - start),
                strict=True,
            )
        ]
        if keys is not None or ids is not None
        else []
    )
    if keys is not None:
        batch.columns["key"] = [row.get("key") for row in rows]
    if ids is not None:
        batch.columns["id"] = [row.get("id") for row in rows]
    if headers is not None and not isinstance(headers, Mapping):
        batch.columns["headers"] = [checked_headers(row) if row else None for row in headers[start:end]]


def options_of(
    key: bytes | None,
    headers: Mapping[str, str] | None,
    id: str | None,  # the fixed name of the argument
    ttl: float | None,
    delay: float | None,
    at: float | None,
    reply_to: str | None,
) -> dict[str, Any] | None:
    """What a message has besides topic and payload, by the names of the columns. Raises ``BadRequest``, ``TooLarge``."""
    options: dict[str, Any] = {}
    if key is not None:
        if not isinstance(key, bytes | bytearray | memoryview):
            raise BadRequest(f"a key is bytes, not {type(key).__name__}")
        options["key"] = bytes(key)
    if headers:
        options["headers"] = checked_headers(headers)
    if id is not None:
        options["id"] = _checked_text("an id", id)
    for name, value in (("ttl", ttl), ("delay", delay), ("at", at)):
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float) or not -1e15 < value < 1e15:
                raise BadRequest(f"{name} is seconds, not {value!r}")
            options[name] = float(value)
    if reply_to is not None:
        options["reply"] = _checked_text("reply_to", reply_to)
    return options or None


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """``headers`` as a frame can carry them. Raises ``BadRequest``, ``TooLarge``."""
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


def _checked_text(what: str, text: Any) -> str:
    if not isinstance(text, str):
        raise BadRequest(f"{what} is text, not {type(text).__name__}")
    if len(text) * 4 > wire.MAX_TEXT and len(text.encode()) > wire.MAX_TEXT:
        raise TooLarge(f"{what} has more than {wire.MAX_TEXT} bytes")
    return text


def _weight(value: Any) -> int:
    """Bytes, about, that a value takes in a frame."""
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(name) + len(text) + 4 for name, text in value.items())
    return 8
