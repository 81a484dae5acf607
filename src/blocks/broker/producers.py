"""Idempotent producers: a frame that is sent again is stored once, and an older epoch of a producer is kept out.

Source: Kafka's KIP-98, with one sequence number a frame and the last 256 frames remembered (Kafka remembers 5).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from .errors import BrokerError, Fenced, SequenceGap

REMEMBERED = 256


class Producer:
    """One producer's newest epoch, its last sequence, and the offsets of its last frames."""

    __slots__ = ("epoch", "frames", "last")

    def __init__(self, epoch: int, last: int) -> None:
        self.epoch = epoch
        self.last = last
        self.frames: OrderedDict[int, Sequence[int]] = OrderedDict()

    def remember(self, sequence: int, offsets: Sequence[int]) -> None:
        """The frame ``sequence`` was stored at ``offsets``."""
        self.last = sequence
        self.frames[sequence] = offsets
        if len(self.frames) > REMEMBERED:
            self.frames.popitem(last=False)


class Producers:
    """All producers that are remembered; the one that was silent the longest makes room."""

    __slots__ = ("_limit", "_producers")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._producers: OrderedDict[str, Producer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._producers)

    def check(self, name: str, epoch: int, sequence: int) -> Sequence[int] | BrokerError | None:
        """The offsets of a frame that was stored before, an error, or None: the frame is new."""
        producer = self._producers.get(name)
        if producer is None or epoch > producer.epoch:
            return None
        if epoch < producer.epoch:
            return Fenced(f"producer {name} has epoch {producer.epoch}, this is {epoch}")
        if sequence > producer.last:
            return None  # a gap is no loss: frames that were refused before they came here have numbers too
        known = producer.frames.get(sequence)
        if known is not None:
            return known
        return SequenceGap(f"producer {name}: frame {sequence} came, the last was {producer.last}")

    def store(self, name: str, epoch: int, sequence: int, offsets: Sequence[int]) -> None:
        """Remember a frame that ``check`` found new."""
        producer = self._producers.get(name)
        if producer is None or epoch > producer.epoch:
            producer = self._producers[name] = Producer(epoch, sequence - 1)
            if len(self._producers) > self._limit:
                self._producers.popitem(last=False)
        self._producers.move_to_end(name)
        producer.remember(sequence, offsets)

    def forget(self, name: str, sequence: int) -> None:
        """The frame, the newest of its producer, could not be written."""
        producer = self._producers.get(name)
        if producer is not None and producer.frames.pop(sequence, None) is not None:
            producer.last = min(producer.last, sequence - 1)

    def dump(self) -> list[Any]:
        """For a snapshot."""
        return [
            (name, p.epoch, p.last, [(sequence, packed(offsets)) for sequence, offsets in p.frames.items()])
            for name, p in self._producers.items()
        ]

    def load(self, rows: list[Any]) -> None:
        """From a snapshot."""
        for name, epoch, last, frames in rows:
            producer = self._producers[name] = Producer(epoch, last)
            for sequence, offsets in frames:
                producer.frames[sequence] = unpacked(offsets)


def packed(offsets: Sequence[int]) -> list[int] | tuple[str, int, int]:
    """Offsets for the log: a range as its ends."""
    return ("r", offsets.start, offsets.stop) if isinstance(offsets, range) else list(offsets)


def unpacked(stored: Any) -> Sequence[int]:
    """What ``packed`` made."""
    if len(stored) == 3 and stored[0] == "r":
        return range(stored[1], stored[2])
    return list(stored)
