"""A JSON body is read within bounds of size and depth, and once: what was read is kept for the steps behind."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from blocks.gateway.auth import strict_json
from blocks.http.message import Headers

MAX_BODY = 1024 * 1024  # bytes; nginx's client_max_body_size, express.json's order
MAX_DEPTH = 64  # levels; far beyond what people write, far below what makes a parser recurse too deep
_JSON = re.compile(rb"application/(?:json|[a-z0-9!#$&^_.+-]+\+json)[ \t]*(?:;.*)?", re.I)


class BadBody(ValueError):
    """A body that is not what it says, with the status to answer: 400, or 413 for too deep."""

    def __init__(self, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.status = status


def is_json(headers: Headers) -> bool:
    """Whether the content is JSON by its media type (RFC 8259 §11, RFC 6839 §3.1)."""
    kind = headers.find(b"content-type")
    return kind is not None and _JSON.fullmatch(kind) is not None


def decode(data: bytes, *, depth: int = MAX_DEPTH, unique: bool = False) -> Any:
    """The value of a JSON text. ``unique``: an object that names a member twice is refused. Raises ``BadBody``."""
    try:
        if unique:
            value = strict_json.loads(data)
        else:
            data.decode("utf-8")
            value = msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:
        raise BadBody(f"the body is not JSON: {str(error)[:200]}") from None
    if data.count(b"[") + data.count(b"{") > depth and not _within(value, depth):
        raise BadBody(f"the body is nested deeper than {depth} levels", 413)
    return value


def _within(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner.extend(one.values())
            elif isinstance(one, list):
                inner.extend(one)
        level = [one for one in inner if isinstance(one, dict | list)]
        if not level:
            return True
    return False
