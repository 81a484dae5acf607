"""status, health, drain and reload against an admin API in this process: what they print, and how they end."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from blocks import LoadBalancer, Request, Response, running
from blocks.app.cli import cli
from blocks.app.remote import Remote, Unreachable, find, read_token
from blocks.app.remote_report import lines, span, summary
from blocks.core.config.complaint import Complaint, ConfigErrors
from blocks.core.errors import ConfigError
from blocks.http.admin import Admin, Subject
from blocks.http.options import Serving


async def hello(request: Request) -> Response:
    return Response.text("hello")


async def blocks(*command: str) -> Result:
    """A command of ours, in a thread: it waits for sockets."""
    return await asyncio.to_thread(CliRunner().invoke, cli, command, prog_name="blocks")


def nobody() -> str:
    """An address where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


async def test_health_is_a_probe():
    ready = True
    subject = Subject("balancer", lambda: [LoadBalancer([hello], name="users")], draining=lambda: not ready)
    async with Admin(subject, Serving(admin="127.0.0.1:0")) as address:
        found = await blocks("health", "--admin", f"http://{address}")
        assert (found.exit_code, found.output) == (0, "ready\n")
        found = await blocks("health", "--verbose", "--admin", address)
        assert found.output.splitlines()[:2] == ["ready", "  users  OPEN"]
        ready = False
        found = await blocks("health", "--admin", address)
        assert (found.exit_code, found.output) == (1, "not-ready\n")
        found = await blocks("health", "--live", "--admin", address)
        assert (found.exit_code, found.output) == (0, "live\n")
    found = await blocks("health", "--admin", nobody(), "--timeout", "1s")
    assert found.exit_code == 1
    assert "Connection refused" in found.stderr


async def test_a_unix_socket_and_the_environment_lead_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with Admin(Subject("edge", lambda: [hello]), Serving(admin=f"unix:{tmp_path}/a.sock")) as address:
        monkeypatch.setenv("BLOCKS_ADMIN", address)
        assert (await blocks("health")).exit_code == 0
        monkeypatch.delenv("BLOCKS_ADMIN")
        (tmp_path / "ports.json").write_text(json.dumps({"event": "ready", "admin": address}))
        assert (await blocks("health", "--ports-file", str(tmp_path / "ports.json"))).exit_code == 0
        monkeypatch.setenv("BLOCKS_PORTS_FILE", str(tmp_path / "ports.json"))
        assert (await blocks("health")).exit_code == 0


async def test_status_is_a_table_or_json():
    facts = {"digest": "abc123", "loaded": 1.0, "last_error": "stack.toml:1:1: error: no"}
    subject = Subject(
        "run", lambda: [LoadBalancer([hello], name="users")], facts=lambda: facts, listen=lambda: ["127.0.0.1:80"]
    )
    async with Admin(subject, Serving(admin="127.0.0.1:0")) as address:
        text = (await blocks("status", "--admin", address)).output
        for words in (
            "block:     run",
            "health:    OPEN",
            "listen:    127.0.0.1:80",
            "config:    abc123",
            "refused:   stack.toml:1:1",
            "  users  OPEN",
        ):
            assert words in text
        told = json.loads((await blocks("status", "--json", "--admin", address)).output)
        assert (told["block"], told["config"]["digest"], told["parts_total"]) == ("run", "abc123", 2)


async def test_a_token_is_shown_or_asked_for(tmp_path: Path):
    (tmp_path / "token").write_text("0123456789abcdef\n")
    serving = Serving(admin="127.0.0.1:0", admin_token_file=str(tmp_path / "token"))
    async with Admin(Subject("edge", lambda: [hello]), serving) as address:
        refused = await blocks("status", "--admin", address)
        assert refused.exit_code == 1
        assert "--token-file" in refused.stderr
        assert (await blocks("status", "--admin", address, "--token-file", str(tmp_path / "token"))).exit_code == 0
        for command in ("health", "drain", "reload", "top"):
            assert (await blocks(command, "--admin", address)).exit_code == 1


async def test_a_drain_that_takes_too_long_is_told():
    asked: list[int] = []
    async with Admin(
        Subject("edge", lambda: [hello], drain=lambda: asked.append(1)), Serving(admin="127.0.0.1:0")
    ) as address:
        assert (await blocks("drain", "--admin", address)).output == "draining\n"
        assert (await blocks("drain", "--wait", "--timeout", "0.2s", "--admin", address)).exit_code == 5
    assert asked == [1]


async def test_a_drain_is_waited_for():
    asked = asyncio.Event()
    admin = Admin(Subject("edge", lambda: [hello], drain=asked.set), Serving(admin="127.0.0.1:0"))
    address = await admin.__aenter__()
    waiting = asyncio.create_task(blocks("drain", "--wait", "--admin", address))
    await asked.wait()
    await admin.__aexit__(None, None, None)  # it has gone
    found = await waiting
    assert (found.exit_code, found.output) == (0, "draining\ngone\n")


async def test_a_reload_that_is_refused_is_told_with_its_complaints():
    answers: list[Any] = [
        ConfigErrors([Complaint(("routes", 3), "no such service")]),
        {"status": "reloaded", "digest": "d1"},
        {"status": "on-trial"},
        ConfigError("x"),
    ]

    async def reload() -> Mapping[str, Any]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with Admin(Subject("run", lambda: [hello], reload=reload), Serving(admin="127.0.0.1:0")) as address:
        refused = await blocks("reload", "--admin", address)
        assert refused.exit_code == 3
        assert "error: no such service (routes[3])" in refused.stderr
        assert "stays in force" in refused.stderr
        fine = await blocks("reload", "--admin", address)
        assert (fine.exit_code, fine.output) == (0, "reloaded, digest d1\n")
        assert (await blocks("reload", "--admin", address)).output.startswith("on trial: ")
        refused = await blocks("reload", "--json", "--admin", address)
        assert (refused.exit_code, json.loads(refused.stdout)["error"]) == (3, "x")


@pytest.mark.parametrize(
    "address", ["https://127.0.0.1:1", "http://127.0.0.1", "ftp://a:1", "http://a:99999", "http://a:1/x"]
)
def test_what_is_no_address_is_a_usage_error(address: str):
    found = CliRunner().invoke(cli, ["health", "--admin", address])
    assert found.exit_code == 2
    assert "no address of an admin API" in found.stderr


def test_a_ports_file_without_an_admin_api_says_how_to_have_one(tmp_path: Path):
    (tmp_path / "ports").write_text('{"event": "ready"}')
    with pytest.raises(ConfigError, match="--admin 127"):
        find(None, str(tmp_path / "ports"))
    with pytest.raises(ConfigError, match="not the ports file"):
        find(None, str(tmp_path / "none"))
    assert find(None, None) == "http://127.0.0.1:9900"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(str(tmp_path / "none"), None)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"a":',
        b"HTTP/1.1 OK\r\n\r\n",
    ],
)
async def test_what_is_no_admin_api_is_told(answer: bytes):
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        remote = Remote(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(Unreachable):
            await asyncio.to_thread(remote.ask, "GET", "/livez")


async def test_one_that_never_answers_is_given_up():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        remote = Remote(f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout=0.05)
        with pytest.raises(Unreachable, match="timed out"):
            await asyncio.to_thread(remote.ask, "GET", "/livez")


def test_several_workers_are_one_status():
    def body(pid: int, health: str, requests: int) -> dict[str, Any]:
        return {
            "pid": pid,
            "health": health,
            "requests": requests,
            "connections": 1,
            "uptime": pid,
            "draining": False,
            "config": {},
        }

    told = summary([body(1, "OPEN", 5), body(2, "BUSY", 7)])
    assert (told["health"], told["requests"], told["connections"], told["uptime"]) == ("BUSY", 12, 2, 2)
    assert [one["pid"] for one in told["workers"]] == [1, 2]
    assert "workers:   1 OPEN, 2 BUSY" in lines(told)


def test_many_parts_are_cut():
    parts: Sequence[dict[str, Any]] = [{"depth": 0, "part": f"p{n}", "health": "OPEN"} for n in range(100)]
    told = lines({"block": "run", "parts": parts, "parts_total": 5000})
    assert told[-1] == "  … and 4960 more"


def test_a_probe_loads_no_server_and_no_loop():
    """What it costs is paid every few seconds in every container."""
    code = "import sys, blocks.app.cli, blocks.app.remote_cli; print(sorted({'aiohttp', 'asyncio', 'uvloop', 'msgspec', 'ssl'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "[]\n"


def test_top_without_rich_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    found = CliRunner().invoke(cli, ["top", "--admin", nobody()])
    assert found.exit_code == 1
    assert "blocks[top]" in found.stderr


@pytest.mark.parametrize(("seconds", "text"), [(0.25, "0.2s"), (61, "1m 1s"), (3600, "1h"), (100_000, "1d 3h")])
def test_times_are_told_for_people(seconds: float, text: str):
    assert span(seconds) == text


async def test_a_status_of_a_running_balancer_counts_its_parts():
    lb = LoadBalancer([hello])
    async with running(lb), Admin(Subject("balancer", lambda: [lb]), Serving(admin="127.0.0.1:0")) as address:
        answer = await asyncio.to_thread(Remote(f"http://{address}").ask, "GET", "/v1/status")
        assert answer.each()[0][1]["health"] == "OPEN"
