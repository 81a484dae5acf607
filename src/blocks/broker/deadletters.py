"""Messages that cannot be processed go to a topic of their own with the reason and the history, and can be sent back.

The copy and the end of the original are one batch in the log, so that a crash finds both or neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import Damaged, NotFound
from .message import Publication, Receipts
from .queue import Queue

if TYPE_CHECKING:
    from .engine import Engine

PREFIX = "dead-letter-"
_REASON = 4096  # characters kept of a reason
_RETRY = 1.0  # seconds until a dead letter that could not be written is tried again


class DeadLetters:
    """Buries and redrives."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.buried = 0

    def bury(self, queue: Queue, offset: int, made: int, reason: str) -> None:
        """Copy the message to its group's dead letters; when that is durable, it is done for the group."""
        engine = self._engine
        history = queue.history.get(offset, [])
        try:
            found = engine.log.read(queue.topic.name, offset)
        except Damaged as error:
            engine.note_problem(str(error))
            found = None
        section = found[1] if found is not None else None
        if section is None or offset not in section.offsets or not queue.group.durable:
            self._settled(queue, offset)
            return
        at = section.offsets.index(offset)
        headers = dict((section.headers[at] if section.headers else None) or {})
        headers |= {
            PREFIX + "reason": reason[:_REASON].encode("utf-8", "replace").decode(),
            PREFIX + "topic": queue.topic.name,
            PREFIX + "offset": str(offset),
            PREFIX + "group": queue.group.name,
            PREFIX + "attempts": str(made),
            PREFIX + "history": json.dumps([{"time": when, "reason": why} for when, why in history[-32:]]),
        }
        queue.attempts[offset] = made
        copy = Publication(
            queue.group.dead_letter,
            [section.payloads[at]],
            keys=[section.keys[at]] if section.keys else None,
            headers=[headers],
        )
        self._move(queue, offset, copy)

    def _move(self, queue: Queue, offset: int, copy: Publication) -> None:
        """The copy and the ack of the original go into one batch: both are stored, or neither."""
        engine = self._engine

        def done(receipts: Receipts) -> None:
            queue.dying.discard(offset)
            if receipts.errors:
                engine.draft.unack(queue.group.name, queue.topic.name, offset)
                queue.delayed[offset] = engine.clock.monotonic() + _RETRY
                engine.timers.delay(queue.delayed[offset], queue, offset)
                return
            self.buried += 1
            if queue.done(offset):
                queue.group.wake(queue)

        queue.dying.add(offset)
        engine.publish(copy, done)
        if offset in queue.dying:
            engine.note_done(queue, [offset])

    def _settled(self, queue: Queue, offset: int) -> None:
        freed = queue.done(offset)
        self._engine.note_done(queue, [offset])
        if freed:
            queue.group.wake(queue)

    def redrive(self, name: str, limit: int | None, done: Callable[[int], None]) -> None:
        """Give up to ``limit`` dead letters of group ``name`` back to it; ``done(count)`` when that is durable.

        A message that is still in its topic is delivered to this group again, from attempt 1. If it is not there
        any more, its copy is published to the topic anew, where every group sees it.
        """
        engine = self._engine
        if name not in engine.group_named:
            raise NotFound(f"there is no group {name!r}")
        engine.when_durable(lambda stale: self._redrive(name, limit, done), 0)

    def _redrive(self, name: str, limit: int | None, done: Callable[[int], None]) -> None:
        engine = self._engine
        group = engine.group_named.get(name)
        if group is None:
            done(0)
            return
        topic = engine.topic_named.get(group.dead_letter)
        sent = 0
        while topic is not None and topic.first < topic.committed and (limit is None or sent < limit):
            found = engine.log.read(topic.name, topic.first)
            if found is None:
                break
            section = found[1]
            for at, offset in enumerate(section.offsets):
                if offset < topic.first or (limit is not None and sent >= limit):
                    continue
                self._send_back(group.name, section.payloads[at], section, at)
                sent += 1
                engine.trim(topic, offset + 1, len(section.payloads[at]))
        engine.when_durable(lambda stale: done(sent if stale >= 0 else 0), 0)

    def _send_back(self, name: str, payload: bytes, section: Any, at: int) -> None:
        engine = self._engine
        headers = dict((section.headers[at] if section.headers else None) or {})
        source = headers.get(PREFIX + "topic", "")
        offset = int(headers.get(PREFIX + "offset", "-1"))
        queue = engine.group_named[name].queues.get(source)
        if queue is not None and offset >= queue.topic.first and offset < queue.cursor:
            found = engine.log.read(source, offset)
            if found is not None and offset in found[1].offsets:
                if queue.made(offset) == 0 and offset not in set(queue.unacked()):
                    engine.record("requeue", name, source, [offset], before=True)
                    queue.give_back(offset, 0)
                    queue.group.wake(queue)
                return
        plain = {key: value for key, value in headers.items() if not key.startswith(PREFIX)}
        keys = [section.keys[at]] if section.keys else None
        copy = Publication(source or section.topic, [payload], keys=keys, headers=[plain] if plain else None)
        engine.publish(copy, lambda receipts: None)
