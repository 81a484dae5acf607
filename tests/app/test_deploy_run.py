"""deploy/stack.toml as each of the operators' files runs it: systemd's socket and notifications, a container's environment."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.manager import BLOCKS, Manager, handed, listening, started
from integration.operated import Load, command, until

pytestmark = pytest.mark.integration

STACK = str(Path(__file__).parents[2] / "deploy" / "stack.toml")


@asynccontextmanager
async def services() -> AsyncIterator[dict[str, str]]:
    """Two services, as the variables of the stack name them."""
    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: no-store\r\n\r\nok")
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    made = [await asyncio.start_server(answer, "127.0.0.1", 0) for _ in "ab"]
    try:
        urls = [f"http://127.0.0.1:{one.sockets[0].getsockname()[1]}" for one in made]
        yield {"SERVICE_A": urls[0], "SERVICE_B": urls[1], "BLOCKS_ADMIN_LISTEN": "127.0.0.1:0"}
    finally:
        for writer in writers:
            writer.close()
        for one in made:
            one.close()
            await one.wait_closed()


async def test_under_systemd(tmp_path: Path):
    manager = Manager(tmp_path / "notify")
    try:
        async with services() as env:
            with listening() as web:
                more = {"BLOCKS_LISTEN": "fd:web", "NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "30000000"}
                start = (*handed([web], "web"), *BLOCKS, "run", STACK)
                async with started(*start, env={**env, **more}, fds=(web.fileno(),)) as process:
                    await until(lambda: manager.said("READY"))
                    assert manager.said("WATCHDOG")
                    admin = ("--admin", process.ready["admin"])
                    async with Load(web.getsockname()[1], clients=2) as load:
                        await load.answered(20)
                        code, out, errors = await command("reload", *admin)  # ExecReload
                        assert (code, out.startswith("reloaded")) == (0, True), errors
                        await load.answered(20)
                    assert (load.lost, set(load.statuses)) == ([], {200})
                    assert manager.said("RELOADING") == ["1"]
                    assert (await command("health", *admin))[0] == 0
                    process.signal(signal.SIGTERM)
                    assert await process.exit() == 0
                    assert manager.said("STOPPING") == ["1"]
    finally:
        manager.close()


async def test_in_a_pod(tmp_path: Path):
    """Probes, then preStop and SIGTERM: it answers on for the lame duck's time, and nothing that was asked is lost."""
    async with services() as env:
        more = {"BLOCKS_LISTEN": "127.0.0.1:0", "BLOCKS_LAME_DUCK": "1s"}
        async with started(*BLOCKS, "run", STACK, env={**env, **more}) as process:
            admin = ("--admin", process.ready["admin"])
            assert (await command("health", "--live", *admin))[0] == 0
            while (await command("health", *admin))[0] != 0:  # until the first probes of the services are back
                pass
            async with Load(process.port, clients=2) as load:
                await load.answered(20)
                assert (await command("drain", *admin))[0] == 0
                process.signal(signal.SIGTERM)
                await load.answered(20)
                assert (await command("health", *admin))[0] == 1
                assert await process.exit() == 0
            assert load.lost == []
            assert set(load.statuses) == {200}
