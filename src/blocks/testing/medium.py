"""What a disk remembers: files and names as the system shows them, and beside them what would be there after a power cut.

The rules are POSIX's and no more: written bytes are on the medium once their file was synced, names once their folder was. No I/O.
"""

from __future__ import annotations

import errno
import os
from random import Random
from typing import Literal, NamedTuple

SECTOR = 512  # bytes that a disk writes whole or not at all

Keep = Literal["synced", "torn", "some"]


class Change(NamedTuple):
    """A change of a file that is not on the medium yet: bytes from ``position``, or (``data`` None) a cut to that length.

    ``reaches`` of its bytes will ever get to the medium (None: all).
    """

    number: int
    position: int
    data: bytes | None
    reaches: int | None = None


class Inode:
    """A file's bytes as they are read now, and as they are on the medium; ``pending`` leads from these to those."""

    __slots__ = ("data", "durable", "pending")

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = bytearray()
        self.pending: list[Change] = []


class Medium:
    """A file system in memory. Paths are texts with "/"; ``capacity`` (bytes, None: endless) is what all files together may hold."""

    def __init__(self) -> None:
        self.capacity: int | None = None
        self.used = 0
        self._names: dict[str, Inode] = {}
        self._durable: dict[str, Inode] = {}
        self._changes: list[
            tuple[str, Inode | None]
        ] = []  # names that are not on the medium yet: set, or (None) removed
        self._number = 0

    # -- names

    def find(self, path: str) -> Inode:
        """The file of that name. Raises ``FileNotFoundError``."""
        found = self._names.get(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return found

    def has(self, path: str) -> bool:
        """Whether there is a file of that name."""
        return path in self._names

    def create(self, path: str) -> Inode:
        """A new, empty file in place of what had the name. Raises ``OSError`` (ENOSPC) on a full disk."""
        if self.room == 0:
            raise _full(path)
        made = Inode()
        self._name(path, made)
        return made

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, at once and whole."""
        inode = self.find(old)
        self._name(new, inode)
        self._name(old, None)

    def remove(self, path: str) -> bool:
        """Remove a name, and the file with it. False if there is none."""
        if path not in self._names:
            return False
        self._name(path, None)
        return True

    def paths(self, folder: str) -> list[str]:
        """Every path below a folder."""
        return sorted(path for path in self._names if path.startswith(folder + "/"))

    def _name(self, path: str, inode: Inode | None) -> None:
        old = self._names.pop(path, None)
        if inode is not None:
            self._names[path] = inode
        self._changes.append((path, inode))
        if old is not None and old is not inode and old not in self._names.values():
            self.used -= len(old.data)

    def sync_folder(self, folder: str) -> None:
        """Names directly in the folder are on the medium now."""
        left = []
        for path, inode in self._changes:
            if path.rpartition("/")[0] == folder:
                _apply_name(self._durable, path, inode)
            else:
                left.append((path, inode))
        self._changes = left

    # -- bytes

    @property
    def room(self) -> int | None:
        """Bytes that still fit; None when that has no end."""
        return None if self.capacity is None else max(0, self.capacity - self.used)

    def write(self, inode: Inode, position: int, data: bytes, reaches: int | None = None) -> None:
        """Write; only ``reaches`` of the bytes will get to the medium, if given. Raises ``OSError`` (ENOSPC) when only a part fits."""
        data = bytes(data)
        growth = position + len(data) - len(inode.data)
        room = self.room
        missing = 0 if room is None else max(0, growth - room)
        kept = data[: len(data) - missing] if missing < len(data) else b""
        if kept:
            before = len(inode.data)
            _apply(inode.data, position, kept)
            self.used += len(inode.data) - before
            self._number += 1
            inode.pending.append(Change(self._number, position, kept, reaches))
        if missing:
            raise _full("")

    def truncate(self, inode: Inode, length: int) -> None:
        """Cut a file to ``length`` bytes."""
        self.used -= max(0, len(inode.data) - length)
        del inode.data[length:]
        self._number += 1
        inode.pending.append(Change(self._number, length, None))

    def sync(self, inode: Inode) -> None:
        """What was written to the file is on the medium now."""
        for change in inode.pending:
            _settle(inode.durable, change)
        inode.pending.clear()

    def lose(self, inode: Inode) -> None:
        """A sync failed: what waited for it is never written, though it can be read until the power goes (Linux from 4.13 on)."""
        inode.pending.clear()

    # -- the power goes

    def cut(self, keep: Keep, random: Random) -> None:
        """Become what a power cut leaves: what was synced, and of the rest what ``keep`` says (see ``Disk.power_cut``)."""
        changes = self._changes
        if keep == "some":
            changes = changes[: random.randint(0, len(changes))]
        elif keep == "synced":
            changes = []
        for path, inode in changes:
            _apply_name(self._durable, path, inode)
        inodes = list({id(inode): inode for inode in self._durable.values()}.values())
        last = max((inode.pending[-1].number for inode in inodes if inode.pending), default=0)
        for inode in inodes:
            for change in _surviving(inode.pending, keep, last, random):
                _settle(inode.durable, change)
            inode.pending = []
            inode.data = bytearray(inode.durable)
        self._names = dict(self._durable)
        self._changes = []
        self.used = sum(len(inode.data) for inode in inodes)


def _surviving(pending: list[Change], keep: Keep, last: int, random: Random) -> list[Change]:
    """Of a file's unsynced changes those that the power cut lets through."""
    if keep == "synced":
        return []
    if keep == "torn":
        return [_torn(change, random) if change.number == last else change for change in pending]
    kept = pending[: random.randint(0, len(pending))] if random.random() < 0.5 else pending
    return [_torn(change, random) if random.random() < 0.4 else change for change in kept if random.random() < 0.7]


def _torn(change: Change, random: Random) -> Change:
    """A prefix of a write, at the end of a sector unless it is smaller than one."""
    if change.data is None:
        return change
    length = len(change.data)
    cut = random.randrange(length) if length else 0
    sector = (change.position + cut) // SECTOR * SECTOR - change.position
    return change._replace(reaches=sector if sector > 0 else cut)


def _settle(durable: bytearray, change: Change) -> None:
    if change.data is None:
        del durable[change.position :]
    else:
        _apply(durable, change.position, change.data if change.reaches is None else change.data[: change.reaches])


def _apply(content: bytearray, position: int, data: bytes) -> None:
    if position > len(content):
        content.extend(bytes(position - len(content)))
    content[position : position + len(data)] = data


def _apply_name(names: dict[str, Inode], path: str, inode: Inode | None) -> None:
    if inode is None:
        names.pop(path, None)
    else:
        names[path] = inode


def _full(path: str) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
