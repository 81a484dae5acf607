"""Records of one process. When there is no room, new ones are refused: a promise that was given is not forgotten to give another."""

from __future__ import annotations

from blocks.core.clock import SYSTEM, Clock

from .contract import StoreDown

MAX_BYTES = 64 * 1024 * 1024
_OVERHEAD = 200  # bytes that a record costs beside its key and value


class MemoryRecords:
    """Keeps at most ``room`` bytes; expired records make room when it is needed."""

    def __init__(self, room: int = MAX_BYTES, *, clock: Clock = SYSTEM) -> None:
        self.room = room
        self.used = 0
        self._clock = clock
        self._records: dict[bytes, tuple[bytes, float]] = {}

    def __len__(self) -> int:
        return len(self._records)

    async def add(self, key: bytes, value: bytes, ttl: float) -> bytes | None:
        """See ``Records.add``."""
        found = self._find(key)
        if found is None:
            self._put(key, value, ttl)
        return found

    async def get(self, key: bytes) -> bytes | None:
        """See ``Records.get``."""
        return self._find(key)

    async def swap(self, key: bytes, old: bytes, new: bytes, ttl: float) -> bool:
        """See ``Records.swap``."""
        if self._find(key) != old:
            return False
        self._put(key, new, ttl)
        return True

    async def drop(self, key: bytes, old: bytes) -> bool:
        """See ``Records.drop``."""
        if self._find(key) != old:
            return False
        self._forget(key)
        return True

    def _find(self, key: bytes) -> bytes | None:
        record = self._records.get(key)
        if record is None:
            return None
        if record[1] <= self._clock.monotonic():
            self._forget(key)
            return None
        return record[0]

    def _put(self, key: bytes, value: bytes, ttl: float) -> None:
        there = self._records.get(key)
        cost = _OVERHEAD + len(key) + len(value)
        freed = 0 if there is None else _OVERHEAD + len(key) + len(there[0])
        if self.used + cost - freed > self.room:
            self._sweep()
            if self.used + cost - freed > self.room:
                raise StoreDown("the store of records is full", reason="store-full")
        self._records[key] = (value, self._clock.monotonic() + ttl)
        self.used += cost - freed

    def _forget(self, key: bytes) -> None:
        value, _ = self._records.pop(key)
        self.used -= _OVERHEAD + len(key) + len(value)

    def _sweep(self) -> None:
        now = self._clock.monotonic()
        for key in [key for key, (_, until) in self._records.items() if until <= now]:
            self._forget(key)
