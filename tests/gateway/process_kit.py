"""``blocks …`` as processes of their own, and one request over a connection of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any


class Process:
    """``async with Process("gateway", "--config", path)``: ready inside, stopped outside. ``ready`` is its line, ``errors`` what it says."""

    def __init__(self, *words: object) -> None:
        self._words = [str(word) for word in words]
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self.ready: dict[str, Any] = {}
        self.errors = bytearray()
        self.output = bytearray()

    async def __aenter__(self) -> Process:
        await self.start()
        return self

    async def start(self) -> None:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "blocks", *self._words, stdout=pipe, stderr=pipe, limit=1024 * 1024
        )
        assert self._process.stdout is not None
        self._reader = asyncio.create_task(self._read())
        line = await asyncio.wait_for(self._process.stdout.readline(), 60)
        assert line, f"{self._words} did not start: {self.errors.decode()}"
        self.ready = json.loads(line)
        self._more = asyncio.create_task(self._rest(self._process.stdout, self.output))

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        await self._rest(self._process.stderr, self.errors)

    async def _rest(self, stream: asyncio.StreamReader, into: bytearray) -> None:
        while data := await stream.read(65536):
            into += data

    def send(self, signal: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(signal)

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """The exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.returncode is None:
            process.send_signal(how)
        try:
            code = await asyncio.wait_for(process.wait(), 30)
        except TimeoutError:
            process.kill()
            code = await process.wait()
        assert self._reader is not None
        await asyncio.gather(self._reader, self._more)
        return code

    async def __aexit__(self, *_: Any) -> None:
        await self.stop()


class Answer:
    """A response as it came: ``status``, ``fields`` (lower case), ``body``."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1]) if first else 0
        self.fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def json(self) -> Any:
        return json.loads(self.body)


async def ask(url: str, target: str = "/", method: str = "GET", body: bytes = b"", **fields: str) -> Answer:
    """One request, HTTP/1.1 with Connection: close. ``fields`` have underscores for hyphens."""
    host = url.removeprefix("http://").rstrip("/")
    name, _, port = host.rpartition(":")
    lines = [f"{method} {target} HTTP/1.1"]
    given = {"host": host, "connection": "close", **{key.replace("_", "-"): value for key, value in fields.items()}}
    if body or method not in ("GET", "HEAD"):
        given["content-length"] = str(len(body))
    lines += [f"{key}: {value}" for key, value in given.items()]
    reader, writer = await asyncio.open_connection(name, int(port))
    try:
        writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        return Answer(await asyncio.wait_for(reader.read(), 30))
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass
