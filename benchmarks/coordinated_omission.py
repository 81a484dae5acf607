"""What a closed load leaves out, measured and drawn: the picture of docs/how-to/coordinated-omission.md.

python benchmarks/coordinated_omission.py [--plot docs/coordinated-omission.svg]

A server answers one request at a time, in 5 ms each, and stands still for two seconds. The same server is measured by users who come at
their own times (100 a second) and by one client that sends its next request when the last was answered. Virtual time: each run is the same.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from blocks import Request, Response
from blocks.http.handler import Handler
from blocks.testing import Kit, Result, VirtualLoop

SERVICE, RATE, LASTS = 0.005, 100, 10.0  # seconds an answer takes; users a second; seconds of load
STOPS, UNTIL = 3.0, 5.0  # when the server stands still
SHARES = ("p50", "p90", "p99", "p99.9", "max")
OPEN, CLOSED = "#1f6feb", "#cf222e"


def stalling() -> Handler:
    """A handler with one worker that stands still once."""
    loop = asyncio.get_running_loop()
    began, worker = loop.time(), asyncio.Lock()

    async def handle(request: Request) -> Response:
        async with worker:
            passed = loop.time() - began
            if STOPS <= passed < UNTIL:
                await asyncio.sleep(UNTIL - passed)
            await asyncio.sleep(SERVICE)
            return Response.text("done")

    return handle


async def measure() -> tuple[Result, Result]:
    """(what users see, what the closed client sees)."""
    async with Kit() as blocks:
        users = await blocks.load(await blocks.serve(stalling()), rate=RATE, duration=LASTS)
        client = await blocks.load(await blocks.serve(stalling()), concurrency=1, duration=LASTS)
        return users, client


def plot(users: Result, client: Result) -> str:
    """Latency against the time at which a request was meant to begin: a dot each, and the percentiles beside."""
    left, top, width, height = 60, 46, 520, 220
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 330" font-family="sans-serif" font-size="12" role="img">',
        "<title>A server that stands still for two seconds, as users see it and as a closed client measures it</title>",
        f'<text x="{left}" y="24" font-size="14">One stall of 2 s: what users wait, and what a closed load reports</text>',
    ]
    for value in (0.0, 0.5, 1.0, 1.5, 2.0):
        y = top + height - value / 2.2 * height
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g} s</text>')
    for second in range(0, int(LASTS) + 1, 2):
        x = left + second / LASTS * width
        parts.append(f'<text x="{x:.1f}" y="{top + height + 18}" text-anchor="middle">{second} s</text>')
    for result, colour, step in ((users, OPEN, 4), (client, CLOSED, 12)):
        dots = []
        for number, (moment, latency) in enumerate(zip(result.moments, result.latencies, strict=True)):
            if number % step == 0 or (latency > 0.1 and result is client):
                x, y = left + moment / LASTS * width, top + height - latency / 2.2 * height
                dots.append(f"M{x:.1f} {y:.1f}h0")
        size = 5 if result is client else 4
        path = "".join(dots)
        parts.append(f'<path d="{path}" stroke="{colour}" stroke-width="{size}" stroke-linecap="round" fill="none"/>')
    parts.append(
        f'<text x="{left + width / 2}" y="{top + height + 40}" text-anchor="middle">when a request was meant to begin</text>'
    )
    parts += table(users, client, left + width + 30, top + 10)
    return "\n".join([*parts, "</svg>", ""])


def table(users: Result, client: Result, x: int, y: int) -> list[str]:
    rows = [("", f"users, {RATE}/s", "1 client, closed"), ("requests", str(users.requests), str(client.requests))]
    waited = [sum(latency > 0.1 for latency in result.latencies) for result in (users, client)]
    rows.append(("over 100 ms", str(waited[0]), str(waited[1])))
    rows += [(name, f"{users.figure(name) * 1000:.0f} ms", f"{client.figure(name) * 1000:.0f} ms") for name in SHARES]
    out = []
    for number, (name, first, second) in enumerate(rows):
        at = y + number * 22
        out.append(f'<text x="{x}" y="{at}">{name}</text>')
        out.append(f'<text x="{x + 140}" y="{at}" text-anchor="end" fill="{OPEN}">{first}</text>')
        out.append(f'<text x="{x + 245}" y="{at}" text-anchor="end" fill="{CLOSED}">{second}</text>')
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", metavar="FILE")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        users, client = runner.run(measure())
    print(f"users, open, {RATE}/s\n{users.table()}\none client, closed\n{client.table()}")
    if options.plot:
        Path(options.plot).write_text(plot(users, client), encoding="utf-8")


if __name__ == "__main__":
    main()
