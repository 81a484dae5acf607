"""Hit ratio of S3-FIFO, LRU and an offline optimum on four synthetic traces: `python benchmarks/hit_ratio.py docs/edge-hit-ratio.svg`."""

from __future__ import annotations

import sys
from collections import OrderedDict
from heapq import heappop, heappush
from itertools import accumulate
from random import Random

from blocks.edge.entry import Entry
from blocks.edge.store.memory import MemoryStore

OBJECTS, LENGTH, KEPT = 5000, 60_000, 500
Trace = list[str]


def zipf(random: Random, length: int, offset: int = 0) -> Trace:
    weights = list(accumulate(1 / (place + 1) for place in range(OBJECTS)))
    return [f"p{place + offset}" for place in random.choices(range(OBJECTS), cum_weights=weights, k=length)]


def scans(random: Random) -> Trace:
    """Zipf, and every now and then a walk over objects that come once."""
    trace: Trace = []
    for block, part in enumerate(range(0, LENGTH, 3000)):
        trace += zipf(random, 2000)
        trace += [f"s{block}-{place}" for place in range(min(1000, LENGTH - part))]
    return trace


def wonders(random: Random) -> Trace:
    """Half of the requests are for objects that are never asked for again."""
    return [f"w{place}" if random.random() < 0.5 else key for place, key in enumerate(zipf(random, LENGTH))]


def shifting(random: Random) -> Trace:
    """What is popular moves on."""
    return [key for part in range(10) for key in zipf(random, LENGTH // 10, part * 400)]


def fifo3(trace: Trace) -> float:
    one = Entry("x" * 6, 200, b"", bytes(500), born=0, lifetime=1).size
    store = MemoryStore(one * KEPT)
    hits = 0
    for key in trace:
        if store.get(key) is not None:
            hits += 1
        else:
            store.put(Entry(key, 200, b"", bytes(506 - len(key)), born=0, lifetime=1))
    return hits / len(trace)


def lru(trace: Trace) -> float:
    kept: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for key in trace:
        if key in kept:
            kept.move_to_end(key)
            hits += 1
        else:
            kept[key] = None
            if len(kept) > KEPT:
                kept.popitem(last=False)
    return hits / len(trace)


def optimum(trace: Trace) -> float:
    """Belady: what is asked for last, or never, leaves, and does not even come in."""
    following = [0] * len(trace)
    seen: dict[str, int] = {}
    for place in range(len(trace) - 1, -1, -1):
        following[place] = seen.get(trace[place], len(trace))
        seen[trace[place]] = place
    kept: dict[str, int] = {}
    heap: list[tuple[int, str]] = []
    hits = 0
    for place, key in enumerate(trace):
        hits += key in kept
        kept[key] = following[place]
        heappush(heap, (-following[place], key))
        while len(kept) > KEPT:
            when, far = heappop(heap)
            if kept.get(far) == -when:
                del kept[far]
    return hits / len(trace)


def plot(rows: list[tuple[str, list[float]]]) -> str:
    colours = (("S3-FIFO", "#1b6ca8"), ("LRU", "#c0803a"), ("optimum, offline", "#9aa5ad"))
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 300" font-family="sans-serif" font-size="12" role="img">'
    ]
    parts.append("<title>Hit ratio by trace and policy</title>")
    for step in range(6):
        y = 250 - step * 40
        parts.append(
            f'<path d="M50 {y}H620" stroke="#ddd"/><text x="42" y="{y + 4}" text-anchor="end">{step * 20} %</text>'
        )
    for place, (name, ratios) in enumerate(rows):
        left = 70 + place * 140
        for each, ratio in enumerate(ratios):
            x, height = left + each * 34, ratio * 200
            parts.append(
                f'<rect x="{x}" y="{250 - height:.1f}" width="30" height="{height:.1f}" fill="{colours[each][1]}"/>'
            )
            parts.append(
                f'<text x="{x + 15}" y="{246 - height:.1f}" text-anchor="middle" font-size="10">{ratio * 100:.0f}</text>'
            )
        parts.append(f'<text x="{left + 49}" y="268" text-anchor="middle">{name}</text>')
    for each, (name, colour) in enumerate(colours):
        parts.append(
            f'<rect x="{70 + each * 150}" y="280" width="12" height="12" fill="{colour}"/><text x="{88 + each * 150}" y="290">{name}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    rows: list[tuple[str, list[float]]] = []
    for name, trace in (
        ("Zipf", zipf(Random(1), LENGTH)),
        ("scans", scans(Random(2))),
        ("one-hit wonders", wonders(Random(3))),
        ("shifting", shifting(Random(4))),
    ):
        rows.append((name, [policy(trace) for policy in (fifo3, lru, optimum)]))
        print(f"{name:>16}: " + "  ".join(f"{ratio:.3f}" for ratio in rows[-1][1]))
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            file.write(plot(rows))


if __name__ == "__main__":
    main()
