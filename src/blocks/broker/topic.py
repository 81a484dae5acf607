"""A topic's state: which offsets it has, and what the broker remembers of its messages."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .message import TopicOptions

if TYPE_CHECKING:
    from .queue import Queue


class Topic:
    """``first`` to ``committed`` (exclusive) can be read; up to ``next`` is given out and waits for the disk."""

    __slots__ = (
        "committed", "epoch", "first", "ids", "name", "next", "options", "plain", "queues", "scheduled", "size",
        "touched",
    )  # fmt: skip

    def __init__(self, name: str, options: TopicOptions) -> None:
        self.name = name
        self.options = options
        self.first = 0
        self.committed = 0
        self.next = 0
        self.size = 0  # bytes of payloads between first and committed
        self.touched = 0.0  # when it was published to last: wall-clock seconds
        self.ids: dict[str, tuple[int, float]] | None = None  # id -> first offset, when: the dedup window
        self.scheduled: dict[int, float] | None = None  # offset -> wall-clock seconds when it is due
        self.queues: list[Queue] = []
        self.epoch = -1  # of the group patterns that ``queues`` was made from
        self.plain = True  # no schema, binding, transformation or check is to be looked at on publish

    def dump(self, default: TopicOptions) -> list[Any]:
        """For a snapshot; options that are the ``default`` are left out, and follow it."""
        ids = [(id, offset, when) for id, (offset, when) in self.ids.items()] if self.ids else None
        options = None if self.options is default else asdict(self.options)
        return [self.name, options, self.first, self.next, self.size, self.touched, ids, self.scheduled or None]

    @classmethod
    def load(cls, row: list[Any], default: TopicOptions) -> Topic:
        """From a snapshot."""
        name, options, first, following, size, touched, ids, scheduled = row
        topic = cls(name, TopicOptions(**options) if options is not None else default)
        topic.first, topic.next, topic.size, topic.touched = first, following, size, touched
        topic.committed = following
        topic.ids = {id: (offset, when) for id, offset, when in ids} if ids else None
        topic.scheduled = scheduled
        return topic
