"""A redis-server of our own on a free port, which tests may stop, hang and start again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

BINARY = shutil.which("redis-server")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisPeer:
    def __init__(self, folder: Path, *options: str) -> None:
        if BINARY is None:
            pytest.skip("redis-server is not installed")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        fixed = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            str(self._folder),
            "--repl-diskless-sync-delay",
            "0",
        ]
        self._spawn(fixed)
        for _ in range(400):
            try:
                answer = await self.command(b"PING")
            except OSError:
                answer = b""
            if answer.startswith(b"+PONG"):
                return
            await asyncio.sleep(0.025)
        raise AssertionError("redis-server did not come up in 10 s")

    def _spawn(self, fixed: list[str]) -> None:
        self._process = subprocess.Popen(
            [str(BINARY), *fixed, *self._options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    async def command(self, line: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(line + b"\r\n")
            return await asyncio.wait_for(reader.read(4096), 5)
        finally:
            writer.close()
            await writer.wait_closed()

    async def offset(self) -> bytes:
        """How far its replication log goes: the same at a replica that has everything."""
        told = await self.command(b"INFO replication")
        return next(
            (line.split(b":")[1] for line in told.split(b"\r\n") if line.startswith(b"master_repl_offset:")), b""
        )

    def hang(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(10)

    async def __aenter__(self) -> RedisPeer:
        await self.start()
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.kill()
