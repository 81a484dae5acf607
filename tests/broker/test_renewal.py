"""Users, tokens and certificates that change while a broker runs."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from blocks import connect
from blocks.broker import Broker
from blocks.broker.errors import Denied
from blocks.broker.process import Settings
from blocks.broker.renewal import Renewal
from blocks.broker.security import hash_password, read_guard
from blocks.broker.server import Server
from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError


def settings_of(folder: Path, tokens: str, **more: str) -> Settings:
    (folder / "tokens").write_text(tokens)
    return Settings(":memory:", token_file=str(folder / "tokens"), **more)


async def test_a_token_that_is_taken_out_lets_nobody_in_any_more(tmp_path: Path):
    settings = settings_of(tmp_path, "first-token\n")
    guard = read_guard(tmp_path / "tokens")
    clock = FakeClock()
    renewal = Renewal(settings, guard, clock)
    async with Broker(":memory:") as broker:
        server = Server(broker, listen="127.0.0.1:0", guard=guard)
        await server.start()
        try:
            url = server.url.replace("//", "//{}@")
            async with connect(url.format("first-token")) as before:
                (tmp_path / "tokens").write_text("second-token\n")
                clock.advance(5)
                assert renewal.run() == {"status": "reloaded"}
                await before.publish("t", b"x")  # who is there stays
            with pytest.raises(Denied):
                async with connect(url.format("first-token")):
                    pass
            async with connect(url.format("second-token")) as after:
                await after.publish("t", b"x")
        finally:
            await server.stop(0)
    assert renewal.configuration().loaded == clock.wall()


def test_a_bad_file_changes_nothing_and_is_told(tmp_path: Path):
    settings = settings_of(tmp_path, "first-token\n")
    guard = read_guard(tmp_path / "tokens")
    renewal = Renewal(settings, guard, FakeClock())
    (tmp_path / "tokens").write_text("one two three\n")
    with pytest.raises(ConfigError, match="tokens:1"):
        renewal.run()
    assert guard.quick({"token": "first-token"}) is not None
    assert "tokens:1" in renewal.configuration().last_error
    (tmp_path / "tokens").write_text("second-token\n")
    renewal.run()
    assert renewal.configuration().last_error == ""


def test_a_login_that_began_before_is_not_remembered_after(tmp_path: Path):
    path = tmp_path / "users.toml"
    path.write_text(f"[users.ada]\npassword = '{hash_password('secret')}'\npublish = true\n")
    guard = read_guard(path)
    ada = {"user": "ada", "password": "secret"}
    guard.login(ada)
    assert guard.quick(ada) is not None
    path.write_text(f"[users.bob]\npassword = '{hash_password('secret')}'\n")
    guard.become(read_guard(path))
    assert guard.quick(ada) is None
    with pytest.raises(Denied):
        guard.login(ada)


async def test_a_new_certificate_is_shown_to_those_who_come(tmp_path: Path):
    authority = trustme.CA()

    def issue() -> bytes:
        made = authority.issue_cert("127.0.0.1")
        made.private_key_and_cert_chain_pem.write_to_path(tmp_path / "broker.pem")
        return ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())

    first = issue()
    settings = Settings(":memory:", tls_cert=str(tmp_path / "broker.pem"))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)

    async def shown(port: int) -> bytes:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
        writer.close()
        await writer.wait_closed()
        return found

    async with Broker(":memory:") as broker:
        server = Server(broker, listen="127.0.0.1:0", tls_cert=settings.tls_cert)
        await server.start()
        try:
            renewal = Renewal(settings, None, FakeClock())
            assert server.tls is not None
            renewal.contexts = [server.tls]
            port = int(server.url.rpartition(":")[2])
            assert await shown(port) == first
            second = issue()
            renewal.run()
            assert await shown(port) == second
            (tmp_path / "broker.pem").write_text("no certificate")
            with pytest.raises(ConfigError, match=r"broker\.pem"):
                renewal.run()
            assert await shown(port) == second
        finally:
            await server.stop(0)
