"""A service manager for tests: it hears what processes tell it, and starts them with sockets of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from integration.operated import START, Process

BLOCKS = (sys.executable, "-m", "blocks")

# Puts the descriptors it was given where sd_listen_fds(3) says, names them, and becomes the command.
_HAND_OVER = """
import fcntl, os, sys
numbers, names, command = [int(n) for n in sys.argv[1].split(",")], sys.argv[2], sys.argv[3:]
aside = [fcntl.fcntl(n, fcntl.F_DUPFD, 100) for n in numbers]
for at, number in enumerate(aside):
    os.dup2(number, 3 + at)
    os.close(number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(aside)), LISTEN_FDNAMES=names)
os.execv(command[0], command)
"""


class Manager:
    """The receiving end of ``NOTIFY_SOCKET``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def close(self) -> None:
        self._socket.close()

    def hear(self) -> list[dict[str, str]]:
        """Everything that was said so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                text = self._socket.recv(65536).decode()
                self.messages.append(dict(line.split("=", 1) for line in text.splitlines()))
        return self.messages

    def said(self, name: str) -> list[str]:
        return [message[name] for message in self.hear() if name in message]


@contextlib.asynccontextmanager
async def started(*command: str, env: dict[str, str] | None = None, fds: Sequence[int] = ()) -> AsyncIterator[Process]:
    """A command that says a line when it is ready; ended when the context is left."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
        pass_fds=fds,
    )
    assert process.stdout is not None
    said = await asyncio.wait_for(process.stdout.readline(), START)
    running = Process(process, said.decode())
    rest = asyncio.create_task(process.stdout.read())  # an access log: a pipe that nobody reads would hold up its end
    try:
        if not said:
            raise AssertionError(f"it never became ready: {await running.exit()} {running.errors}")
        yield running
    finally:
        await running.end()
        await rest


def handed(sockets: Sequence[socket.socket], names: str) -> tuple[str, ...]:
    """What starts a command with ``sockets`` as systemd hands them over."""
    return (sys.executable, "-c", _HAND_OVER, ",".join(str(one.fileno()) for one in sockets), names)


def listening(family: int = socket.AF_INET, path: str = "") -> socket.socket:
    """A listening socket on a free port of loopback, or at ``path``."""
    made = socket.socket(family, socket.SOCK_STREAM)
    made.bind(path if family == socket.AF_UNIX else ("127.0.0.1", 0))
    made.listen(64)
    return made
