"""What the engine does in process, without sockets: publish, drain, replay, recovery, memory of a backlog.

python benchmarks/broker_engine.py [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

from blocks.broker import Broker
from blocks.broker.message import Publication, SubscribeOptions


def rss() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


async def windowed(broker: Broker, topic: str, payload: bytes, total: int, window: int) -> None:
    """Frames of 100 messages, ``window`` messages in flight."""
    frames = max(1, window // 100)
    count = min(100, window)
    gate = asyncio.Semaphore(frames)

    async def one() -> None:
        try:
            await broker.publish_many(topic, [payload] * count)
        finally:
            gate.release()

    async with asyncio.TaskGroup() as group:
        for _ in range(total // count):
            await gate.acquire()
            group.create_task(one())


async def awaiting(broker: Broker, total: int, workers: int) -> None:
    async def worker() -> None:
        for _ in range(total // workers):
            await broker.publish("each", b"x" * 100)

    await asyncio.gather(*[worker() for _ in range(workers)])


async def drain(broker: Broker, topic: str, group: str, total: int) -> None:
    async with broker.subscribe(topic, group=group, start="earliest", prefetch=10_000) as messages:
        count = 0
        async for message in messages:
            await message.ack()
            count += 1
            if count == total:
                return


async def replay(broker: Broker, topic: str, total: int) -> None:
    class Idle(Worker):
        def ready(self, subscription: Any) -> None: ...

    subscription = broker.engine.subscribe(SubscribeOptions(topic, start="earliest", ack=False), Idle())
    count = 0
    while count < total:
        count += sum(len(run) for run in subscription.take(1000, 1 << 20))
    subscription.close()


async def timed(label: str, total: int, size: int, repeat: int, work: Callable[[int], Awaitable[None]]) -> None:
    rates, cpus = [], []
    for number in range(repeat):
        start, cpu = time.perf_counter(), time.process_time()
        await work(number)
        rates.append(total / (time.perf_counter() - start))
        cpus.append((time.process_time() - cpu) / total * 1e6)
    rate = statistics.median(rates)
    print(f"{label:46} {rate:>10,.0f}/s {rate * size / 1e6:>8,.0f} MB/s {statistics.median(cpus):>7.2f} µs CPU each")


async def main(quick: bool) -> None:
    scale = 1 if quick else 5
    path = tempfile.mkdtemp(prefix="blocks-bench-")
    try:
        async with Broker(path) as broker:
            n = 40_000 * scale
            await timed(
                "durable publish, 100 B, window 1000", n, 100, 5, lambda i: windowed(broker, "w", b"x" * 100, n, 1000)
            )
            m = 400 * scale
            await timed("durable publish, 100 B, 1 in flight", m, 100, 3, lambda i: awaiting(broker, m, 1))
            k = 10_000 * scale
            await timed("durable publish, 100 B, 1,000 coroutines", k, 100, 5, lambda i: awaiting(broker, k, 1000))
            b = 2_000 * scale
            await timed(
                "durable publish, 16 KiB, window 1000",
                b,
                16384,
                5,
                lambda i: windowed(broker, "b", b"x" * 16384, b, 1000),
            )
            await timed("drain with an ack each, 100 B", n, 100, 5, lambda i: drain(broker, "w", f"g{i}", n))
            r = 20_000 * scale
            await windowed(broker, "r", b"x" * 1024, r, 1000)
            await timed("replay, 1 KiB, take only", r, 1024, 5, lambda i: replay(broker, "r", r))
            broker.engine.log._cache.clear()
            await timed("replay, 1 KiB, cold cache of ours", r, 1024, 1, lambda i: replay(broker, "r", r))
        recovery(path)
    finally:
        shutil.rmtree(path)


RECOVER = """
import sys, time
from random import Random
from blocks.broker.log.disk import RealDisk
from blocks.broker.log.recovery import Recovery
start = time.perf_counter()
found = Recovery(RealDisk(sys.argv[1]), Random(), whole=sys.argv[2] == "whole", repair=False).run()
seconds = time.perf_counter() - start
read = found.log.size if sys.argv[2] == "whole" else found.replayed_bytes
print(f"{sys.argv[3]:46} {seconds:8.3f} s for a log of {found.log.size / 1e6:,.0f} MB, {read / seconds / 1e6:,.0f} MB/s of what it read")
"""


def recovery(path: str) -> None:
    subprocess.run([sys.executable, "-c", RECOVER, path, "open", "open after a clean stop"], check=True)
    subprocess.run([sys.executable, "-c", RECOVER, path, "whole", "read every segment (verify)"], check=True)


async def backlog(total: int, batch: int) -> None:
    path = tempfile.mkdtemp(prefix="blocks-bench-")
    try:
        before = rss()
        async with Broker(path, durability="memory") as broker:
            async with broker.subscribe("t", group="g", start="earliest", prefetch=1):
                for _ in range(total // batch):
                    await broker.publish_many("t", [b"%0100d" % n for n in range(batch)])
            after = rss()
        start = time.perf_counter()
        async with Broker(path) as broker:
            opened = time.perf_counter() - start
            lag = broker.engine.lag("g")[0]["lag"]
        print(
            f"backlog of {lag:,} messages, {batch} a commit: {after - before:,.0f} MiB of RSS more; opened in {opened:.2f} s"
        )
    finally:
        shutil.rmtree(path)


class Worker:
    """A member that takes all there is and acks it."""

    def ready(self, subscription: Any) -> None:
        while runs := subscription.take():
            for run in runs:
                subscription.ack(run.topic, run.offsets, run.token)

    def ended(self, subscription: Any, error: Exception) -> None: ...


async def frames(broker: Broker, publications: list[Publication]) -> None:
    """Hand over all, four at a time in one tick, and wait for the receipts."""
    left = len(publications)
    finished = asyncio.Event()

    def done(receipts: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            finished.set()

    for number, publication in enumerate(publications):
        broker.engine.publish(publication, done)
        if number % 4 == 3:
            await asyncio.sleep(0)
    await finished.wait()


async def by_topics(topics: int, total: int) -> None:
    names = [f"t.{n % 100}.{n}" for n in range(topics)]
    path = tempfile.mkdtemp(prefix="blocks-bench-")
    try:
        async with Broker(path) as broker:
            await frames(
                broker,
                [
                    Publication("", [b"x"] * 500, topics=[names[(n + m) % topics] for m in range(500)])
                    for n in range(0, topics, 500)
                ],
            )
            start = time.perf_counter()
            spread = [[names[(n + m) % topics] for m in range(500)] for n in range(0, total, 500)]
            await frames(broker, [Publication("", [b"x" * 100] * 500, topics=chosen) for chosen in spread])
            rate = total / (time.perf_counter() - start)
            waits = []
            for number in range(200):
                start = time.perf_counter()
                await broker.publish(names[number % topics], b"x" * 100)
                waits.append(time.perf_counter() - start)
        start = time.perf_counter()
        async with Broker(path):
            opened = time.perf_counter() - start
        print(
            f"| {topics:>7,} topics | {rate:>9,.0f}/s | {statistics.median(waits) * 1e3:6.2f} ms one in flight | opens in {opened:.2f} s |"
        )
    finally:
        shutil.rmtree(path)


async def by_groups(groups: int, total: int) -> None:
    path = tempfile.mkdtemp(prefix="blocks-bench-")
    try:
        async with Broker(path) as broker:
            for number in range(groups):
                broker.engine.subscribe(SubscribeOptions("t", group=f"g{number}", start="earliest"), Worker())
            start = time.perf_counter()
            for _ in range(total // 1000):
                await broker.publish_many("t", [b"x" * 100] * 1000)
            await broker.flush()
            seconds = time.perf_counter() - start
        print(
            f"| {groups:>7,} groups | {total / seconds:>9,.0f}/s published | {total * groups / seconds:>11,.0f}/s delivered and acked | |"
        )
    finally:
        shutil.rmtree(path)


async def growth() -> None:
    for topics in (1, 10, 1000, 100_000):
        await by_topics(topics, 100_000)
    for groups in (1, 10, 100, 1000):
        await by_groups(groups, 20_000 if groups < 1000 else 5_000)
    for total in (10_000, 100_000, 1_000_000, 10_000_000):
        command = [sys.executable, __file__, "--backlog", str(total)]  # a process each: memory is compared
        await asyncio.to_thread(subprocess.run, command, check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--backlog", type=int, default=0)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--batch", type=int, default=1000)
    options = parser.parse_args()
    if options.growth:
        asyncio.run(growth())
    elif options.backlog:
        asyncio.run(backlog(options.backlog, options.batch))
    else:
        asyncio.run(main(options.quick))
