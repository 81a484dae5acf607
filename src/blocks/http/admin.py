"""The admin API on its own listener: health, metrics, topology, events, and what a block adds. Its traffic is not counted as traffic.

GET never changes anything. Off loopback a bearer token is asked for, always; Host and Origin are checked on loopback too, so that a
web page in an operator's browser can neither read nor change anything (DNS rebinding, cross-site requests).
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from aiohttp import web

from blocks.core.errors import ConfigError
from blocks.core.logging import events
from blocks.core.metrics import Metrics, Reading
from blocks.core.status import Status

from .handler import Handler, status_of, topology, walk
from .options import Serving
from .server import CannotBind, Server, parse_address

if TYPE_CHECKING:
    from .worker import Extend

SERVER: web.AppKey[Server] = web.AppKey("server", Server)
METRICS: web.AppKey[Metrics] = web.AppKey("metrics", Metrics)
_Next = Callable[[web.Request], Awaitable[web.StreamResponse]]
_MAX_BODY = 1024 * 1024  # bytes of a request to the admin API


def admin_token(serving: Serving) -> str | None:
    """The token that callers must show, or None on loopback and Unix sockets. Raises ``ConfigError`` when one is needed and missing."""
    if serving.admin_token_file is not None:
        token = Path(serving.admin_token_file).read_text(encoding="utf-8").strip()
        if len(token) < 16:
            raise ConfigError(f"{serving.admin_token_file}: an admin token has at least 16 characters")
        return token
    assert serving.admin is not None
    address = parse_address(serving.admin)
    if isinstance(address, str) or _is_loopback(address[0]):
        return None
    raise ConfigError(
        f"--admin {serving.admin} can be reached from other machines: give it --admin-token-file, or listen on 127.0.0.1"
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def guard(token: str | None) -> Any:
    """The middleware that lets only the operator in."""
    expected = f"Bearer {token}".encode() if token is not None else None

    @web.middleware
    async def check(request: web.Request, handler: _Next) -> web.StreamResponse:
        if expected is not None:
            if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), expected):
                return web.json_response(
                    {"error": "a bearer token is needed"}, status=401, headers={"WWW-Authenticate": "Bearer"}
                )
        elif not _is_loopback(request.url.host or "localhost"):
            return web.json_response({"error": "Host must be a loopback name: this API has no token"}, status=421)
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"{request.scheme}://{request.host}":
            return web.json_response({"error": "cross-origin requests are refused"}, status=403)
        return await handler(request)

    return check


class Admin:
    """The admin API of one process. As an async context manager it gives the address it listens on."""

    def __init__(self, block: str, server: Server, serving: Serving, extend: Extend | None) -> None:
        self.on_drain: Callable[[], None] = lambda: None
        self.metrics = Metrics()
        self._block = block
        self._server = server
        self._serving = serving
        self._started = time.time()
        self._runner: web.AppRunner | None = None
        self._measure()
        self._app = app = web.Application(middlewares=[guard(admin_token(serving))], client_max_size=_MAX_BODY)
        app[SERVER] = server
        app[METRICS] = self.metrics
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/metrics.json", self._metrics_json),
                web.get("/v1/status", self._status),
                web.get("/v1/topology", self._topology),
                web.get("/v1/events", self._recent),
                web.get("/events", self._events),
                web.post("/v1/drain", self._drain),
            ]
        )
        if extend is not None:
            extend(app, server.handler)

    async def __aenter__(self) -> str:
        assert self._serving.admin is not None
        self._runner = web.AppRunner(self._app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        return await listen(self._runner, self._serving.admin)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def _measure(self) -> None:
        """The server's own numbers, and those of every part that has ``readings()``."""
        server = self._server

        def readings() -> Iterable[Reading]:
            service = server.service
            if service is not None:
                prefix = "blocks_http"
                yield Reading(f"{prefix}_requests_total", "counter", "Requests taken.", (), service.requests)
                yield Reading(
                    f"{prefix}_malformed_total", "counter", "Messages refused as malformed.", (), service.malformed
                )
                yield Reading(
                    f"{prefix}_refused_connections_total", "counter", "Connections over the limit.", (), service.refused
                )
                yield Reading(
                    f"{prefix}_open_connections", "gauge", "Client connections.", (), len(service.connections)
                )
            for part in walk(server.handler):
                own = getattr(part, "readings", None)
                if own is not None:
                    yield from own()

        self.metrics.collect(readings)

    async def _livez(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "live"})

    async def _readyz(self, request: web.Request) -> web.Response:
        service = self._server.service
        draining = service is None or service.draining
        status = status_of(self._server.handler)
        ready = not draining and status > Status.CLOSED
        body: dict[str, Any] = {
            "status": "ready" if ready else "not-ready",
            "health": status.name,
            "draining": draining,
        }
        if "verbose" in request.query:
            body["parts"] = [
                {"part": name, "health": status_of(node).name} for _, name, node in topology(self._server.handler)
            ]
        return web.json_response(body, status=200 if ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            text=self.metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _metrics_json(self, request: web.Request) -> web.Response:
        return web.json_response(self.metrics.snapshot())

    async def _status(self, request: web.Request) -> web.Response:
        service = self._server.service
        return web.json_response(
            {
                "block": self._block,
                "listen": self._server.addresses,
                "uptime": round(time.time() - self._started, 3),
                "health": status_of(self._server.handler).name,
                "requests": service.requests if service else 0,
                "connections": len(service.connections) if service else 0,
            }
        )

    async def _topology(self, request: web.Request) -> web.Response:
        rows = [
            {"depth": depth, "part": name, "health": status_of(node).name}
            for depth, name, node in topology(self._server.handler)
        ]
        return web.json_response(rows)

    async def _recent(self, request: web.Request) -> web.Response:
        return web.Response(text=json.dumps(events().recent(), default=str), content_type="application/json")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Every event from now on, as server-sent events; a reader that does not keep up misses some and is told how many."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        waiting: asyncio.Queue[Any] = asyncio.Queue(1000)
        missed = 0

        def receive(event: Any) -> None:
            nonlocal missed
            try:
                waiting.put_nowait(event)
            except asyncio.QueueFull:
                missed += 1

        end = events().subscribe(receive)
        try:
            while True:
                event = await waiting.get()
                if missed:
                    event, missed = {**event, "missed": missed}, 0
                await response.write(b"data: " + json.dumps(event, default=str).encode() + b"\n\n")
        except ConnectionResetError:
            return response
        finally:
            end()

    async def _drain(self, request: web.Request) -> web.Response:
        asyncio.get_running_loop().call_later(0.05, self.on_drain)  # the answer leaves first
        return web.json_response({"status": "draining"}, status=202)


async def listen(runner: web.AppRunner, address: str) -> str:
    """Listen on ``address``; where it really is. Raises ``CannotBind``."""
    parsed = parse_address(address)
    site: web.BaseSite
    site = web.UnixSite(runner, parsed) if isinstance(parsed, str) else web.TCPSite(runner, parsed[0], parsed[1])
    try:
        await site.start()
    except OSError as error:
        raise CannotBind(error.errno, f"cannot listen on {address}: {error.strerror or error}") from error
    if isinstance(parsed, str):
        return address
    host, port = runner.addresses[-1][:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def part_of(handler: Handler, kind: type[Any]) -> Any:
    """The first part of that kind in a composition: what a block's own routes are about."""
    return next(part for part in walk(handler) if isinstance(part, kind))
