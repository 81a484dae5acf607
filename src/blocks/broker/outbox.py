"""What a client publishes in one tick leaves in one frame; frames are kept until they are answered, and sent again as they were.

No I/O: messages go in, encoded frames come out, receipts come in and futures are resolved. A frame carries the client's
producer name and a sequence, so that the broker stores it once however often it is sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from . import wire
from .batch import FRAME_BYTES, FRAME_MESSAGES, Batch
from .errors import BadTopic, BrokerError, Closed, TooLarge
from .inboxes import is_inbox
from .message import Receipt
from .topics import MAX_NAME_BYTES

IN_FLIGHT = 200  # unanswered frames; the broker remembers the last 256 of a producer


class Outbox:
    """Gathers messages into batches, and keeps the batches until they are answered.

    ``room`` says how many bytes more it takes; whoever publishes waits while it is not positive, so that memory is bounded.
    """

    __slots__ = (
        "_encoder",
        "_gathering",
        "_number",
        "_producer",
        "_queue",
        "_sequence",
        "_unanswered",
        "limit",
        "room",
    )

    def __init__(self, encoder: wire.Encoder, producer: str, epoch: int, room: int, sequence: int = 0) -> None:
        self._encoder = encoder
        self._producer = (producer, epoch)
        self._sequence = sequence
        self._number = 0
        self._gathering: Batch | None = None
        self._queue: deque[Batch] = deque()
        self._unanswered: dict[int, Batch] = {}
        self.room = room
        self.limit = wire.MAX_FRAME // 2  # bytes of one message; the broker's own limit once it is known

    def __len__(self) -> int:
        """Batches that are not answered yet."""
        return len(self._unanswered) + len(self._queue) + (self._gathering is not None)

    def put(
        self, topic: str, payload: bytes, options: dict[str, Any] | None, future: asyncio.Future[Receipt], now: float
    ) -> None:
        """Take one message, to leave with the next frame."""
        size = len(payload)
        self.check(topic, size)
        batch = self._gathering
        inbox = is_inbox(topic)
        if batch is not None and (
            batch.inbox is not inbox or batch.size + size > FRAME_BYTES or batch.count >= FRAME_MESSAGES
        ):
            self.seal()
            batch = None
        if batch is None:
            batch = self._gathering = Batch(now, inbox=inbox)
        before = batch.size
        batch.add(topic, payload, options)
        batch.futures.append(future)
        self.room -= batch.size - before

    def check(self, topic: str, size: int) -> None:
        """Nothing, if a message of ``size`` bytes can be sent to ``topic``; else ``BadTopic`` or ``TooLarge``."""
        if not isinstance(topic, str) or len(topic) > MAX_NAME_BYTES:
            raise BadTopic(f"{topic!r:.80} is not a topic name")
        if size > self.limit:
            raise TooLarge(f"a message of {size} bytes, where {self.limit} are allowed")

    def put_batch(self, batch: Batch) -> None:
        """Take a batch that someone else has filled, after what was gathered before."""
        self.seal()
        self._queue.append(batch)
        self.room -= batch.size

    def seal(self) -> None:
        """Let no more messages into the batch that is being gathered."""
        if self._gathering is not None:
            self._queue.append(self._gathering)
            self._gathering = None

    @property
    def waiting(self) -> bool:
        """Whether a batch has not been sent yet."""
        return bool(self._queue) or self._gathering is not None

    def next(self) -> bytes | None:
        """The bytes of the next frame to send; None if there is none, or too many are unanswered."""
        if len(self._unanswered) >= IN_FLIGHT:
            return None
        if not self._queue:
            self.seal()
            if not self._queue:
                return None
        batch = self._queue.popleft()
        self._number += 1
        batch.number = self._number
        if not batch.inbox:
            self._sequence += 1
            batch.columns["producer"] = [*self._producer, self._sequence]
        batch.data = self._encoder.encode(batch.frame())
        self._unanswered[batch.number] = batch
        return batch.data

    def again(self) -> list[bytes]:
        """The frames that were sent and not answered, in order, exactly as they were."""
        return [batch.data for batch in self._unanswered.values()]

    def receive(self, durability: str, entries: list[list[Any]]) -> None:
        """The broker's receipts. An entry for a frame that is not known is of an earlier connection and ignored."""
        for number, offsets, duplicates, errors in entries:
            batch = self._unanswered.get(number)
            if batch is None or _is_put_off(errors, batch.count):
                continue
            del self._unanswered[number]
            self.room += batch.size
            batch.resolve(offsets, duplicates, errors, durability)

    def fail(self, error: BrokerError, older_than: float | None = None, *, sent_only: bool = False) -> None:
        """Give up on everything, or on what has waited since before ``older_than``, or only on what was sent."""
        if not sent_only:
            self.seal()
            kept: deque[Batch] = deque()
            for batch in self._queue:
                self._give_up(batch, error) if _is_due(batch, older_than) else kept.append(batch)
            self._queue = kept
        for number, batch in list(self._unanswered.items()):
            if _is_due(batch, older_than):
                del self._unanswered[number]
                self._give_up(batch, error)

    def _give_up(self, batch: Batch, error: BrokerError) -> None:
        self.room += batch.size
        batch.fail(error)


def _is_due(batch: Batch, older_than: float | None) -> bool:
    return older_than is None or batch.since < older_than


def _is_put_off(errors: list[list[Any]], count: int) -> bool:
    """Whether a stopping broker refused the frame as a whole: it is kept, and sent to the next one."""
    return len(errors) == count and errors[0][1] == Closed.code
