"""A test's disk as a broker and as an edge know one: each through its own door to the file system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from blocks.broker.log.disk import Locked, MemoryDisk
from blocks.edge.store.disk.files import Files

from .medium import Inode

if TYPE_CHECKING:
    from .disk import Disk


class VolumeFile:
    """An open file of a broker."""

    __slots__ = ("_disk", "_epoch", "_inode", "_path")

    def __init__(self, disk: Disk, path: str, epoch: int, inode: Inode) -> None:
        self._disk, self._path, self._epoch, self._inode = disk, path, epoch, inode

    def write(self, position: int, buffers: Sequence[bytes]) -> None:
        """Write all ``buffers`` from ``position``."""
        self._disk.write(self._inode, self._path, self._epoch, position, buffers)

    def read(self, position: int, length: int) -> bytes:
        """Up to ``length`` bytes."""
        return self._disk.read(self._inode, self._path, self._epoch, position, length)

    def sync(self) -> None:
        """Bring it to the medium."""
        self._disk.sync(self._inode, self._path, self._epoch)

    def truncate(self, length: int) -> None:
        """Cut."""
        self._disk.truncate(self._inode, self._epoch, length)

    def size(self) -> int:
        """Bytes in it."""
        return len(self._inode.data)

    def close(self) -> None:
        """Nothing is held."""


class BrokerVolume(MemoryDisk):
    """A folder of a ``Disk`` as a broker's ``disk``; its commits run in the loop, so that virtual time goes by them."""

    def __init__(self, disk: Disk, root: str) -> None:
        super().__init__()
        self._disk = disk
        self._root = root
        self._epoch = disk.enter()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def names(self) -> list[str]:
        """The files of the folder itself."""
        return [name for name, _ in self._disk.listed(self._root, self._epoch) if "/" not in name]

    def open(self, name: str, create: bool = False) -> VolumeFile:
        """A file, with ``create`` a new one."""
        path = self._path(name)
        inode = self._disk.open(path, self._epoch, create=create, replace=create)
        return VolumeFile(self._disk, path, self._epoch, inode)

    def rename(self, old: str, new: str) -> None:
        """Rename."""
        self._disk.rename(self._path(old), self._path(new), self._epoch)

    def unlink(self, name: str) -> None:
        """Remove."""
        self._disk.remove(self._path(name), self._epoch)

    def sync_directory(self) -> None:
        """Bring the names to the medium."""
        for folder in (self._path("quarantine"), self._root):
            self._disk.sync_folder(folder, self._epoch)

    def lock(self) -> None:
        """Keep others out; whoever takes the lock has the power that is on now. Raises ``Locked``."""
        self._epoch = self._disk.enter()
        if not self._disk.lock(self._root, self._epoch):
            raise Locked(f"{self._root} is open in another broker")

    def close(self) -> None:
        """Let go of the lock."""
        self._disk.unlock(self._root, self._epoch)


class EdgeFiles(Files):
    """A folder of a ``Disk`` as the system calls of an edge's disk store. Descriptors are numbers of its own."""

    __slots__ = ("_disk", "_epoch", "_locks", "_next", "_open")

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._epoch = disk.enter()
        self._open: dict[int, tuple[str, Inode]] = {}
        self._locks: dict[int, str] = {}
        self._next = 0

    def open(self, path: str, *, create: bool = False) -> int:
        """A descriptor."""
        return self._number(path, self._disk.open(path, self._epoch, create=create, replace=False))

    def _number(self, path: str, inode: Inode) -> int:
        self._next += 1
        self._open[self._next] = path, inode
        return self._next

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """All of ``data``."""
        path, inode = self._open[fd]
        self._disk.write(inode, path, self._epoch, offset, (data,))

    def read(self, fd: int, length: int, offset: int) -> bytes:
        """Up to ``length`` bytes."""
        path, inode = self._open[fd]
        return self._disk.read(inode, path, self._epoch, offset, length)

    def read_cached(self, fd: int, length: int, offset: int) -> bytes | None:
        """Nothing is cached: every read is a call that a fault may strike."""
        return None

    def view(self, fd: int, length: int) -> AbstractContextManager[Any]:
        """A copy."""
        return nullcontext(self.read(fd, length, 0))

    def size(self, fd: int) -> int:
        """Bytes in a file."""
        return len(self._open[fd][1].data)

    def sync(self, fd: int) -> None:
        """Bring a file to the medium."""
        path, inode = self._open[fd]
        self._disk.sync(inode, path, self._epoch)

    def close(self, fd: int) -> None:
        """Forget a descriptor."""
        self._open.pop(fd, None)

    def truncate(self, fd: int, length: int) -> None:
        """Cut a file."""
        self._disk.truncate(self._open[fd][1], self._epoch, length)

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._disk.remove(path, self._epoch)

    def replace(self, path: str, data: bytes, *, durable: bool = False) -> None:
        """Make ``path`` hold ``data``, entirely or not at all."""
        draft = f"{path}.draft"
        fd = self._number(draft, self._disk.open(draft, self._epoch, create=True, replace=True))
        try:
            self.write(fd, data, 0)
            if durable:
                self.sync(fd)
        finally:
            self.close(fd)
        self._disk.rename(draft, path, self._epoch)
        if durable:
            self.sync_folder(path.rpartition("/")[0])

    def sync_folder(self, path: str) -> None:
        """Bring a folder's names to the medium."""
        self._disk.sync_folder(path, self._epoch)

    def names(self, path: str) -> Iterator[tuple[str, int]]:
        """(name, size) of the files in a folder."""
        yield from ((name, size) for name, size in self._disk.listed(path, self._epoch) if "/" not in name)

    def folders(self, path: str) -> list[str]:
        """The folders in a folder that hold a file."""
        below = (name.partition("/") for name, _ in self._disk.listed(path, self._epoch))
        return sorted({first for first, slash, _ in below if slash})

    def folder(self, path: str) -> None:
        """Folders are there as soon as a file is."""

    def remove_folder(self, path: str) -> None:
        """Remove all that is below it."""
        for name, _ in self._disk.listed(path, self._epoch):
            self.remove(f"{path}/{name}")

    def lock(self, path: str) -> int | None:
        """A lock; None when another edge has it."""
        if not self._disk.lock(path, self._epoch):
            return None
        self._next += 1
        self._locks[self._next] = path
        return self._next

    def unlock(self, lock: int) -> None:
        """Let go of a lock."""
        self._disk.unlock(self._locks.pop(lock), self._epoch)
