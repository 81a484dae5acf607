"""The admin API on its own listener: health, metrics, settings, topology, events, reload and drain, and what a block adds.

GET never changes anything, and a POST that is repeated changes nothing more. Its traffic is not counted as traffic. See ``guard`` for
who may ask.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from blocks.core.clock import SYSTEM
from blocks.core.config.complaint import ConfigErrors
from blocks.core.config.report import report_error, rows_of
from blocks.core.errors import ConfigError
from blocks.core.logging import events
from blocks.core.masking import masked
from blocks.core.metrics import Metrics, Reading
from blocks.core.status import Status, worst

from .guard import guard, read_token
from .handler import Handler, status_of, topology, walk
from .meter import Labels, Meter
from .options import Serving
from .server import CannotBind, parse_address
from .service import Service

if TYPE_CHECKING:
    from .job import Extend

R = TypeVar("R")

METRICS: web.AppKey[Metrics] = web.AppKey("metrics", Metrics)
_MAX_BODY = 1024 * 1024  # bytes of a request to the admin API
_PAGE, _MOST = 100, 1000  # rows of an answer, unless asked otherwise, and at most
_KEEPALIVE = 15.0  # seconds of silence after which a reader of events gets a comment: half of what proxies allow
_READERS = 64  # of events at a time


async def _nothing_to_reload() -> Mapping[str, Any]:
    return {"status": "reloaded"}


@dataclass
class Subject:
    """What an admin API is about. All of it is asked anew with every request, so that it may change while the process runs.

    ``roots`` are the compositions whose parts are walked for health, topology and readings (a broker is one, too); ``services`` what
    serves them, by the listener's name ("" for the only one), with their meters; ``places`` says which listener is where when there are
    several (``servers``, ``brokers``); ``settings`` what is in force, and ``secrets`` texts in it to mask; ``facts`` what ``/v1/status``
    says of the configuration (``digest``, ``loaded``, ``last_error``).
    ``reload`` answers when all is done; it raises ``ConfigError`` when the old configuration stays in force. ``drain`` begins to leave.
    """

    block: str
    roots: Callable[[], Sequence[object]]
    services: Callable[[], Mapping[str, Service]] = dict
    meters: Callable[[], Mapping[str, Meter]] = dict
    listen: Callable[[], Sequence[str]] = tuple
    places: Callable[[], Mapping[str, Any]] = dict
    settings: Callable[[], Any] = dict
    secrets: Callable[[], Iterable[str]] = tuple
    facts: Callable[[], Mapping[str, Any]] = dict
    draining: Callable[[], bool] = lambda: False
    drain: Callable[[], None] = lambda: None
    reload: Callable[[], Awaitable[Mapping[str, Any]]] = _nothing_to_reload

    @property
    def health(self) -> Status:
        """As well as the worst of the roots."""
        return worst(status_of(root) for root in self.roots())

    def parts(self) -> list[dict[str, Any]]:
        """Every part of every root, the outer first: ``depth``, ``part``, ``health``."""
        return [
            {"depth": depth, "part": name, "health": status_of(node).name}
            for root in self.roots()
            for depth, name, node in topology(root)
        ]


class Admin:
    """The admin API of one process. As an async context manager it gives the address it listens on."""

    def __init__(self, subject: Subject, serving: Serving, extend: Extend | None = None) -> None:
        self.metrics = Metrics()
        self._subject = subject
        self._serving = serving
        self._started = SYSTEM.wall()
        self._runner: web.AppRunner | None = None
        self._readers = 0
        self._leaving = False
        self.metrics.collect(self._readings)
        assert serving.admin is not None
        checks = [guard(read_token(serving.admin, serving.admin_token_file))]
        self._app = app = web.Application(middlewares=checks, client_max_size=_MAX_BODY)
        app[METRICS] = self.metrics
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/metrics.json", self._metrics_json),
                web.get("/config", self._config),
                web.get("/v1/status", self._status),
                web.get("/v1/topology", self._topology),
                web.get("/v1/events", self._recent),
                web.get("/events", self._events),
                web.post("/v1/drain", self._drain),
                web.post("/v1/reload", self._reload),
            ]
        )
        if extend is not None:
            extend(app, subject.roots()[0])

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

    def _readings(self) -> Iterable[Reading]:
        """The servers' own numbers, and those of every part that has ``readings()``."""
        subject = self._subject
        for name, service in subject.services().items():
            yield from _of_service(service, (("server", name),) if name else ())
        for name, meter in subject.meters().items():
            yield from meter.readings((("server", name),) if name else ())
        seen: set[int] = set()
        for root in subject.roots():
            for part in walk(root):
                own = getattr(part, "readings", None)
                if own is not None and id(part) not in seen:
                    seen.add(id(part))
                    yield from own()

    async def _livez(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "live"})

    async def _readyz(self, request: web.Request) -> web.Response:
        subject = self._subject
        draining, health = subject.draining(), subject.health
        ready = not draining and health > Status.CLOSED
        body: dict[str, Any] = {
            "status": "ready" if ready else "not-ready",
            "health": health.name,
            "draining": draining,
        }
        if "verbose" in request.query:
            body["parts"] = subject.parts()[:_MOST]
        return web.json_response(body, status=200 if ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            text=self.metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _metrics_json(self, request: web.Request) -> web.Response:
        return web.json_response(self.metrics.snapshot())

    async def _config(self, request: web.Request) -> web.Response:
        """The effective settings, secrets masked."""
        subject = self._subject
        shown = masked(subject.settings(), list(subject.secrets()))
        return web.json_response({"block": subject.block, **subject.facts(), "settings": shown})

    async def _status(self, request: web.Request) -> web.Response:
        subject = self._subject
        services = subject.services().values()
        parts = subject.parts()
        return web.json_response(
            {
                "block": subject.block,
                "version": _version(),
                "pid": os.getpid(),
                "listen": list(subject.listen()),
                **subject.places(),
                "started": round(self._started, 3),
                "uptime": round(SYSTEM.wall() - self._started, 3),
                "health": subject.health.name,
                "draining": subject.draining(),
                "requests": sum(service.requests for service in services),
                "connections": sum(len(service.connections) for service in services),
                "config": dict(subject.facts()),
                "parts": parts[:_PAGE],
                "parts_total": len(parts),
            }
        )

    async def _topology(self, request: web.Request) -> web.Response:
        return page(request, self._subject.parts())

    async def _recent(self, request: web.Request) -> web.Response:
        """The events that are remembered, the oldest first; ``?last=N`` gives the last N of them."""
        last = number(request, "last", _MOST)
        return page(request, events().recent(last), _MOST)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Every event from now on, as server-sent events; a reader that does not keep up misses some and is told how many."""
        if self._readers >= _READERS:
            return web.json_response({"error": f"{_READERS} readers follow the events already"}, status=503)
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
        self._readers += 1
        try:
            while True:
                event = await _next(waiting)
                if event is None:
                    await response.write(b":\n\n")
                    continue
                if missed:
                    event, missed = {**event, "missed": missed}, 0
                await response.write(b"data: " + json.dumps(event, default=str).encode() + b"\n\n")
        except ConnectionResetError:
            return response
        finally:
            self._readers -= 1
            end()

    async def _drain(self, request: web.Request) -> web.Response:
        if not self._leaving:  # asked once more, it goes on draining: only a second signal is in a hurry
            self._leaving = True
            asyncio.get_running_loop().call_later(0.05, self._subject.drain)  # the answer leaves first
        return web.json_response({"status": "draining"}, status=202)

    async def _reload(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(dict(await self._subject.reload()))
        except ConfigError as error:
            return web.json_response(refusal(error), status=422)


@cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("blocks")
    except PackageNotFoundError:  # a source tree that is not installed
        return "unknown"


def refusal(error: ConfigError) -> dict[str, Any]:
    """Why a configuration was refused: ``error`` in a line, ``report`` for people, ``complaints`` with their places for programs."""
    if not isinstance(error, ConfigErrors):
        return {"error": str(error), "report": str(error), "complaints": []}
    own: Callable[[], str] | None = getattr(error, "report", None)
    name = str(error.source.path) if error.source is not None else "configuration"
    text = own() if own is not None else report_error(error, name)
    rows = getattr(error, "rows", None)
    return {"error": str(error), "report": text, "complaints": rows() if rows is not None else rows_of(error, name)}


def page(
    request: web.Request, rows: Sequence[R], default: int = _PAGE, *, describe: Callable[[R], Any] = lambda row: row
) -> web.Response:
    """``?offset=&limit=`` of ``rows`` as a JSON array; ``X-Total-Count`` says how many there are, ``Link`` where to go on (RFC 8288).

    Only the rows of the page are described: what a row costs is paid for at most 1,000 times.
    """
    start, limit = number(request, "offset", 0), min(max(number(request, "limit", default), 1), _MOST)
    headers = {"X-Total-Count": str(len(rows))}
    if start + limit < len(rows):
        onward = request.rel_url.update_query(offset=start + limit, limit=limit)
        headers["Link"] = f'<{onward}>; rel="next"'
    text = json.dumps([describe(row) for row in rows[start : start + limit]], default=str)
    return web.Response(text=text, content_type="application/json", headers=headers)


def number(request: web.Request, name: str, default: int) -> int:
    """A number of the query; what is none, or too long, counts as not given."""
    value = request.query.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else default


async def _next(waiting: asyncio.Queue[Any]) -> Any:
    """The next event; None when there was none for a while."""
    try:
        return await asyncio.wait_for(waiting.get(), _KEEPALIVE)
    except TimeoutError:
        return None


def _of_service(service: Service, labels: Labels) -> Iterable[Reading]:
    prefix = "blocks_http"
    yield Reading(f"{prefix}_requests_total", "counter", "Requests taken.", labels, service.requests)
    yield Reading(f"{prefix}_malformed_total", "counter", "Messages refused as malformed.", labels, service.malformed)
    yield Reading(
        f"{prefix}_refused_connections_total", "counter", "Connections over the limit.", labels, service.refused
    )
    yield Reading(f"{prefix}_open_connections", "gauge", "Client connections.", labels, len(service.connections))


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
