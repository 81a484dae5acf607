"""The only door from the disk store to the operating system, so that a test can stand in it: full, failing, torn, killed."""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

NOWAIT = getattr(os, "RWF_NOWAIT", 0)


class Files:
    """System calls by name. Everything raises ``OSError``; a subclass may raise it when it likes."""

    __slots__ = ()

    def open(self, path: str, *, create: bool = False) -> int:
        """A descriptor for reading, or for reading and writing when ``create``."""
        flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
        return os.open(path, flags | os.O_CLOEXEC, 0o640)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """All of ``data`` at ``offset``."""
        view = memoryview(data)
        while view:
            written = os.pwrite(fd, view, offset)
            view = view[written:]
            offset += written

    def read(self, fd: int, length: int, offset: int) -> bytes:
        """Up to ``length`` bytes at ``offset``; fewer only at the end of the file."""
        data = os.pread(fd, length, offset)
        if len(data) == length or not data:
            return data
        chunks = [data]
        got = len(data)
        while got < length and (data := os.pread(fd, length - got, offset + got)):
            chunks.append(data)
            got += len(data)
        return b"".join(chunks)

    def read_cached(self, fd: int, length: int, offset: int) -> bytes | None:
        """``length`` bytes at ``offset`` if the page cache has them all, else None: it never waits for a disk (preadv2, RWF_NOWAIT)."""
        if not NOWAIT:
            return None
        buffer = bytearray(length)
        try:
            got = os.preadv(fd, [buffer], offset, NOWAIT)
        except OSError:  # EAGAIN: not cached; EOPNOTSUPP: a file system without it (tmpfs)
            return None
        return bytes(buffer) if got == length else None

    def view(self, fd: int, length: int) -> AbstractContextManager[Any]:
        """The first ``length`` bytes of a file as a buffer, for as long as the context is open."""
        return mmap.mmap(fd, length, prot=mmap.PROT_READ)

    def size(self, fd: int) -> int:
        """The file's length in bytes."""
        return os.fstat(fd).st_size

    def sync(self, fd: int) -> None:
        """Return when what was written is on the medium."""
        os.fdatasync(fd)

    def close(self, fd: int) -> None:
        """Close the descriptor."""
        os.close(fd)

    def truncate(self, fd: int, length: int) -> None:
        """Cut the file to ``length`` bytes."""
        os.ftruncate(fd, length)

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens when it is gone already."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass

    def replace(self, path: str, data: bytes, *, durable: bool = False) -> None:
        """Make ``path`` hold ``data``, entirely or not at all, also across a kill; across a power loss too when ``durable``."""
        draft = f"{path}.{os.getpid()}.draft"  # workers that share a folder may write the same file at the same time
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            self.write(fd, data, 0)
            if durable:
                self.sync(fd)
        finally:
            self.close(fd)
        os.replace(draft, path)
        if durable:
            self.sync_folder(os.path.dirname(path))

    def sync_folder(self, path: str) -> None:
        """Return when the folder's names are on the medium."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def load(self, path: str) -> bytes | None:
        """The whole file, or None when there is none."""
        try:
            fd = self.open(path)
        except FileNotFoundError:
            return None
        try:
            return self.read(fd, self.size(fd), 0)
        finally:
            self.close(fd)

    def names(self, path: str) -> Iterator[tuple[str, int]]:
        """(name, size) of the files in a folder."""
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    yield entry.name, entry.stat(follow_symlinks=False).st_size

    def folders(self, path: str) -> list[str]:
        """The names of the folders in a folder."""
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

    def remove_folder(self, path: str) -> None:
        """Remove a folder and what is in it, as far as that can be done."""
        shutil.rmtree(path, ignore_errors=True)

    def lock(self, path: str) -> int | None:
        """A lock on the file ``path``, which is made if there is none; None when another process holds it (it ends with the process)."""
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return None
        return lock

    def unlock(self, lock: int) -> None:
        """Let others have it."""
        os.close(lock)

    def folder(self, path: str) -> None:
        """Make the folder and those above it."""
        os.makedirs(path, mode=0o750, exist_ok=True)
