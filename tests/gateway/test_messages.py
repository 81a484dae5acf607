from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import websockets
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.errors import BlocksError, ClientFault, ConfigError, Failure, Unavailable
from blocks.gateway import Gateway
from blocks.gateway.consumer import Consumer
from blocks.gateway.context import STATE_KEY
from blocks.gateway.messages.events import event, resumed
from blocks.gateway.messages.frames import BINARY, CLOSE, CONTINUATION, PING, TEXT, BadFrame, Reader, accept, frame
from blocks.gateway.messages.publish import Publish, publish
from blocks.gateway.messages.subscribe import Subscribe, subscribe
from blocks.gateway.route import route
from blocks.http.message import Request, Response
from blocks.http.server import Server
from gateway.gateway_kit import context, until


class Receipt:
    def __init__(self, topic: str, offset: int, duplicate: bool) -> None:
        self.topic, self.offset, self.duplicate = topic, offset, duplicate


class Delivery:
    def __init__(
        self, topic: str, offset: int, payload: bytes, key: bytes | None = None, acks: list[int] | None = None
    ) -> None:
        self.topic, self.offset, self.payload, self.key = topic, offset, payload, key
        self.headers: Mapping[str, str] = {"h": "v"}
        self.timestamp = 1000.0 + offset
        self._acks = acks if acks is not None else []

    async def ack(self) -> None:
        self._acks.append(self.offset)

    async def nack(self, delay: float = 0.0) -> None:
        raise AssertionError("nothing is given back here")


class Broker:
    """One topic's log in memory, and the two protocols over it."""

    def __init__(self) -> None:
        self.log: list[tuple[str, bytes, bytes | None, dict[str, str]]] = []
        self.ids: dict[str, int] = {}
        self.failure: BaseException | None = None
        self.grown = asyncio.Event()
        self.acks: list[int] = []
        self.open = 0
        self.asked: list[tuple[str, str | None, Any, int]] = []

    async def publish(
        self, topic: str, payload: bytes, *, key: bytes | None = None, headers: Any = None, id: str | None = None
    ) -> Receipt:
        if self.failure is not None:
            raise self.failure
        if id is not None and id in self.ids:
            return Receipt(topic, self.ids[id], True)
        self.log.append((topic, payload, key, dict(headers or {})))
        if id is not None:
            self.ids[id] = len(self.log) - 1
        self.grown.set()
        return Receipt(topic, len(self.log) - 1, False)

    @asynccontextmanager
    async def subscribe(
        self, pattern: str, *, group: str | None = None, start: Any = "latest", prefetch: int = 100
    ) -> AsyncIterator[AsyncIterator[Delivery]]:
        self.asked.append((pattern, group, start, prefetch))
        if self.failure is not None:
            raise self.failure
        self.open += 1
        try:
            yield self._messages(start if isinstance(start, int) else 0 if start == "earliest" else len(self.log))
        finally:
            self.open -= 1

    async def _messages(self, at: int) -> AsyncIterator[Delivery]:
        while True:
            while at >= len(self.log):
                self.grown.clear()
                await self.grown.wait()
            topic, payload, key, _ = self.log[at]
            yield Delivery(topic, at, payload, key, self.acks)
            at += 1


def request(
    handler: Any, method: str = "POST", body: bytes = b"", *, target: str = "/r", who: str = "", **fields: str
) -> Request:
    made = Request(method, target, {name.replace("_", "-"): value for name, value in fields.items()}, body)
    given = context(consumer=Consumer(who) if who else None, params={"region": "eu"})
    given.route = route("/r", handler)
    made.state[STATE_KEY] = given
    return made


async def post(handler: Publish, body: bytes = b"{}", **more: Any) -> tuple[int, Any]:
    response = await handler(request(handler, "POST", body, **more))
    return response.status, json.loads(response.body)


async def test_a_request_becomes_a_message_and_202_comes_after_the_receipt() -> None:
    broker = Broker()
    made = publish(broker, "orders.{region}", key="{body.customer}", headers={"by": "{consumer.name}"})
    status, receipt = await post(made, b'{"customer":7}', who="alice", content_type="application/json", x_other="1")
    assert (status, receipt) == (202, {"topic": "orders.eu", "offset": 0, "duplicate": False})
    assert broker.log == [("orders.eu", b'{"customer":7}', b"7", {"content-type": "application/json", "by": "alice"})]


async def test_a_repeated_key_is_one_message_and_keys_are_their_consumers() -> None:
    broker = Broker()
    made = publish(broker, "t")
    first = await post(made, who="a", idempotency_key="k")
    again = await post(made, who="a", idempotency_key='"k"')
    other = await post(made, who="b", idempotency_key="k")
    assert (first[1]["duplicate"], again[1]["duplicate"], other[1]["duplicate"]) == (False, True, False)
    assert first[1]["offset"] == again[1]["offset"]
    assert len(broker.log) == 2
    assert made.figures() == {"published": 3, "duplicates": 1, "failed": 0, "running": 0}


class Odd(BlocksError):
    pass


class Denied(Failure):
    status, reason = 403, "denied"


class Full(Failure):
    status, reason = 507, "disk-full"


@pytest.mark.parametrize(("failure", "status", "reason"), [
    (Odd("x"), 503, "Odd"), (ConnectionResetError(), 503, "ConnectionResetError"), (Full("x"), 503, "disk-full"),
    (Unavailable("away"), 503, "unavailable"), (Denied("the gateway may not"), 502, "denied"),
])  # fmt: skip
async def test_a_broker_that_does_not_take_it_is_said(failure: BaseException, status: int, reason: str) -> None:
    broker = Broker()
    broker.failure = failure
    made = publish(broker, "t")
    answer = await made(request(made, "POST", b"{}"))
    assert (answer.status, json.loads(answer.body)["reason"]) == (status, reason)
    assert ("retry-after" in answer.headers) == (status == 503)
    stream = subscribe(broker, "t")
    assert (await stream(request(stream, "GET"))).status == status


async def test_what_is_the_clients_fault_stays_it() -> None:
    broker = Broker()
    broker.failure = ClientFault("more than 1 MiB", reason="too-large", status=413)
    with pytest.raises(ClientFault):
        await post(publish(broker, "t"))


async def test_time_and_room_have_ends() -> None:
    class Slow(Broker):
        async def publish(self, *words: Any, **named: Any) -> Receipt:
            await asyncio.Event().wait()
            raise AssertionError

    slow = publish(Slow(), "t", timeout=0.02, at_once=1)
    first = asyncio.ensure_future(post(slow))
    await until(lambda: slow._running == 1)
    assert (await post(slow))[0] == 503
    assert (await first)[0] == 504


@pytest.mark.parametrize(("settings", "more", "status"), [
    ({}, {"body": b""}, 400), ({"empty": True}, {"body": b""}, 202), ({"max_body": 1}, {}, 413), ({"required_key": True}, {}, 400),
    ({}, {"idempotency_key": "a b"}, 400), ({"key": "{body.x}"}, {"body": b"{", "content_type": "application/json"}, 400),
])  # fmt: skip
async def test_what_cannot_be_a_message(settings: dict[str, Any], more: dict[str, Any], status: int) -> None:
    assert (await post(publish(Broker(), "t", **settings), **more))[0] == status


async def test_only_posts_publish() -> None:
    made = publish(Broker(), "t")
    response = await made(request(made, "GET"))
    assert (response.status, response.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("value", ["a.b", "*", ">", "", "a b", "a\nb", "x" * 200])
async def test_no_value_can_widen_a_topic(value: str) -> None:
    made = publish(Broker(), "t.{query.x}")
    asked = request(made, "POST", b"1", target="/r?x=" + value.replace(" ", "%20").replace("\n", "%0A"))
    with pytest.raises(ClientFault):
        await made(asked)


class Client:
    """Reads a stream of events as a browser does."""

    def __init__(self, response: Response) -> None:
        self.response = response
        self._chunks = aiter(response.body)
        self._text = ""

    async def next(self) -> dict[str, str]:
        while True:
            while "\n\n" not in self._text:
                self._text += (await anext(self._chunks)).decode()
            block, _, self._text = self._text.partition("\n\n")
            fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            if "data" in fields:
                return fields

    async def close(self) -> None:
        await self._chunks.aclose()  # type: ignore[attr-defined]  # an async generator


async def follow(handler: Subscribe, **more: Any) -> Client:
    response = await handler(request(handler, "GET", **more))
    assert response.status == 200, response.body
    return Client(response)


async def test_messages_stream_and_are_taken_up_where_they_broke_off() -> None:
    broker = Broker()
    made = subscribe(broker, "orders")
    for n in range(3):
        await broker.publish("orders", b"m%d" % n)
    client = await follow(made, last_event_id="0")
    assert client.response.headers["content-type"] == "text/event-stream"
    assert [await client.next(), await client.next()] == [{"id": "1", "data": "m1"}, {"id": "2", "data": "m2"}]
    await broker.publish("orders", b"m3")
    assert await client.next() == {"id": "3", "data": "m3"}
    await client.close()
    await until(lambda: broker.open == 0)
    assert broker.acks[:2] == [1, 2]
    again = await follow(made, target="/r?last_event_id=3")
    await broker.publish("orders", b"m4")
    assert await again.next() == {"id": "4", "data": "m4"}
    await again.close()
    await until(lambda: broker.open == 0)
    assert made.figures() == {"opened": 2, "open": 0, "refused": 0, "broken": 0}


async def test_patterns_groups_and_envelopes() -> None:
    broker = Broker()
    made = subscribe(broker, "orders.*", group="{consumer.name}-feed", envelope=True, start="earliest", prefetch=5)
    await broker.publish("orders.eu", b"\xff", key=b"k")
    client = await follow(made, who="alice@x.org")
    got = await client.next()
    assert got["id"] == "@1000.0"
    assert json.loads(got["data"]) == {
        "id": "@1000.0",
        "topic": "orders.eu",
        "offset": 0,
        "headers": {"h": "v"},
        "key": "k",
        "base64": "/w==",
    }
    assert broker.asked == [("orders.*", "alice@x.org-feed", "earliest", 5)]
    await client.close()
    await until(lambda: broker.open == 0)


async def test_a_slow_client_holds_the_broker_back() -> None:
    broker = Broker()
    for _ in range(100):
        await broker.publish("t", b"x" * 10_000)
    made = subscribe(broker, "t", start="earliest")
    response = await made(request(made, "GET"))

    class Full:
        got = 0

        def write(self, data: bytes) -> None:
            self.got += 1
            if self.got == 5:
                response.body.pause()

        def end(self, trailers: Any) -> None: ...

        def abort(self, error: BaseException) -> None: ...

    sink = Full()
    response.body.pour(sink)
    await until(lambda: sink.got >= 5)
    for _ in range(20):
        await asyncio.sleep(0)
    assert sink.got == 5
    assert len(broker.acks) == 3  # the first write was the greeting; the last message waits to be taken
    response.body.resume()
    await until(lambda: sink.got == 101)
    response.body.cancel()
    await until(lambda: broker.open == 0)


async def test_streams_live_tell_that_they_live_and_end() -> None:
    broker = Broker()
    made = subscribe(broker, "t", keep_alive=0.01, lifetime=0.08)
    response = await made(request(made, "GET"))
    text = (await response.read()).decode()
    assert text.startswith("retry: 3000\n\n")
    assert text.count(": \n\n") >= 2
    await until(lambda: broker.open == 0)
    assert made.figures()["open"] == 0


async def test_streams_are_bounded_and_refusals_give_their_places_back() -> None:
    broker = Broker()
    made = subscribe(broker, "t", streams=2, streams_each=1)
    clients = [await follow(made, who="a")]
    assert (await made(request(made, "GET", who="a"))).status == 429
    clients.append(await follow(made, who="b"))
    assert (await made(request(made, "GET", who="c"))).status == 503
    for client in clients:
        client.response.body.cancel()
    await until(lambda: broker.open == 0)
    broker.failure = Odd("no")
    for _ in range(3):
        assert (await made(request(made, "GET", who="a"))).status == 503
    assert made.figures()["open"] == 0
    assert (await made(request(made, "POST"))).status == 405
    assert (await made(request(made, "GET", last_event_id="nonsense"))).status == 400


async def test_a_broker_that_breaks_ends_the_stream() -> None:
    class Breaking(Broker):
        async def _messages(self, at: int) -> AsyncIterator[Delivery]:
            yield Delivery("t", 0, b"one")
            raise Odd("gone")

    made = subscribe(Breaking(), "t")
    response = await made(request(made, "GET"))
    assert b"data: one" in await response.read()
    assert made.figures() == {"opened": 1, "open": 0, "refused": 0, "broken": 1}


async def test_websockets() -> None:
    broker = Broker()
    made = subscribe(broker, "t", keep_alive=0.05, origins=["https://app.example"])

    async def app(asked: Request) -> Response:
        given = context()
        given.route = route("/r", made)
        asked.state[STATE_KEY] = given
        return await made(asked)

    async with Server(app, "127.0.0.1:0") as server:
        url = server.url.replace("http", "ws") + "/r"
        await broker.publish("t", b"missed")
        async with websockets.connect(url + "?last_event_id=0") as client:
            await broker.publish("t", b"text")
            await broker.publish("t", b"\xff\x00")
            await broker.publish("t", b"x" * 70_000)
            assert [await client.recv(), await client.recv()] == ["text", b"\xff\x00"]
            assert len(await client.recv()) == 70_000
            await (await client.ping())
        await until(lambda: broker.open == 0)
        async with websockets.connect(url, origin=websockets.Origin("https://app.example")) as client:
            await client.send("data")
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1003
        for origin in ("https://evil.example", "null"):
            with pytest.raises(websockets.InvalidStatus):
                await websockets.connect(url, origin=websockets.Origin(origin))
        await until(lambda: broker.open == 0)


MASK = b"\1\2\3\4"


def masked(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    plain = frame(opcode, payload)
    head = len(plain) - len(payload)
    body = bytes(byte ^ MASK[place % 4] for place, byte in enumerate(payload))
    return bytes((plain[0] if final else plain[0] & 0x7F, plain[1] | 0x80)) + plain[2:head] + MASK + body


@given(
    st.lists(st.tuples(st.sampled_from([TEXT, BINARY, CONTINUATION]), st.binary(max_size=300)), max_size=5),
    st.integers(1, 50),
)
def test_frames_are_read_however_they_are_cut(frames: list[tuple[int, bytes]], cut: int) -> None:
    data = b"".join(masked(opcode, payload) for opcode, payload in frames)
    reader = Reader()
    got = [one for at in range(0, len(data), cut) for one in reader.receive(data[at : at + cut])]
    assert [(one.opcode, one.payload) for one in got] == frames


@pytest.mark.parametrize("data", [
    frame(TEXT, b"unmasked"), b"\xc1\x80" + MASK, b"\x83\x80" + MASK, masked(PING, b"", final=False), masked(CLOSE, b"x" * 126),
    b"\x81\xff" + (1 << 40).to_bytes(8, "big"),
])  # fmt: skip
def test_bad_frames(data: bytes) -> None:
    with pytest.raises(BadFrame):
        Reader().receive(data)


def test_the_handshake_of_rfc_6455() -> None:
    fields = {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version": "13"}
    assert accept(Request("GET", "/", fields, upgrade="websocket")) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    for bad in ({}, {**fields, "sec-websocket-key": "short"}, {**fields, "sec-websocket-version": "8"}):
        assert accept(Request("GET", "/", bad, upgrade="websocket")) is None


def test_events_as_text() -> None:
    assert event("a\nb\r\nc\rd", id="1\n2", kind="k\r") == b"id: 12\nevent: k\ndata: a\ndata: b\ndata: c\ndata: d\n\n"
    assert resumed("41", "latest") == 42
    assert resumed("@12.5", "latest") == 12.5
    assert resumed(None, "earliest") == "earliest"
    for bad in ("x", "-1", "@x", "@-1", "9" * 30, "@nan"):
        with pytest.raises(ValueError):
            resumed(bad, 0)


def test_templates_are_checked_at_load() -> None:
    with pytest.raises(ConfigError):
        publish(Broker(), "t.{")


async def test_a_client_that_leaves_ends_its_subscription() -> None:
    broker = Broker()
    gateway = Gateway([route("/feed", subscribe(broker, "t", start="earliest", keep_alive=0.05), methods="GET")])
    await broker.publish("t", b"one")
    async with Server(gateway, "127.0.0.1:0", drain=1.0) as server, aiohttp.ClientSession(server.url) as client:
        async with client.get("/feed") as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            text = b""
            while b"data: one" not in text:
                text += await answer.content.readany()
            assert broker.open == 1
        await until(lambda: broker.open == 0)
