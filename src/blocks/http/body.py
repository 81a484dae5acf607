"""A body is bytes when it is whole, else a ``Stream`` that is read once: iterated, or poured into a sink.

*Iterated* by filters and users: ``async for chunk in stream``. *Poured* by the data path: each chunk is a call of
``sink.write``, no task is woken, and back-pressure is the transport's own pause and resume. Whoever does not touch a body pays nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import TYPE_CHECKING, Protocol

from blocks.core.errors import ClientFault, Failure
from blocks.core.pending import Pending

if TYPE_CHECKING:
    from .message import Headers

HIGH_WATER = 64 * 1024  # bytes that wait unread before the source is paused (asyncio's own default high-water mark)


class TooLarge(ClientFault):
    """A body is longer than was allowed (413, RFC 9110 §15.5.14)."""

    status = 413
    reason = "body-too-large"


class Sink(Protocol):
    """Takes a body as it comes. It calls ``pause`` and ``resume`` of the stream when it is full and when it is not."""

    def write(self, data: bytes) -> None:
        """The next bytes; never empty."""
        ...

    def end(self, trailers: Headers | None) -> None:
        """The body is complete. Called once, and nothing after it."""
        ...

    def abort(self, error: BaseException) -> None:
        """The body broke off. Called once, and nothing after it."""
        ...


class Source(Protocol):
    """Where a stream's bytes come from."""

    def pause(self) -> None:
        """Send no more until ``resume``; what comes all the same is kept."""
        ...

    def resume(self) -> None:
        """Somebody is reading: send (on). Called before the first byte is expected, too."""
        ...

    def cancel(self) -> None:
        """Nobody will read on: stop, and release what is held."""
        ...


class Stream:
    """A body on its way, read once. ``length`` is its size in bytes when it is known beforehand, else None.

    The producer calls ``feed``, then ``finish`` or ``fail``. The reader iterates, or calls ``read``, or pours.
    ``trailers`` are there after the end (RFC 9110 §6.5). A second reader gets ``RuntimeError``.
    """

    __slots__ = (
        "_buffered",
        "_chunks",
        "_error",
        "_held",
        "_sink",
        "_source",
        "_taken",
        "_waiter",
        "_watchers",
        "ended",
        "length",
        "trailers",
    )

    def __init__(self, source: Source | None = None, length: int | None = None) -> None:
        self.length = length
        self.trailers: Headers | None = None
        self.ended = False
        self._source = source
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._held = False  # the source is paused
        self._taken = False
        self._sink: Sink | None = None
        self._waiter: Pending[None] | None = None
        self._error: BaseException | None = None
        self._watchers: tuple[Callable[[BaseException | None], None], ...] = ()

    @classmethod
    def of(cls, chunks: AsyncIterable[bytes], length: int | None = None) -> Stream:
        """A stream of what an async iterable yields; the iterable runs, in a task, only while somebody reads."""
        pump = _Pump(chunks)
        pump.stream = stream = cls(pump, length)
        return stream

    # -- the producer's side

    def feed(self, data: bytes) -> None:
        """The next bytes of the body."""
        if not data or self.ended:
            return
        sink = self._sink
        if sink is not None:
            sink.write(data)
            return
        self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered > HIGH_WATER and not self._held and self._source is not None:
            self._held = True
            self._source.pause()
        if self._waiter is not None:
            self._waiter.resolve(None)

    def finish(self, trailers: Headers | None = None) -> None:
        """The body is complete."""
        if self.ended:
            return
        self.ended = True
        self.trailers = trailers
        self._source = None
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.end(trailers)
        elif self._waiter is not None:
            self._waiter.resolve(None)
        if self._watchers:
            self._tell(None)

    def fail(self, error: BaseException) -> None:
        """The body broke off: the reader gets ``error`` after what came before it."""
        if self.ended:
            return
        self.ended = True
        self._error = error
        self._source = None
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.abort(error)
        elif self._waiter is not None:
            self._waiter.resolve(None)
        if self._watchers:
            self._tell(error)

    def watch(self, ended: Callable[[BaseException | None], None]) -> None:
        """Call ``ended(error)`` once, when the source is done with this body: for whoever counts what is under way.

        ``error`` is what broke it off, or None when it is complete or its reader gave it up. At once when it has ended already.
        """
        if self.ended:
            ended(self._error)
        else:
            self._watchers += (ended,)

    # -- the reader's side

    @property
    def untouched(self) -> bool:
        """Whether nobody has begun to read."""
        return not self._taken

    def take(self) -> bytes:
        """What is there already, taken out: so that a head and the first bytes can leave in one write. Then pour."""
        if not self._chunks:
            return b""
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        return data

    def whole(self) -> bytes | None:
        """All of it, taken out, when it has come already, without trailers; else None and nothing has happened."""
        if not self.ended or self._error is not None or self.trailers is not None or self._taken:
            return None
        return self.take()

    def pour(self, sink: Sink) -> None:
        """Let every chunk, and the end, be calls of ``sink``'s methods, beginning with what is there already."""
        self._take()
        if self._chunks:
            sink.write(self.take())
        if self.ended:
            if self._error is not None:
                sink.abort(self._error)
            else:
                sink.end(self.trailers)
            return
        self._sink = sink
        self._let()

    def pause(self) -> None:
        """The sink is full."""
        if not self._held and self._source is not None:
            self._held = True
            self._source.pause()

    def resume(self) -> None:
        """The sink has room again."""
        if self._held:
            self._let()

    def cancel(self) -> None:
        """Nobody will read on. The source is told to stop; safe to call at any time, and more than once."""
        source, self._source = self._source, None
        self._sink = None
        self._chunks.clear()
        if not self.ended:
            self.ended = True
            self._error = self._error or ConnectionAbortedError("the body was given up by its reader")
            if self._waiter is not None:
                self._waiter.resolve(None)
        if source is not None:
            source.cancel()
        if self._watchers:
            self._tell(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._take()
        if self._source is not None:
            self._let()
        try:
            while True:
                while self._chunks:
                    data = self._chunks.popleft()
                    self._buffered -= len(data)
                    if self._held and self._buffered <= HIGH_WATER // 2:
                        self._let()
                    yield data
                if self.ended:
                    if self._error is not None:
                        raise self._error
                    return
                self._waiter = Pending()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
        finally:
            if not self.ended:
                self.cancel()

    async def read(self, limit: int | None = None) -> bytes:
        """All of it as bytes. Raises ``TooLarge`` beyond ``limit`` bytes, and whatever broke the body off."""
        if limit is not None and self.length is not None and self.length > limit:
            self.cancel()
            raise TooLarge(f"a body of {self.length} bytes is over the limit of {limit}")
        chunks: list[bytes] = []
        total = 0
        async for chunk in self:
            total += len(chunk)
            if limit is not None and total > limit:
                self.cancel()
                raise TooLarge(f"a body of more than {limit} bytes is over the limit")
            chunks.append(chunk)
        return b"".join(chunks)

    def _tell(self, error: BaseException | None) -> None:
        watchers, self._watchers = self._watchers, ()
        for ended in watchers:
            ended(error)

    def _take(self) -> None:
        if self._taken:
            raise RuntimeError("a stream is read once; it was iterated or poured already")
        self._taken = True

    def _let(self) -> None:
        self._held = False
        if self._source is not None:
            self._source.resume()


class Tunnel(Protocol):
    """A body that goes both ways, after 101 (RFC 9110 §7.8). The server connects it to the client and calls the rest."""

    def connect(self, sink: Sink, source: Source) -> None:
        """What comes from the other side goes to ``sink`` from now on; ``source`` is paused while the other side is full."""
        ...

    def write(self, data: bytes) -> None:
        """Bytes from the client."""
        ...

    def end(self) -> None:
        """The client has ended its side; the other way stays open."""
        ...

    def pause(self) -> None:
        """The client does not keep up."""
        ...

    def resume(self) -> None:
        """The client has caught up."""
        ...

    def cancel(self) -> None:
        """The client is gone."""
        ...


Body = bytes | Stream


class _Pump:
    """Feeds a stream from an async iterable, in a task that runs from the first demand on and waits while paused."""

    __slots__ = ("_chunks", "_go", "_task", "stream")

    stream: Stream

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = chunks
        self._task: asyncio.Task[None] | None = None
        self._go: asyncio.Event | None = None

    def resume(self) -> None:
        if self._task is None:
            self._go = asyncio.Event()
            self._task = asyncio.get_running_loop().create_task(self._run())
        assert self._go is not None
        self._go.set()

    def pause(self) -> None:
        if self._go is not None:
            self._go.clear()

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        stream, go = self.stream, self._go
        assert go is not None
        try:
            async for chunk in self._chunks:
                stream.feed(chunk)
                if stream.ended:
                    break
                if not go.is_set():
                    await go.wait()
        except asyncio.CancelledError:
            stream.fail(ConnectionAbortedError("the body was given up by its reader"))
            raise
        except Exception as error:
            stream.fail(error if isinstance(error, Failure) else Failure(f"the body's producer failed: {error!r}"))
        else:
            stream.finish()
        finally:
            close = getattr(self._chunks, "aclose", None)
            if close is not None:
                await close()
