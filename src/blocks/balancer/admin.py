"""The balancer's part of the admin API: its endpoints, and adding, removing, weighing and draining them at run time."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

from aiohttp import web

from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds
from blocks.http.admin import part_of
from blocks.http.handler import Handler

from .balancer import LoadBalancer

_PAGE = 100  # rows of an answer


def add_routes(app: web.Application, handler: Handler) -> None:
    """``/v1/upstreams`` and what is below it."""
    doors = _Doors(part_of(handler, LoadBalancer))
    app.add_routes(
        [
            web.get("/v1/balancer", doors.show),
            web.get("/v1/upstreams", doors.list),
            web.post("/v1/upstreams", doors.add),
            web.patch("/v1/upstreams", doors.change),
            web.delete("/v1/upstreams", doors.remove),
            web.post("/v1/upstreams/drain", doors.drain),
            web.post("/v1/upstreams/restore", doors.restore),
        ]
    )


class _Doors:
    """The routes. An upstream is named in the query or the body, as its name is usually a URL; every change may be repeated safely."""

    def __init__(self, balancer: LoadBalancer) -> None:
        self._balancer = balancer

    async def show(self, request: web.Request) -> web.Response:
        return web.json_response(self._balancer.snapshot())

    async def list(self, request: web.Request) -> web.Response:
        rows = self._balancer.snapshot()["endpoints"]
        start, limit = _number(request, "offset", 0), min(_number(request, "limit", _PAGE), 1000)
        page = rows[start : start + limit]
        return web.json_response({"total": len(rows), "offset": start, "upstreams": page})

    async def add(self, request: web.Request) -> web.Response:
        body = await _body(request)
        name = str(body.get("name") or body.get("url") or "")
        if not body.get("url"):
            return _refused('which upstream? send {"url": "http://127.0.0.1:9003", "weight": 1}')
        if any(endpoint.name == name for endpoint in self._balancer.endpoints):
            return web.json_response({"upstream": name, "added": False})
        settings = {key: body[key] for key in ("name", "weight", "zone", "priority", "metadata") if key in body}
        return await self._try(name, lambda: self._balancer.add(str(body["url"]), **settings), 201)

    async def change(self, request: web.Request) -> web.Response:
        body = await _body(request)
        name = str(body.get("name") or "")
        weight = body.get("weight")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            return _refused('send {"name": …, "weight": a number}')
        return await self._try(name, lambda: self._balancer.weigh(name, float(weight)))

    async def remove(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        return await self._try(name, lambda: self._balancer.remove(name, _grace(request.query.get("timeout"))))

    async def drain(self, request: web.Request) -> web.Response:
        body = await _body(request)
        name = str(body.get("name") or "")
        return await self._try(name, lambda: self._balancer.drain(name, _grace(body.get("timeout"))), 202)

    async def restore(self, request: web.Request) -> web.Response:
        name = str((await _body(request)).get("name") or "")
        return await self._try(name, lambda: self._balancer.restore(name))

    async def _try(self, name: str, act: Callable[[], Any], status: int = 200) -> web.Response:
        try:
            result = act()
            if inspect.iscoroutine(result):
                await result  # a drain goes on after the answer; /v1/upstreams shows when nothing is active any more
        except (ConfigError, KeyError) as error:
            known = [endpoint.name for endpoint in self._balancer.endpoints]
            return web.json_response(
                {"error": str(error.args[0]) if error.args else str(error), "upstreams": known}, status=404
            )
        rows = [row for row in self._balancer.snapshot()["endpoints"] if row["name"] == name]
        return web.json_response({"upstream": name, "now": rows[0] if rows else None}, status=status)


def _grace(value: Any) -> float | None:
    return None if value is None else seconds(value)


def _number(request: web.Request, name: str, default: int) -> int:
    value = request.query.get(name, "")
    return int(value) if value.isdigit() and len(value) < 10 else default


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        raise web.HTTPBadRequest(text='{"error": "the body is not JSON"}', content_type="application/json") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text='{"error": "the body is not a JSON object"}', content_type="application/json")
    return body


def _refused(why: str) -> web.Response:
    return web.json_response({"error": why}, status=400)
