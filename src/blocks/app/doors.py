"""Every block's own admin routes, for a stack that may hold several of a kind, and other ones after each reload.

``/v1/balancers/NAME/…``, ``/v1/gateways/NAME/…``, ``/v1/edges/NAME/…`` and ``/v1/brokers/NAME/…`` lead to what the block has below
``/v1/<kind>/`` or ``/v1/`` when it runs alone (``/v1/upstreams``, ``/v1/gateway/routes``, ``/v1/edge/purge``, ``/v1/push/…``). The block's
own paths work, too, while there is exactly one of its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from aiohttp import web

from blocks.core.metrics import Metrics, Reading
from blocks.http.admin import METRICS, page

from .node import Node
from .stack import Stack

_KINDS = {"balancers": "balancer", "gateways": "gateway", "edges": "edge", "brokers": "broker"}


def add_routes(app: web.Application, stack: Stack) -> None:
    """``/v1/stack``, the routes of every block of ``stack``, and their figures."""
    doors = _Doors(stack)
    app.router.add_get("/v1/stack", doors.show)
    for kind in _KINDS:
        app.router.add_get(f"/v1/{kind}", doors.listing(kind))
        app.router.add_route("*", f"/v1/{kind}/{{node}}", doors.named(kind))
        app.router.add_route("*", f"/v1/{kind}/{{node}}/{{rest:.*}}", doors.named(kind))
    app.router.add_route("*", "/v1/{rest:.+}", doors.single)
    app[METRICS].collect(lambda: readings(stack))


def readings(stack: Stack) -> Iterable[Reading]:
    """The figures of every block, each with the name of its block as a label; and how the last reload went."""
    prefix = "blocks_stack"
    yield Reading(f"{prefix}_reloads_total", "counter", "Reloads that came to be in force.", (), stack.reloads)
    yield Reading(f"{prefix}_loaded_timestamp_seconds", "gauge", "When that was, or the start.", (), stack.loaded)
    right = 0 if stack.last_error else 1
    yield Reading(f"{prefix}_last_reload_successful", "gauge", "0: the file of now is not in force.", (), right)
    for node in stack.version.nodes.values():
        kind = _KINDS.get(node.kind)
        if kind is None:
            continue
        own = (kind, node.name)
        for reading in _FIGURES[node.kind](node):
            yield reading if own in reading.labels else reading._replace(labels=(own, *reading.labels))


def _of_balancer(node: Node) -> Iterable[Reading]:
    figures: Iterable[Reading] = node.block.readings()
    return figures


def _of_gateway(node: Node) -> Iterable[Reading]:
    figures: Iterable[Reading] = node.block.gateway.readings()
    return figures


def _of_edge(node: Node) -> Iterable[Reading]:
    from blocks.edge.readings import readings as of_edge

    return of_edge(node.block)


def _of_broker(node: Node) -> Iterable[Reading]:
    from blocks.broker.readings import readings as of_broker

    return of_broker(node.block)


_FIGURES: Mapping[str, Callable[[Node], Iterable[Reading]]] = {
    "balancers": _of_balancer,
    "gateways": _of_gateway,
    "edges": _of_edge,
    "brokers": _of_broker,
}


class _Doors:
    """The routes. A block's own are made when they are first asked for, and forgotten with the block."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._apps: WeakKeyDictionary[Any, web.Application] = WeakKeyDictionary()

    async def show(self, request: web.Request) -> web.Response:
        """What there is: every node with its kind, its health, and whom it needs."""
        from blocks.http.handler import status_of

        rows = [
            {
                "name": node.name,
                "kind": node.kind,
                "health": status_of(node.block).name,
                "needs": list(node.needs),
            }
            for node in self._stack.version.in_order()
        ]
        return page(request, rows)

    def listing(self, kind: str) -> Callable[[web.Request], Any]:
        """The names of a kind."""

        async def names(request: web.Request) -> web.Response:
            return page(request, sorted(self._stack.of_kind(kind)))

        return names

    def named(self, kind: str) -> Callable[[web.Request], Any]:
        """To the block of that kind and name."""

        async def pass_on(request: web.Request) -> web.StreamResponse:
            nodes = self._stack.of_kind(kind)
            node = nodes.get(request.match_info["node"])
            if node is None:
                return web.json_response(
                    {"error": f"there is none of that name; {kind}: {', '.join(nodes)}"}, status=404
                )
            rest = request.match_info.get("rest", "").strip("/").removeprefix("v1/")
            single = _KINDS[kind]
            paths = [f"/v1/{single}/{rest}", f"/v1/{rest}"] if rest else [f"/v1/{single}"]
            return await self._ask(node, request, paths)

        return pass_on

    async def single(self, request: web.Request) -> web.StreamResponse:
        """A block's own path, where there is one of its kind alone."""
        path = request.path
        found: list[tuple[Node, Any]] = []
        for kind in _KINDS:
            for node in self._stack.of_kind(kind).values():
                match = await self._match(node, request, path)
                if match is not None:
                    found.append((node, match))
        if len(found) == 1:
            return await _run(*found[0][1])
        if not found:
            return web.json_response({"error": "there is nothing at this path"}, status=404)
        names = ", ".join(f"/v1/{node.kind}/{node.name}/…" for node, _ in found)
        return web.json_response({"error": f"which one is meant? ask {names}"}, status=409)

    async def _ask(self, node: Node, request: web.Request, paths: list[str]) -> web.StreamResponse:
        for path in paths:
            match = await self._match(node, request, path)
            if match is not None:
                return await _run(*match)
        return web.json_response({"error": f"{node.kind}.{node.name} has nothing at this path"}, status=404)

    async def _match(self, node: Node, request: web.Request, path: str) -> tuple[web.Request, Any] | None:
        """The request as the block's own routes see it, and the route; None when there is none."""
        if node.kind == "gateways" and path == "/v1/gateway/reload" and not node.members.get("file"):
            return None  # its tables are the stack's, which POST /v1/reload reads again
        inner = request.clone(rel_url=request.rel_url.with_path(path).with_query(request.rel_url.query))
        found = await self._app(node).router.resolve(inner)
        return None if found.http_exception is not None and found.http_exception.status == 404 else (inner, found)

    def _app(self, node: Node) -> web.Application:
        app = self._apps.get(node.block)
        if app is None:
            app = self._apps[node.block] = web.Application()
            app[METRICS] = Metrics()  # which nobody reads: the figures are collected with the block's name, above
            _routes_of(node)(app, node.block)
        return app


async def _run(request: web.Request, found: Any) -> web.StreamResponse:
    request._match_info = found
    answer: web.StreamResponse = await found.handler(request)
    return answer


def _routes_of(node: Node) -> Callable[[web.Application, Any], None]:
    if node.kind == "balancers":
        from blocks.balancer.admin import add_routes as of_balancer

        return of_balancer
    if node.kind == "gateways":
        from blocks.gateway.admin import add_routes as of_gateway

        return of_gateway
    if node.kind == "edges":
        from blocks.edge.admin import routes as of_edge

        return of_edge
    from blocks.broker.backdoor import add_routes as of_broker

    return of_broker
