"""A relay stands between a body and its reader: bytes pass down through it, demand and back-pressure pass up, no task is woken."""

from __future__ import annotations

from ..body import Stream
from ..message import Headers


class Relay:
    """The sink of ``inner`` and the source of ``stream``; a subclass changes or counts what passes."""

    __slots__ = ("_poured", "inner", "stream")

    def __init__(self, inner: Stream, length: int | None = None) -> None:
        self.inner = inner
        self.stream = Stream(self, length)
        self._poured = False

    def start(self) -> Stream:
        """The stream to hand on, with what ``inner`` holds already passed through, so that it can leave together with the head."""
        first = self.inner.take()
        if first:
            self.write(first)
        return self.stream

    # -- the source of what is handed on

    def resume(self) -> None:
        """Somebody reads."""
        if self._poured:
            self.inner.resume()
        else:
            self._poured = True
            self.inner.pour(self)

    def pause(self) -> None:
        """The reader is full."""
        self.inner.pause()

    def cancel(self) -> None:
        """Nobody reads on."""
        self.inner.cancel()

    # -- the sink of what comes in

    def write(self, data: bytes) -> None:
        """The next bytes."""
        self.stream.feed(data)

    def end(self, trailers: Headers | None) -> None:
        """The body is complete."""
        self.stream.finish(trailers)

    def abort(self, error: BaseException) -> None:
        """The body broke off."""
        self.stream.fail(error)
