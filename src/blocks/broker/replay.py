"""The broker's state is a function of its log: here it is built from a snapshot and the batches that follow.

In a batch messages come first, then records in their order, cursors, attempts and acks. What cannot be told apart in
that order (a topic deleted and made anew) was put into different batches when it was written.
"""

from __future__ import annotations

from heapq import heapify
from typing import TYPE_CHECKING, Any

from .checks import Binding
from .group import Group
from .log.batch import Batch, Section
from .message import TopicOptions
from .producers import unpacked
from .queue import Queue
from .topic import Topic

if TYPE_CHECKING:
    from .engine import Engine


def dump(engine: Engine) -> dict[str, Any]:
    """The whole durable state, for a snapshot."""
    return {
        "topics": [topic.dump(engine.topic_options) for topic in engine.topic_named.values()],
        "groups": [group.dump() for group in engine.group_named.values() if group.durable],
        "bindings": [tuple(binding) for binding in engine.checks.known],
        "producers": engine.producers.dump(),
    }


class Replay:
    """Applies a snapshot and batches to a fresh engine; ``finish`` makes it ready for members."""

    def __init__(self, engine: Engine, now: float) -> None:
        self._engine = engine
        self._now = now
        self._unacked: dict[Queue, set[int]] = {}
        self._attempts: dict[Queue, dict[int, int]] = {}

    def load(self, state: dict[str, Any]) -> None:
        """Start from a snapshot's state."""
        engine = self._engine
        for row in state["topics"]:
            topic = Topic.load(row, engine.topic_options)
            engine.adopt_topic(topic)
        for name, patterns, max_deliveries, dead_letter, queues in state["groups"]:
            group = self._group(name)
            group.max_deliveries, group.dead_letter = max_deliveries, dead_letter
            for pattern, start in patterns.items():
                group.patterns[pattern] = start
                engine.patterns.add(pattern, group)
            for topic_name, cursor, unacked, attempts in queues:
                queue = self._queue(name, topic_name, cursor)
                if queue is not None:
                    self._unacked[queue] = set(unacked)
                    self._attempts[queue] = dict(attempts)
        for source, target, headers, match in state["bindings"]:
            engine.add_binding(Binding(source, target, tuple((n, v) for n, v in headers), match))
        engine.producers.load(state["producers"])

    def apply(self, batch: Batch) -> None:
        """Take in one batch."""
        for section in batch.sections:
            self._messages(section, batch.time)
        for producer, epoch, sequence, offsets in batch.frames:
            self._engine.producers.store(producer, epoch, sequence, unpacked(offsets))
        records = batch.records
        for record in records.get("r", ()):
            self._record(record)
        for group, topic, cursor in records.get("c", ()):
            self._advance(group, topic, cursor)
        for group, topic, attempts in records.get("t", ()):
            queue = self._find(group, topic)
            if queue is not None:
                self._attempts.setdefault(queue, {}).update(attempts)
        for group, topic, flat in records.get("a", ()):
            queue = self._find(group, topic)
            if queue is not None:
                unacked = self._unacked.setdefault(queue, set())
                for start, stop in zip(flat[::2], flat[1::2], strict=True):
                    unacked.difference_update(range(start, stop))

    def finish(self) -> None:
        """What was held when the broker stopped is to be delivered again."""
        for queue, unacked in self._unacked.items():
            known = self._attempts.get(queue, {})
            unacked = {offset for offset in unacked if offset >= queue.topic.first}
            queue.ready = list(unacked)
            heapify(queue.ready)
            queue.attempts = {offset: known.get(offset, 1) for offset in unacked}
        engine = self._engine
        for topic in engine.topic_named.values():
            engine.know_ids(topic)
            for offset, due in (topic.scheduled or {}).items():
                engine.timers.schedule(due, topic, offset)
                engine.intake.scheduled += 1

    # -- one kind each ---------------------------------------------------------------------------------------------

    def _messages(self, section: Section, time: float) -> None:
        topic = self._topic(section.topic)
        end = section.offsets[-1] + 1
        topic.next = topic.committed = max(topic.next, end)
        topic.size += section.size
        topic.touched = time
        if section.ids is not None and self._now - time <= topic.options.dedup_seconds:
            if topic.ids is None:
                topic.ids = {}
            topic.ids.update(
                (id, (offset, time)) for id, offset in zip(section.ids, section.offsets, strict=True) if id is not None
            )
        if section.dues is not None:
            scheduled = topic.scheduled = topic.scheduled or {}
            scheduled.update(
                (offset, due)
                for due, offset in zip(section.dues, section.offsets, strict=True)
                if due is not None and due > time
            )

    def _record(self, record: list[Any]) -> None:
        kind, *rest = record
        handler = getattr(self, "_on_" + kind.replace("-", "_"), None)
        if handler is None:
            self._engine.note_problem(f"a record of an unknown kind {kind!r} was passed over")
        else:
            handler(*rest)

    def _on_topic(self, name: str, options: dict[str, Any] | None, first: int) -> None:
        topic = self._topic(name)
        topic.options = TopicOptions(**options) if options is not None else self._engine.topic_options
        topic.first = max(topic.first, first)
        topic.next = topic.committed = max(topic.next, first)

    def _on_delete_topic(self, name: str) -> None:
        topic = self._engine.topic_named.get(name)
        if topic is not None:
            for queue in topic.queues:
                self._unacked.pop(queue, None)
            self._engine.drop_topic(topic)

    def _on_trim(self, name: str, first: int, size: int) -> None:
        topic = self._topic(name)
        topic.first, topic.size = max(topic.first, first), size

    def _on_group(self, name: str, pattern: str, start: str | int | float, most: int, dead_letter: str) -> None:
        group = self._group(name)
        group.max_deliveries, group.dead_letter = most, dead_letter
        group.patterns[pattern] = start
        self._engine.patterns.add(pattern, group)

    def _on_delete_group(self, name: str) -> None:
        group = self._engine.group_named.get(name)
        if group is not None:
            for queue in group.queues.values():
                self._unacked.pop(queue, None)
            self._engine.drop_group(group)

    def _on_queue(self, group: str, topic: str, cursor: int) -> None:
        self._queue(group, topic, cursor)

    def _on_fire(self, name: str, offsets: list[int]) -> None:
        topic = self._topic(name)
        for offset in offsets:
            if topic.scheduled is not None:
                topic.scheduled.pop(offset, None)
            for queue in topic.queues:
                if offset < queue.cursor:
                    self._unacked.setdefault(queue, set()).add(offset)
                    self._attempts.setdefault(queue, {})[offset] = 0

    def _on_requeue(self, group: str, topic: str, offsets: list[int]) -> None:
        queue = self._find(group, topic)
        if queue is not None:
            self._unacked.setdefault(queue, set()).update(offsets)
            self._attempts.setdefault(queue, {}).update(dict.fromkeys(offsets, 0))

    def _on_bind(self, source: str, target: str, headers: list[list[str]], match: Any) -> None:
        self._engine.add_binding(Binding(source, target, tuple((n, v) for n, v in headers), match))

    def _on_unbind(self, source: str, target: str, headers: list[list[str]], match: Any) -> None:
        self._engine.remove_binding(Binding(source, target, tuple((n, v) for n, v in headers), match))

    def _on_noop(self) -> None:
        """A probe that the disk takes writes again."""

    # -- finding ---------------------------------------------------------------------------------------------------

    def _topic(self, name: str) -> Topic:
        topic = self._engine.topic_named.get(name)
        if topic is None:
            topic = Topic(name, self._engine.topic_options)
            self._engine.adopt_topic(topic)
        return topic

    def _group(self, name: str) -> Group:
        group = self._engine.group_named.get(name)
        if group is None:
            group = self._engine.group_named[name] = Group(name, True)
        return group

    def _queue(self, group: str, topic: str, cursor: int) -> Queue | None:
        found = self._group(group)
        queue = found.queues.get(topic)
        if queue is None:
            place = self._topic(topic)
            queue = found.queues[topic] = Queue(found, place, cursor)
            place.queues.append(queue)
        return queue

    def _find(self, group: str, topic: str) -> Queue | None:
        found = self._engine.group_named.get(group)
        return found.queues.get(topic) if found is not None else None

    def _advance(self, group: str, topic: str, cursor: int) -> None:
        queue = self._find(group, topic)
        if queue is None or cursor <= queue.cursor:
            return
        unacked = self._unacked.setdefault(queue, set())
        unacked.update(range(queue.cursor, cursor))
        if queue.topic.scheduled:
            unacked.difference_update(queue.topic.scheduled)
        queue.cursor = cursor
