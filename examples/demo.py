"""The whole shop on real traffic, with kills, a purge, a release, a greedy customer and a broker's crash. ``make demo`` runs it.

Thirteen processes: edge → gateway → two balancers → services, orders through the broker to workers. At the end stands what was promised
and what was seen; the exit code is 0 when every promise was kept.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path

from demo.customers import Customers, Seen
from demo.report import Handled, figures, promises, timeline
from demo.shop import Shop
from demo.story import Story, Tape

from blocks import Upstream

SECONDS = 22.0
GREEDY = (0.46, 0.64)  # when one customer is greedy, in parts of the whole
ARRIVE = 20.0  # seconds for the last orders to reach the workers


async def arrived(shop: Shop, seen: Seen) -> None:
    """Return when every accepted order has been handled, or when that takes too long."""
    for _ in range(int(ARRIVE / 0.1)):
        if not Handled.of(shop).missing(seen.accepted):
            return
        await asyncio.sleep(0.1)


async def stay(shop: Shop) -> None:
    print(f"\n  Still up: the shop at {shop.edge.url}, the edge's admin API at {shop.edge.admin}. Ctrl-C ends it.")
    print(f"  curl -i {shop.edge.url}/items/1")
    print(f"  curl -i -H 'x-api-key: {shop.keys['ann']}' {shop.edge.url}/stock/1", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


async def main(keep: bool, seconds: float) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # what was started is ended, too
    print("blocks demo: a shop of thirteen processes, its customers, and an eventful half minute\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="blocks-demo-") as folder:
        async with Shop(Path(folder)) as shop, Upstream(shop.edge.url, keep=1024) as edge:
            print(f"  edge → gateway → 2 balancers → 5 services, broker → 3 workers are up at {shop.edge.url}\n")
            seen = Seen()
            greedy = (GREEDY[0] * seconds, GREEDY[1] * seconds)
            story = Story(shop, Tape(seen), seconds)
            async with asyncio.TaskGroup() as group:
                group.create_task(Customers(edge, shop.keys, seen).shop(seconds, greedy, story.tape.say))
                group.create_task(story.run())
            await arrived(shop, seen)
            checks = promises(seen, story, await shop.stored())
            figures(seen, shop, seconds)
            timeline(story)
            print("\n  promised, and seen")
            for kept, text in checks:
                print(f"  {'kept  ' if kept else 'BROKEN'} {text}", flush=True)
            if keep:
                await stay(shop)
    return 0 if all(kept for kept, _ in checks) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="stay up afterwards")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long the load lasts, at least 10")
    arguments = parser.parse_args()
    if arguments.seconds < 10:
        parser.error("--seconds: in less than 10 there is no time for all of it")
    try:
        sys.exit(asyncio.run(main(arguments.keep, arguments.seconds)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(1)
