"""``blocks run`` as a process: its ready line, its exit codes, several workers, and reloads under load by signal and by the admin API."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from blocks import connect
from integration.operated import Load, Process, backends, command, start, until

pytestmark = pytest.mark.integration

STACK = """
[process]
drain_timeout = "5s"
[servers.public]
listen = "127.0.0.1:0"
handler = "front"
[gateways.front]
[[gateways.front.routes]]
path = "/"
service = "users"
[balancers.users]
upstreams = [UPSTREAMS]
SETTINGS
"""


def text(*urls: str, settings: str = "") -> str:
    return STACK.replace("UPSTREAMS", ", ".join(f'"{url}"' for url in urls)).replace("SETTINGS", settings)


@asynccontextmanager
async def running(path: Path, *flags: str) -> AsyncIterator[Process]:
    process = await start(sys.executable, "-m", "blocks", "run", str(path), *flags)
    try:
        if not process.said:
            raise AssertionError(f"it never became ready: {await process.exit()} {process.errors}")
        yield process
    finally:
        await process.end()


async def ask(url: str, path: str, method: str = "GET") -> tuple[int, Any]:
    """The status and the JSON of the admin API's answer."""

    def fetch() -> tuple[int, Any]:
        request = urllib.request.Request(url + path, method=method, data=b"" if method == "POST" else None)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    return await asyncio.to_thread(fetch)


async def test_the_ready_line_names_every_server_and_broker_and_sigterm_ends_it(tmp_path: Path):
    path = tmp_path / "stack.toml"
    ports = tmp_path / "ports.json"
    more = f'[brokers.queue]\ndata = "{tmp_path}/queue"\nlisten = "127.0.0.1:0"\n'
    more += '[servers.inner]\nlisten = "127.0.0.1:0"\nhandler = "users"\n'
    path.write_text(text("http://127.0.0.1:9", settings=more))
    async with running(path, "--ports-file", str(ports), "--admin", "127.0.0.1:0") as process:
        ready = process.ready
        assert ready == json.loads(ports.read_text())
        assert (ready["event"], ready["block"], ready["workers"]) == ("ready", "stack", 1)
        assert ready["url"] == ready["servers"]["public"]["url"]
        assert set(ready["servers"]) == {"public", "inner"}
        async with connect(ready["brokers"]["queue"]["url"]) as queue:
            await queue.publish("t", b"kept")
        assert (await ask(ready["admin"], "/readyz"))[0] == 200
        process.signal(signal.SIGTERM)
        assert await process.exit() == 0
    async with running(path) as process, connect(process.ready["brokers"]["queue"]["url"]) as queue:
        async with queue.subscribe("t", start="earliest") as messages:
            assert (await anext(messages)).payload == b"kept"


async def test_exit_codes(tmp_path: Path):
    bad = tmp_path / "bad.toml"
    bad.write_text('[servers.s]\nlisten = "127.0.0.1:0"\nhandler = "nobody"\n')
    code, out, errors = await command("run", str(bad))
    assert (code, out) == (3, "")
    assert f"{bad}:3:1: error: there is no handler 'nobody'" in errors
    assert 'handler = "nobody"\n    ^^^^^^^' in errors
    assert errors.rstrip().endswith("blocks: 1 error")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for flags in ((), ("--workers", "2")):
            bad.write_text(f'[servers.s]\nlisten = "{address}"\nhandler = "http://127.0.0.1:9"\n')
            code, _, errors = await command("run", str(bad), *flags)
            assert code == 4
            assert f"cannot listen on {address}" in errors
    code, _, errors = await command("run", str(tmp_path / "none.toml"))
    assert code == 3
    assert "cannot be read" in errors
    assert (await command("run"))[0] == 2


@pytest.mark.parametrize("workers", [1, 2])
async def test_no_request_is_lost_through_five_reloads_under_load(tmp_path: Path, workers: int):
    path = tmp_path / "stack.toml"
    async with backends(tmp_path, 3) as (a, b, c):
        path.write_text(text(a.url, b.url))
        async with running(path, "--workers", str(workers), "--admin", "127.0.0.1:0") as process:
            admin = process.ready["admin"]

            async def digests() -> list[str]:
                _, status = await ask(admin, "/v1/status")
                rows = status["workers"] if workers > 1 and isinstance(status.get("workers"), list) else [status]
                return [row.get("body", row)["config"]["digest"] for row in rows]

            async def changed(before: list[str]) -> None:
                for _ in range(400):
                    now = await digests()
                    if len(set(now)) == 1 and now[0] not in before:
                        return
                    await asyncio.sleep(0.02)
                raise AssertionError("the reload never came")

            async with Load(process.port, clients=6) as load:
                await load.answered(50)
                before = await digests()
                path.write_text(text(a.url, b.url, c.url))
                process.signal(signal.SIGHUP)
                await changed(before)
                await load.answered(50)
                path.write_text(text(a.url)[:-20] + "nonsense = [")
                status, body = await ask(admin, "/v1/reload", "POST")
                assert status == 422
                assert "stack.toml" in json.dumps(body)
                await load.answered(50)
                more = '[servers.more]\nlisten = "127.0.0.1:0"\nhandler = "users"\n' if workers == 1 else ""
                for version in (
                    text(c.url, a.url, settings='policy = "round-robin"'),
                    text(a.url, settings='retries = 1\n[edges.cache]\norigin = "users"').replace(
                        '"users"\n[b', '"cache"\n[b'
                    ),
                    text(b.url).replace("handler", 'idle_timeout = "20s"\nhandler') + more,
                    text(a.url, b.url),
                ):
                    path.write_text(version)
                    status, body = await ask(admin, "/v1/reload", "POST")
                    assert status == 200, body
                    await load.answered(50)
                assert load.lost == []
                assert set(load.statuses) == {200}
                assert load.refused == 0
            process.signal(signal.SIGTERM)
            assert await process.exit() == 0


async def test_a_second_signal_stops_a_drain_that_waits_and_a_stuck_request_is_cut_in_time(tmp_path: Path):
    held = socket.create_server(("127.0.0.1", 0))  # takes connections, and says nothing
    url = f"http://127.0.0.1:{held.getsockname()[1]}"
    path = tmp_path / "stack.toml"
    path.write_text(text(url))
    for flags, signals in ((("--drain-timeout", "200ms"), 1), (("--drain-timeout", "60s"), 2)):
        async with running(path, *flags, "--admin", "127.0.0.1:0") as process:
            client = socket.create_connection(("127.0.0.1", process.port))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            admin = process.ready["admin"]
            for _ in range(400):
                if (await ask(admin, "/v1/status"))[1]["requests"]:
                    break
                await asyncio.sleep(0.01)
            for _ in range(signals):
                process.signal(signal.SIGTERM)
                await asyncio.sleep(0.2)
            assert await process.exit() == 5
            client.close()
    held.close()


async def test_a_worker_that_is_killed_is_replaced_by_one_with_the_version_in_force(tmp_path: Path):
    path = tmp_path / "stack.toml"
    async with backends(tmp_path, 2) as (a, b):
        path.write_text(text(a.url))
        async with running(path, "--workers", "2", "--admin", "127.0.0.1:0") as process:
            admin = process.ready["admin"]
            path.write_text(text(b.url))
            assert (await ask(admin, "/v1/reload", "POST"))[0] == 200
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)
            await until(lambda: "worker-died" in process.errors)
            async with Load(process.port, clients=6) as load:
                await load.answered(100)
                assert set(load.statuses) == {200}
            process.signal(signal.SIGTERM)
            await process.exit()
