"""What users of other brokers complain of most, each with real processes."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from blocks.broker.client import Client, connect
from blocks.broker.errors import BrokerError
from broker.network import until, within
from broker.processes import ENVIRONMENT, running

pytestmark = pytest.mark.integration


async def test_a_broker_killed_under_1000_consumers_is_found_again_by_all_and_none_is_silent(tmp_path: Path) -> None:
    """aio-pika #231, nats.py #504, celery #8030: a consumer that is silently dead after a reconnect."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    got: list[set[bytes]] = [set() for _ in range(1000)]

    async def consume(client: Client, number: int) -> None:
        async with client.subscribe(f"news.{number % 10}", group=f"g{number}", start="earliest") as messages:
            async for message in messages:
                got[number].add(message.payload)
                await message.ack()

    async with running(tmp_path / "data", "--durability", "interval") as broker:
        clients = [connect(broker.url) for _ in range(1000)]
        for start in range(0, 1000, 50):
            await asyncio.gather(*(client.__aenter__() for client in clients[start : start + 50]))
        tasks = [asyncio.create_task(consume(client, number)) for number, client in enumerate(clients)]
        try:
            await _publish_to_all(broker.url, b"before")
            await until(lambda: all(b"before" in seen for seen in got), 60)
            await broker.end(signal.SIGKILL)
            await until(lambda: not any(client.connected for client in clients), 60)
            await broker.start()
            back = time.monotonic()
            await until(lambda: all(client.connected for client in clients), 60)
            reconnected = time.monotonic() - back
            await _publish_to_all(broker.url, b"after")
            await until(lambda: all(b"after" in seen for seen in got), 60)
            print(
                f"1,000 clients were back {reconnected:.2f} s after the broker; all had its news after {time.monotonic() - back:.2f} s"
            )
            assert not any(task.done() for task in tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(client.close(1.0) for client in clients))
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _publish_to_all(url: str, payload: bytes) -> None:
    async with connect(url) as client:
        for number in range(10):
            await client.publish(f"news.{number}", payload)


async def test_publishes_in_flight_when_the_broker_is_killed_land_once(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as broker, connect(broker.url) as client:
        done: list[Any] = []

        async def publish(worker: int) -> None:
            for number in range(60):
                receipt = await client.publish("t", b"%d.%d" % (worker, number))
                done.append((receipt.offset, b"%d.%d" % (worker, number)))

        workers = [asyncio.create_task(publish(worker)) for worker in range(50)]
        for kill in range(3):
            await until(lambda kill=kill: len(done) >= 500 * (kill + 1), 60)  # type: ignore[misc]
            await broker.end(signal.SIGKILL)
            await broker.start()
        await within(asyncio.gather(*workers), 60)
        assert client.reconnects >= 3
        async with client.subscribe("t", start="earliest", mode="browse") as messages:
            stored = [await within(anext(messages)) for _ in range(3000)]
        assert sorted((m.offset, m.payload) for m in stored) == sorted(done)
        assert len({m.payload for m in stored}) == 3000
        (row,) = await client.topics("t")
        assert row["messages"] == 3000


HUNG = """
import asyncio, sys
from blocks.broker.client import connect

async def main():
    async with connect(sys.argv[1]) as client:
        async with client.subscribe("t", group="g", start="earliest", lease=1.0) as messages:
            message = await anext(messages)
            print("took", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            try:
                await message.ack(wait=True)
                print("acked", flush=True)
            except Exception as error:
                print(type(error).__name__, flush=True)

asyncio.run(main())
"""


async def test_a_hung_client_loses_its_messages_and_its_late_ack_is_kept_out(tmp_path: Path) -> None:
    """celery #5935: a lease that the client extends while it lives, and loses when it hangs."""
    async with running(tmp_path / "data") as broker, connect(broker.url) as client:
        await client.publish("t", b"x")
        hung = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            HUNG,
            broker.url,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=ENVIRONMENT,
        )
        assert hung.stdin is not None
        assert hung.stdout is not None
        try:
            assert await within(hung.stdout.readline(), 30) == b"took\n"
            async with client.subscribe("t", group="g", start="earliest", lease=60.0) as messages:
                with pytest.raises(TimeoutError):
                    await within(anext(messages), 2.5)  # it lives: its lease of a second was extended twice and more
                hung.send_signal(signal.SIGSTOP)
                message = await within(anext(messages), 30)
                assert message.attempt == 2
                hung.send_signal(signal.SIGCONT)
                hung.stdin.write(b"\n")
                assert await within(hung.stdout.readline(), 30) == b"LeaseLost\n"
                await message.ack(wait=True)
        finally:
            hung.send_signal(signal.SIGCONT)
            if hung.returncode is None:
                hung.kill()
            await hung.communicate()


async def test_a_poison_message_becomes_a_dead_letter_and_others_pass(tmp_path: Path) -> None:
    """A consumer that dies of a message takes nobody with it: after its deliveries it is set aside, with its history."""
    async with running(tmp_path / "data") as broker, connect(broker.url) as client:
        await client.publish_many("t", [b"good", b"poison", b"good too"])
        handled: list[bytes] = []
        while len(handled) < 2 or not await _dead_letters(client):
            async with connect(broker.url) as worker:
                try:
                    async with worker.subscribe("t", group="g", start="earliest", max_deliveries=3) as messages:
                        await _work(messages, handled)
                except (ZeroDivisionError, TimeoutError):
                    pass
        assert handled == [b"good", b"good too"]
        async with client.subscribe("$dead.g", start="earliest") as dead:
            letter = await within(anext(dead))
        assert letter.payload == b"poison"
        print(letter.headers)
        assert await client.redrive("g") == 1
        async with client.subscribe("t", group="g") as messages:
            assert (await within(anext(messages))).payload == b"poison"


async def _work(messages: Any, handled: list[bytes]) -> None:
    while True:
        async with asyncio.timeout(0.5):
            message = await anext(messages)
        if message.payload == b"poison":
            raise ZeroDivisionError
        handled.append(message.payload)
        await message.ack(wait=True)


async def _dead_letters(client: Client) -> int:
    return sum(row["messages"] for row in await client.topics("$dead.*"))


async def test_no_broker_for_too_long_is_an_error_everywhere(tmp_path: Path) -> None:
    async with (
        running(tmp_path / "data") as broker,
        connect(broker.url, give_up_after=0.5) as client,
        client.subscribe("t", group="g") as messages,
    ):
        waiting = asyncio.create_task(anext(messages))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await broker.end(signal.SIGKILL)
        publishing = asyncio.create_task(client.publish("t", b"x"))
        for task in (waiting, publishing):
            with pytest.raises(BrokerError):
                await within(task, 30)
