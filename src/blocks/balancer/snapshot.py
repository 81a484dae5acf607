"""What there is to see of a balancer, as plain values and as metrics. Reading costs the reader, never a request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from blocks.core.histogram import Histogram
from blocks.core.metrics import Reading
from blocks.core.status import Status, best
from blocks.http.handler import status_of

from .endpoint import NO_LIMIT, Endpoint
from .table import Table

if TYPE_CHECKING:
    from .balancer import LoadBalancer


def status_now(table: Table, *, waiting: int) -> Status:
    """OPEN: every endpoint that should serve does. BUSY: some do not, or requests wait. CLOSED: none does."""
    serving = [endpoint for endpoint in table.endpoints if not endpoint.draining]
    states = [status_of(endpoint.handler) if endpoint.usable else Status.CLOSED for endpoint in serving]
    top = best(states)
    if top is Status.CLOSED:
        return Status.CLOSED
    return Status.OPEN if not waiting and all(state is Status.OPEN for state in states) else Status.BUSY


def snapshot(balancer: LoadBalancer, policy: str, waiting: int) -> dict[str, Any]:
    """The balancer and its endpoints: settings, states, counters, latencies (seconds), the last events."""
    table = balancer.table
    return {
        "name": balancer.name,
        "policy": policy,
        "status": balancer.status.name,
        "panic": table.panic,
        "requests": balancer.requests,
        "retries": balancer.retried,
        "shed": balancer.shed,
        "waiting": waiting,
        "endpoints": [describe(endpoint) for endpoint in table.endpoints],
        "events": [event.as_dict() for event in balancer.tape.last],
    }


def describe(endpoint: Endpoint) -> dict[str, Any]:
    """One row of the table."""
    row: dict[str, Any] = {
        "name": endpoint.name,
        "state": endpoint.state.value,
        "weight": endpoint.weight,
        "share": endpoint.share,
        "zone": endpoint.zone,
        "priority": endpoint.priority,
        "metadata": dict(endpoint.metadata),
        "active": endpoint.active,
        "limit": None if endpoint.limit == NO_LIMIT else endpoint.limit,
        "requests": endpoint.requests,
        "failures": endpoint.failures,
        "cancelled": endpoint.cancelled,
        "refusals": endpoint.refusals,
        "statuses": {f"{digit}xx": endpoint.statuses[digit] for digit in range(1, 6)},
        "ewma": endpoint.ewma,
        "streak": endpoint.streak,
        "ejections": endpoint.ejections,
        "probes": endpoint.probes,
        "probe_problem": endpoint.probe_reason,
    }
    if isinstance(endpoint.latency, Histogram):
        p50, p90, p99, p999 = endpoint.latency.quantiles((0.5, 0.9, 0.99, 0.999))
        row["latency"] = {"p50": p50, "p90": p90, "p99": p99, "p99.9": p999}
    return row


def readings(balancer: LoadBalancer) -> Iterator[Reading]:
    """The balancer's series for ``blocks.core.metrics``: labels are the balancer's and the endpoints' names."""
    own = (("balancer", balancer.name),)
    yield Reading("blocks_balancer_requests_total", "counter", "Requests that came in.", own, balancer.requests)
    yield Reading("blocks_balancer_retries_total", "counter", "Requests sent once more.", own, balancer.retried)
    yield Reading("blocks_balancer_shed_total", "counter", "Requests refused for want of room.", own, balancer.shed)
    panic = float(balancer.table.panic)
    yield Reading("blocks_balancer_panic_state", "gauge", "1 while all are used.", own, panic, "max")
    for endpoint in balancer.table.endpoints:
        labels = (*own, ("endpoint", endpoint.name))
        yield from _row(endpoint, labels)


def _row(endpoint: Endpoint, labels: tuple[tuple[str, str], ...]) -> Iterator[Reading]:
    yield Reading("blocks_balancer_tries_total", "counter", "Requests sent to the endpoint.", labels, endpoint.requests)
    yield Reading("blocks_balancer_failures_total", "counter", "Tries that failed.", labels, endpoint.failures)
    yield Reading("blocks_balancer_active_requests", "gauge", "Requests under way.", labels, endpoint.active)
    yield Reading("blocks_balancer_usable_endpoints", "gauge", "1 when usable.", labels, float(endpoint.usable), "min")
    yield Reading("blocks_balancer_ewma_seconds", "gauge", "As weighed by p2c.", labels, endpoint.ewma, "max")
    for digit in range(1, 6):
        code = (*labels, ("code", f"{digit}xx"))
        yield Reading("blocks_balancer_answers_total", "counter", "Answers by status.", code, endpoint.statuses[digit])
    if isinstance(endpoint.latency, Histogram):
        yield Reading("blocks_balancer_latency_seconds", "histogram", "To the head.", labels, endpoint.latency)
