"""A large body is a file of its own: checked block by block the first time it is read, and streamed without holding it in memory."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from zlib import crc32

from blocks.http.body import Stream

from .files import Files
from .reader import Reader, stream_of
from .record import BLOCK, Damaged, blocks

RECENT = 32  # blocks of blobs kept in memory: 8 MiB
OPEN = 256  # descriptors of blobs kept open, the least recently used closed first (nginx's open_file_cache, off by default, holds such)


class BlobFile:
    """An open blob; closed when the last reader lets go of it. ``verified`` marks the blocks whose checksum was compared."""

    __slots__ = ("_files", "fd", "verified")

    def __init__(self, files: Files, path: str, length: int, *, create: bool = False) -> None:
        self._files = files
        self.fd = -1
        self.fd = files.open(path, create=create)
        self.verified = bytearray(blocks(length))

    def __del__(self) -> None:
        if self.fd >= 0:
            self._files.close(self.fd)


class Blobs:
    """The folder of blobs, and those that are open."""

    def __init__(self, files: Files, executor: Executor) -> None:
        self.files = files
        self.executor = executor
        self.folder = ""
        self._recent: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._open: OrderedDict[int, BlobFile] = OrderedDict()

    def path(self, number: int) -> str:
        """The file of a blob."""
        return os.path.join(self.folder, f"{number:016d}.blob")

    def opened(self, number: int) -> BlobFile | None:
        """The blob's file if it is open already."""
        found = self._open.get(number)
        if found is not None:
            try:
                self._open.move_to_end(number)
            except KeyError:
                pass  # the writing thread dropped it just now; who holds it may read on
        return found

    def open(self, number: int, length: int) -> BlobFile:
        """Open a blob; in a thread. Raises ``OSError``, and ``Damaged`` when its size is not what it was."""
        file = BlobFile(self.files, self.path(number), length)
        if self.files.size(file.fd) != length:
            raise Damaged("the blob is not as long as it was")
        return file

    def keep(self, number: int, file: BlobFile) -> None:
        """Let the blob stay open for the next one who asks."""
        self._open[number] = file
        while len(self._open) > OPEN:
            self._open.popitem(last=False)

    def recent(self, number: int, block: int) -> bytes | None:
        """A block that somebody read lately: a thousand clients of one body hold its bytes once."""
        return self._recent.get((number, block))

    def remember(self, number: int, block: int, data: bytes) -> bytes:
        """Let others who read that whole, checked block have the same bytes."""
        self._recent[number, block] = data
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        return data

    def drop(self, number: int) -> None:
        """Remove a blob; who reads it now reads on."""
        self._open.pop(number, None)
        for key in [key for key in list(self._recent) if key[0] == number]:
            self._recent.pop(key, None)
        try:
            self.files.remove(self.path(number))
        except OSError:
            pass  # a stray, found at the next start

    def close(self) -> None:
        """Close what is open."""
        self._open.clear()


class BlobContent:
    """A stored body in a blob: a ``Content``. ``file`` is its open file, ``number`` its name."""

    __slots__ = ("_blobs", "_crcs", "_damaged", "file", "length", "number")

    complete = True

    def __init__(
        self, blobs: Blobs, number: int, file: BlobFile, length: int, crcs: memoryview, damaged: Callable[[], None]
    ) -> None:
        self._blobs = blobs
        self._crcs = crcs
        self._damaged = damaged
        self.number = number
        self.file = file
        self.length = length

    @property
    def crcs(self) -> bytes:
        """The checksums of its blocks as they are stored."""
        return bytes(self._crcs.cast("B"))

    def stream(self, start: int = 0, stop: int | None = None) -> Stream:
        """The bytes from ``start`` up to ``stop``; a damaged block ends it with a ``Failure`` before a byte of it is out."""
        return stream_of(self, start, stop)

    def release(self) -> None:
        """Nothing to do: the file is closed with the last stream, and removed by the store."""

    def take(self, at: int, stop: int | None) -> bytes | None:
        """The bytes from ``at`` on, within one block, when the page cache has them; None when a thread must read. Raises ``Damaged``."""
        block = at // BLOCK
        data = self._blobs.recent(self.number, block)
        if data is None:
            first, last = self._bounds(block)
            data = self._blobs.files.read_cached(self.file.fd, last - first, first)
            if data is None:
                return None
            self._blobs.remember(self.number, block, self._checked(block, data))
        return cut(data, at - block * BLOCK, None if stop is None else stop - block * BLOCK)

    def read(self, at: int, stop: int | None) -> bytes:
        """The same from the disk; in a thread. Raises ``Damaged``, ``OSError``."""
        block = at // BLOCK
        first, last = self._bounds(block)
        data = self._checked(block, self._blobs.files.read(self.file.fd, last - first, first))
        return cut(data, at - first, None if stop is None else stop - first)

    def _bounds(self, block: int) -> tuple[int, int]:
        return block * BLOCK, min((block + 1) * BLOCK, self.length)

    def read_later(self, at: int, stop: int | None) -> asyncio.Future[bytes]:
        """``read`` in the store's threads. Raises ``RuntimeError`` when they are stopped."""
        return asyncio.get_running_loop().run_in_executor(self._blobs.executor, self.read, at, stop)

    def wait(self, reader: Reader) -> None:
        """Never called: everything is there."""

    def damaged(self) -> None:
        """Tell the store to forget this body."""
        self._damaged()

    def _checked(self, block: int, data: bytes) -> bytes:
        if not self.file.verified[block]:
            if crc32(data) != self._crcs[block]:
                raise Damaged("a block of the blob does not match its checksum")
            self.file.verified[block] = 1
        return data


def cut(data: bytes, start: int, stop: int | None) -> bytes:
    """``data[start:stop]``, the same object when that is all of it."""
    return data if start == 0 and (stop is None or stop >= len(data)) else data[start:stop]
