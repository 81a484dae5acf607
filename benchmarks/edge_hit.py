"""What a hit in memory costs, and what an entry weighs: `python benchmarks/edge_hit.py [--million]` (with a million entries: 3 GB)."""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from collections.abc import Coroutine
from random import Random
from statistics import median
from typing import Any

from blocks.edge import Edge
from blocks.http import Request, Response

BROWSER = [
    ("host", "example.com"), ("connection", "keep-alive"), ("sec-ch-ua", '"Chromium";v="126"'), ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", '"Linux"'), ("upgrade-insecure-requests", "1"), ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
    ("accept", "text/html,application/xhtml+xml"), ("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate"), ("sec-fetch-user", "?1"),
    ("sec-fetch-dest", "document"), ("accept-encoding", "gzip, deflate, br, zstd"), ("accept-language", "en-GB,en;q=0.9"),
]  # fmt: skip
URLS = 10_000


async def origin(request: Request) -> Response:
    fields = [
        ("content-type", "text/html; charset=utf-8"), ("cache-control", "max-age=3600"),
        ("etag", '"33a64df551425fcc55e4d42a148795d9f25f89d4"'), ("last-modified", "Tue, 14 Nov 2023 21:13:20 GMT"), ("server", "origin"),
    ]  # fmt: skip
    return Response(200, fields, bytes(1024))


origin.direct = True  # type: ignore[attr-defined]  # it never waits


def finish(coroutine: Coroutine[Any, Any, Response]) -> Response:
    """Run a handler that does not wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # a Response
    raise AssertionError("the handler waited")


def hits(edge: Edge, targets: list[str], headers: Any, count: int) -> float:
    """Seconds for one hit, the making of the request taken off."""
    requests = [Request("GET", targets[place % len(targets)], headers) for place in range(count)]
    start = time.perf_counter()
    for request in requests:
        finish(edge(request))
    return (time.perf_counter() - start) / count


def weigh(count: int) -> float:
    """Bytes of memory for an entry of 1 KiB, its body and field lines taken off."""
    edge = Edge(origin, "1GiB")
    headers = Request("GET", "/", BROWSER).headers
    finish(edge(Request("GET", "/warm", headers)))
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for place in range(count):
        finish(edge(Request("GET", f"/item/{place}/view", headers)))
    edge.counts.missed.clear()
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    content = sum(len(entry.body) + len(entry.wire) for entry in edge.memory if isinstance(entry.body, bytes))
    return (used - content) / count


def main(million: bool) -> None:
    random = Random(1)
    weights = [1 / (place + 1) for place in range(URLS)]
    for entries in (1_000, 10_000, 100_000, *([1_000_000] if million else [])):
        edge = Edge(origin, "4GiB")
        headers = Request("GET", "/", BROWSER).headers
        for place in range(entries):
            finish(edge(Request("GET", f"/{place}", headers)))
        targets = [
            f"/{place}" for place in random.choices(range(min(URLS, entries)), weights[: min(URLS, entries)], k=100_000)
        ]
        runs = sorted(hits(edge, targets, headers, 100_000) * 1e6 for _ in range(5))
        print(f"{entries:>9,} entries: {median(runs):.2f} µs a hit (best {runs[0]:.2f}, worst {runs[-1]:.2f})")
    print(f"an entry of 1 KiB weighs {weigh(20_000):.0f} B beside its body and its field lines")


if __name__ == "__main__":
    main("--million" in sys.argv)
