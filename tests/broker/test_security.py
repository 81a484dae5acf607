from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from blocks.broker.client import connect
from blocks.broker.errors import Denied, TooLarge
from blocks.broker.message import Outgoing, Receipt
from blocks.broker.security import (
    EVERYTHING,
    Bounds,
    Guard,
    Identity,
    check_exposure,
    check_password,
    hash_password,
    hash_token,
    read_guard,
)
from blocks.broker.throttle import Throttle
from blocks.core.errors import ConfigError
from blocks.core.quantities import Rate
from broker.network import serving

FILE = """
[users.alice]
password = "{password}"
publish = ["orders.>"]
subscribe = ["orders.*", "$dead.billing"]
groups = ["billing*"]
messages = "100/s"
message_bytes = "1KiB"

[tokens.robot]
token = "{token}"
subscribe = true
"""


@pytest.fixture(scope="module")
def hashed() -> str:
    return hash_password("wonderland")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_hash_is_salted_and_checks() -> None:
    one = hash_password("secret")
    assert one != hash_password("secret")
    assert check_password("secret", one)
    assert not check_password("Secret", one)


def test_a_file_gives_users_and_tokens_their_rights(tmp_path: Path, hashed: str) -> None:
    guard = read_guard(write(tmp_path / "who.toml", FILE.format(password=hashed, token=hash_token("robot-token"))))
    alice = guard.login({"user": "alice", "password": "wonderland"})
    assert alice.may("publish", "orders.created.eu")
    assert not alice.may("publish", "payments")
    assert alice.may("subscribe", "orders.*")
    assert not alice.may("subscribe", "orders.>")
    assert not alice.may("subscribe", ">")
    assert alice.may("subscribe", "$dead.billing")
    assert not alice.may("manage", "orders.created")
    alice.require_group("billing-eu")
    with pytest.raises(Denied):
        alice.require_group("shipping")
    assert alice.bounds == Bounds(Rate(100, 1), None, 1024)
    assert guard.quick({"user": "alice", "password": "wonderland"}) is alice
    assert guard.quick({"user": "alice", "password": "guess"}) is None
    robot = guard.quick({"token": "robot-token"})
    assert robot is not None
    assert robot.may("subscribe", ">")
    assert not robot.may("publish", "orders.created")


@pytest.mark.parametrize("options", [{}, {"token": "nonsense"}, {"user": "alice"}, {"token": 5}])
def test_a_stranger_is_denied(options: dict[str, object], hashed: str) -> None:
    guard = Guard()
    guard.add_user("alice", hashed, Identity("alice", EVERYTHING))
    with pytest.raises(Denied):
        guard.quick(options)


@pytest.mark.parametrize("who", [("alice", "guess"), ("bob", "wonderland")])
def test_a_wrong_password_and_an_unknown_user_are_denied_alike(who: tuple[str, str], hashed: str) -> None:
    guard = Guard()
    guard.add_user("alice", hashed, Identity("alice", EVERYTHING))
    with pytest.raises(Denied, match="the user or the password is wrong"):
        guard.login({"user": who[0], "password": who[1]})


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.toml", "", "names no user"),
        ("a.toml", "[users.x]\npassword='plain'", "must be a hash"),
        ("a.toml", "[tokens.x]\ntoken='long enough'\npublish='orders'", "must be a list"),
        ("a.toml", "[tokens.x]\ntoken='long enough'\npublish=['a.>.b']", "not a topic pattern"),
        ("a.toml", "[tokens.x]\ntoken='long enough'\npubish=[]", "pubish"),
        ("a.toml", "[tokens.x]\ntoken='abc'", "too short"),
        ("a.toml", "[people]", "people"),
        ("a.toml", "[", "a.toml"),
        ("tokens", "one two three", ":1:"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, name: str, text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        read_guard(write(tmp_path / name, text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_guard(tmp_path / "nothing")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", ""])
def test_nothing_is_open_to_the_network_without_a_guard(host: str) -> None:
    with pytest.raises(ConfigError, match="token-file"):
        check_exposure(host, None)
    check_exposure(host, Guard())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "127.1.2.3"])
def test_loopback_needs_none(host: str) -> None:
    check_exposure(host, None)


async def test_rights_hold_over_the_wire(tmp_path: Path, hashed: str) -> None:
    path = write(tmp_path / "who.toml", FILE.format(password=hashed, token="robot-token"))
    async with serving(token_file=path) as net:
        with pytest.raises(Denied):
            async with connect(net.url):
                pass
        with pytest.raises(Denied):
            async with connect(net.url, user="alice", password="guess"):
                pass
        async with (
            connect(net.url.replace("//", "//alice:wonderland@")) as alice,
            connect(net.url, token="robot-token") as robot,
        ):
            assert (await alice.publish("orders.created", b"x")).offset == 0
            with pytest.raises(Denied):
                await alice.publish("payments", b"x")
            with pytest.raises(TooLarge):
                await alice.publish("orders.created", b"x" * 2000)
            with pytest.raises(Denied):
                await alice.publish_batch([Outgoing("orders.created", b"x"), Outgoing("payments", b"x")])
            with pytest.raises(Denied):
                await robot.publish("orders.created", b"x")
            with pytest.raises(Denied):
                async with alice.subscribe(">"):
                    pass
            with pytest.raises(Denied):
                async with alice.subscribe("orders.*", group="shipping"):
                    pass
            with pytest.raises(Denied):
                async with alice.subscribe("orders.*", group="billing", dead_letter="payments"):
                    pass
            with pytest.raises(Denied):
                await robot.ask("delete-topic", topic="orders.created")
            async with robot.subscribe(">", start="earliest") as messages:
                assert (await anext(messages)).topic == "orders.created"
            assert [row["topic"] for row in await robot.topics()] == ["orders.created"]
            assert (await alice.publish("orders.created", b"y")).offset == 1


async def test_a_line_file_lets_its_tokens_do_everything(tmp_path: Path) -> None:
    path = write(tmp_path / "tokens", "# ours\nsecret-one ci\nsecret-two\n")
    async with serving(token_file=path) as net, connect(net.url.replace("//", "//secret-two@")) as client:
        await client.publish("anything", b"x")
        assert await client.groups() == []


async def test_tls_is_checked_by_the_client(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    ca, cert, key = (str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    async with serving(tls_cert=cert, tls_key=key) as net:
        assert net.url.startswith("blocks+tls://")
        async with connect(net.url, tls=ca) as client:
            assert (await client.publish("t", b"x")).offset == 0
        with pytest.raises(ssl.SSLCertVerificationError):
            async with connect(net.url):
                pass
    with pytest.raises(ConfigError, match="certificate"):
        async with serving(tls_cert=str(tmp_path / "nothing.pem")):
            pass


def test_a_rate_makes_a_client_wait_and_never_refuses() -> None:
    throttle = Throttle(Rate(10, 1), Rate(1000, 1))
    assert throttle.spend(10, 100, 0.0) == 0.0
    assert throttle.spend(5, 100, 0.0) == pytest.approx(0.5)
    assert throttle.spend(0, 0, 0.5) == 0.0
    assert throttle.spend(1, 3000, 10.0) == pytest.approx(2.0)
    assert throttle.spend(0, 0, 1000.0) == 0.0
    assert throttle.spend(10, 0, 1000.0) == 0.0


async def test_a_client_over_its_rate_is_read_later_and_loses_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "who.toml", "[tokens.x]\ntoken='long enough'\npublish=true\nmessages='200/s'\n")
    async with serving(token_file=path, heartbeat=0.1) as net, connect(net.url, token="long enough") as client:
        before = client.loop.time()
        for n in range(4):
            receipts = await client.publish_many("t", [b"x"] * 100)
            assert receipts[-1].offset == n * 100 + 99
        assert client.loop.time() - before > 0.4
        assert client.reconnects == 0


async def test_a_forbidden_message_says_nothing_against_others_of_its_tick(tmp_path: Path) -> None:
    path = write(tmp_path / "who.toml", "[tokens.x]\ntoken='long enough'\npublish=['a.*']\nmessage_bytes='10B'\n")
    async with serving(token_file=path) as net, connect(net.url, token="long enough") as client:
        first = await client.publish("a.t", b"first", id="1")
        outcomes = await asyncio.gather(
            client.publish("a.t", b"0", headers={"h": "0"}),
            client.publish("b", b"1"),
            client.publish("a.u", b"2", headers={"h": "2"}),
            client.publish("a.t", b"x" * 11),
            client.publish("a.t", b"again", id="1"),
            client.publish("a b", b"5"),
            client.publish("a.t", b"6"),
            return_exceptions=True,
        )
        kinds = [type(outcome).__name__ for outcome in outcomes]
        assert kinds == ["Receipt", "Denied", "Receipt", "TooLarge", "Receipt", "Denied", "Receipt"]
        assert [o.offset for o in outcomes if isinstance(o, Receipt)] == [1, 0, first.offset, 2]
        assert [o.duplicate for o in outcomes if isinstance(o, Receipt)] == [False, False, True, False]
        async with net.broker.subscribe("a.u", start="earliest") as messages:
            message = await anext(messages)
            assert (message.payload, message.headers) == (b"2", {"h": "2"})
