"""Every command under a service manager: what it tells, the sockets it takes, and a restart that refuses nobody."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest

from app.manager import BLOCKS, Manager, handed, listening, started
from integration.operated import Load, until

pytestmark = pytest.mark.integration

GATEWAY = '[services.s]\n{service}\n[[routes]]\nname = "all"\npath = "/{{rest:path}}"\nservice = "s"\n'
STACK = '[servers.web]\nlisten = "127.0.0.1:0"\nhandler = "up"\n[upstreams.up]\nurl = "http://127.0.0.1:9"\n'
ALL = pytest.mark.parametrize("block", ["run", "run-workers", "balancer", "workers", "edge", "gateway", "broker"])
NOWHERE = "http://127.0.0.1:9"


def commands(folder: Path) -> dict[str, tuple[str, ...]]:
    (folder / "gateway.toml").write_text(GATEWAY.format(service=f'url = "{NOWHERE}"'))
    (folder / "stack.toml").write_text(STACK)
    return {
        "run": ("run", str(folder / "stack.toml")),
        "run-workers": ("run", str(folder / "stack.toml"), "--workers", "2"),
        "balancer": ("balancer", "--upstream", NOWHERE, "--listen", "127.0.0.1:0"),
        "workers": ("balancer", "--upstream", NOWHERE, "--listen", "127.0.0.1:0", "--workers", "2"),
        "edge": ("edge", "--origin", NOWHERE, "--listen", "127.0.0.1:0"),
        "gateway": ("gateway", "--config", str(folder / "gateway.toml"), "--listen", "127.0.0.1:0"),
        "broker": ("broker", "--data", ":memory:", "--listen", "127.0.0.1:0"),
    }


@ALL
async def test_a_process_says_ready_alive_reloading_and_stopping(tmp_path: Path, block: str):
    manager = Manager(tmp_path / "notify")
    try:
        env = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "400000"}
        async with started(*BLOCKS, *commands(tmp_path)[block], env=env) as process:
            assert process.ready["event"] == "ready"
            await until(lambda: "READY" in manager.hear()[0] if manager.hear() else False)
            assert str(process.ready["port"]) in manager.hear()[0]["STATUS"]
            await until(lambda: len(manager.said("WATCHDOG")) >= 3)
            process.signal(signal.SIGHUP)
            await until(lambda: len(manager.said("READY")) >= 2)
            assert len(manager.said("RELOADING")) == 1
            assert int(manager.said("MONOTONIC_USEC")[0]) > 0
            process.signal(signal.SIGTERM)
            assert await process.exit() == 0
            assert manager.said("STOPPING") == ["1"]
            assert int(manager.said("EXTEND_TIMEOUT_USEC")[0]) > 10_000_000
    finally:
        manager.close()


async def test_a_worker_that_hangs_starves_the_watchdog(tmp_path: Path):
    manager = Manager(tmp_path / "notify")
    try:
        env = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "200000"}
        async with started(*BLOCKS, *commands(tmp_path)["workers"], env=env) as process:
            await until(lambda: len(manager.said("WATCHDOG")) >= 2)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGSTOP)
            try:
                silent = 0
                while silent < 3:  # 3 looks in a row, each longer than the interval, at which nothing new was said
                    heard = len(manager.said("WATCHDOG"))
                    await asyncio.sleep(0.3)
                    silent = silent + 1 if len(manager.said("WATCHDOG")) == heard else 0
            finally:
                os.kill(int(children[0]), signal.SIGCONT)
            heard = len(manager.said("WATCHDOG"))
            await until(lambda: len(manager.said("WATCHDOG")) > heard)
            process.signal(signal.SIGTERM)
            assert await process.exit() == 0
    finally:
        manager.close()


def _listen_again(command: tuple[str, ...], address: str) -> tuple[str, ...]:
    if command[0] == "run":
        file = Path(command[1])
        file.write_text(STACK.replace("127.0.0.1:0", address))
        return command
    at = command.index("--listen") + 1
    return (*command[:at], address, *command[at + 1 :])


@ALL
async def test_a_socket_is_taken_by_the_name_it_was_handed_over_with(tmp_path: Path, block: str):
    with listening() as other, listening() as web:
        command = _listen_again(commands(tmp_path)[block], "fd:web")
        async with started(
            *handed([other, web], "other:web"), *BLOCKS, *command, fds=(other.fileno(), web.fileno())
        ) as process:
            assert process.ready["port"] == web.getsockname()[1]
            with socket.create_connection(web.getsockname()):
                pass
            process.signal(signal.SIGTERM)
            assert await process.exit() == 0


async def test_a_socket_that_was_not_handed_over_is_a_matter_of_configuration(tmp_path: Path):
    for block, command in commands(tmp_path).items():
        process = await asyncio.create_subprocess_exec(
            *BLOCKS, *_listen_again(command, "fd:web"), stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
        assert process.returncode == 3, (block, errors)
        assert b"no socket of that name" in errors


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_restart_over_the_managers_socket_loses_nothing(tmp_path: Path, workers: int):
    (tmp_path / "site_of_test.py").write_text(
        "async def app(request):\n    from blocks import Response\n    return Response.text('ok')\n"
    )
    (tmp_path / "gateway.toml").write_text(GATEWAY.format(service='python = "site_of_test:app"'))
    flags = ("gateway", "--config", str(tmp_path / "gateway.toml"), "--listen", "fd:web", "--workers", str(workers))
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with listening() as web:
        async with Load(web.getsockname()[1], clients=4) as load:
            for _ in range(3):
                async with started(*handed([web], "web"), *BLOCKS, *flags, env=env, fds=(web.fileno(),)) as process:
                    await load.answered(100)
                    process.signal(signal.SIGTERM)
                    assert await process.exit() == 0
            async with started(*handed([web], "web"), *BLOCKS, *flags, env=env, fds=(web.fileno(),)) as process:
                await load.answered(50)
                await load.stop()
        assert load.lost == []
        assert load.refused == 0
        assert set(load.statuses) == {200}


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd-socket-activate is not installed")
async def test_systemds_own_activator_starts_it_with_the_first_connection():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ("systemd-socket-activate", "-l", f"127.0.0.1:{port}", "--fdname=web", *BLOCKS)
    process = await asyncio.create_subprocess_exec(
        *command, "balancer", "--upstream", NOWHERE, "--listen", "fd:web",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        reader = writer = None
        async with asyncio.timeout(20):
            while writer is None:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
            assert reader is not None
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 502 ")
        writer.close()
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process._transport.close()  # type: ignore[attr-defined]
