"""What travels in frames and what the engine takes and gives are the same columns: these turn one into the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .errors import BrokerError, codes
from .frames import Publish
from .message import Deliveries, Publication, Receipts
from .wire import MAX_COUNT

_CODES = codes()
_PORTION = 1_000_000  # of units that take at most 11 bytes


def publication_of(frame: Publish, now: float) -> Publication:
    """The publication that a client's frame asks for; ``now`` is the wall clock that delays count from."""
    columns, count = frame.columns, len(frame.payloads)
    topics = frame.topics
    one = topics if isinstance(topics, str) else topics[0]
    if not columns:
        return Publication(one, frame.payloads, topics=None if topics is one else topics, atomic=frame.atomic)  # type: ignore[arg-type]
    producer, epoch, sequence = columns.get("producer") or (None, 0, 0)
    return Publication(
        one,
        frame.payloads,
        topics=None if isinstance(topics, str) else topics,
        keys=_spread(columns.get("key"), count),
        headers=_spread(columns.get("headers"), count),
        ids=_spread(columns.get("id"), count),
        ttls=_spread(columns.get("ttl"), count),
        dues=_dues(_spread(columns.get("at"), count), _spread(columns.get("delay"), count), now),
        reply_tos=_spread(columns.get("reply"), count),
        atomic=frame.atomic,
        producer=producer,
        epoch=epoch,
        sequence=sequence,
    )


def _spread(column: Any, count: int) -> list[Any] | None:
    """A column as a list, whether it came as one value for all or as a list."""
    if column is None or type(column) is list:
        return column
    return [column] * count


def _dues(ats: list[Any] | None, delays: list[Any] | None, now: float) -> list[float | None] | None:
    if delays is None:
        return ats
    dues = [None if delay is None else now + delay for delay in delays]
    if ats is None:
        return dues
    return [due if at is None else at for at, due in zip(ats, dues, strict=True)]


def entry_of(number: int, receipts: Receipts) -> list[Any]:
    """The entry of a ``Receipts`` frame that answers the publish ``number``."""
    errors = [[place, error.code, said(error)] for place, error in receipts.errors.items()]
    return [number, _packed(receipts.offsets), list(receipts.duplicates), errors]


def said(error: BrokerError) -> str:
    """What ``error`` says, short enough to be said 65,536 times in a frame."""
    return str(error)[:200]


def portions(entries: list[list[Any]]) -> Iterator[list[list[Any]]]:
    """The entries of each ``Receipts`` frame: as many as surely fit."""
    part: list[list[Any]] = []
    weight = 0
    for entry in entries:
        _, offsets, duplicates, errors = entry
        weight += 4 + len(duplicates) + len(errors) * 24 + (len(offsets) if type(offsets) is list else 0)
        if part and (weight > _PORTION or len(part) >= MAX_COUNT):
            yield part
            part, weight = [], 0
        part.append(entry)
    if part:
        yield part


def halves(runs: list[list[Any]]) -> tuple[list[list[Any]], list[list[Any]]]:
    """The runs of a frame as those of two; a single run is cut in its middle."""
    if len(runs) > 1:
        middle = len(runs) // 2
        return runs[:middle], runs[middle:]
    topic, token, offsets, payloads, columns = runs[0]
    middle = len(payloads) // 2

    def cut(column: Any, start: int, stop: int) -> Any:
        return column[start:stop] if type(column) is list else column

    parts = []
    for start, stop in ((0, middle), (middle, len(payloads))):
        places = offsets + start if type(offsets) is int else offsets[start:stop]
        part = {name: cut(column, start, stop) for name, column in columns.items()}
        parts.append([[topic, token, places, payloads[start:stop], part]])
    return parts[0], parts[1]


def run_of(deliveries: Deliveries) -> list[Any]:
    """The run of a ``Deliver`` frame that carries ``deliveries``."""
    columns: dict[str, Any] = {"time": deliveries.timestamps}
    if deliveries.keys is not None:
        columns["key"] = deliveries.keys
    if deliveries.headers is not None:
        columns["headers"] = deliveries.headers
    if deliveries.ids is not None:
        columns["id"] = deliveries.ids
    if deliveries.reply_tos is not None:
        columns["reply"] = deliveries.reply_tos
    if deliveries.attempts is not None:
        columns["attempt"] = deliveries.attempts
    return [deliveries.topic, deliveries.token, _packed(deliveries.offsets), deliveries.payloads, columns]


def spread_run(run: list[Any]) -> dict[str, Any]:
    """The arguments of a ``Deliveries`` that a run of a ``Deliver`` frame holds."""
    topic, token, offsets, payloads, columns = run
    count = len(payloads)
    return {
        "topic": topic,
        "token": token,
        "offsets": range(offsets, offsets + count) if type(offsets) is int else offsets,
        "payloads": payloads,
        "timestamps": columns.get("time", 0.0),
        "size": sum(map(len, payloads)),
        "keys": _spread(columns.get("key"), count),
        "headers": _spread(columns.get("headers"), count),
        "ids": _spread(columns.get("id"), count),
        "reply_tos": _spread(columns.get("reply"), count),
        "attempts": _spread(columns.get("attempt"), count),
    }


def _packed(offsets: Sequence[int]) -> int | list[int]:
    """The first of consecutive offsets, else all of them."""
    if type(offsets) is range and offsets.step == 1 and len(offsets):
        return offsets.start
    return list(offsets)


def error_of(code: str, message: str) -> BrokerError:
    """The exception that was raised on the other side of the wire, of the same class where this side knows it."""
    kind = _CODES.get(code)
    if kind is None:
        error = BrokerError(f"{code}: {message}")
        error.reason = code
        return error
    return kind(message)
