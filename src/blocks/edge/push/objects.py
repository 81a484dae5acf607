"""Pushed bytes, each once, under the name of their digest; resumable, and only there when they were verified.

``objects/ab/<sha-256>`` is complete and true (it is renamed there after its digest was compared and it is on the medium),
``uploads/<sha-256>.part`` is on its way. Names are made of hex digits only, so that nothing outside the folder can be meant.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from hashlib import sha256
from zlib import crc32

from blocks.core.errors import ConfigError
from blocks.edge.store.disk.blob import BlobFile
from blocks.edge.store.disk.files import Files
from blocks.edge.store.disk.reader import Reader, stream_of
from blocks.edge.store.disk.record import BLOCK, Damaged
from blocks.http.body import Stream

OPEN = 256  # descriptors kept open
_HEX = re.compile(r"[0-9a-f]{64}")
_STEP = 1024 * 1024  # bytes
STALE_DRAFT = 3600.0  # seconds; writing one takes milliseconds


class Refused(Exception):
    """A piece of an object cannot be taken; ``at`` is where it would have to begin."""

    def __init__(self, message: str, at: int = 0) -> None:
        super().__init__(message)
        self.at = at


def check_object(name: str) -> None:
    """Raises ``ConfigError`` unless ``name`` is a SHA-256 in hex."""
    if not _HEX.fullmatch(name):
        raise ConfigError(f"{name[:80]!r} is not a SHA-256 in hex")


class Objects:
    """The objects of one folder; everything here but ``content`` may wait for the disk and is called in a thread."""

    def __init__(self, path: str, files: Files, executor: Executor) -> None:
        self.path = path
        self.files = files
        self.executor = executor
        self._open: OrderedDict[str, tuple[BlobFile, bytes]] = OrderedDict()

    def start(self) -> None:
        """Make the folders."""
        self.files.folder(os.path.join(self.path, "objects"))
        self.files.folder(os.path.join(self.path, "uploads"))

    def place(self, name: str) -> str:
        """Where an object is."""
        check_object(name)
        return os.path.join(self.path, "objects", name[:2], name)

    def has(self, name: str, size: int) -> bool:
        """Whether the object is there, complete."""
        try:
            return os.stat(self.place(name)).st_size == size
        except OSError:
            return False

    def received(self, name: str) -> int:
        """How many bytes of an object on its way are there: where the next piece begins."""
        try:
            return os.stat(self._part(name)).st_size
        except OSError:
            return 0

    def take(self, name: str, size: int, offset: int, data: bytes) -> bool:
        """Add a piece; True when the object is complete and verified. Pieces may come twice. Raises ``Refused``, ``OSError``."""
        if self.has(name, size):
            return True
        here = self.received(name)
        if offset > here:
            raise Refused(f"bytes {here} to {offset} are missing", here)
        if offset + len(data) > size:
            raise Refused(f"more bytes than the {size} of the manifest", here)
        fd = self.files.open(self._part(name), create=True)
        try:
            self.files.write(fd, data, offset)
            if offset + len(data) < size:
                return False
            self._verify(fd, name, size)
        finally:
            self.files.close(fd)
        return True

    def read(self, name: str) -> bytes:
        """The whole object, verified. Raises ``OSError``, ``Damaged``."""
        data = self.files.load(self.place(name))
        if data is None or sha256(data).hexdigest() != name:
            raise Damaged(f"object {name} is missing or not what it was")
        return data

    def remove(self, name: str) -> int:
        """Remove an object; how many bytes that gave back."""
        path = self.place(name)
        try:
            size = os.stat(path).st_size
        except OSError:
            return 0
        self.files.remove(path)
        self.files.remove(path + ".crc")
        return size

    def set_aside(self, name: str) -> None:
        """A damaged object is an object no more, but its bytes are kept for whoever wants to know; ``tidy`` removes them."""
        self._open.pop(name, None)
        try:
            os.replace(self.place(name), self.place(name) + ".damaged")
        except OSError:
            pass  # gone already

    def tidy(self) -> int:
        """Remove what was set aside, and drafts that a kill left; how many bytes that gave back."""
        freed, now = 0, time.time()
        with os.scandir(os.path.join(self.path, "objects")) as folders:
            for folder in folders:
                for name, size in list(self.files.names(folder.path)):
                    path = os.path.join(folder.path, name)
                    if name.endswith(".damaged") or (
                        name.endswith(".draft") and now - os.stat(path).st_mtime > STALE_DRAFT
                    ):
                        self.files.remove(path)
                        freed += size
        return freed

    def names(self) -> list[str]:
        """Every object that is there."""
        found = []
        with os.scandir(os.path.join(self.path, "objects")) as folders:
            for folder in folders:
                found += [name for name, _ in self.files.names(folder.path) if _HEX.fullmatch(name)]
        return found

    def uploads(self) -> list[tuple[str, float, int]]:
        """(path, time of the last piece, bytes) of what is on its way."""
        with os.scandir(os.path.join(self.path, "uploads")) as parts:
            return [(part.path, part.stat().st_mtime, part.stat().st_size) for part in parts]

    def opened(self, name: str) -> tuple[BlobFile, bytes] | None:
        """An object that is open already, and its checksums."""
        found = self._open.get(name)
        if found is not None:
            try:
                self._open.move_to_end(name)
            except KeyError:
                pass  # another thread closed it just now; who holds it may use it
        return found

    def open(self, name: str, length: int) -> tuple[BlobFile, bytes]:
        """Open an object. Without checksums of its blocks the whole is verified first. Raises ``Damaged``, ``OSError``."""
        file = BlobFile(self.files, self.place(name), length)
        crcs = self.files.load(self.place(name) + ".crc") or b""
        if len(crcs) != 4 * len(file.verified) + 4 or crc32(crcs[:-4]) != int.from_bytes(crcs[-4:], "little"):
            digest, crcs = self._digest(file.fd, length)
            if digest != name:
                raise Damaged(f"object {name} is not what it was")
        return file, crcs

    def keep(self, name: str, opened: tuple[BlobFile, bytes]) -> None:
        """Let an object stay open for the next one who asks."""
        self._open[name] = opened
        while len(self._open) > OPEN:
            self._open.popitem(last=False)

    def close(self) -> None:
        """Close what is open."""
        self._open.clear()

    def content(self, name: str, length: int, damaged: Callable[[], None]) -> ObjectContent:
        """An object as a body."""
        return ObjectContent(self, name, length, damaged)

    def _part(self, name: str) -> str:
        check_object(name)
        return os.path.join(self.path, "uploads", name + ".part")

    def _verify(self, fd: int, name: str, size: int) -> None:
        """The last piece came: compare the digest, make it durable, move it to its place."""
        digest, crcs = self._digest(fd, size)
        if digest != name or self.files.size(fd) != size:
            self.files.remove(self._part(name))
            raise Refused("the bytes do not match their digest; send them again", 0)
        self.files.sync(fd)
        place = self.place(name)
        self.files.folder(os.path.dirname(place))
        self.files.replace(place + ".crc", crcs)
        try:
            os.replace(self._part(name), place)
        except FileNotFoundError:
            if not self.has(name, size):  # another worker was quicker, or it is gone
                raise
        self.files.sync_folder(os.path.dirname(place))

    def _digest(self, fd: int, size: int) -> tuple[str, bytes]:
        digest, crcs = sha256(), []
        for at in range(0, size, _STEP):
            data = self.files.read(fd, min(_STEP, size - at), at)
            digest.update(data)
            crcs += [crc32(data[n : n + BLOCK]).to_bytes(4, "little") for n in range(0, len(data), BLOCK)]
        table = b"".join(crcs)
        return digest.hexdigest(), table + crc32(table).to_bytes(4, "little")


class ObjectContent:
    """A pushed body as the edge streams it: a ``Content``, opened in a thread when it is first read, checked block by block."""

    __slots__ = ("_damaged", "_name", "_objects", "length")

    complete = True

    def __init__(self, objects: Objects, name: str, length: int, damaged: Callable[[], None]) -> None:
        self._objects = objects
        self._name = name
        self._damaged = damaged
        self.length = length

    def stream(self, start: int = 0, stop: int | None = None) -> Stream:
        """The bytes from ``start`` up to ``stop``."""
        return stream_of(self, start, stop)

    def release(self) -> None:
        """Nothing to do: objects belong to their releases."""

    def take(self, at: int, stop: int | None) -> bytes | None:
        """See ``Readable``."""
        opened = self._objects.opened(self._name)
        if opened is None:
            return None
        file, crcs = opened
        first, last, stop = self._block(at, stop)
        if file.verified[at // BLOCK]:
            return self._objects.files.read_cached(file.fd, stop - at, at)
        data = self._objects.files.read_cached(file.fd, last - first, first)
        return None if data is None else _checked(file, crcs, at // BLOCK, data)[at - first : stop - first]

    def read_later(self, at: int, stop: int | None) -> asyncio.Future[bytes]:
        """See ``Readable``."""
        return asyncio.get_running_loop().run_in_executor(self._objects.executor, self._read, at, stop)

    def wait(self, reader: Reader) -> None:
        """Never called: everything is there."""

    def damaged(self) -> None:
        """See ``Readable``."""
        self._damaged()

    def _read(self, at: int, stop: int | None) -> bytes:
        opened = self._objects.opened(self._name)
        if opened is None:
            opened = self._objects.open(self._name, self.length)
            self._objects.keep(self._name, opened)
        file, crcs = opened
        first, last, stop = self._block(at, stop)
        data = self._objects.files.read(file.fd, last - first, first)
        return _checked(file, crcs, at // BLOCK, data)[at - first : stop - first]

    def _block(self, at: int, stop: int | None) -> tuple[int, int, int]:
        first = at - at % BLOCK
        last = min(first + BLOCK, self.length)
        return first, last, last if stop is None else min(stop, last)


def _checked(file: BlobFile, crcs: bytes, block: int, data: bytes) -> bytes:
    if crc32(data) != int.from_bytes(crcs[4 * block : 4 * block + 4], "little"):
        raise Damaged("a block of a pushed object does not match its checksum")
    file.verified[block] = 1
    return data
