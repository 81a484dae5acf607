"""Every byte that the log reads or writes goes through one of these two classes, so that a test can stand in between."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from blocks.broker.errors import BrokerError

_VECTOR = 512  # buffers in one call; Linux takes at most 1024 (IOV_MAX)


class Locked(BrokerError):
    """Another process has this data directory open."""

    code = "locked"


class File(Protocol):
    """One open file, written at its end and read anywhere."""

    def write(self, position: int, buffers: Sequence[bytes]) -> None:
        """Write all ``buffers`` one after another from ``position``; raises ``OSError``, then part may be written."""
        ...

    def read(self, position: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``position``; fewer at the end of the file."""
        ...

    def sync(self) -> None:
        """Return when what was written is on the medium."""
        ...

    def truncate(self, length: int) -> None:
        """Cut the file to ``length`` bytes."""
        ...

    def size(self) -> int:
        """Bytes in the file."""
        ...

    def close(self) -> None:
        """Let go of the descriptor."""
        ...


class Disk(Protocol):
    """A flat directory of files (names may lead into one sub-directory, as ``quarantine/x``)."""

    def names(self) -> list[str]:
        """The files of the directory itself."""
        ...

    def open(self, name: str, create: bool = False) -> File:
        """An existing file, or with ``create`` a new one that replaces an older one of the name."""
        ...

    def rename(self, old: str, new: str) -> None:
        """``new`` is replaced at once and whole."""
        ...

    def unlink(self, name: str) -> None:
        """Remove; no error if it is gone already."""
        ...

    def sync_directory(self) -> None:
        """Return when created, renamed and removed names are on the medium."""
        ...

    def lock(self) -> None:
        """Keep other processes out; raises ``Locked``."""
        ...

    def close(self) -> None:
        """Let go of the lock."""
        ...


class RealFile:
    """A file of the operating system."""

    __slots__ = ("_descriptor",)

    def __init__(self, path: Path, create: bool) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if create else 0)
        self._descriptor = os.open(path, flags, 0o640)

    def write(self, position: int, buffers: Sequence[bytes]) -> None:
        """Write all; a short write is continued, as POSIX allows them."""
        for start in range(0, len(buffers), _VECTOR):
            views = [memoryview(b) for b in buffers[start : start + _VECTOR]]
            while views:
                written = os.pwritev(self._descriptor, views, position)
                if written == 0:
                    raise OSError(errno.EIO, "the disk took no bytes")
                position += written
                while views and written >= len(views[0]):
                    written -= len(views.pop(0))
                if views and written:
                    views[0] = views[0][written:]

    def read(self, position: int, length: int) -> bytes:
        """Read all that is there: a short read is continued up to the end of the file."""
        data = os.pread(self._descriptor, length, position)
        if len(data) == length or not data:
            return data
        chunks = [data]
        got = len(data)
        while got < length:
            data = os.pread(self._descriptor, length - got, position + got)
            if not data:
                break
            chunks.append(data)
            got += len(data)
        return b"".join(chunks)

    def sync(self) -> None:
        """``fdatasync``: the data and the file's length, which is all that reading back needs."""
        os.fdatasync(self._descriptor)

    def truncate(self, length: int) -> None:
        """``ftruncate``."""
        os.ftruncate(self._descriptor, length)

    def size(self) -> int:
        """From ``fstat``."""
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        """Close the descriptor; twice is once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class RealDisk:
    """A directory of the operating system, made if missing."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = -1

    def names(self) -> list[str]:
        """Regular files only."""
        return sorted(entry.name for entry in os.scandir(self.path) if entry.is_file())

    def open(self, name: str, create: bool = False) -> File:
        """Makes the sub-directory of ``name`` if there is none."""
        path = self.path / name
        if create and path.parent != self.path:
            path.parent.mkdir(exist_ok=True)
        return RealFile(path, create)

    def rename(self, old: str, new: str) -> None:
        """``rename(2)``."""
        (self.path / old).rename(self.path / new)

    def unlink(self, name: str) -> None:
        """``unlink(2)``."""
        (self.path / name).unlink(missing_ok=True)

    def sync_directory(self) -> None:
        """``fsync`` of the directory, and of ``quarantine`` if there is one."""
        for path in (self.path / "quarantine", self.path):
            if path.is_dir():
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def lock(self) -> None:
        """``flock`` on the file ``lock``; the kernel lets go of it when the process dies."""
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            self._lock = -1
            raise Locked(f"{self.path} is open in another process") from error

    def close(self) -> None:
        """Let go of the lock; twice is once."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class MemoryFile:
    """A file in memory."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, position: int, buffers: Sequence[bytes]) -> None:
        """As ``RealFile.write``; a hole reads as zeros."""
        data = self.data
        if position == len(data):
            for buffer in buffers:
                data += buffer
            return
        whole = b"".join(buffers)
        if position > len(data):
            data.extend(bytes(position - len(data)))
        data[position : position + len(whole)] = whole

    def read(self, position: int, length: int) -> bytes:
        """A copy."""
        return bytes(memoryview(self.data)[position : position + length])

    def sync(self) -> None:
        """Memory has nothing below it."""

    def truncate(self, length: int) -> None:
        """Cut."""
        del self.data[length:]

    def size(self) -> int:
        """Bytes held."""
        return len(self.data)

    def close(self) -> None:
        """The bytes stay with the disk."""


class MemoryDisk:
    """A directory in memory: the same log in the same bytes, gone with the process."""

    def __init__(self) -> None:
        self.files: dict[str, MemoryFile] = {}

    def names(self) -> list[str]:
        """Names without a sub-directory."""
        return sorted(name for name in self.files if "/" not in name)

    def open(self, name: str, create: bool = False) -> File:
        """Raises ``FileNotFoundError`` as the operating system does."""
        if create:
            self.files[name] = MemoryFile()
        if name not in self.files:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        return self.files[name]

    def rename(self, old: str, new: str) -> None:
        """Move."""
        self.files[new] = self.files.pop(old)

    def unlink(self, name: str) -> None:
        """Remove."""
        self.files.pop(name, None)

    def sync_directory(self) -> None:
        """Memory has nothing below it."""

    def lock(self) -> None:
        """Nobody else can see it."""

    def close(self) -> None:
        """Nothing is held."""


def read_whole(disk: Disk, name: str) -> bytes:
    """The content of a file; raises ``OSError``."""
    file = disk.open(name)
    try:
        return file.read(0, file.size())
    finally:
        file.close()


def replace_whole(disk: Disk, name: str, content: bytes) -> None:
    """Put ``content`` in place of ``name`` so that a crash leaves the old or the new, never a part."""
    file = disk.open(name + ".tmp", create=True)
    try:
        file.write(0, [content])
        file.sync()
    finally:
        file.close()
    disk.rename(name + ".tmp", name)
    disk.sync_directory()
