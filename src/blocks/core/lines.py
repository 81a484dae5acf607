"""Lines go to a file from a thread of their own, so that a disk or a pipe that is stuck never holds the loop up.

A hot path appends an entry to a list. Once an interval (or when many wait) the list is encoded at once and handed to the
thread, which does nothing but ``os.write``. What does not fit into the bound while the sink is stuck is dropped, and counted.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .errors import ConfigError

FLUSH = 0.25  # seconds that a line may wait; nginx is commonly run with flush=1s..5s, an operator who tails wants less
MANY = 512  # entries that are encoded without waiting for the interval: 0.7 ms of the loop
PENDING = 8 * 1024 * 1024  # bytes that may wait for a stuck sink; some 40,000 lines
_PIPE = 4096  # bytes that a pipe takes whole (PIPE_BUF on Linux): lines of several processes do not mix within them
_STOP = 2.0  # seconds that close() waits for a stuck sink


class Lines:
    """Takes entries, writes what ``encode`` makes of them to ``path`` (``-``: standard output), appending.

    ``put(entry)`` needs a running loop. ``dropped`` counts entries lost while the sink was stuck or failed. ``reopen()`` follows
    a rotation; ``close()`` writes what is left. A file that cannot be opened raises ``ConfigError`` at once, in ``open()``.
    """

    __slots__ = (
        "_dropped",
        "_encode",
        "_entries",
        "_handle",
        "_pending",
        "_writer",
        "failure",
        "flush_after",
        "path",
        "written",
    )

    def __init__(
        self, path: str, encode: Callable[[Sequence[Any]], bytes], *, flush_after: float = FLUSH, pending: int = PENDING
    ) -> None:
        self.path = path
        self.flush_after = flush_after
        self._dropped = 0
        self.written = 0
        self.failure = ""
        self._encode = encode
        self._entries: list[Any] = []
        self._handle: asyncio.TimerHandle | None = None
        self._pending = pending
        self._writer: _Writer | None = None

    @property
    def dropped(self) -> int:
        """Entries lost while the sink was stuck, or failed."""
        return self._dropped + (self._writer.lost if self._writer is not None else 0)

    def open(self) -> None:
        """Open the file and start the thread; done by the first flush if nobody did it before."""
        if self._writer is None:
            self._writer = _Writer(self.path, self._pending)

    def put(self, entry: Any) -> None:
        """One more entry; it is written within ``flush_after`` seconds."""
        entries = self._entries
        entries.append(entry)
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(self.flush_after, self.flush)
        elif len(entries) >= MANY:
            self.flush()

    def flush(self) -> None:
        """Encode what waits and hand it to the thread; never blocks."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        entries, self._entries = self._entries, []
        if not entries:
            return
        try:
            self.open()
        except ConfigError as error:
            self.failure = str(error)
            self._dropped += len(entries)
            return
        writer = self._writer
        assert writer is not None
        if writer.give(self._encode(entries)):
            self.written += len(entries)
        else:
            self._dropped += len(entries)
        self.failure = writer.failure

    def reopen(self) -> None:
        """Go on in a new file of the same name: the old one was renamed (logrotate, SIGHUP)."""
        self.flush()
        if self._writer is not None:
            self._writer.reopen()

    def close(self) -> None:
        """Write what waits and stop the thread. Waits 2 s at most for a sink that is stuck."""
        self.flush()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.stop()
            self._dropped += writer.lost
            self.failure = writer.failure


class _Writer:
    """The thread and the file. ``give`` is the loop's side; the lock is held for nanoseconds on both."""

    def __init__(self, path: str, pending: int) -> None:
        self._path = path
        self._limit = pending
        self._wake = threading.Condition()
        self._chunks: list[bytes] = []
        self._size = 0
        self._stopping = False
        self._reopening = False
        self.failure = ""
        self.lost = 0
        self._fd = _open(path)
        self._pipe = stat.S_ISFIFO(os.fstat(self._fd).st_mode)
        self._thread = threading.Thread(target=self._run, name=f"lines:{path}", daemon=True)
        self._thread.start()

    def give(self, data: bytes) -> bool:
        """Whether there was room for ``data``."""
        with self._wake:
            if self._size + len(data) > self._limit:
                return False
            self._chunks.append(data)
            self._size += len(data)
            self._wake.notify()
        return True

    def reopen(self) -> None:
        with self._wake:
            self._reopening = True
            self._wake.notify()

    def stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(_STOP)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._chunks or self._stopping or self._reopening):
                    self._wake.wait()
                chunks, self._chunks = self._chunks, []
                reopening, self._reopening = self._reopening, False
                stopping = self._stopping
            data = b"".join(chunks)
            for piece in _pieces(data) if self._pipe else (data,):
                self.lost += self._write(piece)
            if data:
                with self._wake:
                    self._size -= len(data)
            if reopening:
                self._swap()
            if stopping and not self._chunks:
                break
        if self._fd > 2:
            os.close(self._fd)

    def _write(self, data: bytes) -> int:
        """Write all of it; the number of lines that could not be written."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:  # somebody made the descriptor that we share non-blocking
                threading.Event().wait(0.01)
            except OSError as error:  # a full disk, a pipe whose reader left: say so, go on, perhaps it ends
                self.failure = f"cannot write {self._path}: {error.strerror or error}"
                return bytes(view).count(b"\n")
        self.failure = ""
        return 0

    def _swap(self) -> None:
        """The new file, or, when it cannot be opened, still the old one: a bad state never replaces a good one."""
        try:
            fd = _open(self._path)
        except ConfigError as error:
            self.failure = str(error)
            return
        if self._fd > 2:
            os.close(self._fd)
        self._fd = fd


def _pieces(data: bytes) -> Iterator[bytes]:
    """``data`` cut behind ends of lines, where it can be, into pieces that a pipe takes whole."""
    at = 0
    while at < len(data):
        end = len(data) if len(data) - at <= _PIPE else data.rfind(b"\n", at, at + _PIPE) + 1
        if end <= at:
            end = data.find(b"\n", at) + 1 or len(data)
        yield data[at:end]
        at = end


def _open(path: str) -> int:
    if path == "-":
        return 1
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise ConfigError(f"cannot open the log {path!r}: {error.strerror or error}") from error
