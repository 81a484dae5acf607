"""The admin API over several workers: it asks each of them on its Unix socket, and adds up what they say."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
from aiohttp import web

from blocks.core.metrics import Snapshot, merge, render

from .admin import listen
from .guard import guard, read_token
from .options import Serving
from .worker import LEAVE

_PATIENCE = aiohttp.ClientTimeout(total=30)
_CHANGE = aiohttp.ClientTimeout(total=3600, sock_connect=5)  # a gateway's reload answers when its trial is over
_BODY = 1024 * 1024  # bytes of a request that is passed on


async def fan_out(
    serving: Serving,
    workers: Sequence[str],
    ready: Callable[[dict[str, Any]], None],
    lifeline: int,
    *,
    together: bool = False,
) -> int:
    """Serve the admin API until SIGTERM, or until ``lifeline`` shows that the parent is gone. ``workers`` are their sockets' paths.

    With ``together`` a reload that one worker is asked for is made by all.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    loop.add_reader(lifeline, stopping.set)
    assert serving.admin is not None
    sessions = [aiohttp.ClientSession(connector=aiohttp.UnixConnector(path), timeout=_PATIENCE) for path in workers]
    app = web.Application(
        middlewares=[guard(read_token(serving.admin, serving.admin_token_file))], client_max_size=_BODY
    )
    asker = _Asker(sessions)
    app.router.add_get("/livez", asker.livez)
    app.router.add_get("/readyz", asker.readyz)
    app.router.add_get("/metrics", asker.metrics)
    app.router.add_get("/metrics.json", asker.metrics_json)
    app.router.add_get("/config", asker.config)
    app.router.add_post("/v1/drain", asker.drain)
    app.router.add_get("/events", asker.events)
    if together:
        app.router.add_post("/v1/reload", asker.reload)
    app.router.add_route("*", "/{path:.*}", asker.all)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    try:
        await runner.setup()
        ready({"admin": await listen(runner, serving.admin)})
        await stopping.wait()
    finally:
        await runner.cleanup()
        for session in sessions:
            await session.close()
    return 0


class _Asker:
    """Passes a request to every worker."""

    def __init__(self, sessions: Sequence[aiohttp.ClientSession]) -> None:
        self._sessions = sessions
        self._leaving = False
        self._parent = os.getppid()

    async def livez(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "live", "workers": len(self._sessions)})

    async def readyz(self, request: web.Request) -> web.Response:
        """Ready as long as one worker is: the kernel gives the connections of one that is away to the others."""
        answers = await self._ask("GET", request.path_qs, b"", {})
        ready = sum(status == 200 for status, _ in answers)
        body = {
            "status": "ready" if ready else "not-ready",
            "ready": ready,
            "workers": [{"status": code, "body": said} for code, said in answers],
        }
        return web.json_response(body, status=200 if ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """The sum over workers, so that a scrape sees one process."""
        return web.Response(
            text=render(await self._merged()), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def metrics_json(self, request: web.Request) -> web.Response:
        """The same sum as data."""
        return web.json_response(await self._merged())

    async def _merged(self) -> Snapshot:
        answers = await self._ask("GET", "/metrics.json", b"", {})
        return merge([body for status, body in answers if status == 200])

    async def config(self, request: web.Request) -> web.Response:
        """What the first worker that answers has: all were started with the same."""
        answers = await self._ask("GET", "/config", b"", {})
        status, body = min(answers, key=lambda answer: answer[0])
        return web.json_response(body, status=status)

    async def drain(self, request: web.Request) -> web.Response:
        """The parent stops all of them: a worker that left by itself would be replaced."""
        parent = os.getppid()
        if not self._leaving and parent == self._parent:
            self._leaving = True
            asyncio.get_running_loop().call_later(0.05, os.kill, parent, LEAVE)  # the answer leaves first
        return web.json_response({"status": "draining"}, status=202)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Every worker's events in one stream, each with the worker's number, until the reader leaves or all workers have ended."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        lines: asyncio.Queue[bytes] = asyncio.Queue(1000)
        relays = [asyncio.create_task(_relay(number, session, lines)) for number, session in enumerate(self._sessions)]
        try:
            while not all(relay.done() for relay in relays) or not lines.empty():
                await response.write(await lines.get())
        except ConnectionResetError:
            pass
        finally:
            for relay in relays:
                relay.cancel()
            await asyncio.gather(*relays, return_exceptions=True)
        return response

    async def all(self, request: web.Request) -> web.Response:
        """Every worker's answer; the status is the worst of them, so that a change counts as made only when all have made it."""
        headers = {name: value for name, value in request.headers.items() if name.lower() in ("content-type", "accept")}
        answers = await self._ask(request.method, request.path_qs, await request.read(), headers)
        status = max(status for status, _ in answers)
        return web.json_response({"workers": [{"status": code, "body": body} for code, body in answers]}, status=status)

    async def reload(self, request: web.Request) -> web.Response:
        """The answer of a worker that speaks for all: of the last, as the first is the one that reads and may die of what it reads.

        Another one is asked when there is none; never when it died over this, as the next would, too.
        """
        status, body = 502, {"error": "no worker serves now"}
        for session in reversed(self._sessions):
            try:
                async with session.get("http://localhost/livez"):
                    pass
            except (aiohttp.ClientError, TimeoutError):
                continue
            status, body = await _one(session, "POST", request.path_qs, b"", {})
            break
        return web.json_response({"workers": [{"status": status, "body": body}]}, status=status)

    async def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> list[tuple[int, Any]]:
        return list(await asyncio.gather(*(_one(session, method, path, body, headers) for session in self._sessions)))


async def _one(
    session: aiohttp.ClientSession, method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, Any]:
    try:
        url, patience = f"http://localhost{path}", _CHANGE if method == "POST" else _PATIENCE
        async with session.request(method, url, data=body or None, headers=headers, timeout=patience) as answer:
            if answer.content_type == "application/json":
                return answer.status, await answer.json()
            return answer.status, await answer.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        return 502, {"error": f"a worker did not answer: {type(error).__name__}"}


async def _relay(number: int, session: aiohttp.ClientSession, lines: asyncio.Queue[bytes]) -> None:
    """One worker's events into the queue; the worker's end is an event, too."""
    try:
        async with session.get("http://localhost/events", timeout=aiohttp.ClientTimeout(total=None)) as answer:
            async for line in answer.content:
                if line.startswith(b"data: "):
                    await lines.put(b'data: {"worker": %d, "event": %b}\n\n' % (number, line[6:].strip()))
                elif line.startswith(b":"):
                    await lines.put(b":\n\n")  # a sign of life: whoever has left is noticed by it
    except aiohttp.ClientError:
        pass
    await lines.put(b'data: {"worker": %d, "event": null}\n\n' % number)
