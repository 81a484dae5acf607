"""Which folder a process uses: one of ``shards`` below the store's path, locked for as long as it lives."""

from __future__ import annotations

import os
import secrets

from blocks.core.errors import ConfigError

from .files import Files


class Folder:
    """A shard's folder and the lock on it."""

    def __init__(self, path: str, lock: int, files: Files) -> None:
        self.path = path
        self.segments = os.path.join(path, "segments")
        self.blobs = os.path.join(path, "blobs")
        self.journal = os.path.join(path, "purges")
        self._lock = lock
        self._files = files
        for folder in (self.segments, self.blobs):
            files.folder(folder)

    def secret(self) -> bytes:
        """The store's eight random bytes, made when it is new."""
        place = os.path.join(self.path, "secret")
        found = self._files.load(place)
        if found is None or len(found) != 8:
            found = secrets.token_bytes(8)
            self._files.replace(place, found, durable=True)
        return found

    def release(self) -> None:
        """Let others use it."""
        self._files.unlock(self._lock)


def claim(path: str, shards: int, files: Files) -> Folder:
    """The first of ``shards`` folders that no process uses. Raises ``ConfigError`` when all are in use.

    Shards of more workers than there are now are removed, so that they do not keep bytes that nobody counts.
    """
    for number in range(shards):
        place = os.path.join(path, f"shard-{number}")
        lock = _locked(place, files)
        if lock is not None:
            _remove_beyond(path, shards, files)
            return Folder(place, lock, files)
    raise ConfigError(f"the store {path} is in use by another process; give each edge its own folder")


def _locked(place: str, files: Files) -> int | None:
    files.folder(place)
    return files.lock(os.path.join(place, "lock"))


def _remove_beyond(path: str, shards: int, files: Files) -> None:
    for name in files.folders(path):
        number = name.removeprefix("shard-")
        if number == name or not number.isdigit() or int(number) < shards:
            continue
        lock = _locked(os.path.join(path, name), files)
        if lock is not None:
            files.remove_folder(os.path.join(path, name))
            files.unlock(lock)
