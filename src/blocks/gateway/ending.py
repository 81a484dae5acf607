"""A body, streamed or both ways, that tells when it is over, so that what a request holds is given back then and not at its head."""

from __future__ import annotations

from collections.abc import Callable

from blocks.http.body import Sink, Source, Stream, Tunnel
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


class EndingTunnel:
    """Stands before a tunnel. ``done`` is called once: when both sides have ended, one broke off, or the client has left."""

    __slots__ = ("_done", "_halves", "_inner", "pause", "resume", "write")

    def __init__(self, inner: Tunnel, done: Callable[[], None]) -> None:
        self._inner = inner
        self._done: Callable[[], None] | None = done
        self._halves = 0
        self.write, self.pause, self.resume = inner.write, inner.pause, inner.resume  # bytes take no detour

    def connect(self, sink: Sink, source: Source) -> None:
        """The client is there."""
        self._inner.connect(_Back(sink, self), source)

    def end(self) -> None:
        """The client has ended its side."""
        self._inner.end()
        self.half()

    def cancel(self) -> None:
        """The client is gone."""
        self._inner.cancel()
        self.over()

    def half(self) -> None:
        """One of the two sides has ended."""
        self._halves += 1
        if self._halves == 2:
            self.over()

    def over(self) -> None:
        """Nothing goes through any more."""
        done, self._done = self._done, None
        if done is not None:
            done()


class _Back:
    """The way back to the client, listened to for its end."""

    __slots__ = ("_sink", "_tunnel", "write")

    def __init__(self, sink: Sink, tunnel: EndingTunnel) -> None:
        self._sink = sink
        self._tunnel = tunnel
        self.write = sink.write

    def end(self, trailers: Headers | None) -> None:
        """The service has ended its side."""
        self._sink.end(trailers)
        self._tunnel.half()

    def abort(self, error: BaseException) -> None:
        """The service broke off."""
        self._sink.abort(error)
        self._tunnel.over()
