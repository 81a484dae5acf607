"""A streamed body that tells when it is over, so that what a request holds is given back then and not at its head."""

from __future__ import annotations

from collections.abc import Callable

from blocks.http.body import Stream
from blocks.http.message import Headers


class Ending:
    """Stands between a stream and its reader; ``stream`` is the one to read. ``done`` is called once, however it ends."""

    __slots__ = ("_done", "_inner", "stream")

    def __init__(self, inner: Stream, done: Callable[[bool], None]) -> None:
        self.stream = Stream(self, inner.length)
        self._inner = inner
        self._done: Callable[[bool], None] | None = done
        inner.pour(self)

    def _over(self, complete: bool) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(complete)

    # the sink of the inner stream

    def write(self, data: bytes) -> None:
        """Pass a chunk on."""
        self.stream.feed(data)

    def end(self, trailers: Headers | None) -> None:
        """The body is complete."""
        self.stream.finish(trailers)
        self._over(True)

    def abort(self, error: BaseException) -> None:
        """The body broke off."""
        self.stream.fail(error)
        self._over(False)

    # the source of the outer stream

    def pause(self) -> None:
        """The reader is full."""
        self._inner.pause()

    def resume(self) -> None:
        """The reader has room."""
        self._inner.resume()

    def cancel(self) -> None:
        """The reader has given up."""
        self._inner.cancel()
        self._over(False)
