"""Routes name a broker by URL: the gateway keeps one connection to it, whatever happens to the broker."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from blocks.core import messaging
from blocks.core.errors import ConfigError
from blocks.core.status import Status
from blocks.gateway import Gateway, route
from blocks.gateway.config.load import load
from blocks.gateway.messages import connection
from blocks.gateway.messages.connection import Connection
from blocks.gateway.messages.publish import publish
from blocks.gateway.messages.subscribe import subscribe
from blocks.http.handler import running
from blocks.http.message import Request, Response
from gateway.gateway_kit import until
from gateway.process_kit import Process, ask

made: list[Pretended] = []
away = [False]


class Pretended:
    """A client that says what it was told."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url, self.options = url, options
        self.connected = False
        self.entered = self.left = 0
        made.append(self)

    async def __aenter__(self) -> Pretended:
        if away[0]:
            raise ConnectionRefusedError("nobody there")
        self.entered += 1
        self.connected = True
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.left += 1
        self.connected = False

    async def publish(self, topic: str, payload: bytes, **more: Any) -> Any:
        class Receipt:
            offset = 7
            duplicate = False

        Receipt.topic = topic  # type: ignore[attr-defined]
        return Receipt()

    def subscribe(self, pattern: str, **more: Any) -> Any:
        @asynccontextmanager
        async def none() -> Any:
            async def messages() -> Any:
                return
                yield

            yield messages()

        return none()


@pytest.fixture(autouse=True)
def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    made.clear()
    away[0] = False
    monkeypatch.setitem(messaging.CLIENTS, "test", f"{__name__}:Pretended")
    monkeypatch.setattr(connection, "LOOK", 0.001)


FILE = """
[brokers.bus]
url = "test://ann:secret@bus:1"
connect_timeout = "2s"

[[routes]]
path = "/orders/{region}"
publish = {to = "bus", topic = "orders.{region}"}

[[routes]]
path = "/feed"
subscribe = {source = "bus", topic = "orders.eu"}

[[routes]]
path = "/direct"
publish = {to = "test://other:2", topic = "x"}

[[routes]]
path = "/plain"
respond = {body = "ok"}
"""


def gateway_of(folder: Path, text: str = FILE, **more: Any) -> Any:
    (folder / "g.toml").write_text(text)
    return load(folder / "g.toml", **more)


async def post(gateway: Gateway, target: str) -> Response:
    return await gateway(Request("POST", target, {"host": "a"}, b"m"))


async def test_routes_share_a_connection_that_lives_with_the_gateway(tmp_path: Path) -> None:
    gateway = Gateway.of(gateway_of(tmp_path).snapshot)
    assert [(one.url, one.options) for one in made] == [
        ("test://ann:secret@bus:1", {"name": "gateway", "connect_timeout": 2.0}),
        ("test://other:2", {"name": "gateway"}),
    ]
    assert [one.entered for one in made] == [0, 0], "reading a file asks nobody"
    async with running(gateway):
        assert [one.entered for one in made] == [1, 1]
        assert (await post(gateway, "/orders/eu")).status == 202
        assert gateway.status is Status.OPEN
    assert [one.left for one in made] == [1, 1]


async def test_a_broker_that_is_away_closes_its_routes_alone_until_it_is_there(tmp_path: Path) -> None:
    away[0] = True
    gateway = Gateway.of(gateway_of(tmp_path).snapshot)
    async with running(gateway):
        refused = await post(gateway, "/orders/eu")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert (await gateway(Request("GET", "/feed", {"host": "a"}))).status == 503
        assert (await post(gateway, "/plain")).status == 200
        assert gateway.status is Status.BUSY
        away[0] = False
        await until(lambda: gateway.status is Status.OPEN)
        assert (await post(gateway, "/orders/eu")).status == 202
    assert sum(one.entered - one.left for one in made) == 0


async def test_a_client_that_has_given_up_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RENEW", 0.01)
    link = Connection("test://bus")
    async with running(link):
        made[0].connected = False
        with pytest.raises(connection.BrokerAway):
            await link.publish("t", b"m")
        await until(lambda: len(made) > 1 and made[-1].connected)
        assert (made[0].left, link.status, link.renewed >= 1) == (1, Status.OPEN, True)


async def test_a_reload_keeps_the_connection_and_closes_what_nobody_names_any_more(tmp_path: Path) -> None:
    first = gateway_of(tmp_path)
    gateway = Gateway.of(first.snapshot)
    async with running(gateway):
        again = gateway_of(
            tmp_path, FILE.replace("/plain", "/other").replace("test://other:2", "test://third:3"), kept=gateway.kept
        )
        await gateway.enter(again.snapshot)
        gateway.swap(again.snapshot)
        assert [(one.url[-1], one.entered) for one in made] == [("1", 1), ("2", 1), ("3", 1)]
    assert [one.left for one in made] == [1, 1, 1]


async def test_urls_in_code() -> None:
    gateway = Gateway(
        [route("/in", publish("test://a", "t"), methods="POST"), route("/out", subscribe("test://a", "t"))]
    )
    async with running(gateway):
        assert (await post(gateway, "/in")).status == 202
    assert [one.left for one in made] == [1, 1]


def test_no_credential_is_in_a_name() -> None:
    link = Connection("test://ann:secret@bus:1")
    assert link.name == "test://bus:1"


@pytest.mark.parametrize(("text", "said"), [
    ('url = "tset://x"', "it begins with blocks://"),
    ('url = "test://x"\ntoken = "t"\nuser = "u"', "not both"),
    ('url = "test://x"\nconnect_timeout = "1 parsec"', "not a duration"),
    ('url = "test://x"\ntls = "missing.pem"', "cannot be read"),
    ('ulr = "test://x"', "did you mean 'url'"),
])  # fmt: skip
def test_what_is_wrong_with_a_broker_is_said_once(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        gateway_of(tmp_path, f'[brokers.bus]\n{text}\n[[routes]]\npath = "/"\npublish = {{to = "bus", topic = "t"}}\n')
    assert said in str(caught.value)
    assert all(one.at[:2] == ("brokers", "bus") for one in caught.value.complaints)  # type: ignore[attr-defined]


def test_a_name_that_is_none_gets_the_nearest_of_all() -> None:
    with pytest.raises(ConfigError, match="publisher named 'bsu'; did you mean 'bus'"):
        Gateway([route("/", Response)], tables={"brokers": {"bus": {"url": "test://x"}}}).snapshot.site.publisher("bsu")


@pytest.mark.integration
async def test_from_http_through_the_broker_to_a_stream(tmp_path: Path) -> None:
    broker = Process("broker", "--listen", "127.0.0.1:0", "--data", tmp_path / "log")
    await broker.start()
    try:
        url = broker.ready["url"]
        (tmp_path / "g.toml").write_text(FILE.replace("test://ann:secret@bus:1", url).replace("test://other:2", url))
        with (tmp_path / "g.toml").open("a") as file:
            past = 'source = "bus", topic = "orders.eu", start = "earliest", lifetime = "2s"'
            file.write(f'\n[[routes]]\npath = "/past"\nsubscribe = {{{past}}}\n')
        async with Process("gateway", "--config", tmp_path / "g.toml", "--listen", "127.0.0.1:0") as gateway:
            front = gateway.ready["url"]
            host, _, port = front.removeprefix("http://").partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(b"GET /feed HTTP/1.1\r\nHost: a\r\n\r\n")
                await asyncio.wait_for(reader.readuntil(b"retry: 3000\n\n"), 30)
                sent = await ask(front, "/orders/eu", "POST", b"one", idempotency_key="k1")
                again = await ask(front, "/orders/eu", "POST", b"one", idempotency_key="k1")
                assert [(one.status, one.json()["duplicate"]) for one in (sent, again)] == [(202, False), (202, True)]
                assert b"data: one" in await asyncio.wait_for(reader.readuntil(b"data: one\n\n"), 30)

                await broker.stop()

                async def refused() -> bool:
                    return (await ask(front, "/orders/eu", "POST", b"lost")).status == 503

                await until(refused, every=0.05)
                assert (await ask(front, "/plain")).body == b"ok"
                broker = Process("broker", "--listen", url.removeprefix("blocks://"), "--data", tmp_path / "log")
                await broker.start()

                async def taken() -> bool:
                    return (await ask(front, "/orders/eu", "POST", b"two")).status == 202

                await until(taken, every=0.05)
                whole = await ask(front, "/past")
                rest = await ask(front, "/past", last_event_id="0")
                assert (b"data: one" in whole.body, b"data: two" in whole.body) == (True, True)
                assert (b"data: one" in rest.body, b"data: two" in rest.body) == (False, True), (
                    "the log outlived the broker"
                )
                came = await asyncio.wait_for(reader.readuntil(b"data: two\n\n"), 60)
                assert b"lost" not in came
            finally:
                writer.close()
                await writer.wait_closed()
    finally:
        await broker.stop()
