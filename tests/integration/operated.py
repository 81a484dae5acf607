"""Real processes: ``blocks balancer``, backends that can be killed, and a load that counts what it lost."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

START = 20.0  # seconds for a process to become ready on a busy machine

# A backend that writes the path of each POST to a file before it answers.
_BACKEND = r"""
import asyncio, os, sys
log = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
port = int(sys.argv[2])
class Connection(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.data = transport, b""
    def data_received(self, data):
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            head = self.data[:end].lower()
            at = head.find(b"content-length: ")
            size = int(head[at + 16:].split(b"\r\n")[0]) if at >= 0 else 0
            if len(self.data) < end + 4 + size:
                return
            if head.startswith(b"post"):
                os.write(log, head.split(b" ")[1] + b"\n")
            self.data = self.data[end + 4 + size:]
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
async def main():
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, reuse_address=True)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


class Process:
    """A process of ours, ended by its pid when the test is over."""

    def __init__(self, process: asyncio.subprocess.Process, said: str) -> None:
        self.process = process
        self.said = said
        self.pid = process.pid
        self._errors = b""
        self._reading = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(65536):
            self._errors += data

    @property
    def errors(self) -> str:
        return self._errors.decode(errors="replace")

    @property
    def ready(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self.said)
        return line

    @property
    def port(self) -> int:
        return int(self.ready["port"])

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def exit(self, within: float = 15.0) -> int:
        code = await asyncio.wait_for(self.process.wait(), within)
        await self._reading
        return code

    async def end(self) -> None:
        if self.process.returncode is None:
            try:
                self.process.kill()
            except ProcessLookupError:
                pass
            await self.process.wait()
        await self._reading
        self.process._transport.close()  # type: ignore[attr-defined]

    # -- what /proc says

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def clients(self) -> int:
        """Connections of clients that it holds a descriptor of."""
        count = 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].partition(":")[2], 16) == self.port and fields[3] != "0A" and fields[9] != "0":
                count += 1
        return count

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu(self) -> float:
        """Seconds of CPU used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def start(*command: str, descriptors: int | None = None, wait: bool = True) -> Process:
    """Run ``command``; wait for its first line."""

    def lower() -> None:
        assert descriptors is not None
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lower if descriptors is not None else None,
    )
    assert process.stdout is not None
    said = await asyncio.wait_for(process.stdout.readline(), START) if wait else b""
    return Process(process, said.decode())


@asynccontextmanager
async def balancer(*flags: str, descriptors: int | None = None) -> AsyncIterator[Process]:
    """``blocks balancer`` with these flags, on a free port."""
    process = await start(
        sys.executable, "-m", "blocks", "balancer", "--listen", "127.0.0.1:0", *flags, descriptors=descriptors
    )
    try:
        if not process.said:
            raise AssertionError(f"it never became ready: {await process.exit()} {process.errors}")
        yield process
    finally:
        await process.end()


async def command(*flags: str) -> tuple[int, str, str]:
    """(exit code, output, errors) of ``blocks …``."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "blocks", *flags, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await asyncio.wait_for(process.communicate(), START)
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


class BackendProcess:
    """A backend in a process of its own, to be killed and started again on its port."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.port = 0
        self.process: Process | None = None

    async def start(self) -> None:
        self.process = await start(sys.executable, "-c", _BACKEND, str(self.log), str(self.port))
        self.port = int(self.process.said)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def kill(self) -> None:
        if self.process is not None:
            await self.process.end()

    def posts(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


@asynccontextmanager
async def backends(folder: Path, count: int = 2) -> AsyncIterator[list[BackendProcess]]:
    made = [BackendProcess(folder / f"backend-{number}.log") for number in range(count)]
    try:
        for one in made:
            await one.start()
        yield made
    finally:
        for one in made:
            await one.kill()


class Load:
    """Clients that keep their connections and ask one thing after another; ``lost`` are requests without a whole answer."""

    def __init__(self, port: int, clients: int = 8, post: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.post = post
        self.tls = tls
        self.statuses: Counter[int] = Counter()
        self.lost: list[str] = []
        self.refused = 0  # connections not taken: no request was lost by it
        self.connections = 0
        self.asked = 0
        self._clients = clients
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._client()) for _ in range(self._clients)]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), 20)

    async def answered(self, more: int) -> None:
        """Wait until ``more`` further requests were answered."""
        goal = sum(self.statuses.values()) + more
        await until(lambda: sum(self.statuses.values()) >= goal)

    async def _client(self) -> None:
        while not self._stopping:
            try:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self.port, ssl=self.tls, server_hostname="localhost" if self.tls else None
                )
            except OSError:
                self.refused += 1
                await asyncio.sleep(0.02)
                continue
            self.connections += 1
            try:
                while not self._stopping and await self._ask(reader, writer):
                    pass
            finally:
                writer.close()
                try:
                    await writer.wait_closed()
                except OSError:
                    pass

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection stays."""
        if reader.at_eof():
            return False  # closed while it was idle: any client may see that
        self.asked += 1
        name = f"/{self.asked}"
        if self.post:
            writer.write(f"POST {name} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".encode())
        else:
            writer.write(f"GET {name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        head = b""
        try:
            async with asyncio.timeout(20):
                head = await reader.readuntil(b"\r\n\r\n")
                fields = head.lower()
                at = fields.find(b"content-length: ")
                await reader.readexactly(int(fields[at + 16 :].split(b"\r\n")[0]))
        except (OSError, EOFError, TimeoutError) as error:
            self.lost.append(f"{name}: {error!r} after {head!r}")
            return False
        self.statuses[int(head[9:12])] += 1
        return b"connection: close" not in fields


async def until(condition: Callable[[], Any], within: float = 20.0) -> None:
    """Wait for what another process brings about."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)
