"""What is stored: memory, the second tier behind it, and the index by which both are purged."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from blocks.core.errors import ConfigError

from .entry import MARKER, PASS, Entry
from .key import KeyRules, authority, forwarded_target
from .purge import PurgeIndex
from .search import SearchVariance
from .store import Purge, Store
from .store.memory import MemoryStore
from .storing import opaque_key
from .vary import preferred_language, variant_part

if TYPE_CHECKING:
    from .visit import Visit

_SEARCHES = 1024  # paths whose No-Vary-Search is remembered, and queries by their canonical form


class Library:
    """Finds entries through markers, aliases and tiers, and keeps them findable.

    ``ahead`` is the last share of a lifetime in which a hit is looked at for refreshing. ``dropped`` is told of what leaves memory.
    """

    def __init__(
        self,
        capacity: int,
        store: Store | None,
        rules: KeyRules,
        ahead: float,
        monotonic: Callable[[], float],
        random: Random,
        dropped: Callable[[Entry], None] | None = None,
    ) -> None:
        self.memory = MemoryStore(capacity, self._left)
        self.store = store
        self._rules = rules
        self._ahead = ahead
        self._monotonic = monotonic
        self._random = random
        self._dropped = dropped
        self._index = PurgeIndex()
        self.searches: dict[str, SearchVariance] = {}  # by path: what No-Vary-Search says of its queries
        self._aliases: dict[str, str] = {}

    def go_on(self, new: Library) -> None:
        """Be as large, refresh and tell of what leaves as ``new`` would, whose edge takes this library over."""
        self._ahead, self._dropped = new._ahead, new._dropped
        self.memory.resize(new.memory.capacity)

    # -- finding

    async def find(self, visit: Visit) -> Entry | None:
        """The entry for a request; notes the marker that led to it."""
        entry = await self.at(visit.key)
        if entry is not None and entry.flags & PASS and entry.age(visit.now) > entry.lifetime:
            entry = None
        if entry is None and self.searches:
            alias = self._alias(visit)
            entry = await self.at(alias) if alias is not None else None
            if entry is not None and alias is not None:
                visit.key = alias
        if entry is not None and entry.flags & MARKER:
            visit.marker = entry
            variant = await self.at(visit.key + variant_part(entry.names, visit.section))
            return variant or await self._by_language(entry, visit)
        if entry is None and visit.section.has(b"range"):
            entry = await self.at(opaque_key(visit.key, visit.section.index[b"range"][0]))
        return entry

    async def at(self, key: str) -> Entry | None:
        """The entry of a key, from memory or loaded into it."""
        entry = self.memory.get(key)
        if entry is None and self.store is not None and self.store.holds(key):
            entry = await self.store.load(key)
            if entry is not None:
                self.put(entry)
        return entry

    async def _by_language(self, marker: Entry, visit: Visit) -> Entry | None:
        """The variant in the one language that the client likes best (RFC 9110 §12.5.4), when Accept-Language alone selects."""
        language = preferred_language(visit.section) if marker.names == (b"accept-language",) else b""
        if not language:
            return None
        for key in list(marker.variants or ()):
            entry = await self.at(key)
            if entry is not None and (entry.find(b"content-language") or b"").strip().lower() == language:
                return entry
        return None

    def _alias(self, visit: Visit) -> str | None:
        path, _, query = visit.key.partition("?")
        variance = self.searches.get(path)
        return None if variance is None else self._aliases.get(f"{path}?{variance.canonical(query)}")

    # -- keeping

    def put(self, entry: Entry) -> None:
        """Keep an entry in memory and findable for purges; one that is too large stays in the second tier alone."""
        entry.early = entry.lifetime
        if entry.lifetime >= 10.0 and self._ahead:
            entry.early -= entry.lifetime * self._ahead * (0.5 + 0.5 * self._random.random())
        if self.memory.put(entry) and not entry.flags & PASS:
            self._index.add(entry.key, entry.tags)

    def _left(self, entry: Entry) -> None:
        if not entry.flags & PASS:
            self._index.discard(entry.key, entry.tags)
        if self._dropped is not None:
            self._dropped(entry)

    def forget(self, key: str) -> None:
        """Take one key out of both tiers."""
        self.memory.remove(key)
        if self.store is not None:
            self.store.remove(key)

    def remember_search(self, key: str, variance: SearchVariance) -> None:
        """Queries that differ in what does not matter find the entry of ``key`` (No-Vary-Search)."""
        path, _, query = key.partition("?")
        if len(self.searches) >= _SEARCHES and path not in self.searches:
            self.searches.clear()
        if len(self._aliases) >= _SEARCHES:
            self._aliases.clear()
        self.searches[path] = variance
        self._aliases[f"{path}?{variance.canonical(query)}"] = key

    # -- purging

    def purge(self, purge: Purge) -> int:
        """Take out (or make stale) what is meant, in both tiers; how many entries that was."""
        found = 0
        now = self._monotonic()
        for key in self._index.find(purge):
            entry = self.memory.entries.get(key)
            if entry is None:
                continue
            found += not entry.flags & MARKER
            if not purge.soft:
                self.memory.remove(key)
            elif not entry.flags & MARKER:
                entry.expire(now)
        if self.store is not None:
            found = max(found, self.store.purge(purge))
        return found

    def keys_of(self, url: str, *, prefix: bool = False) -> list[str]:
        """The keys that a URL (or prefix) in a purge stands for: both schemes, or every host for a bare path. Raises ``ConfigError``."""
        if not prefix and self._rules.touches_query:
            url = forwarded_target(self._rules, url)
        if url.startswith("/"):
            return [f"{base}{url}" for base in self._index.bases()]
        scheme, mark, rest = url.partition("://")
        if not mark or scheme not in ("http", "https"):
            raise ConfigError(f"{url!r} is no URL to purge; write http://host/path or /path")
        host, slash, path = rest.partition("/")
        return [authority(each, host if self._rules.host else "-") + slash + path for each in ("http", "https")]
