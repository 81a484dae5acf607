"""A disk that notes every call, and builds what a power loss at any moment may leave of it."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from random import Random
from typing import Any

from blocks.broker.log.disk import MemoryDisk, MemoryFile

Op = tuple[Any, ...]


class RecordingFile:
    def __init__(self, disk: RecordingDisk, number: int, file: MemoryFile) -> None:
        self.disk, self.number, self.file = disk, number, file

    def write(self, position: int, buffers: Sequence[bytes]) -> None:
        data = b"".join(buffers)
        self.disk.ops.append(("write", self.number, position, data))
        self.file.write(position, [data])

    def read(self, position: int, length: int) -> bytes:
        return self.file.read(position, length)

    def sync(self) -> None:
        self.disk.ops.append(("sync", self.number))

    def truncate(self, length: int) -> None:
        self.disk.ops.append(("truncate", self.number, length))
        self.file.truncate(length)

    def size(self) -> int:
        return self.file.size()

    def close(self) -> None:
        pass


class RecordingDisk(MemoryDisk):
    """As ``MemoryDisk``, with the list ``ops`` of what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.numbers: dict[str, int] = {}

    def open(self, name: str, create: bool = False) -> Any:
        file = super().open(name, create)
        if create:
            self.numbers[name] = len(self.ops)
            self.ops.append(("create", len(self.ops), name))
        return RecordingFile(self, self.numbers[name], file)

    def rename(self, old: str, new: str) -> None:
        self.ops.append(("rename", old, new))
        self.numbers[new] = self.numbers.pop(old)
        super().rename(old, new)

    def unlink(self, name: str) -> None:
        self.ops.append(("unlink", name))
        self.numbers.pop(name, None)
        super().unlink(name)

    def sync_directory(self) -> None:
        self.ops.append(("syncdir",))


def image(ops: list[Op], random: Random) -> MemoryDisk:
    """One of the states that a disk may be in after a power loss behind ``ops``.

    What was synced is there. Of the unsynced writes to a file any subset may be, each whole, torn at 512 B or 4 KiB, or with its
    length but zeros for bytes. Of the unsynced changes to the directory any prefix is there.
    """
    content: dict[int, bytearray] = {}
    pending: dict[int, list[Op]] = {}
    names: dict[str, int] = {}
    changes: list[Op] = []
    for op in ops:
        kind = op[0]
        if kind in ("write", "truncate"):
            pending.setdefault(op[1], []).append(op)
        elif kind == "sync":
            for change in pending.pop(op[1], []):
                _apply(content.setdefault(op[1], bytearray()), change)
        elif kind == "syncdir":
            for change in changes:
                _rename(names, change)
            changes.clear()
        else:
            changes.append(op)
    for change in changes[: random.randint(0, len(changes))]:
        _rename(names, change)
    for number, left in pending.items():
        file = content.setdefault(number, bytearray())
        style = random.randrange(4)
        for change in left if style else left[: random.randint(0, len(left))]:
            if style == 0 or random.random() < 0.6:
                _apply(file, _torn(change, random) if change[0] == "write" else change)
    disk = MemoryDisk()
    for name, number in names.items():
        file = MemoryFile()
        file.data = content.get(number, bytearray())
        disk.files[name] = file
    return disk


def _torn(op: Op, random: Random) -> Op:
    _, number, position, data = op
    style = random.randrange(5)
    if style < 2:
        return op
    sector = random.choice((512, 4096))
    if style == 2:  # a prefix, cut at the end of a sector
        cut = max(0, (position + random.randint(0, len(data))) // sector * sector - position)
        return ("write", number, position, data[:cut])
    if style == 3:  # the length is there, the bytes are not
        return ("write", number, position, bytes(len(data)))
    pieces = bytearray(data)  # some sectors are there, in whatever order
    start = position // sector * sector
    while start < position + len(data):
        if random.random() < 0.5:
            low, high = max(start, position) - position, min(start + sector, position + len(data)) - position
            pieces[low:high] = bytes(high - low)
        start += sector
    return ("write", number, position, bytes(pieces))


def _apply(file: bytearray, op: Op) -> None:
    if op[0] == "truncate":
        del file[op[2] :]
        return
    _, _, position, data = op
    if position > len(file):
        file.extend(bytes(position - len(file)))
    file[position : position + len(data)] = data


def _rename(names: dict[str, int], op: Op) -> None:
    if op[0] == "create":
        names[op[2]] = op[1]
    elif op[0] == "unlink":
        names.pop(op[1], None)
    elif op[1] in names:
        names[op[2]] = names.pop(op[1])


class FailingDisk(MemoryDisk):
    """Fails as told: ``room`` bytes may still be written (None: any number), ``broken`` makes syncs fail."""

    def __init__(self) -> None:
        super().__init__()
        self.room: int | None = None
        self.broken = False
        self.synced_after_failure = False

    def open(self, name: str, create: bool = False) -> Any:
        if create and self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return FailingFile(self, super().open(name, create))


class FailingFile:
    def __init__(self, disk: FailingDisk, file: Any) -> None:
        self.disk, self.file = disk, file
        self.failed = False

    def write(self, position: int, buffers: Sequence[bytes]) -> None:
        data = b"".join(buffers)
        room = self.disk.room
        if room is not None:
            self.disk.room = max(0, room - len(data))
            self.file.write(position, [data[:room]])
            if len(data) > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return
        self.file.write(position, [data])

    def sync(self) -> None:
        if self.failed:
            self.disk.synced_after_failure = True
        if self.disk.broken:
            self.failed = True
            raise OSError(errno.EIO, "Input/output error")

    def read(self, position: int, length: int) -> bytes:
        return self.file.read(position, length)

    def truncate(self, length: int) -> None:
        self.file.truncate(length)

    def size(self) -> int:
        return self.file.size()

    def close(self) -> None:
        self.file.close()
