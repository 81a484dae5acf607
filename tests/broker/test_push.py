from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from blocks.broker import Broker
from blocks.broker.client import connect
from blocks.broker.errors import Closed
from blocks.broker.push import Webhook, read_webhooks
from blocks.broker.signature import is_signed, read_secret, sign
from blocks.core.errors import ConfigError
from broker.network import serving, until, within

SECRET = "a secret of some length"


class Receiver:
    """An HTTP endpoint that answers as it is told and keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.got.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        status, headers = self.answers.pop(0) if self.answers else (204, {})
        return web.Response(status=status, headers=headers)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield receiver
    await runner.cleanup()


def test_a_signature_holds_for_its_body_its_time_and_its_key_only() -> None:
    key = read_secret(SECRET)
    headers = {name.title(): value for name, value in sign(key, "t@1", 1000, b"body").items()}
    assert is_signed(key, headers, b"body", now=1100.0)
    assert not is_signed(key, headers, b"Body", now=1100.0)
    assert not is_signed(key, headers, b"body", now=1400.0)
    assert not is_signed(b"other", headers, b"body", now=1100.0)
    assert not is_signed(key, {}, b"body", now=1100.0)
    assert not is_signed(key, {**headers, "Webhook-Timestamp": "soon"}, b"body", now=1100.0)


def test_the_signature_is_that_of_the_standard_s_example() -> None:
    key = read_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_messages_are_posted_signed_and_acked(receiver: Receiver) -> None:
    async with Broker(":memory:") as broker:
        await broker.publish(
            "orders.created", b"hello", headers={"ce-id": "1", "content-type": "text/plain", "private": "x"}
        )
        async with Webhook(broker, "orders.*", receiver.url, group="hook", secret=SECRET, start="earliest") as hook:
            await until(lambda: hook.delivered == 1)
        headers, body = receiver.got[0]
        assert body == b"hello"
        assert is_signed(read_secret(SECRET), headers, body, time.time())
        assert (headers["ce-id"], headers["content-type"], headers["blocks-topic"]) == (
            "1",
            "text/plain",
            "orders.created",
        )
        assert "private" not in headers
        async with Webhook(broker, "orders.*", receiver.url, group="hook") as hook:
            await broker.publish("orders.created", b"second")
            await until(lambda: hook.delivered == 1)
        assert [body for _, body in receiver.got] == [b"hello", b"second"]


async def test_trouble_is_tried_again_and_refusal_is_a_dead_letter(receiver: Receiver) -> None:
    receiver.answers = [(503, {}), (429, {"Retry-After": "0"}), (204, {}), (410, {})]
    async with (
        Broker(":memory:") as broker,
        Webhook(broker, "t", receiver.url, group="hook", first=0.01, cap=0.01, concurrency=1) as hook,
    ):
        await broker.publish("t", b"first")
        await until(lambda: hook.delivered == 1)
        assert [headers["blocks-attempt"] for headers, _ in receiver.got] == ["1", "2", "3"]
        await broker.publish("t", b"second")
        async with broker.subscribe("$dead.hook", start="earliest") as dead:
            letter = await within(anext(dead))
        assert letter.payload == b"second"
        assert "410" in letter.headers["dead-letter-reason"]


async def test_a_receiver_that_is_away_gets_it_when_it_is_back_over_a_client_too(receiver: Receiver) -> None:
    async with serving() as net, connect(net.url) as client:
        away = receiver.url.replace("/hook", "/nothing")
        async with Webhook(client, "t", away, group="hook", max_deliveries=2, first=0.01, cap=0.01):
            await client.publish("t", b"x")
            async with client.subscribe("$dead.hook", start="earliest") as dead:
                assert (await within(anext(dead))).payload == b"x"
        async with Webhook(
            client, "t", "http://127.0.0.1:1/", group="hook", max_deliveries=2, first=0.01, cap=0.01
        ) as hook:
            await client.publish("t", b"y")
            async with client.subscribe("$dead.hook", start="earliest") as dead:
                assert {(await within(anext(dead))).payload for _ in range(2)} == {b"x", b"y"}
            assert hook.failed == 2


async def test_closing_waits_for_what_is_under_way(receiver: Receiver) -> None:
    async with Broker(":memory:") as broker:
        async with Webhook(broker, "t", receiver.url, group="hook"):
            await broker.publish("t", b"x")
            await until(lambda: len(receiver.got) == 1)
        await asyncio.sleep(0)
        assert broker.engine.lag("hook")[0]["lag"] == 0


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "webhook"),
        ("[[webhook]]\npattern='t'\nurl='http://x/'", "lacks group"),
        ("[[webhook]]\npattern='t'\nurl='ftp://x/'\ngroup='g'", "not a URL"),
        ("[[webhook]]\npattern='t'\nurl='http://x/'\ngroup='g'\ncolour='red'", "colour"),
        ("[[webhook]]\npattern='t'\nurl='http://x/'\ngroup='g'\nsecret='short'", "16 characters"),
    ],
)
async def test_a_wrong_file_is_refused(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "hooks.toml"
    path.write_text(text)
    async with Broker(":memory:") as broker:
        with pytest.raises(ConfigError, match=match):
            read_webhooks(broker, path)


async def test_a_webhook_that_lost_its_broker_says_so(receiver: Receiver) -> None:
    async with serving() as net:
        client = connect(net.url, give_up_after=0.0)

        async def lose() -> None:
            async with client, Webhook(client, "t", receiver.url, group="hook") as hook:
                await net.down()
                assert hook._task is not None
                await within(asyncio.wait([hook._task]))

        with pytest.raises(Closed):
            await lose()
        with pytest.raises(Closed, match="not opened again"):
            await client.__aenter__()
