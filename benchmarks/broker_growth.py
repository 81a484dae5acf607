"""How the broker's cost grows: with topics, with groups, with the backlog; medians of three, and a plot.

    python benchmarks/broker_growth.py [--full] [--plot docs/broker-growth.svg]

One broker process over a fresh directory for each point, one client here; fsync. ``--full`` goes to a backlog of 10 million.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from blocks.broker import Outgoing, connect

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
SMALL = b"x" * 100
Point = dict[str, float]


@asynccontextmanager
async def broker() -> AsyncIterator[tuple[Any, int]]:
    folder = tempfile.mkdtemp(prefix="bench-growth-")
    command = [
        sys.executable,
        "-c",
        "from blocks.broker.cli import broker; broker()",
        "--listen",
        "127.0.0.1:0",
        "--data",
        folder,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT)
    try:
        assert process.stdout is not None
        url = json.loads(await asyncio.to_thread(process.stdout.readline))["url"]
        async with connect(url, buffer="256MiB") as client:
            yield client, process.pid
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


def rss(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


async def rate(count: int, work: Callable[[], Awaitable[Any]]) -> float:
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        await work()
        taken.append(count / (time.perf_counter() - start))
    return statistics.median(taken)


async def latency(client: Any, topics: list[str]) -> float:
    """Milliseconds of one publish at a time, the median of 200."""
    taken = []
    for number in range(200):
        start = time.perf_counter()
        await client.publish(topics[number * 7919 % len(topics)], SMALL)
        taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken)


async def with_topics(count: int) -> Point:
    names = [f"shop.{n}.events" for n in range(count)]
    async with broker() as (client, pid):
        for start in range(0, count, 5000):
            await client.publish_batch([Outgoing(name, SMALL) for name in names[start : start + 5000]])
        before = rss(pid)

        async def work() -> None:
            messages = (Outgoing(names[n * 7919 % count], SMALL) for n in range(30_000))
            batches = iter(lambda: [m for m, _ in zip(messages, range(1000), strict=False)], [])
            await asyncio.gather(*[client.publish_batch(batch) for batch in batches])

        return {"publish/s": await rate(30_000, work), "latency ms": await latency(client, names), "MiB": before}


async def with_groups(count: int) -> Point:
    total = max(500, min(20_000, 400_000 // count))
    async with broker() as (client, pid):
        groups = [client.subscribe("t", group=f"g{n}", start="earliest") for n in range(count)]
        for group in groups:
            await group.__aenter__()

        async def drain(messages: Any) -> None:
            for _ in range(total):
                await (await anext(messages)).ack()

        async def work() -> None:
            await asyncio.gather(client.publish_many("t", [SMALL] * total), *map(drain, groups))

        result = {"delivered/s": await rate(total * count, work), "MiB": rss(pid)}
        for group in groups:
            await group.close()
        return {**result, "latency ms": await latency(client, ["t"])}


async def with_backlog(count: int) -> Point:
    async with broker() as (client, pid):
        for start in range(0, count, 20_000):
            await client.publish_many("t", [SMALL] * min(20_000, count - start))
        held = rss(pid)

        async def work() -> None:
            await client.publish_many("t", [SMALL] * 20_000)

        result = {"MiB": held, "publish/s": await rate(20_000, work), "latency ms": await latency(client, ["t"])}
        async with client.subscribe("t", group="g", start="earliest", prefetch=4000) as messages:
            start_at = time.perf_counter()
            for _ in range(10_000):
                await (await anext(messages)).ack()
            result["drained/s"] = 10_000 / (time.perf_counter() - start_at)
        return result


def plot(series: dict[str, dict[int, Point]]) -> str:
    """Three panels side by side: rate (log) against the size (log); one line for each rate."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 280" font-family="sans-serif" font-size="11" role="img">'
    ]
    parts.append("<title>Rates of the broker against topics, groups and backlog</title>")
    colours = ["#2563eb", "#d97706"]
    for panel, (title, points) in enumerate(series.items()):
        left, top, width, height = 60 + panel * 310, 40, 230, 180
        low, high = math.log10(min(points)), math.log10(max(points))
        parts.append(f'<text x="{left}" y="24" font-weight="bold">{title}</text>')
        parts.append(f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#999"/>')
        for power in range(2, 7):
            y = top + height - (power - 2) / 4 * height
            parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y}" y2="{y}" stroke="#ddd"/>')
            parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">10^{power}</text>')
        names = [name for name in next(iter(points.values())) if name.endswith("/s")]
        for name, colour in zip(names, colours, strict=False):
            places = []
            for size, point in sorted(points.items()):
                x = left + (math.log10(size) - low) / (high - low) * width
                y = top + height - (math.log10(max(100.0, point[name])) - 2) / 4 * height
                places.append(f"{x:.0f},{y:.0f}")
                parts.append(f'<text x="{x:.0f}" y="{top + height + 16}" text-anchor="middle">{size:,}</text>')
            parts.append(f'<polyline points="{" ".join(places)}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts.append(
                f'<text x="{left + 6 + names.index(name) * 90}" y="{top + height + 36}" fill="{colour}">{name}</text>'
            )
    return "\n".join([*parts, "</svg>", ""])


async def measure(full: bool) -> dict[str, dict[int, Point]]:
    sizes: list[tuple[str, Callable[[int], Awaitable[Point]], list[int]]] = [
        ("topics", with_topics, [1, 10, 1000, 100_000]),
        ("groups", with_groups, [1, 10, 100, 1000]),
        ("backlog, messages", with_backlog, [10_000, 100_000, 1_000_000, *([10_000_000] if full else [])]),
    ]
    found: dict[str, dict[int, Point]] = {}
    for title, work, points in sizes:
        for size in points:
            found.setdefault(title, {})[size] = point = await work(size)
            print(
                f"{title:18} {size:>10,}  " + "  ".join(f"{name} {value:,.1f}" for name, value in point.items()),
                flush=True,
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--plot", metavar="FILE")
    options = parser.parse_args()
    found = uvloop.run(measure(options.full))
    if options.plot:
        Path(options.plot).write_text(plot(found))


if __name__ == "__main__":
    main()
