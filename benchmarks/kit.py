"""How long five blocks take to start and to stop, and what a thousand cycles leave behind.

python benchmarks/kit.py [CYCLES]
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time

from blocks.testing import Kit, VirtualLoop


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def cycle() -> tuple[float, float]:
    """(milliseconds to start, to stop) of two origins, a balancer, a gateway, an edge and a broker."""
    began = time.perf_counter()
    kit = Kit()
    a, b = await kit.origins(2)
    lb = await kit.balancer(a, b, health="1s")
    await kit.edge(await kit.gateway({"/": lb}))
    await kit.broker()
    ready = time.perf_counter()
    await kit.close()
    return (ready - began) * 1000, (time.perf_counter() - ready) * 1000


async def main(cycles: int) -> None:
    await cycle()  # imports
    held, tasks = descriptors(), len(asyncio.all_tasks())
    taken = [await cycle() for _ in range(cycles)]
    await asyncio.sleep(1)
    starts, stops = zip(*taken, strict=True)
    print(
        f"start: median {statistics.median(starts):.2f} ms   stop: median {statistics.median(stops):.2f} ms   of {cycles} cycles"
    )
    left = descriptors() - held, len(asyncio.all_tasks()) - tasks
    print(f"left behind: {left[0]} descriptors, {left[1]} tasks")
    assert statistics.median(starts) <= 10
    assert statistics.median(stops) <= 5
    assert left == (0, 0)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50))
