"""An edge as a process of its own, to be killed; and an origin in this process that can dawdle."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

READY_WITHIN = 30.0  # seconds, on a busy machine


class EdgeProcess:
    def __init__(self, process: subprocess.Popen[bytes], url: str, admin: str) -> None:
        self.process = process
        self.url = url
        self.admin = admin

    async def kill(self) -> None:
        self.process.kill()
        await asyncio.to_thread(self.process.wait)

    async def stop(self) -> int:
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, READY_WITHIN)


@asynccontextmanager
async def edge_process(folder: Path, origin: str, *flags: str) -> AsyncIterator[EdgeProcess]:
    """Ready when this yields; dead when it ends."""
    with tempfile.TemporaryDirectory() as ports:
        file = Path(ports) / "ready.json"
        process = subprocess.Popen(  # it takes a millisecond
            [
                sys.executable, "-m", "blocks", "edge", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--origin", origin,
                "--store", str(folder), "--store-size", "64MiB", "--ports-file", str(file), *flags,
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        )  # fmt: skip
        try:
            deadline = time.monotonic() + READY_WITHIN
            while not file.exists() and process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            ready = json.loads(file.read_text())
            yield EdgeProcess(process, ready["url"], ready["admin"])
        finally:
            process.kill()
            process.wait()


class Origin:
    """Answers ``/size/N`` with N bytes, ``/slow/N`` with half of them until ``go`` is set, anything else with its own path; it counts."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.fields: Mapping[str, str] = {}  # of the last request
        self.go = asyncio.Event()
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.fields = request.headers
        self.counts[path] = self.counts.get(path, 0) + 1
        fields = {"Cache-Control": "max-age=3600", "Surrogate-Key": "every"}
        if not path.startswith(("/size/", "/slow/")):
            return web.Response(text=path, headers=fields)
        size = int(path.split("/")[2])
        response = web.StreamResponse(headers={**fields, "Content-Length": str(size)})
        await response.prepare(request)
        body = body_of(path, size)
        await response.write(body[: size // 2])
        if path.startswith("/slow/"):
            await self.go.wait()
        await response.write(body[size // 2 :])
        return response


def body_of(path: str, size: int) -> bytes:
    return (path.encode() * (size // len(path) + 1))[:size]


@asynccontextmanager
async def an_origin() -> AsyncIterator[Origin]:
    origin = Origin()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", origin.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    origin.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield origin
    finally:
        origin.go.set()
        await runner.cleanup()


async def get(session: aiohttp.ClientSession, url: str, **more: object) -> tuple[int, bytes, str]:
    async with session.get(url, **more) as answer:  # type: ignore[arg-type]
        return answer.status, await answer.read(), answer.headers.get("Cache-Status", "")
