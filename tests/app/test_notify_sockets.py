"""Sockets that a process is started with: by number, by name, and what is refused."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from app.manager import listening
from blocks.broker import Broker
from blocks.broker.server import Server as BrokerServer
from blocks.core.activation import inherited, is_inherited, names
from blocks.core.errors import ConfigError
from blocks.http import Request, Response, Server
from integration.wire import LAST, Client, answers


async def hello(request: Request) -> Response:
    return Response.text("hello")


@pytest.mark.parametrize(
    ("address", "is_one"),
    [("fd:3", True), ("fd:web", True), ("fd:web.socket", True), ("127.0.0.1:80", False), ("unix:fd:3", False)],
)
def test_an_inherited_socket_is_told_by_its_prefix(address: str, is_one: bool):
    assert is_inherited(address) is is_one


@pytest.mark.parametrize("address", ["fd:", "fd:a b", "fd:-1", "fd:a/b"])
def test_a_name_that_is_none_is_refused(address: str):
    with pytest.raises(ConfigError, match="fd:NAME"):
        is_inherited(address)


def test_names_are_those_of_this_process():
    own = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "3", "LISTEN_FDNAMES": "web:admin"}
    assert names(own) == [("web", 3), ("admin", 4), ("unknown", 5)]
    assert names({**own, "LISTEN_PID": "1"}) == []
    assert names({**own, "LISTEN_FDS": "many"}) == []
    assert names({}) == []


def test_a_name_that_nobody_handed_over_says_what_there_is():
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
    with pytest.raises(ConfigError, match=r"fd:wbe: no socket .* \(there is fd:web\)"):
        inherited("fd:wbe", environ)
    with pytest.raises(ConfigError, match="none at all"):
        inherited("fd:web", {})


def test_what_is_no_listening_socket_is_refused(tmp_path: Path):
    with (tmp_path / "file").open("w") as file, pytest.raises(ConfigError, match="not a socket"):
        inherited(f"fd:{file.fileno()}")
    with pytest.raises(ConfigError, match="not open"):
        inherited("fd:9999")
    with socket.socket() as deaf, pytest.raises(ConfigError, match="not a listening"):
        inherited(f"fd:{deaf.fileno()}")


async def test_a_server_serves_on_it_and_leaves_it_to_its_owner():
    with listening() as own:
        host, port = own.getsockname()
        for _ in range(2):  # what is closed is a duplicate: a second server finds the socket again
            async with Server(hello, f"fd:{own.fileno()}") as server:
                assert server.addresses == [f"{host}:{port}"]
                async with Client(server.addresses[0]) as client:
                    client.send(LAST)
                    assert [one.status for one in answers(await client.all())] == [200]
        waiting = socket.create_connection((host, port))  # nobody serves, and nothing is refused
        waiting.close()


async def test_a_unix_socket_is_one_as_well(tmp_path: Path):
    with listening(socket.AF_UNIX, str(tmp_path / "s")) as own:
        async with Server(hello, f"fd:{own.fileno()}") as server:
            assert server.addresses == [f"unix:{tmp_path}/s"]
            async with Client(server.addresses[0]) as client:
                client.send(LAST)
                assert [one.status for one in answers(await client.all())] == [200]
        assert (tmp_path / "s").exists()  # it is the owner's to remove


async def test_a_broker_takes_one_and_no_unix_socket(tmp_path: Path):
    import blocks

    with listening() as own:
        async with Broker(":memory:", durability="memory") as broker:
            server = BrokerServer(broker, listen=f"fd:{own.fileno()}")
            await server.start()
            try:
                assert server.url == f"blocks://127.0.0.1:{own.getsockname()[1]}"
                async with blocks.connect(server.url) as client:
                    await client.publish("a", b"1")
            finally:
                await server.stop(0)
            with (
                listening(socket.AF_UNIX, str(tmp_path / "s")) as unix,
                pytest.raises(ConfigError, match="Unix socket"),
            ):
                BrokerServer(broker, listen=f"fd:{unix.fileno()}")
