"""Connections cut at random under load: nothing is lost, nothing stored twice, a key's messages stay in order."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Any

import pytest

from blocks.broker.client import Client, connect
from broker.network import Net, serving, until, within

pytestmark = pytest.mark.integration

KEYS, EACH = 40, 150


async def _publish(client: Client, key: int) -> None:
    for number in range(EACH):
        await client.publish(f"work.{key % 5}", b"%d.%d" % (key, number), key=b"%d" % key)


async def _consume(client: Client, rng: random.Random, done: dict[int, list[int]]) -> None:
    async with client.subscribe("work.*", group="g", start="earliest", prefetch=50, max_deliveries=1000) as messages:
        async for message in messages:
            key, number = map(int, message.payload.split(b"."))
            if rng.random() < 0.05:
                await message.nack()
                continue
            if rng.random() < 0.2:
                await asyncio.sleep(0)
            done[key].append(number)
            await message.ack()


async def _cut(net: Net, rng: random.Random, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await asyncio.sleep(rng.uniform(0.005, 0.05))
        for connection in list(net.server._connections):
            if rng.random() < 0.4:
                connection.cut()


@pytest.mark.parametrize("seed", range(4))
async def test_connections_cut_at_random(seed: int) -> None:
    rng = random.Random(seed)
    done: dict[int, list[int]] = defaultdict(list)
    stop = asyncio.Event()
    async with serving() as net:
        clients = [connect(net.url, random=random.Random(seed * 10 + n)) for n in range(5)]
        for client in clients:
            await client.__aenter__()
        consumers = [asyncio.create_task(_consume(client, rng, done)) for client in clients[:3]]
        cutter = asyncio.create_task(_cut(net, rng, stop))
        try:
            await within(asyncio.gather(*(_publish(clients[3 + key % 2], key) for key in range(KEYS))), 60)
            await until(lambda: all(set(done[key]) == set(range(EACH)) for key in range(KEYS)), 60)
            assert not any(task.done() for task in consumers)
        finally:
            stop.set()
            for task in consumers:
                task.cancel()
            await asyncio.gather(cutter, *consumers, return_exceptions=True)
            for client in clients:
                await client.close(5.0)
        stored = sum(row["messages"] for row in net.broker.engine.topics("work.*"))
        assert stored == KEYS * EACH
        assert sum(client.reconnects for client in clients) > 3
        for key in range(KEYS):
            _check_order(done[key])


def _check_order(numbers: list[Any]) -> None:
    """First sights of a key's messages are in order; what came again, came after its first time."""
    seen = []
    for number in numbers:
        if number not in seen:
            seen.append(number)
    assert seen == sorted(seen)
