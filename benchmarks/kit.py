"""How long five blocks take to start and to stop in a test, what a thousand cycles leave behind, and what the plug-in costs a test run.

python benchmarks/kit.py [CYCLES]      asserts: start ≤ 10 ms, stop ≤ 5 ms, plug-in ≤ 5 ms (medians), and that nothing is left
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import statistics
import subprocess
import sys
import threading
import time

from blocks.testing import Kit, VirtualLoop

IMPORT = (
    "import pytest, time; began = time.perf_counter(); import blocks.testing.plugin; print(time.perf_counter() - began)"
)


def held() -> tuple[int, int, int]:
    """(descriptors, tasks, threads) of this process."""
    return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks()), threading.active_count()


def peak() -> float:
    """The largest memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


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
    for _ in range(20):
        await cycle()  # imports, and what is made once
    gc.collect()
    before, memory = held(), peak()
    taken = [await cycle() for _ in range(cycles)]
    await asyncio.sleep(1)
    starts, stops = (statistics.median(part) for part in zip(*taken, strict=True))
    print(f"start: median {starts:.2f} ms   stop: median {stops:.2f} ms   of {cycles} cycles")
    left = tuple(now - then for now, then in zip(held(), before, strict=True))
    growth = peak() - memory
    print(f"left behind: {left[0]} descriptors, {left[1]} tasks, {left[2]} threads, {growth:.1f} MiB")
    assert starts <= 10, "five blocks start in 10 ms"
    assert stops <= 5, "and stop in 5 ms"
    assert left == (0, 0, 0), "nothing is left"
    assert growth < 8, "and memory does not grow"


def plugin() -> None:
    """What loading the plug-in adds to a test run."""
    runs = [
        subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True) for _ in range(5)
    ]
    took = statistics.median(float(done.stdout) * 1000 for done in runs)
    print(f"plug-in: median {took:.2f} ms of {len(runs)} imports")
    assert took <= 5, "the plug-in costs 5 ms at most"


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50))
    plugin()
