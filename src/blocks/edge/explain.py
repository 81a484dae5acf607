"""What a request would meet in an edge: its key, its rule, whether it may be looked up and stored, and who may purge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocks.http.message import Request

from .rules import Route
from .validators import is_precondition
from .visit import Visit

if TYPE_CHECKING:
    from .edge import Edge

_LOOKED_UP = ("GET", "HEAD")


def explain(edge: Edge, request: Request) -> dict[str, Any]:
    """A plain table; nothing is looked up, counted or asked.

    ``step`` is where the request goes first: ``lookup`` (what is stored may answer), ``pass`` (to the origin, always), ``purge``, or
    ``refuse``. ``target`` is what the origin would be asked for, as the rules of the key leave it. Times are in seconds.
    """
    visit = edge.visit(request, edge._facts(request))
    step, why = _first(edge, visit)
    told: dict[str, Any] = {"step": step, "why": why, "target": visit.target}
    if step == "purge":
        return told
    told["rule"] = _rule(edge, visit)
    if step == "lookup":
        told["key"] = visit.key.replace("\0", " | ")
        told["stored"] = _stored(edge, visit)
        told |= _lifetimes(visit.route)
    if edge.releases is not None:
        told["releases"] = "what was pushed answers first"
    return told


def _first(edge: Edge, visit: Visit) -> tuple[str, str]:
    request = visit.request
    if edge.admission.is_loop(visit.section):
        return "refuse", "508: it has been through this edge before (CDN-Loop, RFC 8586)"
    if request.method == "PURGE":
        return "purge", _purge(edge, request)
    if request.method not in _LOOKED_UP:
        return (
            "pass",
            f"{request.method} is always for the origin; a good answer makes what is stored for the URL invalid",
        )
    if request.body:
        return "pass", "a request with a body is for the origin"
    if request.upgrade:
        return "pass", "an upgrade is for the origin"
    if visit.asked.no_store:
        return "pass", "the client says Cache-Control: no-store"
    if is_precondition(visit.section):
        return "pass", "If-Match and If-Unmodified-Since are for the origin to evaluate"
    if not visit.route.store:
        return "pass", "its rule says store = false"
    if not visit.target.startswith("/"):
        return "pass", "its target is no path"
    return "lookup", f"{request.method} may be answered by what is stored"


def _purge(edge: Edge, request: Request) -> str:
    client = request.peer.client[0]
    return f"{client} may purge" if edge.purgers.may(client) else f"403: {client} may not purge (allow_purge)"


def _stored(edge: Edge, visit: Visit) -> str:
    policy, asked = visit.route.policy, visit.asked
    conditions: list[str] = []
    if policy.ttl is None and not policy.default_ttl:
        conditions.append("it says how long it is fresh, or can be validated")
    if asked.authorized and not policy.authorization:
        conditions.append("it says public, must-revalidate or s-maxage (the request has Authorization, RFC 9111 §3.5)")
    if not policy.cookies and not policy.rfc:
        conditions.append("it sets no cookie")
    if policy.ttl is not None and not asked.plain_path:
        conditions.append("it says how long it is fresh (ttl does not count: the path may be read in two ways)")
    return "unless the answer forbids it" + (f", when {' and '.join(conditions)}" if conditions else "")


def _rule(edge: Edge, visit: Visit) -> str:
    for number, (rule, route) in enumerate(edge._rules):
        if route is visit.route:
            return f"rules[{number}] {rule.path}"
    return "the edge's own settings"


def _lifetimes(route: Route) -> dict[str, Any]:
    policy = route.policy
    told: dict[str, Any] = {"ttl": "as the origin says" if policy.ttl is None else policy.ttl}
    if policy.ttl is None and policy.default_ttl:
        told["default_ttl"] = policy.default_ttl
    if policy.negative:
        told["negative"] = {str(status): seconds for status, seconds in policy.negative.items()}
    told["grace"] = route.grace
    return told
