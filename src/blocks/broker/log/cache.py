"""Decoded batches that were used last stay in memory, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict

from .batch import Batch


class BatchCache:
    """Keyed by (segment salt, position): a rewritten segment has another salt, so nothing stale can be found."""

    __slots__ = ("_batches", "_used", "capacity")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._batches: OrderedDict[tuple[int, int], tuple[Batch, int]] = OrderedDict()
        self._used = 0

    def get(self, salt: int, position: int) -> Batch | None:
        """The batch, which is now the one used last."""
        found = self._batches.get((salt, position))
        if found is None:
            return None
        self._batches.move_to_end((salt, position))
        return found[0]

    def put(self, salt: int, batch: Batch) -> None:
        """Keep ``batch``; the ones used longest ago make room."""
        cost = batch.cost
        old = self._batches.pop((salt, batch.position), None)
        if old is not None:
            self._used -= old[1]
        self._batches[salt, batch.position] = (batch, cost)
        self._used += cost
        while self._used > self.capacity and len(self._batches) > 1:
            _, (_, freed) = self._batches.popitem(last=False)
            self._used -= freed

    def clear(self) -> None:
        """Forget everything."""
        self._batches.clear()
        self._used = 0
