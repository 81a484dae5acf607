"""What a request would meet in a gateway of a stack, and whom the gateway would ask for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from blocks.core.quantities import seconds
from blocks.http.handler import walk
from blocks.http.message import Request

from .slot import Slot

_ENDS = ("publish", "subscribe", "compose", "jobs")


class Ask(NamedTuple):
    """``reference`` (a NAME or a URL) is asked ``when``; ``timeouts`` are those of a URL.

    A composition's branch has a request of its own: ``method`` and ``target``.
    """

    reference: str
    when: str = ""
    timeouts: tuple[float, float] | None = None
    method: str = ""
    target: str = ""

    def request(self, came: Request) -> Request:
        """What is asked, of the request as it came through the gateway."""
        asked = came.copy()
        if self.target:
            asked.method, asked.target = self.method, self.target
        return asked


def explain(front: Any, request: Request, consumer: str = "", tier: str = "") -> tuple[dict[str, Any], list[Ask]]:
    """What the gateway says of the request, and what it would ask; ``request`` becomes what its service would get."""
    from blocks.gateway.consumer import Consumer
    from blocks.gateway.explain import explain as explained

    snapshot = front.gateway.snapshot
    fields = [(name, value) for name, value in request.headers.items()]
    who = Consumer(consumer, tier=tier, method="explain") if consumer else None
    client = str(request.peer.client[0])
    told = explained(snapshot, request.method, request.target, fields, client=client, consumer=who)
    keys = ("client", "path", "status", "why", "route", "template", "params", "steps")
    says: dict[str, Any] = {key: told[key] for key in keys if key in told}
    if "route" not in told:
        return says, []
    lane, context = _lane(front, request, told)
    if lane.route.timeout is not None:
        says["timeout"] = lane.route.timeout
    before = (request.method, request.target)
    if not _transformed(lane, request, context):
        says["note"] = "transform depends on the body: what the service is asked for is not known here"
    elif (request.method, request.target) != before:
        says["transformed"] = f"{request.method} {request.target}"
    end = told["service"] if told["service"] in _ENDS else ""
    if end:
        says["answer"] = end
        says |= _messages(front, lane, end)
    asks = list(
        _branches(front, lane, told["params"]) if end == "compose" else _named(front, lane.route.handler, _when(end))
    )
    for step in lane.plan.steps:
        for part in getattr(step, "parts", ()):
            asks += _named(front, part, step.name)
    if not asks and not end:
        says["answer"] = _fixed(front, lane) or told["service"]
    return says, asks


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


def _when(end: str) -> str:
    return "behind, as a job" if end == "jobs" else ""


def _table(front: Any, lane: Any, key: str) -> Mapping[str, Any]:
    """What stands under ``key`` in the route's table, when that is a table."""
    for table in front.loaded.settings.routes:
        if table.get("path") == lane.route.template.text and isinstance(table.get(key), Mapping):
            found: Mapping[str, Any] = table[key]
            return found
    return {}


def _messages(front: Any, lane: Any, end: str) -> dict[str, Any]:
    """The broker and the topic of a route that publishes or subscribes, as the file has them."""
    given = _table(front, lane, end)
    broker = given.get("to") or given.get("source")
    return {"broker": broker, "topic": given.get("topic")} if broker else {}


def _fixed(front: Any, lane: Any) -> str:
    given = _table(front, lane, "respond")
    return f"{given.get('status', 200)}, fixed" if type(lane.route.handler).__name__ == "Fixed" else ""


def _branches(front: Any, lane: Any, params: Mapping[str, str]) -> Iterator[Ask]:
    """What a composition asks: each branch's own path, with the parameters that are known; the others are left as they are written."""
    branches = _table(front, lane, "compose").get("branches", {})
    for name, branch in branches.items():
        target = str(branch.get("path", "/"))
        for param, value in params.items():
            target = target.replace(f"{{{param}}}", value)
        service = str(branch.get("service", ""))
        known = next(
            _named(front, front.gateway.snapshot.site.services[service], f"for the branch {name}"), Ask(service)
        )
        yield known._replace(method=str(branch.get("method", "GET")).upper(), target=target)


def _named(front: Any, part: object, when: str) -> Iterator[Ask]:
    """The handlers of the stack, and the services of the gateway's own, that stand inside ``part``."""
    from blocks.gateway.config.services import Service

    seen: set[str] = set()
    for one in walk(part):
        ask = None
        if isinstance(one, Slot):
            ask = Ask(one.name, when)
        elif isinstance(one, Service):
            table = front.loaded.settings.services[one.name]
            timeouts = (seconds(table.timeout), seconds(table.connect_timeout))
            ask = Ask(table.url or f"python {table.python}", when, timeouts)
        if ask is not None and ask.reference not in seen:
            seen.add(ask.reference)
            yield ask
