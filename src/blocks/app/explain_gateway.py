"""What a request would meet in a gateway of a stack, and whom the gateway would ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from blocks.core.quantities import seconds
from blocks.http.handler import walk
from blocks.http.message import Request

from .slot import Slot

Ask = tuple[str, str, tuple[float, float] | None]  # a NAME or a URL, when it is asked, and the timeouts of a URL


def explain(front: Any, request: Request, consumer: str = "", tier: str = "") -> tuple[dict[str, Any], list[Ask]]:
    """What the gateway says of the request, and what it would ask; ``request`` becomes what its service would get."""
    from blocks.gateway.consumer import Consumer
    from blocks.gateway.explain import explain as explained

    snapshot = front.gateway.snapshot
    fields = [(name, value) for name, value in request.headers.items()]
    who = Consumer(consumer, tier=tier, method="explain") if consumer else None
    client = str(request.peer.client[0])
    told = explained(snapshot, request.method, request.target, fields, client=client, consumer=who)
    says: dict[str, Any] = {
        key: told[key] for key in ("client", "path", "status", "why", "route", "template", "params") if key in told
    }
    if "route" not in told:
        return says, []
    lane, context = _lane(front, request, told)
    says["steps"] = told["steps"]
    if lane.route.timeout is not None:
        says["timeout"] = lane.route.timeout
    before = (request.method, request.target)
    if not _transformed(lane, request, context):
        says["note"] = "transform depends on the body: what the service is asked for is not known here"
    elif (request.method, request.target) != before:
        says["transformed"] = f"{request.method} {request.target}"
    asks = list(_asks(front, lane))
    for end in ("publish", "subscribe", "compose", "jobs"):
        if end == told["service"]:
            says["answer"] = end
            says |= _messages(front, lane, end)
    if not asks and "answer" not in says:
        says["answer"] = told["service"]
    return says, asks


def _messages(front: Any, lane: Any, end: str) -> dict[str, Any]:
    """The broker and the topic of a route that publishes or subscribes, as the file has them."""
    for table in front.loaded.settings.routes:
        given = table.get(end)
        if table.get("path") == lane.route.template.text and isinstance(given, dict):
            broker = given.get("to") or given.get("source")
            return {"broker": broker, "topic": given.get("topic")} if broker else {}
    return {}


def _lane(front: Any, request: Request, told: dict[str, Any]) -> tuple[Any, Any]:
    from blocks.gateway.context import Context

    _, params, path = front.gateway.snapshot.find(request)
    lanes = front.gateway.snapshot.lanes.values()
    lane = next(
        one for one in lanes if one.route.name == told["route"]
    )  # of several with weights, the one that was told
    return lane, Context(lane.route, params, path, told["client"], 0.0)


def _transformed(lane: Any, request: Request, context: Any) -> bool:
    """Change the request as the route's transform does; False when it needs a body."""
    for step in lane.plan.steps:
        if step.name == "transform":
            try:
                return step.check(request, context) is None
            except Exception:  # a template may name what only a real request has
                return False
    return True


def _asks(front: Any, lane: Any) -> Iterator[Ask]:
    """The service, then those of the steps (canary, mirror)."""
    yield from _named(front, lane.route.handler, "")
    for step in lane.plan.steps:
        for part in getattr(step, "parts", ()):
            yield from _named(front, part, step.name)


def _named(front: Any, part: object, when: str) -> Iterator[Ask]:
    from blocks.gateway.config.services import Service

    seen: set[str] = set()
    for one in walk(part):
        name = ""
        timeouts = None
        if isinstance(one, Slot):
            name = one.name
        elif isinstance(one, Service):
            table = front.loaded.settings.services[one.name]
            name = table.url or f"python {table.python}"
            timeouts = (seconds(table.timeout), seconds(table.connect_timeout))
        if name and name not in seen:
            seen.add(name)
            yield name, when, timeouts
