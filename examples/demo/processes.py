"""Processes that can be killed and come back where they were."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

SERVICES = Path(__file__).with_name("services.py")
START = 60.0  # seconds to become ready: a busy machine starts fifteen interpreters at once


class Process:
    """A command that says one line when it is ready; ``lines`` is what it said since, over all its lives."""

    def __init__(self, name: str, *command: str) -> None:
        self.name = name
        self.command = command
        self.said = ""
        self.lines: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> Process:
        """Return when it is ready."""
        self._process = await asyncio.create_subprocess_exec(
            *self.command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        self.said = (await asyncio.wait_for(self._process.stdout.readline(), START)).decode().strip()
        if not self.said:
            raise RuntimeError(f"{self.name} did not start: {' '.join(self.command)}")
        self._reading = asyncio.create_task(self._read(self._process.stdout))
        return self

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self.lines.append(line.decode().strip())

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Send ``how`` and wait for the end; SIGKILL when SIGTERM was not enough."""
        process = self._process
        if process is None or self._reading is None:
            return
        if process.returncode is None:
            process.send_signal(how)
            try:
                await asyncio.wait_for(process.wait(), 15)
            except TimeoutError:
                process.kill()
                await process.wait()
        await self._reading

    @property
    def cpu(self) -> float:
        """Seconds of CPU used by this life so far; 0.0 where there is no /proc."""
        try:
            assert self._process is not None
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except (AssertionError, OSError):
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Service(Process):
    """One of ours; it comes back on the port that it had."""

    def __init__(self, kind: str, name: str, argument: str) -> None:
        super().__init__(name, sys.executable, str(SERVICES), kind, "0", name, argument)

    async def start(self) -> Service:
        """Return when it listens."""
        await super().start()
        self.command = (*self.command[:3], self.url.rpartition(":")[2], *self.command[4:])
        return self

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.said


class Worker(Process):
    """A member of a group behind the broker."""

    def __init__(self, group: str, name: str, broker: str) -> None:
        super().__init__(name, sys.executable, str(SERVICES), "worker", group, broker)
        self.group = group


class Block(Process):
    """``blocks KIND …``: its line says where it listens."""

    def __init__(self, kind: str, *flags: str, name: str = "") -> None:
        super().__init__(name or kind, sys.executable, "-m", "blocks", kind, "--listen", "127.0.0.1:0", *flags)

    async def start(self) -> Block:
        """Return when it is ready; it comes back on the same ports."""
        await super().start()
        at = self.command.index("--listen") + 1
        self.command = (*self.command[:at], f"127.0.0.1:{self.ready['port']}", *self.command[at + 1 :])
        return self

    @property
    def ready(self) -> dict[str, Any]:
        """The line that it said."""
        line: dict[str, Any] = json.loads(self.said)
        return line

    @property
    def url(self) -> str:
        """Where it listens."""
        return str(self.ready["url"])

    @property
    def admin(self) -> str:
        """Its admin API."""
        return str(self.ready["admin"])
