"""A large body on its way to disk is read while it comes: its readers take what is on disk, then what is still in memory, then wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING
from zlib import crc32

from blocks.core.errors import Failure
from blocks.edge.entry import Entry
from blocks.http.body import Stream

from .blob import BlobContent, BlobFile, cut
from .reader import Reader, stream_of
from .record import BLOCK

if TYPE_CHECKING:
    from .store import DiskStore

HIGH = 4 * 1024 * 1024  # bytes received and not yet written at which the source is paused
LOW = HIGH // 2
LAG = 1024 * 1024  # the same for a body that cannot be stored any more and waits for its slowest reader


class Fill:
    """A ``Writer``, and the ``Content`` that grows with it.

    If the disk fails or is full, what came is still handed to those who read now, paced by the slowest of them; nothing is kept then.
    """

    __slots__ = (
        "_chunks", "_congested", "_crcs", "_error", "_file", "_flushed", "_followers", "_length", "_number", "_sent", "_store",
        "_stored", "_waiting", "broken", "coming", "complete", "drained", "failed", "filled", "generation", "key", "on_disk",
    )  # fmt: skip

    def __init__(self, store: DiskStore, key: str, number: int, length: int | None, generation: int) -> None:
        self.key = key
        self.generation = generation
        self.drained: Callable[[], None] | None = None
        self.filled = 0
        self.complete = False
        self.broken = False
        self.on_disk = 0  # bytes of the blob, as the writing thread knows it
        self.coming = True  # the store counts it among what is on its way
        self.failed = False  # the writing thread could not write it
        self._store = store
        self._number = number
        self._length = length
        self._file: BlobFile | None = None
        self._chunks: deque[tuple[int, bytes]] = deque()  # (offset, bytes) not yet known to be on disk
        self._flushed = 0
        self._sent = 0
        self._crcs: list[int] = []
        self._congested = False
        self._error: BaseException | None = None
        self._followers: set[Reader] = set()
        self._waiting: list[Reader] = []
        self._stored: BlobContent | None = None

    # -- the writer

    @property
    def content(self) -> Fill:
        """The growing body."""
        return self

    @property
    def congested(self) -> bool:
        """More waits to be written (or read, when it cannot be written) than there should be."""
        return self._congested

    def write(self, data: bytes) -> None:
        """The next bytes."""
        if self._error is not None or self.complete or not data:
            return
        self._chunks.append((self.filled, data))
        self.filled += len(data)
        if not self.broken and self.filled - self._sent >= BLOCK:
            self._send(self.filled - self.filled % BLOCK)
        self._wake()
        self._weigh()

    def commit(self, entry: Entry) -> None:
        """The body is complete; ``entry`` can be loaded from now on, unless the disk failed."""
        if self.complete or self._error is not None:
            return
        self._length = self.filled
        self.complete = True
        if self.broken:
            pass
        elif not self._sent:
            entry_body, entry.body = entry.body, b"".join([data for _, data in self._chunks])
            self._store.save(entry, self.generation)
            self._store.ended(self)
            entry.body = entry_body
        else:
            if self._sent < self.filled:
                self._send(self.filled)
            self._store.commit(self, entry)
        self._wake()
        self._weigh()

    def abort(self, error: BaseException) -> None:
        """The body broke off."""
        if self.complete or self._error is not None:
            return
        self._error = (
            error if isinstance(error, Failure) else Failure(f"the body broke off: {error}", reason="fill-aborted")
        )
        self._store.give_up(self)
        self._wake()

    # -- the content

    @property
    def length(self) -> int | None:
        """Its size in bytes, None until it is known."""
        return self._length

    def stream(self, start: int = 0, stop: int | None = None) -> Stream:
        """The bytes from ``start`` up to ``stop``, as they come."""
        if self._stored is not None:
            return self._stored.stream(start, stop)
        stream = stream_of(self, start, stop)
        assert isinstance(stream._source, Reader)
        self._followers.add(stream._source)
        return stream

    def release(self) -> None:
        """Nothing to do: the last stream closes the file."""

    # -- a reader's view

    def take(self, at: int, stop: int | None) -> bytes | None:
        """See ``Readable``."""
        if at < self._flushed:
            return self._from_file(at, stop)
        for offset, data in self._chunks:
            if offset <= at < offset + len(data):
                piece = data if at == offset else data[at - offset :]
                return piece if stop is None else piece[: stop - at]
        if at < self.filled:
            raise Failure("the beginning of this body could not be stored and is gone", reason="fill-broken")
        return b""

    def _from_file(self, at: int, stop: int | None) -> bytes | None:
        assert self._file is not None
        blobs, fd, block = self._store.blobs, self._file.fd, at // BLOCK
        first = block * BLOCK
        if first + BLOCK <= self._flushed:
            data = blobs.recent(self._number, block) or self._store.files.read_cached(fd, BLOCK, first)
            if data is None:
                return None
            blobs.remember(self._number, block, data)
            return cut(data, at - first, None if stop is None else stop - first)
        end = self._flushed if stop is None else min(self._flushed, stop)
        return self._store.files.read_cached(fd, end - at, at)

    def read_later(self, at: int, stop: int | None) -> asyncio.Future[bytes]:
        """See ``Readable``."""
        assert self._file is not None
        end = min(at - at % BLOCK + BLOCK, self._flushed, self._flushed if stop is None else stop)
        store = self._store
        return asyncio.get_running_loop().run_in_executor(
            store.readers, store.files.read, self._file.fd, end - at, at
        )  # fmt: skip

    def wait(self, reader: Reader) -> None:
        """See ``Readable``."""
        if self._error is not None:
            reader.fail(self._error)
        else:
            self._waiting.append(reader)
            self._weigh()

    def damaged(self) -> None:
        """What was just written cannot be read back: do not keep it."""
        if not self.complete:
            self._break()

    # -- the disk's side

    def _send(self, stop: int) -> None:
        start, parts = self._sent, []
        for offset, data in self._chunks:
            if offset + len(data) > start and offset < stop:
                parts.append(data[max(0, start - offset) : stop - offset])
        self._sent = stop
        self._store.fill(self, start, b"".join(parts))

    def put(self, offset: int, data: bytes) -> None:
        """Write whole blocks (or the last one); in the writing thread. Raises ``OSError``."""
        store = self._store
        try:
            store.log.make_room(len(data))
            if self._file is None:
                self._file = BlobFile(store.files, store.blobs.path(self._number), 0, create=True)
            store.files.write(self._file.fd, data, offset)
        except OSError:
            self.failed = True
            raise
        self.on_disk += len(data)
        store.log.filling += len(data)
        self._crcs += [crc32(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)]

    def written(self, stop: int, error: OSError | None) -> None:
        """What was sent up to ``stop`` is on disk, or cannot be."""
        if error is not None:
            self._break()
            return
        self._flushed = stop
        if not self.broken:
            while self._chunks and self._chunks[0][0] + len(self._chunks[0][1]) <= stop:
                self._chunks.popleft()
        self._weigh()

    def finished(self) -> tuple[int, int, bytes, BlobFile | None]:
        """(blob, length, checksums, file) when everything is written; in the writing thread."""
        crcs = b"".join([crc.to_bytes(4, "little") for crc in self._crcs])
        return self._number, self.filled, crcs, self._file

    def kept(self, content: BlobContent) -> None:
        """The record is written: read from the store from now on."""
        self._stored = content

    @property
    def number(self) -> int:
        """The blob's name."""
        return self._number

    # -- inside

    def _break(self) -> None:
        if not self.broken:
            self.broken = True
            self._store.give_up(self)
            self._weigh()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for reader in waiting:
            reader.wake()

    def _weigh(self) -> None:
        """Say when the source must wait and when it may go on; in a broken fill drop what every reader has had."""
        if self.broken:
            self._followers = {reader for reader in self._followers if not reader.gone}
            slowest = min((reader.at for reader in self._followers), default=self.filled)
            while self._chunks and self._chunks[0][0] + len(self._chunks[0][1]) <= slowest:
                self._chunks.popleft()
            backlog, high, low = self.filled - slowest, LAG, LAG // 2
        else:
            backlog, high, low = self.filled - self._flushed, HIGH, LOW
        if not self._congested:
            self._congested = backlog > high
        elif backlog <= low or self.complete:
            self._congested = False
            if self.drained is not None:
                self.drained()
