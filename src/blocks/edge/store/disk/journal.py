"""Purges on disk: one line each, on the medium before anybody is told that they are done."""

from __future__ import annotations

from .bans import Bans
from .files import Files

REWRITE = 4 * 1024 * 1024  # bytes after which the file is written anew with what is still in force


class Journal:
    """The file of purges. Only the writing thread uses it."""

    def __init__(self, path: str, bans: Bans, files: Files) -> None:
        self._path = path
        self._bans = bans
        self._files = files
        self._fd = -1
        self._size = 0
        self._waiting: list[bytes] = []

    def open(self, oldest: int) -> None:
        """Take in what is there, forget what cannot matter as no entry is older than ``oldest``, begin a fresh file. Raises ``OSError``."""
        self._bans.replay(self._files.load(self._path) or b"")
        self.rewrite(oldest)

    def add(self, line: bytes) -> None:
        """A purge that is in force already; it is durable after ``flush``."""
        self._waiting.append(line)

    def flush(self, oldest: int) -> None:
        """Write what waits, and return when it is on the medium: one sync for a batch. Raises ``OSError``, and keeps it waiting."""
        if not self._waiting:
            return
        if self._size > REWRITE:
            self.rewrite(oldest)
            return
        data = b"".join(self._waiting)
        self._files.write(self._fd, data, self._size)
        self._files.sync(self._fd)
        self._size += len(data)
        self._waiting.clear()

    def rewrite(self, oldest: int) -> None:
        """Write the bans in force to a new file and put it in the old one's place. Raises ``OSError``."""
        self._bans.forget(oldest)
        data = self._bans.snapshot()
        self._files.replace(self._path, data, durable=True)
        self.close()
        self._fd = self._files.open(self._path, create=True)
        self._size = len(data)
        self._waiting.clear()

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._files.close(fd)
