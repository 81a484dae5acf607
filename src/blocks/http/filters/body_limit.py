"""No request body longer than was agreed gets past: by its Content-Length at once, else while it flows (413, RFC 9110 §15.5.14)."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from blocks.core.quantities import size

from ..body import Stream, TooLarge
from ..handler import Filter, Handler, direct
from ..message import Request, Response
from ..refusal import refusal
from .relay import Relay
from .request_id import named


def body_limit(limit: int | str) -> Filter:
    """A filter that answers 413 to a body of more than ``limit`` bytes (``"10MiB"``).

    A body that states its length is refused before a byte of it is read. One that does not is cut when it goes over: its reader gets
    ``TooLarge``, which becomes 413 if no answer has begun.
    """
    most = size(limit)

    @direct
    def filter(request: Request, next: Handler) -> Coroutine[Any, Any, Response]:
        body = request.body
        if type(body) is bytes:
            if len(body) > most:
                return _refused(request)
        elif isinstance(body, Stream):
            if body.length is None:
                request.body = _Capped(body, most).start()
            elif body.length > most:
                return _refused(request)
        return next(request)

    return named(filter, "body_limit")


async def _refused(request: Request) -> Response:
    if isinstance(request.body, Stream):
        request.body.cancel()
    return refusal(413, "body-too-large")


class _Capped(Relay):
    """Passes so many bytes, and breaks off at the next one."""

    __slots__ = ("_left", "_most")

    def __init__(self, inner: Stream, most: int) -> None:
        super().__init__(inner)
        self._left = self._most = most

    def write(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left >= 0:
            self.stream.feed(data)
        elif not self.stream.ended:
            self.stream.fail(TooLarge(f"a request body of more than {self._most} bytes is over the limit"))
            self.inner.cancel()
