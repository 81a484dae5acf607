"""Goodput under overload, with and without shedding: a service of eight workers and 10 ms, clients that wait 100 ms.

An open model: requests come by a schedule whether or not earlier ones were answered, and latency counts from the intended
start. Goodput is answers of 200 within 100 ms, a second. Run: ``python benchmarks/gateway_overload.py [--plot docs/gateway-overload.svg]``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from random import Random
from typing import Any

from blocks.gateway import Gateway, route
from blocks.http.message import Request, Response

WORKERS, TOOK, PATIENCE = 8, 0.010, 0.100
CAPACITY = WORKERS / TOOK
LEVELS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)


class Service:
    """First come, first served, by eight workers; it does not notice when a client has gone."""

    name = "service"

    def __init__(self, random: Random) -> None:
        self._free = asyncio.Semaphore(WORKERS)
        self._random = random

    async def __call__(self, request: Request) -> Response:
        async with self._free:
            await asyncio.sleep(self._random.uniform(0.8, 1.2) * TOOK)
        return Response(200, body=b"ok")


async def level(load: float, lasts: float, warm: float, shed: Any) -> dict[str, float]:
    random = Random(7)
    app = Gateway([route("/", Service(random), shed=shed)], random=random)
    loop = asyncio.get_running_loop()
    rate = load * CAPACITY
    latencies: list[float] = []
    answers = {200: 0, 503: 0}
    tasks: set[asyncio.Task[None]] = set()
    begin = loop.time()

    async def one(at: float) -> None:
        response = await app(Request("GET", "/", {"host": "a"}))
        took = loop.time() - at
        if at - begin >= warm:
            answers[response.status] += 1
            if response.status == 200:
                latencies.append(took)

    number = 0
    while (now := loop.time()) < begin + warm + lasts:
        while begin + number / rate <= now:
            task = loop.create_task(one(begin + number / rate))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.sleep(0.001)
    if tasks:
        await asyncio.wait(tasks, timeout=30)
    good = sum(took <= PATIENCE for took in latencies)
    latencies.sort()
    p99 = latencies[len(latencies) * 99 // 100] if latencies else 0.0
    return {"load": load, "goodput": good / lasts, "p99_ms": p99 * 1000, "answered": answers[200], "shed": answers[503]}


def plot(with_it: list[dict[str, float]], without: list[dict[str, float]]) -> str:
    width, height, left, top = 640, 320, 60, 30
    most = CAPACITY * 1.1

    def points(rows: list[dict[str, float]]) -> str:
        return " ".join(
            f"{left + row['load'] / 3 * width:.0f},{top + height - row['goodput'] / most * height:.0f}" for row in rows
        )

    words = [
        f'<text x="{left + load / 3 * width:.0f}" y="{top + height + 18}" text-anchor="middle">{load:g}x</text>'
        for load in (0.5, 1, 1.5, 2, 2.5, 3)
    ]
    for value in range(0, int(most), 200):
        y = top + height - value / most * height
        words.append(f'<text x="{left - 8}" y="{y + 4:.0f}" text-anchor="end">{value}</text>')
        words.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>')
    ticks = "".join(words)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 90} {height + 90}" font-family="system-ui" font-size="12">'
        f'<rect width="100%" height="100%" fill="#fff"/>{ticks}'
        f'<polyline points="{points(without)}" fill="none" stroke="#c33" stroke-width="2"/>'
        f'<polyline points="{points(with_it)}" fill="none" stroke="#26c" stroke-width="2"/>'
        f'<text x="{left}" y="18">Goodput (answers within 100 ms a second) by offered load</text>'
        f'<text x="{left + 10}" y="{top + height + 44}" fill="#26c">with shedding (gradient)</text>'
        f'<text x="{left + 220}" y="{top + height + 44}" fill="#c33">without</text></svg>\n'
    )


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lasts", type=float, default=3.0)
    parser.add_argument("--plot", default="")
    arguments = parser.parse_args()
    rows: dict[str, list[dict[str, float]]] = {"shed": [], "plain": []}
    for load in LEVELS:
        rows["shed"].append(await level(load, arguments.lasts, 1.0, True))
        rows["plain"].append(await level(load, arguments.lasts, 1.0, None))
        print(f"{load:4g}x  shed {rows['shed'][-1]['goodput']:5.0f}/s p99 {rows['shed'][-1]['p99_ms']:6.1f} ms   "
              f"plain {rows['plain'][-1]['goodput']:5.0f}/s p99 {rows['plain'][-1]['p99_ms']:6.1f} ms", flush=True)  # fmt: skip
    peak = max(row["goodput"] for row in rows["shed"])
    at_three = rows["shed"][-1]["goodput"]
    print(
        json.dumps(
            {"peak": peak, "at_3x": at_three, "share": at_three / peak, "plain_at_3x": rows["plain"][-1]["goodput"]}
        )
    )
    if arguments.plot:
        with open(arguments.plot, "w", encoding="utf-8") as file:
            file.write(plot(rows["shed"], rows["plain"]))


if __name__ == "__main__":
    asyncio.run(main())
