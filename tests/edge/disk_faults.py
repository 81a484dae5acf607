"""A file layer that a test can break: full after so many bytes, failing, or dead from the n-th call on, with the last write torn."""

from __future__ import annotations

import errno
from typing import Any

from blocks.edge.store.disk.files import Files


class Killed(BaseException):
    """The process is dead: nothing after this point reaches the disk."""


class FaultyFiles(Files):
    __slots__ = ("calls", "dead_after", "fail_reads", "room")

    def __init__(self) -> None:
        self.calls = 0
        self.dead_after: int | None = None
        self.room: int | None = None
        self.fail_reads = False

    def _step(self) -> None:
        self.calls += 1
        if self.dead_after is not None and self.calls > self.dead_after:
            raise OSError(errno.EIO, "dead")

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self.calls += 1
        if self.dead_after is not None and self.calls > self.dead_after:
            if self.calls == self.dead_after + 1:
                super().write(fd, data[: len(data) // 2], offset)
            raise OSError(errno.EIO, "dead")
        if self.room is not None:
            if len(data) > self.room:
                super().write(fd, data[: self.room], offset)
                self.room = 0
                raise OSError(errno.ENOSPC, "no space left on device")
            self.room -= len(data)
        super().write(fd, data, offset)

    def open(self, path: str, *, create: bool = False) -> int:
        if create:
            self._step()
        return super().open(path, create=create)

    def replace(self, path: str, data: bytes, *, durable: bool = False) -> None:
        self._step()
        super().replace(path, data, durable=durable)

    def remove(self, path: str) -> None:
        self._step()
        super().remove(path)

    def read(self, fd: int, length: int, offset: int) -> bytes:
        if self.fail_reads:
            raise OSError(errno.EIO, "input/output error")
        return super().read(fd, length, offset)

    def read_cached(self, fd: int, length: int, offset: int) -> Any:
        return None if self.fail_reads else super().read_cached(fd, length, offset)
