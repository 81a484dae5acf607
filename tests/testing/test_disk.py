"""Disks that fail on command: what was promised is kept by the real broker and the real edge, or they say that it is not."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks import Response
from blocks.broker.errors import DiskFailed, DiskFull
from blocks.core.errors import ConfigError
from blocks.testing.medium import Medium


async def drained(source, topic: str = "orders", group: str = "workers") -> list[bytes]:
    """Everything that a group has not done, acked."""
    found = []
    async with source.subscribe(topic, group=group, start="earliest") as messages:
        while (message := messages.poll()) is not None:
            found.append(message.payload)
            await message.ack()
    return found


async def test_a_power_cut_takes_what_was_not_acknowledged_and_nothing_else(blocks):
    disk = blocks.disk("orders")
    broker = await blocks.broker(disk=disk)
    client = await blocks.client(broker)
    url = broker.url
    for number in range(20):
        await client.publish("orders", b"%d" % number)
    await disk.power_cut()
    await disk.power_on()
    assert broker.url == url
    await client.publish("orders", b"after")  # the client has found it again
    assert await drained(broker) == [b"%d" % number for number in range(20)] + [b"after"]


async def test_unsynced_messages_are_lost_with_the_power_when_nobody_promised_them(blocks):
    disk = blocks.disk()
    broker = await blocks.broker(disk=disk, durability="memory")
    await broker.publish("orders", b"one")
    await disk.power_cut()
    again = await blocks.broker(disk=disk)  # another broker may take the disk over as well
    assert await drained(again) == []


@pytest.mark.parametrize("keep", ["torn", "some"])
async def test_whatever_a_power_cut_leaves_acknowledged_messages_are_there_once(blocks, keep: str):
    disk = blocks.disk()
    broker = await blocks.broker(disk=disk, segment_bytes=4096)
    sent = []
    for spell in range(12):
        for number in range(5):
            payload = b"%d-%d " % (spell, number) + b"x" * 300 * number
            await broker.publish("orders", payload)
            sent.append(payload)
        await disk.power_cut(keep)
        await disk.power_on()
    assert broker.engine.damage == []
    assert await drained(broker) == sent


async def test_a_subscription_that_was_confirmed_misses_nothing_over_a_power_cut(blocks):
    disk = blocks.disk()
    broker = await blocks.broker(disk=disk)
    client = await blocks.client(broker)
    await broker.publish("orders", b"before")
    await blocks.clock.sleep(1)
    async with client.subscribe("orders", group="workers", start="latest") as messages:
        await disk.power_cut()  # the group itself was not on the medium yet
        await disk.power_on()
        await broker.publish("orders", b"meanwhile")  # the client is not back yet
        assert (await anext(messages)).payload == b"meanwhile"


async def test_a_full_disk_refuses_publishers_serves_consumers_and_recovers(blocks):
    disk = blocks.disk()
    broker = await blocks.broker(disk=disk)
    await broker.publish("orders", b"before")
    disk.fault.full(after="10KiB")
    with pytest.raises(DiskFull):
        await broker.publish_many("orders", [b"x" * 1024] * 20)
    async with broker.subscribe("orders", group="workers", start="earliest") as messages:
        assert (await anext(messages)).payload == b"before"
    disk.fault.clear()
    await blocks.until(lambda: broker.status.name == "OPEN")
    await broker.publish("orders", b"after")
    assert any("full" in str(what) for _, who, what in blocks.timeline if who == "disk")


async def test_after_a_failed_sync_nothing_more_is_promised(blocks):
    disk = blocks.disk()
    broker = await blocks.broker(disk=disk)
    await broker.publish("orders", b"kept")
    armed = disk.fault.next().sync_error()
    with pytest.raises(DiskFailed):
        await broker.publish("orders", b"not promised")
    with pytest.raises(DiskFailed):
        await broker.publish("orders", b"nor this")
    assert len(armed.hits) == 1
    await disk.power_cut()
    await disk.power_on()
    assert await drained(broker) == [b"kept"]


async def test_a_disk_that_lies_is_found_out_and_reported(blocks):
    disk = blocks.disk()
    broker = await blocks.broker(disk=disk)
    await broker.publish("orders", b"good")
    disk.fault.next().torn(after=10)
    await broker.publish("orders", b"bad" * 100)  # the disk says that it has it
    await broker.publish("orders", b"good, too")
    await disk.power_cut()
    await disk.power_on()
    assert broker.engine.damage
    assert b"bad" * 100 not in await drained(broker)


async def test_an_edge_goes_on_when_its_disk_is_full_or_fails(blocks):
    origin = await blocks.origin(Response(200, {"cache-control": "max-age=3600"}, b"page" * 500))
    disk = blocks.disk()
    edge = await blocks.edge(origin, disk=disk, memory="64KiB")
    disk.fault.full()
    for number in range(40):
        assert (await edge.get(f"/full/{number}")).status == 200
    await edge.store.sync()
    assert edge.store.stats()["errors"] > 0
    disk.fault.clear()
    disk.fault.next(3).write_error(after=100)
    for number in range(40):
        assert (await edge.get(f"/more/{number}")).status == 200
        await edge.store.sync()
    assert edge.store.stats()["entries"] >= 20


async def test_an_edge_never_serves_what_its_disk_spoilt(blocks):
    origin = await blocks.origin(Response(200, {"cache-control": "max-age=3600"}, b"page" * 500))
    disk = blocks.disk()
    edge = await blocks.edge(origin, disk=disk, memory="16KiB")
    for number in range(60):
        await edge.get(f"/{number}")
    await edge.store.sync()
    asked = origin.journal.total
    spoilt, failed = disk.fault.every(3).corrupt(), disk.fault.every(5).read_error()
    for number in range(60):
        assert (await edge.get(f"/{number}")).body == b"page" * 500
    assert spoilt.hits
    assert failed.hits
    assert origin.journal.total > asked


async def test_a_purge_that_was_done_stays_done_over_a_power_cut(blocks):
    origin = await blocks.origin(Response(200, {"cache-control": "max-age=86400"}, b"old"))
    disk = blocks.disk()
    edge = await blocks.edge(origin, disk=disk)
    host = edge.url.partition("://")[2]
    for keep in ("some", "torn", "some", "synced"):
        for number in range(10):
            await edge.get(f"/{keep}/{number}")
        edge.purge(prefix=f"http://{host}/{keep}/")
        await edge.store.sync()
        await disk.power_cut(keep)
        await disk.power_on()
        asked = origin.journal.total
        for number in range(10):
            assert (await edge.get(f"/{keep}/{number}")).body == b"old"
        assert origin.journal.total == asked + 10


async def test_a_purge_whose_sync_failed_is_written_again(blocks):
    origin = await blocks.origin(Response(200, {"cache-control": "max-age=86400"}, b"old"))
    disk = blocks.disk()
    edge = await blocks.edge(origin, disk=disk)
    for number in range(10):
        await edge.get(f"/{number}")
    await edge.store.sync()
    armed = disk.fault.matching("*purges").next().sync_error()
    edge.purge(host=edge.url.partition("://")[2])
    await edge.store.sync()
    assert armed.hits
    await disk.power_cut("torn")
    await disk.power_on()
    for number in range(10):
        assert (await edge.get(f"/{number}")).body == b"old"
    assert origin.journal.total == 20


async def test_the_same_seed_leaves_the_same(blocks):
    from blocks.testing import Kit

    async def run() -> list[str]:
        async with Kit(seed=7) as kit:
            disk = kit.disk()
            broker = await kit.broker(disk=disk, durability="memory")
            for number in range(30):
                await broker.publish("orders", b"%d" % number * 100)
            await disk.power_cut("some")
            await disk.power_on()
            return [str(payload[:9]) for payload in await drained(broker)]

    assert await run() == await run()


def test_a_disk_fault_that_means_nothing_is_refused():
    from blocks.testing import Disk

    disk = Disk()
    with pytest.raises(ConfigError, match="would hit nothing"):
        disk.fault.next(0).sync_error()
    with pytest.raises(ConfigError):
        disk.fault.full(after="much")


@given(st.integers(0, 2**32), st.sampled_from(["synced", "torn", "some"]))
def test_what_was_synced_is_there_after_every_power_cut(seed: int, keep):
    random = Random(seed)
    medium = Medium()
    promised: dict[str, bytes] = {}
    for number in range(random.randint(1, 6)):
        path = f"d/{number}"
        inode = medium.create(path)
        for _ in range(random.randint(0, 5)):
            medium.write(inode, len(inode.data), random.randbytes(random.randint(0, 2000)))
            if random.random() < 0.4:
                medium.sync(inode)
                promised[path] = bytes(inode.data)
        if random.random() < 0.5:
            medium.sync_folder("d")
        else:
            promised = {path: data for path, data in promised.items() if path in medium._durable}
    promised = {path: data for path, data in promised.items() if path in medium._durable}
    medium.cut(keep, random)
    for path, data in promised.items():
        assert bytes(medium.find(path).data[: len(data)]) == data
    assert medium.used == sum(len(medium.find(path).data) for path in medium.paths("d"))
