"""Entries in memory, bounded by bytes and evicted by S3-FIFO.

New entries pass a small queue (10 % of the bytes); what is asked for again there moves to the main queue, what is not leaves only
its name behind, in a ghost list, so that a second coming goes straight to the main queue. One-hit wonders and scans therefore never
push out what is hot. A hit costs an increment. Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from blocks.edge.entry import Entry

SMALL_SHARE = 0.1  # of the capacity; the paper's choice
LARGEST_SHARE = 0.05  # one object may take this part of the capacity: above it a single request would empty the cache
MOST_FREQUENT = 3  # the paper counts to 3 (two bits)
_SMALL, _MAIN = 1, 2


class MemoryStore:
    """A dict of entries by key with at most ``capacity`` bytes; ``dropped`` is told of each that leaves, for whatever reason."""

    def __init__(self, capacity: int, dropped: Callable[[Entry], None] | None = None) -> None:
        self.capacity = capacity
        self.largest = int(capacity * LARGEST_SHARE)
        self.entries: dict[str, Entry] = {}
        self.bytes = 0
        self.evictions = 0
        self._dropped = dropped
        self._small: deque[Entry] = deque()
        self._main: deque[Entry] = deque()
        self._small_bytes = 0
        self._small_limit = int(capacity * SMALL_SHARE)
        self._ghost: OrderedDict[str, None] = OrderedDict()
        self._dead = 0  # places in the queues whose entry has left

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())

    def get(self, key: str) -> Entry | None:
        """The entry, counted as asked for."""
        entry = self.entries.get(key)
        if entry is not None and entry.frequency < MOST_FREQUENT:
            entry.frequency += 1
        return entry

    def resize(self, capacity: int) -> None:
        """Hold at most ``capacity`` bytes from now on; what is too much leaves at once."""
        self.capacity = capacity
        self.largest = int(capacity * LARGEST_SHARE)
        self._small_limit = int(capacity * SMALL_SHARE)
        self._make_room(0)

    def fits(self, size: int) -> bool:
        """Whether an object of ``size`` bytes may be kept at all."""
        return size <= self.largest

    def put(self, entry: Entry) -> bool:
        """Keep ``entry``, in the place of one with its key, evicting others as needed. False when it is too large."""
        weight = entry.size
        old = self.entries.get(entry.key)
        if old is not None:
            entry.frequency = old.frequency
            entry.queue = old.queue
            self._forget(old)
        elif entry.key in self._ghost:
            del self._ghost[entry.key]
            entry.queue = _MAIN
        else:
            entry.queue = _SMALL
        if weight > self.largest:
            return False
        entry.weight = weight
        self._make_room(weight)
        self.entries[entry.key] = entry
        self.bytes += weight
        if entry.queue == _SMALL:
            self._small.append(entry)
            self._small_bytes += weight
        else:
            self._main.append(entry)
        return True

    def reweigh(self, entry: Entry) -> None:
        """The size of a kept entry changed."""
        if self.entries.get(entry.key) is not entry:
            return
        change = entry.size - entry.weight
        entry.weight += change
        self.bytes += change
        if entry.queue == _SMALL:
            self._small_bytes += change
        if change > 0:
            self._make_room(0)

    def remove(self, key: str) -> Entry | None:
        """Take the entry of that key out."""
        entry = self.entries.get(key)
        if entry is not None:
            self._forget(entry)
        return entry

    def _forget(self, entry: Entry) -> None:
        del self.entries[entry.key]
        self._uncount(entry)
        self._dead += 1
        if self._dead > 64 and self._dead > len(self.entries):
            self._sweep()
        if self._dropped is not None:
            self._dropped(entry)

    def _uncount(self, entry: Entry) -> None:
        self.bytes -= entry.weight
        if entry.queue == _SMALL:
            self._small_bytes -= entry.weight

    def _sweep(self) -> None:
        """Take the places of what has left out of the queues, once they are the greater part."""
        entries = self.entries
        self._small = deque(
            [entry for entry in self._small if entries.get(entry.key) is entry and entry.queue == _SMALL]
        )
        self._main = deque([entry for entry in self._main if entries.get(entry.key) is entry and entry.queue == _MAIN])
        self._dead = 0

    def _make_room(self, weight: int) -> None:
        while self.bytes + weight > self.capacity and self.entries:
            if self._small_bytes > self._small_limit or not self._main:
                self._evict_small()
            else:
                self._evict_main()

    def _evict_small(self) -> None:
        entry = self._pop(self._small, _SMALL)
        if entry is None:
            if self._main:
                self._evict_main()
            return
        if entry.frequency > 1:
            entry.frequency = 0
            entry.queue = _MAIN
            self._small_bytes -= entry.weight
            self._main.append(entry)
            return
        self._leave(entry)
        self._ghost[entry.key] = None
        if len(self._ghost) > max(64, len(self.entries)):
            self._ghost.popitem(last=False)

    def _evict_main(self) -> None:
        while True:
            entry = self._pop(self._main, _MAIN)
            if entry is None:
                return
            if entry.frequency == 0:
                self._leave(entry)
                return
            entry.frequency -= 1
            self._main.append(entry)

    def _pop(self, queue: deque[Entry], which: int) -> Entry | None:
        while queue:
            entry = queue.popleft()
            if entry.queue == which and self.entries.get(entry.key) is entry:
                return entry
            self._dead -= 1
        return None

    def _leave(self, entry: Entry) -> None:
        del self.entries[entry.key]
        self._uncount(entry)
        self.evictions += 1
        if self._dropped is not None:
            self._dropped(entry)
