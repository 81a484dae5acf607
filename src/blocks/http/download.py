"""A response's body on its way out: framed as its head said, and never longer or shorter than that (RFC 9112 §6)."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from blocks.core.errors import Failure

from .body import Stream
from .h1.writer import chunk, last_chunk
from .message import Headers

if TYPE_CHECKING:
    from .inbound import Inbound

COPY = 64 * 1024  # bytes up to which one joined write beats two


class Download:
    """The sink of one response's body. ``left`` is what its length leaves to send, ``inf`` when none was stated."""

    __slots__ = ("_chunked", "_connection", "_ended", "_left", "_seen", "_sent", "stream")

    def __init__(self, connection: Inbound, stream: Stream, left: float, *, chunked: bool) -> None:
        self._connection = connection
        self._left = left
        self._chunked = chunked
        self._sent = self._seen = 0
        self._ended = False
        self.stream = stream

    def start(self, head: bytes, blocked: bool) -> None:
        """Send ``head`` with what there is of the body, in one write if that is small; the rest follows as it comes."""
        transport = self._connection.transport
        first = self.stream.take()
        if first and not self._chunked and len(first) <= min(COPY, self._left):
            self._left -= len(first)
            self._sent += len(first)
            transport.write(head + first)
        else:
            transport.write(head)
            if first:
                self.write(first)
        if not self._ended:
            self.stream.pour(self)
            if blocked and not self._ended:
                self.stream.pause()

    def moved(self) -> bool:
        """Whether anything was sent since this was asked last."""
        moved = self._sent != self._seen
        self._seen = self._sent
        return moved

    def write(self, data: bytes) -> None:
        """The next bytes."""
        transport = self._connection.transport
        if self._ended or transport.is_closing():
            return
        size = len(data)
        self._sent += size
        if self._chunked:
            if size <= COPY:
                transport.write(chunk(data))
            else:
                transport.writelines((b"%x\r\n" % size, data, b"\r\n"))
            return
        self._left -= size
        if self._left < 0:
            self._break(
                Failure("the response's body is longer than its declared length", reason="body-longer-than-length")
            )
            return
        transport.write(data)

    def end(self, trailers: Headers | None) -> None:
        """The body is complete."""
        if self._ended:
            return
        transport = self._connection.transport
        if self._chunked:
            if not transport.is_closing():
                transport.write(last_chunk(trailers.section if trailers is not None else None))
        elif 0 < self._left < inf:
            self._break(
                Failure("the response's body is shorter than its declared length", reason="body-shorter-than-length")
            )
            return
        self._ended = True
        self._connection.downloaded(self._sent)

    def abort(self, error: BaseException) -> None:
        """The body broke off."""
        if not self._ended:
            self._end(error)

    def _break(self, error: BaseException) -> None:
        """The body is not what its head said: nobody reads it on."""
        self._end(error)
        self.stream.cancel()

    def _end(self, error: BaseException) -> None:
        self._ended = True
        self._connection.cut(self._sent, error, visible=self._chunked or self._left < inf)
