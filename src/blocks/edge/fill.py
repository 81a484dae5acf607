"""A body on its way from the origin, read by any number of clients while it comes, each at its own speed.

Kept fills (they will be stored) hold every byte, so that a client that comes late still begins at the first. Others hold a
window: bytes that every reader has passed are let go, and the origin is paused while the slowest reader is a window behind; a
reader that stalls the others for too long is cut off, so that one slow client cannot hold up the rest.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable
from math import inf

from blocks.core.errors import Failure
from blocks.core.sweeper import Sweeper, sweeper
from blocks.http.body import Stream
from blocks.http.message import Headers

AHEAD = (
    1024 * 1024
)  # bytes that the origin may be ahead of the fastest reader (nginx: proxy_max_temp_file_size bounds the same)
WINDOW = 256 * 1024  # bytes between the slowest and the fastest reader of a fill that is not kept
PATIENCE = (
    10.0  # seconds that a stalled reader may hold the others up (a tenth of nginx's send_timeout of 60 s, rounded up)
)


class Laggard(Failure):
    """A client read so slowly that it held up others on the same body, and was cut off."""

    reason = "slow-reader"


class Fill:
    """A growing body: the sink of the origin's stream, and a ``Content`` for its readers.

    ``finished`` is called once, with None or the error, when the origin is through. ``length`` is known from the start or at the end.
    """

    __slots__ = (
        "_base", "_boarding", "_chunks", "_fastest", "_held", "_left", "_readers", "_slowest", "_source", "_starts", "_sweeper", "_waiting",
        "complete", "deadline", "error", "finished", "kept", "length", "limit", "size", "trailers",
    )  # fmt: skip

    def __init__(self, length: int | None, *, kept: bool, limit: int) -> None:
        self.length = length
        self.kept = kept
        self.limit = limit  # bytes that a kept fill may grow to before it becomes a window
        self.size = 0
        self.complete = False
        self.error: BaseException | None = None
        self.trailers: Headers | None = None
        self.finished: Callable[[BaseException | None], None] | None = None
        self.deadline = inf
        self._chunks: list[bytes] = []
        self._starts: list[int] = []
        self._base = 0  # offset of the first byte that is still here
        self._readers: set[_Reader] = set()
        self._waiting: set[_Reader] = set()
        self._slowest: _Reader | None = None
        self._fastest = 0
        self._source: Stream | None = None
        self._held = False
        self._sweeper: Sweeper | None = None
        self._boarding = True  # those who wait for the head may still begin
        self._left = False  # somebody who read or was to read went away meanwhile

    def pull(self, source: Stream) -> None:
        """Begin to take ``source`` in. Nothing is let go until those who wait for the head had a turn to begin reading."""
        self._source = source
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._boarded)
        source.pour(self)

    def _boarded(self) -> None:
        self._boarding = False
        if self._left and not self._readers and not self.kept and self._source is not None:
            self.cancel(ConnectionAbortedError("nobody reads the body any more"))
        else:
            self.balance()

    # -- the sink of the origin's stream

    def write(self, data: bytes) -> None:
        """The next bytes from the origin."""
        self._chunks.append(data)
        self._starts.append(self.size)
        self.size += len(data)
        if self.kept and self.size > self.limit:
            self.kept = False
        for reader in list(self._waiting):
            reader.push()
        self.balance()

    def end(self, trailers: Headers | None) -> None:
        """The origin is through."""
        if self.length is not None and self.size != self.length:
            self.abort(Failure(f"the origin sent {self.size} bytes of {self.length}", reason="bad-length", status=502))
            return
        self.trailers = trailers
        self._over(None)

    def abort(self, error: BaseException) -> None:
        """The origin broke off: readers get what there is, and then the error."""
        self._over(error)

    def _over(self, error: BaseException | None) -> None:
        if self.complete or self.error is not None:
            return
        self._source = None
        self._unwatch()
        if error is None:
            self.complete = True
            self.length = self.size
        else:
            self.error = error
        finished, self.finished = self.finished, None
        if finished is not None:
            finished(error)
        for reader in list(self._waiting):
            reader.push()

    # -- the readers

    @property
    def held(self) -> int:
        """Bytes in memory."""
        return self.size - self._base

    @property
    def filled(self) -> int:
        """Bytes that have come."""
        return self.size

    @property
    def joinable(self) -> bool:
        """Whether a reader may still begin at the first byte."""
        return self._base == 0 and self.error is None

    def stream(self, start: int = 0, stop: int | None = None) -> Stream:
        """The bytes from ``start`` to ``stop`` as they come; any number of streams may read at once."""
        reader = _Reader(self, start, stop)
        length = None
        if stop is not None:
            length = stop - start
        elif self.length is not None:
            length = self.length - start
        reader.stream = stream = Stream(reader, length)
        self._readers.add(reader)
        return stream

    def data(self) -> bytes:
        """Every byte, when it is complete and none was let go."""
        if len(self._chunks) != 1:
            self._chunks = [b"".join(self._chunks)]
            self._starts = [0]
        return self._chunks[0]

    def release(self) -> None:
        """The entry left its store; the streams that read hold what they need."""

    def cancel(self, error: BaseException) -> None:
        """Stop the origin; readers get ``error``."""
        source = self._source
        if source is not None:
            source.cancel()
        self._over(error)

    def chunk_at(self, at: int) -> bytes:
        """The bytes from ``at`` to the end of its chunk; empty when they are not here yet. Raises ``Laggard`` if they are gone."""
        if at >= self.size:
            return b""
        if at < self._base:
            raise Laggard("the beginning of this body is gone; ask for it again")
        place = bisect_right(self._starts, at) - 1
        chunk, start = self._chunks[place], self._starts[place]
        return chunk if start == at else chunk[at - start :]

    def wait(self, reader: _Reader) -> None:
        """Call the reader's ``push`` when more has come."""
        self._waiting.add(reader)

    def unwait(self, reader: _Reader) -> None:
        """Call it no more."""
        self._waiting.discard(reader)

    def leave(self, reader: _Reader) -> None:
        """A reader is through or gave up. The last one of a fill that is not kept stops the origin."""
        self._readers.discard(reader)
        self._waiting.discard(reader)
        if reader is self._slowest:
            self._slowest = None
        self._left = True
        if not self._boarding and not self._readers and not self.kept and self._source is not None:
            self.cancel(ConnectionAbortedError("nobody reads the body any more"))
        else:
            self.balance()

    def moved(self, reader: _Reader) -> None:
        """A reader got on. Costs a comparison unless it is the one that holds the origin."""
        if reader.at > self._fastest:
            self._fastest = reader.at
        if self._held and (self.kept or reader is self._slowest):
            self.balance()

    def stop_unread(self) -> None:
        """Stop the origin when nobody began to read what is not kept anyway (its first client was answered 304)."""
        self._left = True
        if not self._boarding and not self._readers and not self.kept and self._source is not None:
            self.cancel(ConnectionAbortedError("nobody reads the body"))

    def balance(self) -> None:
        """Let go of what all have read, and hold the origin while its readers are too far behind."""
        source = self._source
        if source is None:
            return
        if self.kept:
            behind = bool(self._readers) and self.size - self._fastest > AHEAD
        else:
            self._slowest = slowest = min(self._readers, key=lambda reader: reader.at, default=None)
            at = self._base if slowest is None else slowest.at
            self._let_go(at)
            behind = self.size - at > WINDOW
        if behind and not self._held:
            self._held = True
            source.pause()
            if not self.kept and len(self._readers) > 1:
                self._watch()
        elif not behind and self._held:
            self._held = False
            self._unwatch()
            source.resume()

    def _let_go(self, before: int) -> None:
        if self._boarding:
            return
        count = 0
        while count < len(self._chunks) and self._starts[count] + len(self._chunks[count]) <= before:
            count += 1
        if count:
            self._base = self._starts[count] if count < len(self._starts) else self.size
            del self._chunks[:count]
            del self._starts[:count]

    # -- the stalled

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        self.deadline = loop.time() + PATIENCE
        self._sweeper = sweeper(loop)
        self._sweeper.add(self)

    def _unwatch(self) -> None:
        self.deadline = inf
        if self._sweeper is not None:
            self._sweeper.discard(self)
            self._sweeper = None

    def expire(self, now: float) -> None:
        """The slowest have held the others up for too long: cut them off."""
        self._unwatch()
        fastest = max((reader.at for reader in self._readers), default=0)
        for reader in [each for each in self._readers if self.size - each.at > WINDOW and each.at < fastest]:
            reader.stream.fail(Laggard("the client read too slowly and held up others"))
            self.leave(reader)


class _Reader:
    """Where one client stands in a fill: the source of its stream."""

    __slots__ = ("_busy", "_fill", "_paused", "_stop", "at", "stream")

    stream: Stream

    def __init__(self, fill: Fill, start: int, stop: int | None) -> None:
        self._fill = fill
        self.at = start
        self._stop = stop
        self._paused = True
        self._busy = False

    def resume(self) -> None:
        """The client has room."""
        self._paused = False
        if not self._busy:
            self.push()

    def pause(self) -> None:
        """The client is full."""
        self._paused = True
        self._fill.unwait(self)

    def cancel(self) -> None:
        """The client is gone."""
        self._fill.leave(self)

    def push(self) -> None:
        """Give the client what is here, until it is full or through."""
        if self._busy:
            return
        self._busy = True
        fill, stream = self._fill, self.stream
        while not self._paused and not stream.ended:
            stop = self._stop
            if stop is not None and self.at >= stop:
                self._end(None)
                break
            try:
                data = fill.chunk_at(self.at)
            except Laggard as gone:
                fill.leave(self)
                stream.fail(gone)
                break
            if not data:
                if fill.complete:
                    self._end(fill.trailers)
                elif fill.error is not None:
                    fill.leave(self)
                    stream.fail(fill.error)
                else:
                    fill.wait(self)
                break
            if stop is not None and self.at + len(data) > stop:
                data = data[: stop - self.at]
            self.at += len(data)
            stream.feed(data)
            fill.moved(self)
        self._busy = False

    def _end(self, trailers: Headers | None) -> None:
        self._fill.leave(self)
        self.stream.finish(trailers)
