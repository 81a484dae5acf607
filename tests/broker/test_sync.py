from __future__ import annotations

import asyncio
import threading

import pytest

from blocks.broker.errors import Closed
from blocks.broker.message import Outgoing
from blocks.broker.sync import connect
from broker.network import serving


async def test_threads_publish_subscribe_and_ask() -> None:
    async with serving() as net:
        url = net.url

        def work() -> list[tuple[bytes, int]]:
            with connect(url) as client:
                assert client.publish("t", b"0", headers={"a": "b"}).offset == 0
                assert [r.offset for r in client.publish_many("t", [b"1", b"2"])] == [1, 2]
                assert client.publish_batch([Outgoing("t", b"3")])[0].offset == 3
                assert client.ask("topics", pattern="t")[0]["topic"] == "t"
                threads = [threading.Thread(target=client.publish, args=("t", b"x")) for _ in range(8)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                got = []
                with client.subscribe("t", group="g", start="earliest") as messages:
                    for message in messages:
                        message.ack(wait=True)
                        got.append((message.payload, message.offset))
                        if len(got) == 12:
                            break
                    with pytest.raises(TimeoutError):
                        messages.next(timeout=0.05)
            with pytest.raises(Closed):
                client.publish("t", b"late")
            return got

        got = await asyncio.to_thread(work)
        assert [offset for _, offset in got] == list(range(12))


async def test_a_request_between_threads_is_answered() -> None:
    async with serving() as net:
        url = net.url

        def serve(ready: threading.Event) -> None:
            with connect(url) as client, client.subscribe("rpc", group="r", start="earliest") as messages:
                ready.set()
                message = messages.next(timeout=20)
                assert message is not None
                message.respond(message.payload + b"!")
                message.ack()

        def ask(ready: threading.Event) -> bytes:
            ready.wait()
            with connect(url) as client:
                return client.request("rpc", b"hello", timeout=20).payload

        ready = threading.Event()
        _, answer = await asyncio.gather(asyncio.to_thread(serve, ready), asyncio.to_thread(ask, ready))
        assert answer == b"hello!"


def test_nobody_there_is_an_error_and_leaves_no_thread() -> None:
    with pytest.raises(OSError), connect("blocks://127.0.0.1:1"):
        pass
