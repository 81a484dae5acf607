"""Every command that serves, asked by the commands that ask: with one process and with workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import blocks
from app.manager import BLOCKS, started
from app.test_exit_codes import Hanging
from integration.operated import Load, Process, command, until

pytestmark = pytest.mark.integration

NOWHERE = "http://127.0.0.1:9"
STACK = """
[process]
admin = "127.0.0.1:0"
drain_timeout = "{drain}"
[servers.web]
listen = "127.0.0.1:0"
handler = "users"
[balancers.users]
upstreams = ["{upstream}"]
health = false
[edges.cache]
origin = "users"
[servers.cached]
listen = "127.0.0.1:0"
handler = "cache"
[brokers.events]
data = ":memory:"
listen = "127.0.0.1:0"
"""


def stack(folder: Path, upstream: str = NOWHERE, drain: str = "10s", more: str = "") -> tuple[str, ...]:
    text = STACK.replace("health = false\n", "").format(upstream=upstream, drain=drain)
    (folder / "stack.toml").write_text(text + more)
    return ("run", str(folder / "stack.toml"))


def commands(folder: Path) -> dict[str, tuple[str, ...]]:
    (folder / "gateway.toml").write_text(
        f'[services.s]\nurl = "{NOWHERE}"\n[[routes]]\nname = "all"\npath = "/{{rest:path}}"\nservice = "s"\n[change]\nshare = 1\n'
    )
    more = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    return {
        "balancer": ("balancer", "--upstream", NOWHERE, *more),
        "workers": ("balancer", "--upstream", NOWHERE, *more, "--workers", "2"),
        "edge": ("edge", "--origin", NOWHERE, *more),
        "gateway": ("gateway", "--config", str(folder / "gateway.toml"), *more),
        "broker": ("broker", "--data", ":memory:", *more),
        "run": stack(folder),
    }


async def ask(process: Process, *words: str) -> tuple[int, str, str]:
    return await command(*words, "--admin", process.ready["admin"])


async def has_the_same_paths(process: Process) -> None:
    """What every admin API answers, and whom it does not."""
    paths = (
        "/livez",
        "/readyz",
        "/readyz?verbose",
        "/metrics",
        "/metrics.json",
        "/config",
        "/v1/status",
        "/v1/topology",
        "/v1/events",
    )
    async with aiohttp.ClientSession(
        process.ready["admin"], connector=aiohttp.TCPConnector(force_close=True)
    ) as session:
        for path in paths:
            for headers, status in (
                ({}, 200),
                ({"Host": "evil.example"}, 421),
                ({"Origin": "http://evil.example"}, 403),
            ):
                async with session.get(path, headers=headers) as answer:
                    assert answer.status == status, (path, headers)
        async with session.get("/events") as answer:
            assert answer.content_type == "text/event-stream"


@pytest.mark.parametrize("name", ["balancer", "workers", "edge", "gateway", "broker", "run"])
async def test_every_process_answers_every_question(tmp_path: Path, name: str):
    async with started(*BLOCKS, *commands(tmp_path)[name]) as process:
        assert (await ask(process, "health"))[:2] == (0, "ready\n")
        await has_the_same_paths(process)
        code, out, errors = await ask(process, "status", "--json")
        status = json.loads(out)
        assert (code, status["draining"]) == (0, False), errors
        assert status["config"]["digest"]
        assert status["config"]["last_error"] == ""
        assert status["listen"] == process.ready["listen"] or process.ready["listen"] in status["listen"]
        text = (await ask(process, "status"))[1]
        assert "health:" in text
        if name == "run":
            assert f"server:    cached: {process.ready['servers']['cached']['url']}" in text
            assert f"broker:    events: {process.ready['brokers']['events']['url']}" in text
        view = json.loads((await ask(process, "top", "--once", "--json", "--interval", "0.1s"))[1])
        kinds = {"edge": "edges", "broker": "brokers", "gateway": "gateway"}
        assert kinds.get(name, "balancers") in view or name == "gateway"  # a route that nobody asked has no row yet
        code, out, errors = await ask(process, "reload")
        assert (code, out.startswith("reloaded")) == (0, True), errors
        assert (await ask(process, "drain", "--wait"))[:2] == (0, "draining\ngone\n")
        assert await process.exit() == 0
        assert (await ask(process, "health"))[0] == 1


async def get(process: Process, path: str) -> Any:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        async with session.get(process.ready["admin"] + path) as answer:
            return await answer.json()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_drain_is_no_signal_so_that_the_next_one_is_the_first(tmp_path: Path, workers: int):
    """As in Kubernetes: preStop drains, then comes SIGTERM; the request under way is finished all the same."""
    async with Hanging() as upstream:
        flags = (
            "--upstream",
            upstream.url,
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--drain-timeout",
            "2s",
        )
        async with started(*BLOCKS, "balancer", *flags, "--workers", str(workers)) as process:
            reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await asyncio.wait_for(upstream.asked.wait(), 20)
            assert (await ask(process, "drain"))[0] == 0
            assert (await ask(process, "drain"))[0] == 0  # asked twice is asked once
            await until_refused(process.port)
            process.signal(signal.SIGTERM)
            upstream.answer()
            assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"HTTP/1.1 200")
            writer.close()
            assert await process.exit() == 0


async def test_a_broker_that_drains_is_not_hurried_by_the_first_signal(tmp_path: Path):
    (tmp_path / "tokens").write_text("a-token-of-the-test\n")
    flags = ("broker", "--data", ":memory:", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--drain", "20s")
    async with started(*BLOCKS, *flags, "--token-file", str(tmp_path / "tokens")) as process:
        async with blocks.connect(process.ready["url"], token="a-token-of-the-test") as client:
            await client.publish("t", b"x")
            async with client.subscribe("t", group="g", start="earliest") as messages:
                async for message in messages:
                    assert (await ask(process, "drain"))[0] == 0
                    process.signal(signal.SIGTERM)
                    assert (await ask(process, "health"))[0] == 1
                    await message.ack()
                    break
                assert await process.exit() == 0
        assert "Traceback" not in process.errors


async def test_a_broker_reads_its_tokens_again_or_says_what_is_wrong_with_them(tmp_path: Path):
    (tmp_path / "tokens").write_text("a-token-of-the-test\n")
    flags = ("broker", "--data", ":memory:", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    async with started(*BLOCKS, *flags, "--token-file", str(tmp_path / "tokens")) as process:
        (tmp_path / "tokens").write_text("")
        code, _, errors = await ask(process, "reload")
        assert code == 3
        assert "names no user and no token" in errors
        (tmp_path / "tokens").write_text("another-token\n")
        assert (await ask(process, "reload"))[:2] == (0, "reloaded\n")
        async with blocks.connect(process.ready["url"], token="another-token") as client:
            await client.publish("t", b"x")
        process.signal(signal.SIGTERM)
        assert await process.exit() == 0


async def until_refused(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.02)


async def test_a_lame_duck_answers_on_and_says_that_it_leaves(tmp_path: Path):
    (tmp_path / "service_of_test.py").write_text(
        "from blocks import Response\nasync def app(request):\n    return Response.text('ok')\n"
    )
    (tmp_path / "gateway.toml").write_text(
        '[services.s]\npython = "service_of_test:app"\n[[routes]]\npath = "/{rest:path}"\nservice = "s"\n'
    )
    flags = ("gateway", "--config", str(tmp_path / "gateway.toml"), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    async with started(*BLOCKS, *flags, "--lame-duck", "60s", env={"PYTHONPATH": str(tmp_path)}) as process:
        process.signal(signal.SIGTERM)
        while (await ask(process, "health"))[0] == 0:
            pass
        async with Load(process.port, clients=2) as load:
            await load.answered(20)
        assert load.lost == []
        assert load.refused == 0
        process.signal(signal.SIGTERM)  # a second one is in a hurry
        assert await process.exit() in (0, 5)


async def test_a_bad_file_is_refused_and_told_and_a_good_one_taken(tmp_path: Path):
    async with started(*BLOCKS, *stack(tmp_path)) as process:
        before = json.loads((await ask(process, "status", "--json"))[1])["config"]["digest"]
        stack(tmp_path, more="[upstreams.more]\nurll = 'http://127.0.0.1:9'\n")
        code, out, errors = await ask(process, "reload")
        assert (code, out) == (3, "")
        assert "stack.toml:" in errors
        assert "urll" in errors
        assert "did you mean" in errors.lower()
        told = json.loads((await ask(process, "status", "--json"))[1])["config"]
        assert told["digest"] == before
        assert "urll" in told["last_error"]
        assert (await ask(process, "health"))[0] == 0
        stack(tmp_path, upstream="http://127.0.0.1:10")
        code, out, errors = await ask(process, "reload")
        assert code == 0, errors
        told = json.loads((await ask(process, "status", "--json"))[1])["config"]
        assert (told["digest"] != before, told["last_error"]) == (True, "")
        process.signal(signal.SIGTERM)
        assert await process.exit() == 0


async def test_settings_are_shown_masked(tmp_path: Path):
    (tmp_path / "pin").write_text("hush-hush-hush")
    more = '[upstreams.more]\nurl = "http://127.0.0.1:9/${file:pin}"\n'.replace("/${file:pin}", "")
    more += '[gateways.front]\n[gateways.front.services.s]\nrespond = { body = "${file:pin}" }\n'
    more += '[[gateways.front.routes]]\npath = "/"\nservice = "s"\n'
    async with started(*BLOCKS, *stack(tmp_path, more=more)) as process:
        shown = await get(process, "/config")
        assert shown["settings"]["gateways"]["front"]["services"]["s"]["respond"] == {"body": "***"}
        assert shown["settings"]["servers"]["web"]["handler"] == "users"
        assert shown["digest"]
        process.signal(signal.SIGTERM)
        assert await process.exit() == 0


async def test_top_lives_in_a_terminal_until_ctrl_c(tmp_path: Path):
    async with started(*BLOCKS, *stack(tmp_path)) as process:
        parent, child = pty.openpty()
        top = await asyncio.create_subprocess_exec(
            *BLOCKS, "top", "--interval", "0.1s", "--admin", process.ready["admin"],
            stdin=child, stdout=child, stderr=child, env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"},
        )  # fmt: skip
        os.close(child)
        os.set_blocking(parent, False)
        seen = b""
        try:
            async with asyncio.timeout(20):
                while seen.count(b"balancer users") < 3:  # drawn anew, again and again
                    with contextlib.suppress(BlockingIOError):
                        seen += os.read(parent, 65536)
                    await asyncio.sleep(0.02)
            top.send_signal(signal.SIGINT)
            reading = asyncio.get_running_loop().create_task(drained(parent))
            assert await asyncio.wait_for(top.wait(), 20) == 0
            await reading
        finally:
            if top.returncode is None:
                top.kill()
                await top.wait()
            os.close(parent)
        process.signal(signal.SIGTERM)
        assert await process.exit() == 0


async def drained(terminal: int) -> None:
    """Read what is still written, until nobody can write any more."""
    while True:
        try:
            if not os.read(terminal, 65536):
                return
        except BlockingIOError:
            await asyncio.sleep(0.02)
        except OSError:
            return


async def test_events_of_all_workers_come_in_one_stream():
    flags = ("--upstream", NOWHERE, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "2")
    async with started(*BLOCKS, "balancer", *flags) as process:
        seen: list[bytes] = []

        async def follow() -> None:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
                async with session.get(process.ready["admin"] + "/events") as stream:
                    async for line in stream.content:
                        seen.append(line)

        following = asyncio.create_task(follow())
        async with Load(process.port, clients=1) as load:
            await load.answered(10)  # an upstream that refuses is taken out, which is an event
            await until(lambda: any(b"worker" in line for line in seen) or load.asked > 5000)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        assert any(line.startswith(b"data: {") for line in seen)
        process.signal(signal.SIGTERM)
        assert await process.exit() == 0
