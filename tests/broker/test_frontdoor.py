from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families

from blocks.broker import Broker
from blocks.broker.backdoor import BackDoor
from blocks.broker.cloudevents import of_batch, of_binary, of_structured
from blocks.broker.errors import BadRequest
from blocks.broker.frontdoor import FrontDoor
from blocks.broker.security import read_guard
from blocks.broker.server import server_tls
from blocks.core.errors import ConfigError
from broker.network import until, within


class Door:
    """A front door and an HTTP client for it."""

    def __init__(self, broker: Any, door: FrontDoor, session: aiohttp.ClientSession) -> None:
        self.broker = broker
        self.url = door.url
        self.session = session

    async def post(self, path: str, data: Any = b"", **headers: str) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.post(self.url + path, data=data, headers=named) as response:
            return response.status, await response.json()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with (
        Broker(":memory:") as broker,
        FrontDoor(broker, listen="127.0.0.1:0") as door,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
    ):
        yield Door(broker, door, session)


async def test_a_post_is_a_message(door: Door) -> None:
    status, receipt = await door.post(
        "/topics/orders.created", b"hello", Message_Key="k", Message_Id="1", Message_Header_Shop="x"
    )
    assert (status, receipt) == (
        201,
        {"topic": "orders.created", "offset": 0, "duplicate": False, "durability": "memory"},
    )
    status, receipt = await door.post("/topics/orders.created", b"hello", Message_Id="1")
    assert (status, receipt["duplicate"]) == (201, True)
    async with door.broker.subscribe("orders.*", start="earliest") as messages:
        message = await within(anext(messages))
    assert (message.payload, message.key, message.id, message.headers["shop"]) == (b"hello", b"k", "1", "x")


async def test_a_cloud_event_keeps_its_attributes_and_comes_once(door: Door) -> None:
    event = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "created", "data": {"n": 1}}
    structured = json.dumps(event).encode()
    assert (await door.post("/topics/t", structured, Content_Type="application/cloudevents+json"))[0] == 201
    binary = {
        "ce_specversion": "1.0",
        "ce_id": "7",
        "ce_source": "/shop",
        "ce_type": "created",
        "Content_Type": "text/plain",
    }
    status, receipt = await door.post("/topics/t", b"again", **binary)
    assert receipt["duplicate"] is True
    batch = json.dumps([{**event, "id": "8"}, {**event, "id": "9", "data_base64": "AAE="}]).encode()
    status, receipts = await door.post("/topics/t", batch, Content_Type="application/cloudevents-batch+json")
    assert (status, [row["offset"] for row in receipts]) == (201, [1, 2])
    async with door.broker.subscribe("t", start="earliest", mode="browse") as messages:
        first = await within(anext(messages))
    assert first.payload == b'{"n":1}'
    assert (first.headers["ce-type"], first.headers["content-type"]) == ("created", "application/json")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"id":"1"}', b'{"id":"1","source":"s","type":"t","specversion":"1.0","data_base64":"!"}']
)
def test_what_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        of_structured(body)
    with pytest.raises(BadRequest):
        of_batch(b"{}")
    with pytest.raises(BadRequest):
        of_binary({"ce-id": "1"}, b"")


async def test_pulled_messages_are_leased_and_settled(door: Door) -> None:
    await door.broker.publish_many("t", [b"0", b"\xff", b"2", b"3"])
    status, body = await door.post("/groups/g/pull?topic=t&max=4")
    rows = body["messages"]
    assert (status, [row.get("payload", row.get("payload_base64")) for row in rows]) == (200, ["0", "/w==", "2", "3"])
    lease = [row["lease"] for row in rows]
    assert (await door.post("/groups/g/ack", json.dumps({"leases": lease[:2]})))[1] == {"settled": 2, "stale": 0}
    assert (await door.post("/groups/g/ack", json.dumps({"leases": lease[:1]})))[1] == {"settled": 0, "stale": 1}
    assert (await door.post("/groups/g/extend", json.dumps({"leases": lease[2:], "seconds": 60})))[1]["settled"] == 2
    assert (await door.post("/groups/g/nack", json.dumps({"leases": lease[2:3]})))[1]["settled"] == 1
    assert (await door.post("/groups/g/reject", json.dumps({"leases": lease[3:], "reason": "no"})))[1]["settled"] == 1
    rows = (await door.post("/groups/g/pull?topic=t"))[1]["messages"]
    assert [(row["payload"], row["attempt"]) for row in rows] == [("2", 2)]
    assert (await door.post("/groups/other/ack", json.dumps({"leases": [rows[0]["lease"]]})))[1]["stale"] == 1
    for wrong in (b"", b"{}", b'{"leases": ["x"]}', b'{"leases": [1]}'):
        assert (await door.post("/groups/g/ack", wrong))[0] == 400


async def test_a_pull_waits_for_a_message(door: Door) -> None:
    pull = asyncio.create_task(door.post("/groups/g/pull?topic=t.*&wait=20s"))
    await until(lambda: bool(door.broker.engine.groups()))
    await door.broker.publish("t.x", b"here")
    _, body = await within(pull)
    assert [row["payload"] for row in body["messages"]] == ["here"]
    assert (await door.post("/groups/g/pull?topic=t.*&wait=0"))[1]["messages"] == []


async def test_events_follow_a_topic_and_resume(door: Door) -> None:
    await door.broker.publish_many("t", [b"0", b"1", b"2"])
    async with door.session.get(door.url + "/topics/t/events", headers={"Last-Event-ID": "0"}) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        got = []
        while len(got) < 3:
            line = (await within(response.content.readline())).decode().strip()
            if line.startswith("data: "):
                got.append(json.loads(line[6:])["payload"])
                if len(got) == 2:
                    await door.broker.publish("t", b"3")
            elif line.startswith("id: "):
                assert int(line[4:]) == len(got) + 1
        assert got == ["1", "2", "3"]


async def test_a_page_of_another_origin_and_another_host_are_refused(door: Door) -> None:
    assert (await door.post("/topics/t", b"x", Origin="https://evil.example"))[0] == 403
    assert (await door.post("/topics/t", b"x", Host="evil.example"))[0] == 403
    assert (await door.post("/topics/not%20a%20topic", b"x"))[0] == 400


async def test_a_guarded_door_wants_a_token_and_holds_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "who.toml"
    path.write_text("[tokens.shop]\ntoken='shop-token'\npublish=['orders.>']\nmessage_bytes='10B'\n")
    guard = read_guard(path)
    async with (
        Broker(":memory:") as broker,
        FrontDoor(broker, listen="127.0.0.1:0", guard=guard) as front,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
    ):
        door = Door(broker, front, session)
        assert (await door.post("/topics/orders.x", b"x"))[0] == 401
        assert (await door.post("/topics/orders.x", b"x", Authorization="Bearer wrong"))[0] == 401
        assert (await door.post("/topics/orders.x", b"x", Authorization="Bearer shop-token"))[0] == 201
        assert (await door.post("/topics/orders.x", b"x" * 11, Authorization="Bearer shop-token"))[0] == 413
        assert (await door.post("/topics/payments", b"x", Authorization="Bearer shop-token"))[0] == 403
        assert (await door.post("/groups/g/pull?topic=orders.x", Authorization="Bearer shop-token"))[0] == 403


async def test_the_back_door_answers_this_machine_only() -> None:
    with pytest.raises(ConfigError):
        BackDoor(None, listen="0.0.0.0:0")  # type: ignore[arg-type]
    async with (
        Broker(":memory:") as broker,
        BackDoor(broker, listen="127.0.0.1:0") as door,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
    ):
        await broker.publish("t", b"x")

        async def get(path: str, **headers: str) -> tuple[int, str]:
            async with session.get(door.url + path, headers=headers) as response:
                return response.status, await response.text()

        assert await get("/livez") == (200, '{"status": "live"}')
        assert json.loads((await get("/readyz?verbose"))[1])["health"] == "OPEN"
        assert json.loads((await get("/v1/status"))[1])["block"] == "broker"
        assert json.loads((await get("/v1/broker"))[1])["published"] == 1
        async with broker.subscribe("t", group='odd"one', start="earliest"):
            text = (await get("/metrics"))[1]
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert families["blocks_broker_status"].samples[0].value == 2
        assert families["blocks_broker_published"].type == "counter"
        (lag,) = families["blocks_broker_group_lag"].samples
        assert (lag.labels, lag.value) == ({"group": 'odd"one'}, 1)
        assert [row["topic"] for row in json.loads((await get("/topics"))[1])] == ["t"]
        assert [row["topic"] for row in json.loads((await get("/v1/broker/topics?limit=1"))[1])] == ["t"]
        assert [row["group"] for row in json.loads((await get("/groups"))[1])] == ['odd"one']
        assert (await get("/lag?group=nobody"))[0] == 404
        assert (await get("/livez", Host="evil.example"))[0] == 421
        assert (await get("/livez", Origin="http://evil.example"))[0] == 403


async def test_a_door_with_a_certificate_speaks_https(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    pem = tmp_path / "broker.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(pem)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with (
        Broker(":memory:") as broker,
        FrontDoor(broker, listen="127.0.0.1:0", tls=server_tls(pem, None, None)) as front,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, ssl=trusting)) as session,
    ):
        assert front.url.startswith("https://")
        assert (await Door(broker, front, session).post("/topics/t", b"x"))[0] == 201
