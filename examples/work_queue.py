"""A work queue that loses nothing: a worker fails on a message, another takes over, and a poison message is set aside.

python examples/work_queue.py [--keep]
"""

import asyncio
import contextlib
import sys
import tempfile
from collections import Counter

from blocks.broker import Broker, connect


async def worker(url: str, name: str, done: Counter[str]) -> None:
    async with (
        connect(url) as client,
        client.subscribe("jobs.*", group="workers", start="earliest", prefetch=5, max_deliveries=3) as messages,
    ):
        async for message in messages:
            if message.payload == b"poison":
                print(f"  {name}: cannot do {message.payload!r} (attempt {message.attempt})")
                await message.nack(delay=0.05)
                continue
            await asyncio.sleep(0.005)  # the work
            done[name] += 1
            await message.ack()


async def reached(done: Counter[str], count: int) -> None:
    while done.total() < count:  # noqa: ASYNC110  # an example's patience
        await asyncio.sleep(0.01)


async def main() -> None:
    done: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as data:
        async with Broker(data, listen="127.0.0.1:0") as broker, connect(broker.url) as client:
            receipts = await client.publish_many("jobs.resize", [b"image %d" % n for n in range(100)] + [b"poison"])
            print(f"{len(receipts)} jobs are stored, as durable as {receipts[0].durability}")
            tasks = [asyncio.create_task(worker(broker.url, name, done)) for name in ("ann", "bob")]
            await reached(done, 40)
            print("ann stops in the middle; what she held goes to bob")
            tasks[0].cancel()
            async with client.subscribe("$dead.workers", start="earliest") as dead:
                letter = await anext(dead)
            print(f"set aside: {letter.payload!r}: {letter.headers['dead-letter-reason']}")
            await reached(done, 100)
            tasks[1].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            print(dict(done))
            if "--keep" in sys.argv:
                print(f"still up at {broker.url}: blocks broker lag --url {broker.url}; Ctrl-C ends it")
                await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
