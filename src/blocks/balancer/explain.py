"""What a request would meet in a balancer: who may get it and in which order, what is tried again, what bounds it."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from blocks.http.message import Request

from .endpoint import NO_LIMIT
from .health import Health
from .policies import Ring

if TYPE_CHECKING:
    from .balancer import LoadBalancer


def explain(balancer: LoadBalancer, request: Request) -> dict[str, Any]:
    """A plain table; nothing is asked or counted. Times are in seconds.

    ``candidates`` are the endpoints in rotation, for consistent hashing in the order in which this request would try them; ``backups``
    those of a higher priority.
    """
    table = balancer.table
    ring = isinstance(balancer._policy, Ring)
    rotation = list(balancer._policy.candidates(request, 0.0)) if ring and table.rotation else list(table.rotation)
    told: dict[str, Any] = {
        "policy": balancer._policy.name,
        "candidates": [_row(one) for one in rotation],
        "retries": _retries(balancer, request),
        "health": _probes(balancer.health, passive=table._outlier is not None),
        "queue": f"{balancer._line.queue.size} may wait, each for {float(balancer._line.queue.timeout):g} s",
        "timeout": balancer._timeout if isfinite(balancer._timeout) else "none of its own",
    }
    backups = [_row(one) for one in table.endpoints if one not in rotation]
    if backups:
        told["backups"] = backups
    return told


def _row(endpoint: Any) -> str:
    said = [endpoint.name]
    if endpoint.weight != 1:
        said.append(f"weight {endpoint.weight:g}")
    if endpoint.priority:
        said.append(f"priority {endpoint.priority}")
    if endpoint.limit != NO_LIMIT:
        said.append(f"at most {endpoint.limit} requests")
    return ", ".join(said)


def _retries(balancer: LoadBalancer, request: Request) -> str:
    retries, method = balancer.retries, request.method
    if retries.tries < 2:
        return "none"
    said = f"up to {retries.tries} tries"
    if retries.per_try is not None:
        said += f" of {float(retries.per_try):g} s"
    if method not in retries.methods:
        return f"{said}, for {method} only when nothing of it was sent"
    causes = (
        ["a refused or cut connection", "a timeout"] if retries.failures else ["a reused connection that was closed"]
    )
    causes += [f"status {status}" for status in sorted(retries.statuses)]
    return f"{said}, after {', '.join(causes)}"


def _probes(health: Health | None, *, passive: bool) -> str:
    if health is None:
        return "no probes; " + (
            "failures of requests take an endpoint out" if passive else "nothing takes an endpoint out"
        )
    what = f"{health.method} {health.path}" if health.mode == "http" else "connecting"
    rules = f"{health.fall} bad ones take it out, {health.rise} good ones bring it back"
    return f"{what} every {float(health.interval):g} s, each within {float(health.timeout):g} s; {rules}"
