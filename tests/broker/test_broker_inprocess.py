"""The broker without a socket: the same object in memory and on disk, on asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
import uvloop

from blocks.broker import Broker, Outgoing, TopicOptions
from blocks.broker.errors import BadTopic, Closed, DiskFailed, Invalid, LeaseLost, TooLarge
from blocks.broker.log.disk import Locked
from blocks.broker.message import Limits, Publication
from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError
from blocks.core.status import Status


@pytest.fixture(params=["memory", "disk"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return ":memory:" if request.param == "memory" else tmp_path / "data"


async def take(messages: Any, count: int) -> list[Any]:
    return [await asyncio.wait_for(anext(messages), 20) for _ in range(count)]


async def test_publish_and_subscribe(where: Any) -> None:
    async with Broker(where) as broker:
        async with broker.subscribe("orders.*", group="billing", start="earliest", prefetch=10) as messages:
            receipt = await broker.publish("orders.created", b"one", key=b"42", headers={"source": "shop"}, id="a1")
            assert (receipt.topic, receipt.offset, receipt.duplicate) == ("orders.created", 0, False)
            assert (await broker.publish("orders.created", b"one", id="a1")).duplicate
            receipts = await broker.publish_many("orders.created", [b"two", b"three"], headers={"h": "v"})
            assert [r.offset for r in receipts] == [1, 2]
            got = await take(messages, 3)
            assert [m.payload for m in got] == [b"one", b"two", b"three"]
            first = got[0]
            assert (first.topic, first.key, first.headers, first.offset, first.attempt, first.id) == (
                "orders.created", b"42", {"source": "shop"}, 0, 1, "a1",
            )  # fmt: skip
            assert first.timestamp == pytest.approx(broker.clock.wall(), abs=60)
            await first.ack(wait=True)
            with pytest.raises(LeaseLost):
                await first.ack(wait=True)
            await got[1].nack(delay=0)
            again = (await take(messages, 1))[0]
            assert (again.payload, again.attempt) == (b"two", 2)
            await again.reject("bad")
            await got[2].ack()
        assert broker.engine.lag("billing")[0]["lag"] == 0
        assert await broker.redrive("billing") == 1
        assert broker.status is Status.OPEN
    assert broker.status is Status.CLOSED
    assert not [t for t in threading.enumerate() if t.name.startswith("blocks-broker")]


async def test_what_is_on_disk_is_there_after_a_restart(tmp_path: Path) -> None:
    async with Broker(tmp_path / "d") as broker:
        await broker.publish_many("t", [b"%d" % n for n in range(100)])
        async with broker.subscribe("t", group="g", start="earliest") as messages:
            for message in await take(messages, 50):
                await message.ack()
        with pytest.raises(Locked):
            await Broker(tmp_path / "d").start()
    async with (
        Broker(tmp_path / "d", durability="interval", interval="5ms") as broker,
        broker.subscribe("t", group="g") as messages,
    ):
        assert (await take(messages, 1))[0].offset == 50
        assert (await broker.publish("t", b"")).durability == "interval"


async def test_an_atomic_batch_is_all_or_nothing(where: Any) -> None:
    async with Broker(where, limits=Limits(message_bytes=10)) as broker:
        receipts = await broker.publish_batch([Outgoing("a", b"1"), Outgoing("b", b"2", key=b"k"), Outgoing("a", b"3")])
        assert [(r.topic, r.offset) for r in receipts] == [("a", 0), ("b", 0), ("a", 1)]
        with pytest.raises(TooLarge):
            await broker.publish_batch([Outgoing("a", b"1"), Outgoing("b", b"x" * 11)])
        assert broker.engine.topics("a")[0]["messages"] == 2
        assert await broker.publish_batch([]) == []


async def test_request_and_reply(where: Any) -> None:
    async with Broker(where) as broker, broker.subscribe("sums", group="g", start="earliest") as messages:

        async def serve() -> None:
            (question,) = await take(messages, 1)
            await question.ack()
            await question.respond(b"%d" % sum(map(int, question.payload.split())), headers={"unit": "apples"})

        server = asyncio.ensure_future(serve())
        answer = await broker.request("sums", b"1 2 3", timeout="20s")
        assert (answer.payload, answer.headers["unit"]) == (b"6", "apples")
        await server
        with pytest.raises(TimeoutError):
            await broker.request("nobody", b"", timeout=0.01)
        assert len(broker.inboxes) == 0


async def test_hooks_validate_and_transform(where: Any) -> None:
    def check(payload: bytes, headers: Any) -> None:
        if b"bad" in payload:
            raise ValueError("it is bad")

    async with Broker(where, topics={"t": TopicOptions(max_message_bytes=20)}) as broker:
        broker.validate("t", check)
        broker.transform("t", lambda payload, headers: (payload.upper(), {**headers, "seen": "yes"}))
        await broker.publish("t", b"good")
        broker.validate("other", check)
        with pytest.raises(Invalid, match="it is bad"):
            await broker.publish("other", b"bad")
        async with broker.subscribe("t", start="earliest", ack=False) as messages:
            (message,) = await take(messages, 1)
        assert (message.payload, message.headers) == (b"GOOD", {"seen": "yes"})


async def test_a_chain_of_publishes_from_callbacks_needs_no_stack(where: Any) -> None:
    async with Broker(where) as broker:
        finished = asyncio.Event()
        count = 0

        def again(receipts: Any) -> None:
            nonlocal count
            count += 1
            if count == 3000:
                finished.set()
            else:
                broker.engine.publish(Publication("t", [b"x"]), again)

        broker.engine.publish(Publication("t", [b"x"]), again)
        await asyncio.wait_for(finished.wait(), 60)
        assert broker.engine.topics("t")[0]["messages"] == 3000


async def test_closing_wakes_who_waits(where: Any) -> None:
    broker = Broker(where)
    await broker.start()
    subscription = broker.subscribe("t", group="g")

    async def consume() -> int:
        async with subscription as messages:
            return len([message async for message in messages])

    waiting = asyncio.ensure_future(consume())
    await asyncio.sleep(0)
    await broker.stop()
    assert await asyncio.wait_for(waiting, 20) == 0
    await broker.stop()
    with pytest.raises(Closed):
        await broker.publish("t", b"")


async def test_a_cancelled_publish_and_a_cancelled_wait_leave_nothing_behind(where: Any) -> None:
    async with Broker(where) as broker, broker.subscribe("t", group="g", start="earliest") as messages:
        publishing = asyncio.ensure_future(broker.publish("t", b"1"))
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)
        publishing.cancel()
        waiting.cancel()
        await asyncio.gather(publishing, waiting, return_exceptions=True)
        await broker.publish("t", b"2")
        assert [m.payload for m in await take(messages, 2)] == [b"1", b"2"]


async def test_what_was_never_looked_at_is_no_attempt(where: Any) -> None:
    async with Broker(where) as broker:
        await broker.publish_many("t", [b"1", b"2", b"3"])
        async with broker.subscribe("t", group="g", start="earliest") as messages:
            await take(messages, 1)
        async with broker.subscribe("t", group="g") as messages:
            assert [(m.payload, m.attempt) for m in await take(messages, 3)] == [(b"1", 2), (b"2", 1), (b"3", 1)]


async def test_leases_end_on_the_injected_clock(where: Any) -> None:
    clock = FakeClock()
    async with Broker(where, clock=clock) as broker:
        await broker.publish("t", b"x", delay="1h")
        async with broker.subscribe("t", group="g", start="earliest", lease="30s") as messages:
            assert messages.poll() is None
            clock.advance(3601)
            broker.tick()
            (message,) = await take(messages, 1)
            clock.advance(31)
            broker.tick()
            (again,) = await take(messages, 1)
            assert again.attempt == 2
            with pytest.raises(LeaseLost):
                await message.ack(wait=True)
            await again.ack(wait=True)


async def test_bad_arguments_are_refused_clearly() -> None:
    with pytest.raises(ConfigError, match="durability"):
        Broker(":memory:", durability="perhaps")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="listen"):
        Broker(":memory:", token_file="x")
    with pytest.raises(ConfigError):
        Broker(":memory:", segment_bytes=1)
    with pytest.raises(Closed):
        _ = Broker(":memory:").engine
    async with Broker(":memory:") as broker:
        with pytest.raises(TypeError):
            await broker.publish("t", "text")  # type: ignore[arg-type]
        for wrong in (
            {"key": "k"},
            {"headers": {"a": 1}},
            {"headers": {"a": {1}}},
            {"id": 7},
            {"id": "\ud800"},
            {"headers": {"\udcff": "x"}},
            {"reply_to": b"x"},
        ):
            with pytest.raises(TypeError):
                await broker.publish("t", b"", **wrong)  # type: ignore[arg-type]
        with pytest.raises(BadTopic):
            await broker.publish("a b", b"")
        with pytest.raises(Closed):
            _ = broker.url
        with pytest.raises(ConfigError):
            await broker.publish_many("t", [b"", b""], ids=["1"])
        assert (await broker.publish("t", memoryview(b"view"))).offset == 0  # type: ignore[arg-type]


async def test_what_cannot_be_encoded_leaves_nobody_waiting(where: Any) -> None:
    answers: list[Any] = []
    async with Broker(where) as broker:
        broker.engine.publish(Publication("t", [b"x"], headers=[{"a": {1}}]), answers.append)  # type: ignore[dict-item]
        with pytest.raises(DiskFailed):
            await broker.publish("t", b"y")
        assert isinstance(answers[0].errors[0], DiskFailed)


async def test_a_failed_disk_fails_who_waits_and_says_so(tmp_path: Path) -> None:
    from broker.recording import FailingDisk

    disk = FailingDisk()
    async with Broker("x", disk=disk) as broker:
        await broker.publish("t", b"1")
        async with broker.subscribe("t", group="g", start="earliest") as messages:
            (message,) = await take(messages, 1)
            disk.broken = True
            with pytest.raises(DiskFailed):
                await message.ack(wait=True)
            with pytest.raises(DiskFailed):
                await broker.publish("t", b"2")
        assert broker.status is Status.CLOSED
    disk.broken = False
    async with Broker("x", disk=disk) as broker:
        assert broker.engine.topics("t")[0]["messages"] >= 1


def test_on_uvloop(tmp_path: Path) -> None:
    async def main() -> None:
        async with Broker(tmp_path) as broker, broker.subscribe("t", group="g", start="earliest") as messages:
            await broker.publish_many("t", [b"x"] * 10)
            for message in await take(messages, 10):
                await message.ack()
            await broker.flush()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def test_what_could_never_be_due_is_refused() -> None:
    async with Broker(":memory:") as broker:
        for at in (float("nan"), float("inf"), -5.0):
            with pytest.raises(ConfigError):
                await broker.publish("t", b"x", at=at)
        with pytest.raises(TypeError):
            await broker.publish("t", b"x", headers="no")  # type: ignore[arg-type]
        assert (await broker.publish("t", b"x")).offset == 0
