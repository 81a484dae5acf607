"""An ASGI application as a handler: ``from_asgi(app)`` stands wherever an upstream could (ASGI 3.0, HTTP spec 2.4).

Each request runs the application in a task of its own. Bodies stream both ways with back-pressure; when the client leaves, the
application hears ``http.disconnect``. WebSockets need the library websockets: ``blocks[websocket]``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from types import TracebackType
from typing import Any, Literal

from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds

from ..message import Request, Response
from ..refusal import refusal
from .conversation import handshake_refusal
from .exchange import Exchange
from .from_websocket import AsgiSocket
from .lifespan import Lifespan

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

_GRACE = 5.0  # seconds that background tasks have to end at close


class AsgiHandler:
    """Made by ``from_asgi``. ``async with`` runs the application's lifespan; leaving it waits ``grace`` seconds for background tasks."""

    direct = False  # an application may use asyncio.timeout, anyio, contextvars: it gets a task

    def __init__(self, app: App, lifespan: Literal["auto", "on", "off"], root_path: str, grace: float) -> None:
        self.app = app
        self.name = f"asgi:{getattr(app, '__name__', type(app).__name__)}"
        self._lifespan = Lifespan(app, lifespan)
        self._root_path = root_path
        self._grace = grace
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> AsgiHandler:
        await self._lifespan.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=self._grace)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        await self._lifespan.stop()

    async def __call__(self, request: Request) -> Response:
        """The application's answer, as soon as its head (and a short body) is there. Raises ``Failure`` when it fails first."""
        if request.upgrade == "websocket":
            return await self._websocket(request)
        if request.upgrade:
            return refusal(501, "upgrade-not-supported")
        exchange = Exchange(request)
        self._start(exchange.run(self.app, self._scope(request)))
        return await exchange.answer()

    async def _websocket(self, request: Request) -> Response:
        refused = handshake_refusal(request)
        if refused is not None:
            return refused
        scope = self._scope(request)
        offered = request.headers.get("sec-websocket-protocol", "") or ""
        scope |= {
            "type": "websocket",
            "scheme": "wss" if scope["scheme"] == "https" else "ws",
            "subprotocols": [name.strip() for name in offered.split(",") if name.strip()],
            "extensions": {"websocket.http.response": {}},
        }
        del scope["method"]
        socket = AsgiSocket(request)
        self._start(socket.run(self.app, scope))
        return await socket.answer()

    def _start(self, call: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _scope(self, request: Request) -> dict[str, Any]:
        path, _, query = request.target.partition("?")
        peer = request.peer
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1" if request.version == 11 else "1.0",
            "method": request.method,
            "scheme": request.state.get("scheme") or peer.scheme,
            "path": self._root_path + unquoted(path),
            "raw_path": (self._root_path + path).encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "root_path": self._root_path,
            "headers": _fields(request),
            "client": _client(request),
            "server": (peer.server[0], peer.server[1] or None) if peer.server[0] else None,
            "extensions": {"http.response.trailers": {}},
        }
        if request.inform is not None:
            scope["extensions"]["http.response.early_hint"] = {}
        if self._lifespan.state is not None:
            scope["state"] = self._lifespan.state.copy()
        return scope


def from_asgi(
    app: App, *, lifespan: Literal["auto", "on", "off"] = "auto", root_path: str = "", grace: float | str = _GRACE
) -> AsgiHandler:
    """A handler that asks an ASGI application, in process.

    ``lifespan``: ``on`` needs the application to know the protocol, ``auto`` does without when it does not (uvicorn's words).
    ``root_path`` is where the application is mounted. ``grace``: seconds that background tasks have when the handler is left (5).
    """
    if lifespan not in ("auto", "on", "off"):
        raise ConfigError(f"{lifespan!r} is no way to run a lifespan; it is one of auto, on, off")
    return AsgiHandler(app, lifespan, root_path, seconds(grace))


def unquoted(path: str) -> str:
    """A path with its percent-encoding taken off, as UTF-8 (ASGI's ``path``)."""
    if "%" not in path and path.isascii():
        return path
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(path.encode("latin-1")).decode("utf-8", "replace")


def _fields(request: Request) -> list[tuple[bytes, bytes]]:
    """The fields, and Content-Length where the body is bytes that state none: an application may rely on it."""
    pairs = list(request.headers.raw)
    body = request.body
    index = request.headers.section.index
    if isinstance(body, bytes):
        if b"content-length" in index:
            pairs = [pair for pair in pairs if pair[0] != b"content-length"]
        if body or b"content-length" in index:
            pairs.append((b"content-length", b"%d" % len(body)))
    elif b"content-length" not in index:
        pairs.append(
            (b"content-length", b"%d" % body.length) if body.length is not None else (b"transfer-encoding", b"chunked")
        )
    return pairs


def _client(request: Request) -> tuple[str, int] | None:
    """Whom ``forwarded`` found, else the connection's peer."""
    found = request.state.get("client")
    host, port = request.peer.client
    if found and found != host:
        return found, 0
    return (host, port) if host else None
