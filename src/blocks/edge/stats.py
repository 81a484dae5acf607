"""What an edge counts."""

from __future__ import annotations

from typing import Any

_MOST_MISSED = 512  # URLs whose misses are counted; the rarest go when there are more


class Counts:
    """Plain ints, one for each thing that happens."""

    __slots__ = (
        "bytes_from_origin",
        "bytes_served",
        "collapsed",
        "errors",
        "fills",
        "fills_refused",
        "hits",
        "invalidated",
        "missed",
        "misses",
        "passes",
        "purged",
        "refreshed",
        "refused",
        "revalidated",
        "stale",
        "stored",
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)
        self.missed: dict[str, int] = {}

    hits: int
    stale: int
    misses: int
    passes: int
    collapsed: int
    revalidated: int
    refreshed: int
    errors: int
    fills: int
    fills_refused: int
    stored: int
    refused: int
    purged: int
    invalidated: int
    bytes_served: int
    bytes_from_origin: int

    def miss(self, key: str) -> None:
        """One more miss of ``key``."""
        self.misses += 1
        missed = self.missed
        if len(missed) >= _MOST_MISSED and key not in missed:
            self.missed = missed = {name: count >> 1 for name, count in missed.items() if count > 1}
            if len(missed) >= _MOST_MISSED:
                return
        missed[key] = missed.get(key, 0) + 1

    def summary(self) -> dict[str, Any]:
        """The counts and the ratios they give: ``hit_ratio`` of requests, ``byte_hit_ratio`` of bytes, ``offload`` of origin requests."""
        answered = self.hits + self.stale + self.misses + self.passes + self.revalidated + self.collapsed
        from_store = self.hits + self.stale + self.collapsed
        found = {name: getattr(self, name) for name in self.__slots__ if name != "missed"}
        found["requests"] = answered
        found["hit_ratio"] = from_store / answered if answered else 0.0
        served = self.bytes_served
        found["byte_hit_ratio"] = max(0.0, 1 - self.bytes_from_origin / served) if served else 0.0
        found["offload"] = 1 - self.fills / answered if answered else 0.0
        top = sorted(self.missed.items(), key=lambda pair: -pair[1])[:20]
        found["top_misses"] = [{"key": key.replace("\0", " "), "misses": count} for key, count in top]
        return found
