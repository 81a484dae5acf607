"""Where entries are kept. The memory tier is always there; a second tier (disk) may stand behind it.

The edge asks the memory first, then ``Store.holds`` of the second tier, and loads from there what it needs. Everything that
costs a system call is awaited or done behind the call; nothing here blocks the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from blocks.edge.entry import Content, Entry


class Purge(NamedTuple):
    """What is to be purged: ``kind`` is url, prefix, host or tag; ``value`` a key (or its prefix), an authority, or a tag.

    ``soft`` makes what matches stale instead of taking it out, so that it still serves while it is validated.
    A url purge takes the variants (keys that go on with NUL) along.
    """

    kind: str
    value: str
    soft: bool = False

    def matches(self, key: str, tags: tuple[str, ...]) -> bool:
        """Whether an entry of that key and those tags is meant."""
        if self.kind == "tag":
            return self.value in tags
        if self.kind == "prefix":
            return key.startswith(self.value)
        if self.kind == "host":
            return key.partition("://")[2].startswith(self.value + "/")
        return key == self.value or key.startswith(self.value + "\0")


class Writer(Protocol):
    """Takes one body on its way into the second tier while clients read what is there already.

    ``drained`` is set by whoever feeds it, and called when ``congested`` turns false again.
    """

    drained: Callable[[], None] | None

    @property
    def content(self) -> Content:
        """The growing body; its streams give what is written and wait for the rest."""
        ...

    @property
    def congested(self) -> bool:
        """More is waiting to be written than there should be: whoever feeds pauses its source until ``drained`` is called."""
        ...

    def write(self, data: bytes) -> None:
        """The next bytes; never blocks (a thread writes)."""
        ...

    def commit(self, entry: Entry) -> None:
        """The body is complete and true: from now on ``holds(entry.key)``. The entry's ``body`` is this writer's ``content``."""
        ...

    def abort(self, error: BaseException) -> None:
        """The body broke off: readers get ``error`` after what came before it, and nothing stays."""
        ...


class Store(Protocol):
    """The second tier: crash-safe, bounded, slower than memory. An async context manager."""

    async def __aenter__(self) -> Store: ...

    async def __aexit__(self, *exc: object) -> None: ...

    def holds(self, key: str) -> bool:
        """Whether there is an entry for ``key``, from an index in memory: no I/O, below 1 µs."""
        ...

    async def load(self, key: str) -> Entry | None:
        """The entry, with small bodies as ``bytes`` and others as ``Content``; None when it is gone, damaged or purged.

        ``now`` for ``Entry.restored`` is the store's own clock. A MARKER entry has an empty body.
        """
        ...

    def save(self, entry: Entry) -> None:
        """Keep an entry whose body is ``bytes`` (or a MARKER), replacing one of the same key. Written behind."""
        ...

    def update(self, entry: Entry) -> None:
        """The fields and times of a held entry changed (304, a marker's variants); the body did not."""
        ...

    def open(self, key: str, length: int | None) -> Writer | None:
        """Begin a body that comes bit by bit; None when there is no room for it (or ``length`` is over the limit)."""
        ...

    def remove(self, key: str) -> None:
        """Forget ``key``; nothing happens when it is not held."""
        ...

    def purge(self, purge: Purge) -> int:
        """Take out (or make stale) what matches and keep that over a restart. Returns how many it found, or 0 when found later."""
        ...
