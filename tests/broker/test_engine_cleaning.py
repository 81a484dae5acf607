"""The cleaner at work while messages come, are read, and the power may go."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from blocks.broker import Broker, TopicOptions
from blocks.broker.log.verify import verify
from blocks.core.clock import FakeClock
from broker.recording import RecordingDisk, image

pytestmark = pytest.mark.exhaustive  # runs with the integration tests

OPTIONS = {"kv": TopicOptions(compact=True), "queue": TopicOptions(retain_messages=20)}


async def work(broker: Broker, first: int, count: int) -> None:
    for number in range(first, first + count):
        await broker.publish("kv", b"%d" % number + b"." * 150, key=b"k%d" % (number % 5))
        await broker.publish("queue", b"%d" % number + b"." * 150)
        await broker.publish("kept", b"%d" % number)


async def clean(broker: Broker) -> None:
    broker.retention.trim()
    broker.engine.want_snapshot()
    await broker.flush()
    for _ in range(3):
        await broker.retention.clean()
        await broker.flush()


async def check(broker: Broker, total: int) -> None:
    assert broker.engine.damage == []
    values: dict[bytes, int] = {}
    kept: list[int] = []
    async with broker.subscribe("*", start="earliest", ack=False) as messages:
        while (message := messages.poll()) is not None:
            number = int(message.payload.split(b".")[0])
            if message.topic == "kv":
                assert message.key is not None
                values[message.key] = number
            elif message.topic == "kept":
                assert message.offset == number
                kept.append(number)
    assert kept == list(range(total))
    assert values == {b"k%d" % (n % 5): n for n in range(total - 5, total)}


async def test_power_loss_while_cleaning() -> None:
    disk, clock = RecordingDisk(), FakeClock()
    marks: list[tuple[int, int]] = []
    async with Broker("x", disk=disk, clock=clock, segment_bytes=4096, topics=OPTIONS) as broker:
        for round in range(4):
            await work(broker, round * 40, 40)
            start = len(disk.ops)
            await clean(broker)
            marks.append((start, len(disk.ops)))
    random = Random(1)
    for round, (start, end) in enumerate(marks):
        for _ in range(40):
            left = image(disk.ops[: random.randint(start, end)], random)
            async with Broker("x", disk=left, clock=clock, segment_bytes=4096) as broker:
                await check(broker, (round + 1) * 40)


async def test_readers_go_on_while_their_segments_are_rewritten(tmp_path: Path) -> None:
    async with Broker(tmp_path, segment_bytes=8192, topics=OPTIONS) as broker:
        await work(broker, 0, 100)
        async with broker.subscribe("kept", group="g", start="earliest", prefetch=5) as messages:
            got = []
            for round in range(8):
                cleaning = asyncio.ensure_future(clean(broker))
                for _ in range(10):
                    message = await asyncio.wait_for(anext(messages), 20)
                    got.append(int(message.payload))
                    await message.ack()
                await work(broker, 100 + round * 10, 10)
                await cleaning
        assert got == list(range(80))
        await check(broker, 180)
    assert verify(tmp_path).ok
    async with Broker(tmp_path, segment_bytes=8192) as broker:
        await check(broker, 180)
        broker.retention.trim()
        assert broker.engine.topics("queue")[0]["messages"] == 20
