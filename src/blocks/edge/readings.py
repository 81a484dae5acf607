"""The edge's numbers as Prometheus series: what ``Edge.stats`` says, and the second tier's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from blocks.core.metrics import Reading

if TYPE_CHECKING:
    from .edge import Edge

_RESULTS = {"hits": "hit", "stale": "stale", "misses": "miss", "passes": "pass", "refused": "refused"}
_COUNTERS = {
    "collapsed": ("collapsed_requests", "Requests that waited for another one's fill."),
    "fills": ("fills", "Requests to the origin."),
    "fills_refused": ("refused_fills", "Fills over a limit."),
    "revalidated": ("revalidations", "Stored responses that the origin confirmed."),
    "refreshed": ("refreshes", "Hot entries refreshed before they expired."),
    "stored": ("stored_responses", "Responses stored."),
    "invalidated": ("invalidations", "Entries that unsafe requests took out."),
    "purged": ("purged_entries", "Entries that purges took out."),
    "evictions": ("evictions", "Entries that made room for others, in memory."),
    "bytes_served": ("served_bytes", "Bytes of bodies sent to clients."),
    "bytes_from_origin": ("fetched_bytes", "Bytes of bodies that came from the origin."),
    "errors": ("errors", "Requests that ended in an error."),
}
_GAUGES = {
    "entries": ("entries", "Entries in memory."),
    "memory_bytes": ("memory_bytes", "Bytes that they weigh."),
    "filling": ("filling", "Bodies that are coming now."),
}
_DISK_COUNTERS = {
    "hits": ("disk_hits", "Entries that were found on disk."),
    "written": ("disk_writes", "Records written."),
    "evicted": ("disk_evictions", "Entries that made room for others, on disk."),
    "dropped": ("disk_dropped", "Entries that could not be written."),
    "damaged": ("disk_damaged", "Entries that did not match their checksum, and were not served."),
    "errors": ("disk_errors", "System calls on the disk that failed."),
}
_DISK_GAUGES = {
    "entries": ("disk_entries", "Entries on disk."),
    "bytes": ("disk_bytes", "Bytes on disk."),
    "waiting_bytes": ("disk_waiting_bytes", "Bytes that wait to be written."),
    "bans": ("disk_bans", "Purges that entries on disk are held against."),
}


def readings(edge: Edge) -> Iterator[Reading]:
    """Every series of an edge, named ``blocks_edge_<noun>``; a fixed number of them."""
    stats = edge.stats()
    for key, result in _RESULTS.items():
        if key in stats:
            yield Reading(
                "blocks_edge_requests_total", "counter", "Requests by result.", (("result", result),), stats[key]
            )
    yield from _of(stats, _COUNTERS, "counter")
    yield from _of(stats, _GAUGES, "gauge")
    tier = getattr(edge.store, "stats", None)
    if tier is not None:
        disk = tier()
        yield from _of(disk, _DISK_COUNTERS, "counter")
        yield from _of(disk, _DISK_GAUGES, "gauge")


def _of(stats: dict[str, Any], names: dict[str, tuple[str, str]], kind: str) -> Iterator[Reading]:
    suffix = "_total" if kind == "counter" else ""
    for key, (name, help) in names.items():
        if key in stats:
            yield Reading(f"blocks_edge_{name}{suffix}", kind, help, (), stats[key])
