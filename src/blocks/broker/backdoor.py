"""Health, metrics and lists of one broker over HTTP, for its operator: GET only, and only to this machine.

``/livez`` and ``/readyz`` (503 when it takes nothing), ``/metrics`` (Prometheus text), ``/topics``, ``/groups``, ``/lag``, ``/stats``.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from blocks.core.errors import ConfigError
from blocks.core.status import Status

from .address import Address
from .errors import BrokerError
from .security import is_loopback

if TYPE_CHECKING:
    from aiohttp import web

    from .broker import Broker


LABELS = 100  # groups with a lag of their own in /metrics
_COUNTERS = frozenset({"published", "duplicates", "refused", "delivered", "acked", "dead_letters", "scheduled"})


class BackDoor:
    """Listens on ``listen``, which must be loopback, while its context is open. Raises ``ConfigError``."""

    def __init__(self, broker: Broker, *, listen: str) -> None:
        self._broker = broker
        self._address = Address.parse(listen)
        if not is_loopback(self._address.host):
            raise ConfigError(f"the admin address {listen} must be on this machine: it asks nobody who they are")
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens, with the real port."""
        return f"http://{self._address}"

    async def __aenter__(self) -> BackDoor:
        from aiohttp import web

        app = web.Application()
        for path, answer in _ANSWERS.items():
            app.router.add_get(path, self._handler(answer))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._address.host, self._address.port)
        await site.start()
        self._address = self._address.with_port(self._runner.addresses[0][1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def _handler(
        self, answer: Callable[[Any, Any], tuple[int, Any]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            from aiohttp import web

            host = request.host.rpartition(":")[0] or request.host
            if not is_loopback(host.strip("[]")) or "Origin" in request.headers:
                return web.Response(status=403, text="for this machine only\n")
            try:
                status, value = answer(self._broker.engine, request.query)
            except BrokerError as error:
                status, value = error.status, {"error": error.code, "message": str(error)}
            if isinstance(value, str):
                return web.Response(status=status, text=value)
            return web.Response(status=status, text=json.dumps(value), content_type="application/json")

        return handle


def _livez(engine: Any, query: Any) -> tuple[int, Any]:
    return 200, "ok\n"


def _readyz(engine: Any, query: Any) -> tuple[int, Any]:
    status = 503 if engine.status is Status.CLOSED else 200
    if "verbose" in query:
        return status, {"status": engine.status.name, "damage": list(engine.damage)}
    return status, f"{engine.status.name.lower()}\n"


def _metrics(engine: Any, query: Any) -> tuple[int, Any]:
    lines = []
    for name, value in engine.stats().items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            kind, full = ("counter", f"{name}_total") if name in _COUNTERS else ("gauge", name)
            lines.append(f"# TYPE blocks_broker_{full} {kind}\nblocks_broker_{full} {value}\n")
    lines.append(f"# TYPE blocks_broker_status gauge\nblocks_broker_status {int(engine.status)}\n")
    lags: dict[str, int] = {}
    for row in engine.lag():
        if row["group"] in lags or len(lags) < LABELS:
            lags[row["group"]] = lags.get(row["group"], 0) + row["lag"]
    if lags:
        lines.append("# TYPE blocks_broker_group_lag gauge\n")
        lines += [f'blocks_broker_group_lag{{group="{_escaped(group)}"}} {lag}\n' for group, lag in lags.items()]
    return 200, "".join(lines)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


_ANSWERS: dict[str, Callable[[Any, Any], tuple[int, Any]]] = {
    "/livez": _livez,
    "/readyz": _readyz,
    "/metrics": _metrics,
    "/topics": lambda engine, query: (200, engine.topics(query.get("pattern", ">"))),
    "/groups": lambda engine, query: (200, engine.groups()),
    "/lag": lambda engine, query: (200, engine.lag(query.get("group"))),
    "/stats": lambda engine, query: (200, engine.stats()),
}
