"""CloudEvents 1.0 over HTTP: an event's attributes are a message's ``ce-`` headers, its data the payload.

Source: CloudEvents HTTP protocol binding 1.0.2, binary, structured and batched content modes.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .errors import BadRequest

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"

_NEEDED = ("id", "source", "type", "specversion")
_NAME = re.compile(r"[a-z0-9]{1,20}")
_CARRIED = ("content-type", "traceparent", "tracestate")


class Event(NamedTuple):
    """What is published for one event: ``id`` is unique for the event, as its source and id are together."""

    payload: bytes
    headers: dict[str, str]
    id: str | None


def of_binary(headers: Mapping[str, str], body: bytes) -> Event:
    """The event, or the plain message, whose attributes are HTTP headers (names in lower case). Raises ``BadRequest``."""
    taken = {name: value for name, value in headers.items() if name.startswith("ce-") or name in _CARRIED}
    if not any(name.startswith("ce-") for name in taken):
        return Event(body, taken, None)
    missing = [name for name in _NEEDED if not taken.get(f"ce-{name}")]
    if missing:
        raise BadRequest(f"a CloudEvent needs the header ce-{missing[0]}")
    return Event(body, taken, _unique(taken))


def of_structured(body: bytes) -> Event:
    """The event that ``body`` is as JSON. Raises ``BadRequest``."""
    return _event(read_json(body))


def of_batch(body: bytes) -> list[Event]:
    """The events of a JSON array. Raises ``BadRequest``."""
    rows = read_json(body)
    if not isinstance(rows, list):
        raise BadRequest("a batch of CloudEvents is a JSON array")
    return [_event(row) for row in rows]


def read_json(body: bytes) -> Any:
    """``body`` as JSON. Raises ``BadRequest``."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


def _event(row: Any) -> Event:
    if not isinstance(row, dict):
        raise BadRequest("a CloudEvent is a JSON object")
    missing = [name for name in _NEEDED if not isinstance(row.get(name), str) or not row[name]]
    if missing:
        raise BadRequest(f"a CloudEvent needs the attribute {missing[0]}")
    headers = {}
    for name, value in row.items():
        if name in ("data", "data_base64", "datacontenttype"):
            continue
        if _NAME.fullmatch(name) is None or not isinstance(value, str | int | bool):
            raise BadRequest(f"the attribute {name[:40]!r} is not a CloudEvents attribute")
        headers[f"ce-{name}"] = json.dumps(value) if not isinstance(value, str) else value
    kind = row.get("datacontenttype", "application/json")
    headers["content-type"] = str(kind)
    return Event(_data(row, str(kind)), headers, _unique(headers))


def _data(row: dict[str, Any], kind: str) -> bytes:
    if "data_base64" in row:
        try:
            return base64.b64decode(row["data_base64"], validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise BadRequest("data_base64 is not base64") from None
    data = row.get("data")
    if data is None:
        return b""
    if isinstance(data, str) and not kind.endswith("json"):
        return data.encode()
    return json.dumps(data, separators=(",", ":")).encode()


def _unique(headers: Mapping[str, str]) -> str:
    return f"{headers['ce-source']}#{headers['ce-id']}"
