"""A draft is what waits for the next commit: messages, the state records that go with them, and whom to tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .log.batch import Batch, Section
from .message import Receipts

_MANY = 65_536
FULL = 1 << 20  # bytes of payload after which a commit starts another batch: it bounds what one read must decode


class Draft:
    """One batch that is not written yet. ``size`` is bytes, roughly."""

    __slots__ = (
        "acks", "attempts", "callbacks", "cursors", "frames", "records", "sections", "size", "waiters",
    )  # fmt: skip

    def __init__(self) -> None:
        self.sections: dict[str, Section] = {}
        self.frames: list[Any] = []
        self.records: list[list[Any]] = []
        self.cursors: dict[tuple[str, str], int] = {}
        self.acks: dict[tuple[str, str], list[int | range]] = {}
        self.attempts: dict[tuple[str, str], dict[int, int]] = {}
        self.callbacks: list[tuple[Callable[[Receipts], None], Receipts]] = []
        self.waiters: list[Callable[[bool], None]] = []
        self.size = 0

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.sections or self.records or self.cursors or self.acks or self.attempts or self.frames)

    def add(
        self, topic: str, first: int, payloads: list[bytes], size: int, columns: dict[str, list[Any]] | None
    ) -> None:
        """Append messages of one topic, dense from offset ``first``; ``columns`` by name, without those that are all default."""
        section = self.sections.get(topic)
        count = len(payloads)
        if section is None:
            section = self.sections[topic] = Section(topic, range(first, first + count), list(payloads), size)
            if columns:
                for name, column in columns.items():
                    setattr(section, name, list(column))
        else:
            before = len(section.payloads)
            section.offsets = range(section.offsets[0], first + count)
            section.payloads += payloads
            section.size += size
            self._extend(section, before, count, columns or {})
        self.size += size + 16 * count + 64

    @staticmethod
    def _extend(section: Section, before: int, count: int, columns: dict[str, list[Any]]) -> None:
        for name in section.columns().keys() | columns.keys():
            column = getattr(section, name)
            if column is None:
                column = [None] * before
                setattr(section, name, column)
            more = columns.get(name)
            column += more if more is not None else [None] * count

    def ack(self, group: str, topic: str, offsets: Iterable[int] | range) -> None:
        """These are done for ``group``."""
        found = self.acks.get((group, topic))
        if found is None:
            found = self.acks[group, topic] = []
        if isinstance(offsets, range):
            found.append(offsets)
        else:
            found.extend(offsets)
            if len(found) > _MANY:  # while the disk is full acks gather here: merged, they stay few
                flat = ranges(found)
                found[:] = [range(start, stop) for start, stop in zip(flat[::2], flat[1::2], strict=True)]

    def unack(self, group: str, topic: str, offset: int) -> None:
        """Take one ``ack`` back, if it waits here."""
        found = self.acks.get((group, topic), [])
        if offset in found:
            found.remove(offset)
        if not found:
            self.acks.pop((group, topic), None)

    def seal(self, number: int, time: float) -> Batch:
        """The batch to write, as number ``number``."""
        records: dict[str, Any] = {}
        if self.records:
            records["r"] = self.records
        if self.cursors:
            records["c"] = [(group, topic, cursor) for (group, topic), cursor in self.cursors.items()]
        if self.acks:
            records["a"] = [(group, topic, ranges(found)) for (group, topic), found in self.acks.items()]
        if self.attempts:
            records["t"] = [(group, topic, found) for (group, topic), found in self.attempts.items()]
        return Batch(number, time, list(self.sections.values()), self.frames, records)

    def carry(self, other: Draft) -> None:
        """Take over the state records of ``other``, which could not be written and came before this one's."""
        self.records[:0] = other.records
        self.cursors = {**other.cursors, **self.cursors}
        for key, found in other.acks.items():
            self.acks[key] = found + self.acks.get(key, [])
        for key, attempts in other.attempts.items():
            self.attempts[key] = {**attempts, **self.attempts.get(key, {})}
        self.waiters[:0] = other.waiters


def ranges(offsets: Sequence[int | range]) -> list[int]:
    """Offsets as a flat list of starts and ends (exclusive), merged and in order."""
    if len(offsets) == 1:
        only = offsets[0]
        return [only.start, only.stop] if isinstance(only, range) else [only, only + 1]
    pairs = sorted((o.start, o.stop) if isinstance(o, range) else (o, o + 1) for o in offsets)
    flat: list[int] = []
    for start, stop in pairs:
        if flat and start <= flat[-1]:
            if stop > flat[-1]:
                flat[-1] = stop
        else:
            flat += (start, stop)
    return flat
