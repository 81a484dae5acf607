"""Server-Sent Events as text: an id, a kind, data, and comments that keep a connection alive (HTML Standard §9.2). Sans-IO."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec

from blocks.core.messaging import Delivery

KEEP_ALIVE = b": \n\n"
_BREAKS = str.maketrans({"\r": None, "\n": None, "\0": None})


def event(data: str, *, id: str = "", kind: str = "") -> bytes:
    """One event. Line breaks in ``data`` become lines of it; ``id`` and ``kind`` lose theirs, so that no field can be added."""
    lines = []
    if id:
        lines.append(f"id: {id.translate(_BREAKS)}")
    if kind:
        lines.append(f"event: {kind.translate(_BREAKS)}")
    lines.extend(f"data: {line}" for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    return ("\n".join(lines) + "\n\n").encode()


def event_id(delivery: Delivery, pattern: str) -> str:
    """What a client shows to go on from here: of one topic the offset; of a pattern ``@`` and the time, where the broker tells it."""
    if delivery.topic == pattern:
        return str(delivery.offset)
    timestamp = getattr(delivery, "timestamp", None)
    return f"@{float(timestamp)!r}" if isinstance(timestamp, int | float) else ""


def resumed(last: str | None, start: str | int | float) -> str | int | float:
    """Where to begin for a client that saw ``last``: behind that offset, or from that time on. Raises ``ValueError`` for nonsense."""
    if last is None or last == "":
        return start
    if last.isascii() and last.isdecimal() and len(last) <= 18:
        return int(last) + 1
    if last.startswith("@") and len(last) <= 32:
        moment = float(last[1:])
        if 0 <= moment < 1e12:
            return moment
    raise ValueError("Last-Event-ID is none that came from here")


def whole(delivery: Delivery, id: str) -> dict[str, Any]:
    """A message with what is known of it; a payload that is no UTF-8 as ``base64``."""
    told: dict[str, Any] = {
        "id": id,
        "topic": delivery.topic,
        "offset": delivery.offset,
        "headers": dict(delivery.headers),
    }
    if delivery.key is not None:
        told["key"] = delivery.key.decode("utf-8", "backslashreplace")
    try:
        told["data"] = delivery.payload.decode()
    except UnicodeDecodeError:
        told["base64"] = b64encode(delivery.payload).decode()
    return told


def as_event(delivery: Delivery, pattern: str, envelope: bool) -> bytes:
    """A message as an event: its payload, or with ``envelope`` all of it as JSON. A payload that is no UTF-8 is of the kind base64."""
    id = event_id(delivery, pattern)
    if envelope:
        return event(msgspec.json.encode(whole(delivery, id)).decode(), id=id)
    try:
        return event(delivery.payload.decode(), id=id)
    except UnicodeDecodeError:
        return event(b64encode(delivery.payload).decode(), id=id, kind="base64")
