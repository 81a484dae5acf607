"""One reader of a body on disk: a piece at a time, one turn of the loop each, only while somebody reads."""

from __future__ import annotations

import asyncio
from typing import Protocol

from blocks.core.errors import Failure
from blocks.http.body import Stream

from .record import Damaged

PIECES = 4  # handed over in one turn of the loop: 1 MiB, as much as a body in memory that leaves in one write


class Readable(Protocol):
    """A body that readers take pieces of."""

    @property
    def length(self) -> int | None:
        """Its size in bytes, None while unknown."""
        ...

    def take(self, at: int, stop: int | None) -> bytes | None:
        """Some bytes from ``at`` on that need no waiting: b"" when they have not come yet, None when a thread must read them."""
        ...

    def read_later(self, at: int, stop: int | None) -> asyncio.Future[bytes]:
        """The same bytes, read by a thread."""
        ...

    def wait(self, reader: Reader) -> None:
        """Call ``reader.wake`` when there is more, or when there will be none."""
        ...

    def damaged(self) -> None:
        """What was read is not what was written: forget the body."""
        ...


def stream_of(content: Readable, start: int, stop: int | None) -> Stream:
    """The bytes of ``content`` from ``start`` up to ``stop`` (or its end) as a stream."""
    length = content.length
    if length is not None:
        stop = length if stop is None else min(stop, length)
    if stop is not None:
        stop = max(start, stop)
    reader = Reader(content, start, stop)
    reader.stream = Stream(reader, None if stop is None else stop - start)
    return reader.stream


class Reader:
    """Feeds a stream from a ``Readable``. ``at`` is how far it has come."""

    __slots__ = ("_busy", "_content", "_flowing", "_stop", "at", "gone", "stream")

    stream: Stream

    def __init__(self, content: Readable, start: int, stop: int | None) -> None:
        self._content = content
        self._stop = stop
        self._flowing = False
        self._busy = False  # a thread reads, or a turn is booked, or more is waited for
        self.at = start
        self.gone = False

    def resume(self) -> None:
        """The stream is read (on)."""
        self._flowing = True
        if not self._busy:
            self._busy = True
            self._turn()

    def pause(self) -> None:
        """The stream is full."""
        self._flowing = False

    def cancel(self) -> None:
        """The stream was given up."""
        self.gone = True

    def wake(self) -> None:
        """There is more, or the end."""
        self._turn()

    def fail(self, error: BaseException) -> None:
        """End the stream with ``error``."""
        if self.gone:
            return
        self.gone = True
        if isinstance(error, Damaged | OSError) and not isinstance(error, ConnectionError):
            self._content.damaged()
        if not isinstance(error, Failure):
            error = Failure(f"a stored body cannot be read: {error}", reason="store-damaged")
        self.stream.fail(error)

    def _turn(self) -> None:
        for _ in range(PIECES):
            if self.gone or not self._flowing:
                self._busy = False
                return
            if not self._step():
                return
        asyncio.get_running_loop().call_soon(self._turn)

    def _step(self) -> bool:
        """One piece; whether to go on with the next at once."""
        stop = self._content.length if self._stop is None else self._stop
        if stop is not None and self.at >= stop:
            self._end()
            return False
        try:
            data = self._content.take(self.at, stop)
            if data is None:
                self._content.read_later(self.at, stop).add_done_callback(self._arrived)
                return False
        except (Damaged, Failure, OSError) as error:
            self.fail(error)
            return False
        except RuntimeError:
            self.fail(Failure("the disk store was closed", reason="store-closed"))
            return False
        if not data:
            self._content.wait(self)
            return False
        return self._feed(data)

    def _arrived(self, future: asyncio.Future[bytes]) -> None:
        if future.cancelled():
            self.fail(Failure("the disk store was closed", reason="store-closed"))
        elif (error := future.exception()) is not None:
            self.fail(error)
        elif not self.gone:
            data = future.result()
            if not data:
                self.fail(Damaged("the body is shorter than it was"))
            elif self._feed(data):
                self._turn()

    def _feed(self, data: bytes) -> bool:
        """Hand bytes to the stream; whether there is more to come."""
        self.at += len(data)
        self.stream.feed(data)
        stop = self._content.length if self._stop is None else self._stop
        if stop is not None and self.at >= stop:
            self._end()
        return not self.gone

    def _end(self) -> None:
        if not self.gone:
            self.gone = True
            self.stream.finish()
