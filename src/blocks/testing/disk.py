"""A disk that fails on command: full, failing, torn, or without power, with what was not synced gone, for brokers and edges of a test.

It is the real broker and the real edge over their own door to the file system; only the files behind the door are in memory, with two
states: what is read, and what would be there after a power cut.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Protocol

from .diskfaults import Call, DiskFaults
from .medium import Inode, Keep, Medium
from .rules import Effect
from .timeline import Timeline

if TYPE_CHECKING:
    from blocks.core.clock import Clock
    from blocks.edge.store.disk import DiskStore

    from .volumes import BrokerVolume


class User(Protocol):
    """Whoever runs on the disk: dies with its power, and can be started again."""

    async def crash(self) -> None:
        """End at once."""
        ...

    async def restart(self) -> None:
        """Start anew on what is left."""
        ...


class Disk:
    """``disk = blocks.disk("orders")``, then ``blocks.broker(disk=disk)`` or ``blocks.edge(origin, disk=disk)``.

    ``fault`` arms faults: ``disk.fault.full(after="1MiB")``, ``disk.fault.next(1).sync_error()``. ``power_cut`` drops what was not synced
    and ends whoever used the disk; ``power_on`` starts them again. ``used`` is bytes held, ``syncs`` counts syncs.
    """

    def __init__(self, name: str = "disk", *, random: Random | None = None, timeline: Timeline | None = None) -> None:
        self.name = name
        self.timeline = timeline
        self.syncs = 0
        self._random = random or Random(0)
        self._medium = Medium()
        self.fault = DiskFaults(self._medium, self._random)
        self._lock = threading.RLock()  # an edge writes and reads in threads
        self._epoch = 0
        self._locks: dict[str, int] = {}
        self._users: list[User] = []

    @property
    def used(self) -> int:
        """Bytes that its files hold now."""
        return self._medium.used

    def files(self) -> list[str]:
        """The path of every file on it."""
        with self._lock:
            return self._medium.paths(self.name)

    # -- power

    async def power_cut(self, keep: Keep = "synced") -> None:
        """Take the power away: whoever uses the disk ends at once, and what was not synced is gone.

        ``keep`` says what else survives: nothing ("synced"), all but the end of the last write ("torn"), or a part drawn from the
        kit's seed, whole or torn writes and a prefix of the changes of names ("some"): what a real disk may do.
        """
        with self._lock:
            self._epoch += 1
            self._medium.cut(keep, self._random)
            self._locks.clear()
        self.note(f"power cut, {keep} is kept")
        for user in self._users:
            await user.crash()

    async def power_on(self) -> None:
        """Start again, where they listened before, those who ended with the power."""
        self.note("power is back")
        for user in self._users:
            await user.restart()

    def attach(self, user: User) -> None:
        """Let ``user`` live and die with the power."""
        self._users.append(user)

    # -- what brokers and edges see

    def for_broker(self) -> BrokerVolume:
        """Its folder ``broker``, as a broker's ``disk``."""
        from .volumes import BrokerVolume

        return BrokerVolume(self, f"{self.name}/broker")

    def store(self, size: float | str, clock: Clock) -> DiskStore:
        """Its folder ``edge``, as the ``store`` of an edge."""
        from blocks.edge.store.disk import DiskStore

        from .volumes import EdgeFiles

        return DiskStore(f"{self.name}/edge", size, clock=clock, files=EdgeFiles(self))

    def enter(self) -> int:
        """The present spell of power; handles of an earlier one are dead."""
        return self._epoch

    def lock(self, name: str, epoch: int) -> bool:
        """Take the lock ``name``; False when somebody has it."""
        with self._alive(epoch):
            if name in self._locks:
                return False
            self._locks[name] = epoch
            return True

    def unlock(self, name: str, epoch: int) -> None:
        """Give it back."""
        with self._lock:
            if self._locks.get(name) == epoch:
                del self._locks[name]

    def open(self, path: str, epoch: int, *, create: bool, replace: bool) -> Inode:
        """A file; with ``create`` it is made if there is none, with ``replace`` also if there is one. Raises ``OSError``."""
        with self._alive(epoch):
            if create and (replace or not self._medium.has(path)):
                return self._medium.create(path)
            return self._medium.find(path)

    def write(self, inode: Inode, path: str, epoch: int, position: int, buffers: Sequence[bytes]) -> None:
        """Write all at ``position``, unless a fault strikes. Raises ``OSError``."""
        with self._alive(epoch):
            data = b"".join(buffers)
            effect = self._struck(Call("write", path, len(data)))
            if effect is not None and effect.kind == "write-error":
                self._medium.write(inode, position, data[: effect.size])
                raise _failed(path)
            try:
                self._medium.write(inode, position, data, effect.size if effect is not None else None)
            except OSError:
                self.note(f"full: {len(data)} B for {self._short(path)}")
                raise

    def read(self, inode: Inode, path: str, epoch: int, position: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``position``. Raises ``OSError``."""
        with self._alive(epoch):
            data = bytes(memoryview(inode.data)[position : position + length])
            effect = self._struck(Call("read", path, len(data)))
            if effect is None:
                return data
            if effect.kind == "read-error":
                raise _failed(path)
            return _flipped(data, effect.seed)

    def sync(self, inode: Inode, path: str, epoch: int) -> None:
        """Bring a file to the medium. Raises ``OSError``."""
        with self._alive(epoch):
            self.syncs += 1
            if self._struck(Call("sync", path)) is not None:
                self._medium.lose(inode)
                raise _failed(path)
            self._medium.sync(inode)

    def truncate(self, inode: Inode, epoch: int, length: int) -> None:
        """Cut a file."""
        with self._alive(epoch):
            self._medium.truncate(inode, length)

    def rename(self, old: str, new: str, epoch: int) -> None:
        """Rename a file."""
        with self._alive(epoch):
            self._medium.rename(old, new)

    def remove(self, path: str, epoch: int) -> None:
        """Remove a file; nothing happens when there is none."""
        with self._alive(epoch):
            self._medium.remove(path)

    def sync_folder(self, path: str, epoch: int) -> None:
        """Bring a folder's names to the medium. Raises ``OSError``."""
        with self._alive(epoch):
            self.syncs += 1
            if self._struck(Call("sync", path)) is not None:
                raise _failed(path)
            self._medium.sync_folder(path)

    def listed(self, folder: str, epoch: int) -> list[tuple[str, int]]:
        """(path below the folder, bytes) of all that is in it, sorted."""
        with self._alive(epoch):
            return [(path[len(folder) + 1 :], len(self._medium.find(path).data)) for path in self._medium.paths(folder)]

    @contextmanager
    def _alive(self, epoch: int) -> Iterator[None]:
        """Holds the lock, for those whose power is on. Raises ``OSError``."""
        with self._lock:
            if epoch != self._epoch:
                raise OSError(errno.EIO, "the power is out")
            yield

    def _struck(self, call: Call) -> Effect | None:
        effect = self.fault.decide(call._replace(name=self._short(call.name)))
        if effect is not None:
            self.note(f"{effect} {self._short(call.name)}")
        return effect

    def _short(self, path: str) -> str:
        return path.removeprefix(self.name + "/").partition("/")[2]

    def note(self, what: object) -> None:
        """Write it to the timeline."""
        if self.timeline is not None:
            self.timeline.note(self.name, what)

    def __repr__(self) -> str:
        return f"<Disk {self.name} {self.used} B>"


def _failed(path: str) -> OSError:
    return OSError(errno.EIO, os.strerror(errno.EIO), path)


def _flipped(data: bytes, seed: int) -> bytes:
    """``data`` with one byte changed."""
    if not data:
        return data
    changed = bytearray(data)
    changed[seed % len(data)] ^= 1 + seed % 255
    return bytes(changed)
