"""Real broker processes for the tests that kill, stop and restart them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import blocks

CLI = [sys.executable, "-c", "from blocks.broker.cli import broker; broker()"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(blocks.__file__).parents[1])}


class BrokerProcess:
    """A broker that runs by itself over ``data``; it can be killed and started again on the same port."""

    def __init__(self, data: Path, options: tuple[str, ...]) -> None:
        self.data = data
        self.options = options
        self.listen = "127.0.0.1:0"
        self.ready: dict[str, Any] = {}
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *CLI,
            "--listen",
            self.listen,
            "--data",
            str(self.data),
            *self.options,
            stdout=asyncio.subprocess.PIPE,
            env=ENVIRONMENT,
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            line = await self.process.stdout.readline()
        assert line, f"the broker did not start: exit {await self.process.wait()}"
        self.ready = json.loads(line)
        self.listen = str(self.ready["listen"])

    async def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(30):
            code = await self.process.wait()
            assert self.process.stdout is not None
            await self.process.stdout.read()
        return code


@asynccontextmanager
async def running(data: Path, *options: str) -> AsyncIterator[BrokerProcess]:
    broker = BrokerProcess(data, options)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.end(signal.SIGKILL)
        transport = broker.process._transport if broker.process is not None else None  # type: ignore[attr-defined]
        if transport is not None:
            transport.close()


async def command(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run ``blocks broker`` with ``arguments``; gives exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *CLI,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate(stdin)
    return process.returncode or 0, out.decode(), err.decode()
