"""What a request would meet: its canonical path, its route, every step in order with the reason for its place, its limits and keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from blocks.http.message import Peer, Request

from .consumer import Consumer
from .context import Context
from .path import BadPath
from .routes.table import Missed
from .snapshot import Lane, Snapshot
from .steps import FEATURES


def explain(
    snapshot: Snapshot,
    method: str,
    url: str,
    headers: Iterable[tuple[str, str]] = (),
    *,
    client: str = "127.0.0.1",
    consumer: Consumer | None = None,
    now: float = 0.0,
) -> dict[str, Any]:
    """A plain table; nothing is counted and no service is called. ``status`` is set when the gateway itself would answer."""
    parts = urlsplit(url)
    fields = list(headers)
    if parts.netloc and not any(name.lower() == "host" for name, _ in fields):
        fields.insert(0, ("host", parts.netloc))
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    request = Request(method.upper(), target, fields, peer=Peer((client, 0), scheme=parts.scheme or "http"))
    told: dict[str, Any] = {"method": request.method, "target": target, "client": snapshot.addresses.client(request)}
    try:
        found = snapshot.find(request)
    except BadPath as error:
        return {**told, "status": 400, "why": str(error)}
    told["path"] = request.path
    if isinstance(found, Missed):
        if found.allowed:
            return {**told, "status": 405, "why": f"the path is taken for {', '.join(sorted(found.allowed))}"}
        return {**told, "status": 404, "why": "no route takes this path"}
    lane, params, path = found
    route = lane.route
    context = Context(route, params, path, told["client"], now)
    context.consumer = consumer
    told["route"] = route.name
    told["template"] = route.template.text
    told["params"] = {name: str(value) for name, value in params.items()}
    told["steps"] = [_step(step, request, context) for step in lane.plan.steps]
    told["service"] = service_name(lane)
    return told


def service_name(lane: Lane) -> str:
    """What the route's end is called."""
    handler = lane.route.handler
    return str(getattr(handler, "name", "") or getattr(handler, "__name__", "") or type(handler).__name__)


def _step(step: Any, request: Request, context: Context) -> dict[str, Any]:
    reasons = {feature.key: feature.reason for feature in FEATURES}
    words = [word for word in ("check", "after", "around") if callable(getattr(step, word, None))]
    told: dict[str, Any] = {
        "step": step.name,
        "does": words,
        "reason": getattr(step, "reason", reasons.get(step.name, "")),
    }
    rules = getattr(step, "rules", None)
    if rules:
        told["limits"] = [_rule(rule, request, context) for rule in rules]
    return told


def _rule(rule: Any, request: Request, context: Context) -> dict[str, Any]:
    tier = rule.tier_of(context)
    told = {
        "name": rule.name,
        "rate": rule.limit.rate,
        "per": str(rule.limit.per),
        "algorithm": rule.limit.kind,
        "store": rule.limit.store,
    }
    if tier is None:
        return {**told, "key": "", "note": "this consumer's tier has no limit"}
    if rule.limit.dry_run:
        told["note"] = "dry run: only counted"
    return {**told, "key": rule.key(request, context).replace("\0", "")}
