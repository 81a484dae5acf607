"""A message as one JSON object: the same on the command line, in a pull, and in an event stream."""

from __future__ import annotations

import base64
from typing import Any

from .message import Message


def row_of(message: Message) -> dict[str, Any]:
    """``payload`` and ``key`` as text where they are UTF-8, else as ``payload_base64`` and ``key_base64``."""
    row: dict[str, Any] = {"topic": message.topic, "offset": message.offset, "timestamp": message.timestamp}
    row.update(attempt=message.attempt, headers=dict(message.headers), id=message.id)
    for name, data in (("key", message.key), ("payload", message.payload)):
        if data is None:
            row[name] = None
            continue
        try:
            row[name] = data.decode("utf-8")
        except UnicodeDecodeError:
            row[f"{name}_base64"] = base64.b64encode(data).decode()
    return row
