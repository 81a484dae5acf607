"""One table for all commands that serve: how they end, and that one line says why. 0 fine, 2 usage, 3 configuration, 4 cannot bind, 5 cut."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import blocks
from app.manager import BLOCKS, started
from integration.operated import command

pytestmark = pytest.mark.integration

Command = Callable[[Path, str, str], tuple[str, ...]]


def _gateway(folder: Path, listen: str, upstream: str) -> tuple[str, ...]:
    (folder / "gateway.toml").write_text(
        f'[services.s]\nurl = "{upstream}"\n[[routes]]\npath = "/{{rest:path}}"\nservice = "s"\n'
    )
    return ("gateway", "--config", str(folder / "gateway.toml"), "--listen", listen, "--drain-timeout", "0.2s")


def _run(folder: Path, listen: str, upstream: str) -> tuple[str, ...]:
    (folder / "stack.toml").write_text(
        f'[process]\ndrain_timeout = "0.2s"\n[servers.web]\nlisten = "{listen}"\nhandler = "up"\n[upstreams.up]\nurl = "{upstream}"\n'
    )
    return ("run", str(folder / "stack.toml"))


COMMANDS: dict[str, Command] = {
    "balancer": lambda folder, listen, up: (
        "balancer",
        "--upstream",
        up,
        "--listen",
        listen,
        "--drain-timeout",
        "0.2s",
    ),
    "edge": lambda folder, listen, up: ("edge", "--origin", up, "--listen", listen, "--drain-timeout", "0.2s"),
    "gateway": _gateway,
    "run": _run,
    "broker": lambda folder, listen, up: (
        "broker",
        "--data",
        str(folder / "log"),
        "--listen",
        listen,
        "--drain",
        "0.2s",
    ),
}
NOWHERE = "http://127.0.0.1:9"
ALL = pytest.mark.parametrize("name", COMMANDS)


@ALL
async def test_2_for_a_flag_that_is_none(tmp_path: Path, name: str):
    code, out, errors = await command(*COMMANDS[name](tmp_path, "127.0.0.1:0", NOWHERE), "--no-such-flag")
    assert (code, out) == (2, "")
    assert "--no-such-flag" in errors


@ALL
async def test_3_for_what_is_wrong_in_a_file(tmp_path: Path, name: str):
    flags = list(COMMANDS[name](tmp_path, "127.0.0.1:0", NOWHERE))
    (tmp_path / "bad").write_text("this is = no [[ file")
    bad = str(tmp_path / "bad")
    if name == "gateway":
        flags[2] = bad
    elif name == "run":
        flags[1] = bad
    else:
        flags += ["--tls-cert", bad, "--tls-key", bad]
    code, out, errors = await command(*flags)
    assert (code, out) == (3, ""), errors
    assert "bad" in errors
    assert "Traceback" not in errors


@ALL
async def test_4_for_a_port_that_is_taken(tmp_path: Path, name: str):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, out, errors = await command(*COMMANDS[name](tmp_path, address, NOWHERE))
    assert (code, out) == (4, ""), errors
    assert errors.count("\n") == 1
    assert address in errors


@ALL
async def test_4_for_an_admin_port_that_is_taken(tmp_path: Path, name: str):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, out, errors = await command(*COMMANDS[name](tmp_path, "127.0.0.1:0", NOWHERE), "--admin", address)
    assert (code, out) == (4, ""), errors
    assert address in errors


@ALL
async def test_3_for_a_ports_file_that_cannot_be_written(tmp_path: Path, name: str):
    where = str(tmp_path / "nowhere" / "ports.json")
    code, out, errors = await command(*COMMANDS[name](tmp_path, "127.0.0.1:0", NOWHERE), "--ports-file", where)
    assert (code, out) == (3, ""), errors
    assert f"{where} cannot be written: No such file or directory" in errors
    assert "Traceback" not in errors


async def test_3_for_a_ports_file_that_cannot_be_written_by_the_parent_of_workers(tmp_path: Path):
    flags = COMMANDS["run"](tmp_path, "127.0.0.1:0", NOWHERE)
    where = str(tmp_path / "nowhere" / "ports.json")
    code, out, errors = await command(*flags, "--workers", "2", "--ports-file", where)
    assert (code, out) == (3, ""), errors
    assert "cannot be written" in errors
    assert "Traceback" not in errors


@ALL
async def test_3_for_an_admin_api_that_everybody_could_reach(tmp_path: Path, name: str):
    code, out, errors = await command(*COMMANDS[name](tmp_path, "127.0.0.1:0", NOWHERE), "--admin", "0.0.0.0:0")
    assert (code, out) == (3, ""), errors
    assert "token" in errors


@ALL
async def test_0_when_told_to_stop_with_nothing_under_way(tmp_path: Path, name: str):
    number = signal.SIGINT if name in ("edge", "broker") else signal.SIGTERM
    async with started(*BLOCKS, *COMMANDS[name](tmp_path, "127.0.0.1:0", NOWHERE)) as process:
        process.signal(number)
        assert await process.exit() == 0
        assert process.errors == ""


class Hanging:
    """An upstream that takes a request and does not answer before it is told to."""

    async def __aenter__(self) -> Hanging:
        self.asked = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        self.asked.set()
        await reader.read()
        writer.close()

    def answer(self) -> None:
        """Answer after all."""
        for writer in self._writers:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def __aexit__(self, *exc_info: object) -> None:
        for writer in self._writers:
            writer.close()
        self._server.close()
        await self._server.wait_closed()


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "broker"])
async def test_5_when_a_request_had_to_be_cut(tmp_path: Path, name: str):
    async with (
        Hanging() as upstream,
        started(*BLOCKS, *COMMANDS[name](tmp_path, "127.0.0.1:0", upstream.url)) as process,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.wait_for(upstream.asked.wait(), 20)
        process.signal(signal.SIGTERM)
        assert await process.exit() == 5
        writer.close()


async def test_5_when_a_broker_leaves_with_a_message_under_way(tmp_path: Path):
    async with started(*BLOCKS, *COMMANDS["broker"](tmp_path, "127.0.0.1:0", NOWHERE)) as process:
        async with blocks.connect(process.ready["url"]) as client:
            await client.publish("t", b"x")
            async with client.subscribe("t", group="g", start="earliest") as messages:
                async for _ in messages:
                    break
                process.signal(signal.SIGTERM)
                assert await process.exit() == 5


async def test_every_command_says_its_exit_codes_by_the_same_numbers():
    from blocks.app import remote_cli
    from blocks.broker import process as broker
    from blocks.http import worker

    assert (broker.FINE, broker.FAILURE, broker.CONFIGURATION, broker.CANNOT_BIND, broker.DRAIN_TIMED_OUT) == (
        0,
        1,
        3,
        4,
        5,
    )
    assert (worker.FINE, worker.FAILURE, worker.CONFIGURATION, worker.CANNOT_BIND, worker.DRAIN_TIMED_OUT) == (
        0,
        1,
        3,
        4,
        5,
    )
    assert (remote_cli.FAILURE, remote_cli.CONFIGURATION, remote_cli.DRAIN_TIMED_OUT) == (1, 3, 5)
