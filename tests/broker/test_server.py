"""The server against peers that are no clients of ours: raw bytes over a socket."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from blocks.broker.client import connect
from blocks.broker.frames import (
    ACK,
    Answer,
    Ask,
    Closing,
    Deliver,
    Frame,
    Hello,
    Ping,
    Pong,
    Publish,
    Receipts,
    Refused,
    Settle,
    Settled,
    Subscribe,
    Subscribed,
    Welcome,
)
from blocks.broker.wire import Encoder, Framer, decode
from broker.network import Net, serving, until, within


class Peer:
    """A bare connection: what is sent is sent as it is, what comes is decoded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.encoder = Encoder()
        self.framer = Framer()
        self.frames: list[Frame] = []

    @classmethod
    async def open(cls, net: Net, *, hello: bool = True) -> Peer:
        host, port = net.url.rpartition("/")[2].split(":")
        peer = cls(*await asyncio.open_connection(host, int(port)))
        if hello:
            peer.send(Hello(1, {}))
            assert type(await peer.receive()) is Welcome
        return peer

    def send(self, *frames: Frame) -> None:
        self.writer.write(b"".join(map(self.encoder.encode, frames)))

    async def receive(self) -> Frame | None:
        """The next frame; None at the end."""
        while not self.frames:
            data = await within(self.reader.read(65536))
            if not data:
                return None
            self.frames += [decode(body) for body in self.framer.receive(data)]
        return self.frames.pop(0)

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    async with serving() as net:
        yield net


async def test_a_conversation(net: Net) -> None:
    peer = await Peer.open(net)
    peer.send(
        Publish(7, "t", [b"a", b"b"], {}, False), Publish(8, ["t", "u"], [b"c", b"d"], {"headers": {"x": "y"}}, False)
    )
    receipts = await peer.receive()
    assert receipts == Receipts("memory", [[7, 0, [], []], [8, [2, 0], [], []]])
    peer.send(Subscribe(1, "t", {"group": "g", "start": "earliest"}))
    answer = await peer.receive()
    assert type(answer) is Subscribed
    deliver = await peer.receive()
    assert type(deliver) is Deliver
    topic, token, offset, payloads, columns = deliver.runs[0]
    assert (topic, offset, payloads) == ("t", 0, [b"a", b"b", b"c"])
    assert columns["headers"] == [None, None, {"x": "y"}]
    peer.send(Settle(1, ACK, [["t", token, [0, 2]]], None, 5))
    assert await peer.receive() == Settled(5, 0)
    peer.send(Settle(1, ACK, [["t", token, [0, 2]]], None, 6))
    assert await peer.receive() == Settled(6, 3)
    peer.send(Ping(9), Ask(3, "topics", {"pattern": "u"}))
    assert await peer.receive() == Pong(9)
    listed = await peer.receive()
    assert type(listed) is Answer
    assert [row["topic"] for row in listed.value] == ["u"]
    await peer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00\x00\x01\xc1",
        b"\x00\x00\x00\x03\x92\x00\x00",
        b"\xff\xff\xff\xff",
        Encoder().encode(Ping(1)),
        Encoder().encode(Hello(0, {})),
        Encoder().encode(Hello(1, {"x": "y" * 20_000})),
    ],
)
async def test_what_is_no_hello_ends_the_connection_with_a_reason(net: Net, data: bytes) -> None:
    peer = await Peer.open(net, hello=False)
    peer.writer.write(data)
    frame = await peer.receive()
    assert type(frame) is Closing
    assert frame.code == "protocol"
    assert await peer.receive() is None
    await peer.close()


async def test_fuzzed_frames_end_their_own_connection_and_nobody_else_s(net: Net) -> None:
    rng = random.Random(7)
    encoder = Encoder()
    good = [
        encoder.encode(Publish(1, "t", [b"a" * 50] * 3, {"key": [b"k", None, b"l"], "headers": {"a": "b"}}, False)),
        encoder.encode(Subscribe(1, "t.>", {"group": "g", "start": "earliest"})),
        encoder.encode(Settle(1, ACK, [["t", 1, [0, 5]]], None, 1)),
        encoder.encode(Ask(1, "configure", {"topic": "t", "retain_messages": 5})),
    ]
    async with connect(net.url) as client:
        for _ in range(60):
            peer = await Peer.open(net)
            data = bytearray(rng.choice(good))
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(4, len(data))] = rng.randrange(256)
            peer.writer.write(bytes(data) + encoder.encode(Ping(1)))
            while (frame := await peer.receive()) is not None and type(frame) is not Pong:
                pass
            await peer.close()
        assert (await client.publish("mine", b"x")).topic == "mine"
    await until(lambda: net.server.connections == 0)


ODD: list[Any] = [None, True, -1, 0, 2**62, 1.5, float("nan"), "", "x", b"x", [], {}, [[]], {"a": {}}]


async def test_odd_arguments_are_answered_and_do_no_harm(net: Net) -> None:
    rng = random.Random(11)
    verbs = [
        "topics",
        "groups",
        "lag",
        "configure",
        "delete-topic",
        "delete-group",
        "bind",
        "unbind",
        "redrive",
        "inbox",
        "stats",
    ]
    names = [
        "topic",
        "group",
        "pattern",
        "source",
        "target",
        "headers",
        "match",
        "limit",
        "name",
        "retain_seconds",
        "schema",
    ]
    options = [
        "group",
        "start",
        "prefetch",
        "prefetch_bytes",
        "lease",
        "ack",
        "mode",
        "exclusive",
        "backoff",
        "positions",
    ]
    peer = await Peer.open(net)
    for number in range(1, 300):
        arguments = {rng.choice(names): rng.choice(ODD) for _ in range(rng.randint(0, 3))}
        peer.send(Ask(number, rng.choice(verbs), arguments))
        answer = await peer.receive()
        assert type(answer) in (Answer, Refused), answer
    for number in range(300, 600):
        peer.send(Subscribe(number, "quiet", {rng.choice(options): rng.choice(ODD) for _ in range(rng.randint(0, 3))}))
        assert type(await peer.receive()) in (Subscribed, Refused)
    await peer.close()


async def test_odd_columns_are_answered_and_do_no_harm(net: Net) -> None:
    rng = random.Random(13)
    odd: dict[str, list[Any]] = {
        "ttl": [-1.0, 0, 1e14, 5],
        "delay": [-5, 0.0, 1e14, 0.001],
        "at": [-1e14, 0, 1e14, 1],
        "id": ["", "x", "y" * 5000],
        "key": [b"", b"k", b"k" * 5000],
        "reply": ["", "a.b", "no good", "$inbox.x"],
        "headers": [{}, {"": ""}, {"a": "b" * 60_000}, {str(n): "" for n in range(300)}],
        "producer": [["", 0, 0], ["p", 0, 1], ["p", 2**62, 2**62], ["p", 0, 0]],
        "time": [1.0],
        "attempt": [3],
    }
    topics = ["t", "", "$sys.x", "a..b", "x" * 300, "$inbox.nobody", "t.u"]
    peer = await Peer.open(net)
    for number in range(400):
        names = rng.sample(sorted(odd), rng.randint(0, 4))
        count = rng.randint(1, 3)
        columns = {name: rng.choice(odd[name]) for name in names}
        chosen: Any = rng.choice(topics) if rng.random() < 0.5 else [rng.choice(topics) for _ in range(count)]
        peer.send(Publish(number, chosen, [b"p"] * count, columns, rng.random() < 0.3))
        answer = await peer.receive()
        assert type(answer) is Receipts, answer
        assert answer.entries[0][0] == number
    peer.send(Publish(1000, "t", [b"p"], {}, False))
    answer = await peer.receive()
    assert type(answer) is Receipts
    assert answer.entries[0][3] == []
    await peer.close()


async def test_a_wrong_client_cannot_settle_another_s_message(net: Net) -> None:
    async with connect(net.url) as client:
        await client.publish_many("t", [b"0", b"1"])
        async with client.subscribe("t", group="g", start="earliest", prefetch=2) as messages:
            held = [await within(anext(messages)) for _ in range(2)]
            wrong = await Peer.open(net)
            wrong.send(Subscribe(1, "t", {"group": "g", "start": "earliest"}))
            assert type(await wrong.receive()) is Subscribed
            for token in [*range(20), held[0]._run.token]:
                wrong.send(Settle(1, ACK, [["t", token, [0, 1]]], None, 99))
                assert await wrong.receive() == Settled(99, 2)
            await wrong.close()
            await held[0].ack(wait=True)
            await held[1].nack()
            again = await within(anext(messages))
            assert (again.payload, again.attempt) == (b"1", 2)


async def test_a_range_of_everything_is_refused_and_costs_nothing(net: Net) -> None:
    peer = await Peer.open(net)
    peer.send(Subscribe(1, "t", {"group": "g"}))
    assert type(await peer.receive()) is Subscribed
    peer.send(Settle(1, ACK, [["t", 1, [0, 2**62]]], None, 1))
    frame = await peer.receive()
    assert type(frame) is Closing
    await peer.close()


async def test_a_client_that_is_silent_is_gone_and_its_messages_go_to_others() -> None:
    async with serving(heartbeat=0.1) as net, connect(net.url) as client:
        await client.publish("t", b"x")
        silent = await Peer.open(net)
        silent.send(Subscribe(1, "t", {"group": "g", "start": "earliest"}))
        assert type(await silent.receive()) is Subscribed
        assert type(await silent.receive()) is Deliver
        async with client.subscribe("t", group="g", start="earliest") as messages:
            message = await within(anext(messages))
            assert message.attempt == 2
        await silent.close()


async def test_a_consumer_that_does_not_read_holds_only_its_own_messages(net: Net) -> None:
    async with connect(net.url) as client:
        slow = await Peer.open(net)
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
        slow.send(
            Subscribe(1, "t", {"mode": "browse", "start": "earliest", "prefetch": 10_000_000, "prefetch_bytes": 2**40})
        )
        async with client.subscribe("t", group="g", start="earliest") as messages:
            for _ in range(40):
                await client.publish_many("t", [b"x" * 10_000] * 40)
                for _ in range(40):
                    await (await within(anext(messages))).ack()
        connection = next(c for c in net.server._connections if c.full)
        assert connection._transport is not None
        assert connection._transport.get_write_buffer_size() < 4_000_000
        await slow.close()


async def test_too_many_connections_are_told_so() -> None:
    async with serving(max_connections=1) as net, connect(net.url):
        peer = await Peer.open(net, hello=False)
        frame = await peer.receive()
        assert type(frame) is Closing
        assert frame.code == "full"
        await peer.close()


async def test_stopping_answers_what_is_under_way_and_says_goodbye() -> None:
    async with serving() as net:
        peer = await Peer.open(net)
        peer.send(Publish(1, "t", [b"x"], {}, False))
        await until(lambda: "t" in {row["topic"] for row in net.broker.engine.topics()})
        await net.down(grace=1.0)
        got = []
        while (frame := await peer.receive()) is not None:
            got.append(type(frame))
        assert got[0] is Receipts
        assert Closing in got
        await peer.close()
