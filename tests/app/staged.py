"""Stacks of a test: written to a file, asked over a socket, with origins that say who they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from blocks import Request, Response, Upstream
from blocks.app.stack import Stack
from blocks.http import Server


class Origin:
    """Answers with its name; holds every answer back while ``gate`` is not set."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.headers: dict[str, str] = {}
        self.last: Request | None = None

    async def __call__(self, request: Request) -> Response:
        self.requests += 1
        self.last = request
        await self.gate.wait()
        return Response(200, self.headers, f"{self.name} {request.target}".encode())


@asynccontextmanager
async def origins(*names: str) -> AsyncIterator[list[tuple[Origin, str]]]:
    """(origin, url) of each name."""
    made = [Origin(name) for name in names]
    servers = [Server(origin, "127.0.0.1:0") for origin in made]
    try:
        for server in servers:
            await server.start()
        yield [(origin, server.url) for origin, server in zip(made, servers, strict=True)]
    finally:
        for server in servers:
            await server.stop(0)


def written(folder: Path, text: str, name: str = "stack.toml") -> Path:
    """A file of that text."""
    path = folder / name
    path.write_text(text)
    return path


def loaded(path: Path | dict[str, object], **settings: object) -> Stack:
    return Stack.load(path, environment={}, random=Random(1), **settings)  # type: ignore[arg-type]


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[Upstream]:
    async with Upstream(url) as upstream:
        yield upstream


async def get(upstream: Upstream, target: str = "/", method: str = "GET", body: bytes = b"") -> tuple[int, str]:
    """The status and the body of one answer."""
    response = await upstream(Request(method, target, {"host": "test"}, body))
    return response.status, (await response.read()).decode()


async def until(said: object, within: float = 20.0) -> None:
    """Wait until ``said()`` is true."""
    async with asyncio.timeout(within):
        while not said():  # type: ignore[operator]
            await asyncio.sleep(0.002)
