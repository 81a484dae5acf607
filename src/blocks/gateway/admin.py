"""The gateway's part of the admin API: routes, who is limited, the history, and reload, roll back and abort."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from blocks.core.errors import ConfigError
from blocks.http.admin import page, part_of
from blocks.http.handler import Handler

from .documents import openapi
from .explain import explain, service_name
from .front import Front

_MAX_HEADERS = 64


def add_routes(app: web.Application, handler: Handler) -> None:
    """``/v1/gateway`` and what is below it."""
    doors = _Doors(part_of(handler, Front))
    app.add_routes(
        [
            web.get("/v1/gateway", doors.show),
            web.get("/v1/gateway/routes", doors.routes),
            web.get("/v1/gateway/limited", doors.limited),
            web.get("/v1/gateway/history", doors.history),
            web.get("/v1/gateway/explain", doors.explain),
            web.get("/v1/gateway/openapi", doors.openapi),
            web.post("/v1/gateway/reload", doors.reload),
            web.post("/v1/gateway/rollback", doors.roll_back),
            web.post("/v1/gateway/abort", doors.abort),
        ]
    )


class _Doors:
    """The routes of the admin API."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def show(self, request: web.Request) -> web.Response:
        front = self._front
        body = {
            "config": str(front.path),
            "digest": front.gateway.snapshot.label,
            "routes": len(front.gateway.snapshot.lanes),
            "trial": front.changes.trial,
            "last_error": front.last_error,
            "alerts": {watch.rule.name: list(watch.firing()) for watch in front.alerts.watches},
        }
        return web.json_response(body)

    async def routes(self, request: web.Request) -> web.Response:
        return page(request, list(self._front.gateway.snapshot.lanes.items()), 1000, describe=_row)

    async def limited(self, request: web.Request) -> web.Response:
        return web.json_response(self._front.gateway.top.most(50))

    async def history(self, request: web.Request) -> web.Response:
        return web.json_response(self._front.changes.table())

    async def explain(self, request: web.Request) -> web.Response:
        query = request.query
        if "url" not in query:
            return _refused("which request? ask with ?method=GET&url=/orders/7")
        pairs = [tuple(one.split(":", 1)) for one in query.getall("header", [])[:_MAX_HEADERS] if ":" in one]
        headers = [(name.strip(), value.strip()) for name, value in pairs]
        try:
            told = explain(
                self._front.gateway.snapshot, query.get("method", "GET"), query["url"], headers,
                client=query.get("client", "127.0.0.1"),
            )  # fmt: skip
        except ValueError as error:
            return _refused(str(error))
        return web.json_response(told)

    async def openapi(self, request: web.Request) -> web.Response:
        return web.json_response(openapi(self._front.gateway.snapshot))

    async def reload(self, request: web.Request) -> web.Response:
        """Answers when the trial is over; ``?share=1`` swaps at once."""
        try:
            share = float(request.query["share"]) if "share" in request.query else None
            judgement = await self._front.apply(share=share)
        except ValueError as error:  # a ConfigError is one, too
            return web.json_response({"error": self._front.last_error or str(error)}, status=422)
        status = 200 if judgement.verdict == "promote" else 409
        return web.json_response({"verdict": judgement.verdict, "why": judgement.why}, status=status)

    async def roll_back(self, request: web.Request) -> web.Response:
        try:
            label = await self._front.changes.roll_back(request.query.get("label"))
        except ConfigError as error:
            return web.json_response({"error": str(error)}, status=409)
        return web.json_response({"digest": label})

    async def abort(self, request: web.Request) -> web.Response:
        running = self._front.changes.trial is not None
        self._front.changes.abort()
        return web.json_response({"aborted": running})


def _row(pair: tuple[Any, Any]) -> dict[str, Any]:
    """A route with its figures."""
    route, lane = pair
    figures = lane.figures
    p50, p99 = figures.durations.quantiles((0.5, 0.99))
    return {
        "route": route.name,
        "path": route.template.text,
        "steps": list(lane.plan.names),
        "service": service_name(lane),
        "requests": figures.requests,
        "errors": figures.classes[5] + figures.classes[0],
        "refused": dict(figures.refused_by),
        "p50": round(p50, 6),
        "p99": round(p99, 6),
    }


def _refused(words: str) -> web.Response:
    return web.json_response({"error": words}, status=400)
