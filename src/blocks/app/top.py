"""What happens now, from two looks at a process: rates, answers by class, percentiles of the time between them, and each block's own.

Sans-IO: snapshots of ``/metrics.json`` come in, plain values go out. A counter that went back (a restart, a worker replaced) counts
from zero. Rows are sorted by what they do and cut to ``ROWS``, so that the view of a thousand upstreams is no longer than that of ten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from blocks.core.histogram import Histogram
from blocks.core.metrics import Snapshot

K = TypeVar("K")

ROWS = 20
_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


class Look(NamedTuple):
    """What a process said at ``at`` (seconds on a clock that never goes back)."""

    at: float
    metrics: Snapshot
    status: Mapping[str, Any] = {}  # a tuple's default, never changed


class Row(NamedTuple):
    """One series: its labels, and its value (for a histogram its ``snapshot()``)."""

    labels: dict[str, str]
    value: Any


class Between:
    """The difference of two looks. ``rates`` are per second, ``times`` the percentiles of what was recorded in between."""

    def __init__(self, before: Look, after: Look) -> None:
        self.seconds = max(after.at - before.at, 1e-6)
        self._before = before.metrics
        self._after = after.metrics

    def rates(self, name: str) -> list[Row]:
        """Each series of a counter, per second."""
        old = {tuple(sorted(row.labels.items())): row.value for row in _rows(self._before, name)}
        found = []
        for labels, value in _rows(self._after, name):
            grown = value - old.get(tuple(sorted(labels.items())), 0)
            found.append(Row(labels, (grown if grown >= 0 else value) / self.seconds))
        return found

    def gauges(self, name: str) -> list[Row]:
        """Each series of a gauge, as it is now."""
        return list(_rows(self._after, name))

    def times(self, name: str, key: Callable[[dict[str, str]], K]) -> dict[K, dict[str, float]]:
        """Percentiles (seconds) of a histogram in between, of all series with the same ``key`` together."""
        grown: dict[K, Histogram] = {}
        old = {tuple(sorted(row.labels.items())): row.value for row in _rows(self._before, name)}
        for labels, value in _rows(self._after, name):
            _add_growth(grown.setdefault(key(labels), Histogram()), old.get(tuple(sorted(labels.items()))), value)
        quantiles = {key: histogram.quantiles(_SHARES.values()) for key, histogram in grown.items()}
        return {key: dict(zip(_SHARES, values, strict=True)) for key, values in quantiles.items()}


def view(before: Look, after: Look) -> dict[str, Any]:
    """Everything that ``blocks top`` shows, as plain values; a block that is not there has no entry."""
    between = Between(before, after)
    status = after.status
    found: dict[str, Any] = {
        "interval": round(between.seconds, 3),
        "block": status.get("block"),
        "health": status.get("health"),
        "draining": bool(status.get("draining")),
        "uptime": status.get("uptime"),
        "listen": list(status.get("listen") or ()),
        "config": status.get("config") or {},
    }
    makers = {"http": _http, "balancers": _balancers, "gateway": _gateway, "edges": _edges, "brokers": _brokers}
    for name, make in makers.items():
        if made := make(between):
            found[name] = made
    return found


def _http(between: Between) -> list[dict[str, Any]]:
    """A row for each server."""
    times = between.times("blocks_http_request_seconds", _owner)
    codes: dict[str, dict[str, float]] = {}
    for labels, rate in between.rates("blocks_http_responses_total"):
        codes.setdefault(_owner(labels, "code"), {})[labels["code"]] = rate
    open_now = {_owner(row.labels): row.value for row in between.gauges("blocks_http_open_connections")}
    rows = []
    for labels, rate in between.rates("blocks_http_requests_total"):
        server = _owner(labels)
        row = {
            "server": server,
            "requests": rate,
            "codes": codes.get(server, {}),
            "connections": open_now.get(server, 0),
        }
        rows.append({**row, "latency": times.get(server, {})})
    return _most(rows, "requests")


def _balancers(between: Between) -> list[dict[str, Any]]:
    """A table for each balancer: its endpoints with state, load and percentiles."""
    endpoints: dict[str, dict[str, dict[str, Any]]] = {}

    def note(rows: Iterable[Row], key: str) -> None:
        for labels, value in rows:
            row = endpoints.setdefault(_owner(labels, "endpoint"), {}).setdefault(
                labels["endpoint"], {"endpoint": labels["endpoint"]}
            )
            row[key] = value

    note(between.gauges("blocks_balancer_usable_endpoints"), "usable")
    note(between.gauges("blocks_balancer_active_requests"), "active")
    note(between.gauges("blocks_balancer_ewma_seconds"), "ewma")
    note(between.rates("blocks_balancer_tries_total"), "tries")
    note(between.rates("blocks_balancer_failures_total"), "failures")
    times = between.times(
        "blocks_balancer_latency_seconds", lambda labels: (_owner(labels, "endpoint"), labels["endpoint"])
    )
    totals = {
        key: {_owner(row.labels): row.value for row in between.rates(f"blocks_balancer_{key}_total")}
        for key in ("requests", "retries", "shed")
    }
    found = []
    for name in dict.fromkeys([*totals["requests"], *endpoints]):
        rows = list(endpoints.get(name, {}).values())
        for row in rows:
            row["latency"] = times.get((name, row["endpoint"]), {})
        summary = {key: values.get(name, 0.0) for key, values in totals.items()}
        usable = sum(bool(row.get("usable")) for row in rows)
        found.append(
            {
                "balancer": name,
                **summary,
                "usable": usable,
                "endpoints_total": len(rows),
                "endpoints": _most(rows, "tries"),
            }
        )
    return _most(found, "requests")


def _gateway(between: Between) -> dict[str, Any]:
    """The routes that are asked most, and who refuses."""
    routes: dict[str, dict[str, Any]] = {}
    for labels, rate in between.rates("blocks_gateway_requests_total"):
        name = _owner(labels, "code")
        row = routes.setdefault(name, {"route": name, "requests": 0.0, "errors": 0.0, "refused": 0.0})
        row["requests"] += rate
        row["errors"] += rate if labels["code"] in ("5xx", "failed") else 0.0
    refusals: dict[str, float] = {}
    for labels, rate in between.rates("blocks_gateway_refusals_total"):
        refusals[labels["step"]] = refusals.get(labels["step"], 0.0) + rate
        row = routes.setdefault(
            _owner(labels, "step"), {"route": _owner(labels, "step"), "requests": 0.0, "errors": 0.0, "refused": 0.0}
        )
        row["refused"] += rate
    if not routes:
        return {}
    for name, times in between.times("blocks_gateway_request_seconds", _owner).items():
        if name in routes:
            routes[name]["latency"] = times
    return {"routes_total": len(routes), "routes": _most(list(routes.values()), "requests"), "refusals": refusals}


def _edges(between: Between) -> list[dict[str, Any]]:
    """A row for each edge: hits, and what the origin was spared."""
    edges: dict[str, dict[str, Any]] = {}
    for labels, rate in between.rates("blocks_edge_requests_total"):
        edges.setdefault(_owner(labels, "result"), {}).setdefault("results", {})[labels["result"]] = rate
    for key, name in (("served", "served_bytes"), ("fetched", "fetched_bytes"), ("fills", "fills")):
        for labels, rate in between.rates(f"blocks_edge_{name}_total"):
            edges.setdefault(_owner(labels), {})[key] = rate
    for key in ("entries", "memory_bytes", "disk_entries", "disk_bytes", "filling"):
        for labels, value in between.gauges(f"blocks_edge_{key}"):
            edges.setdefault(_owner(labels), {})[key] = value
    rows = []
    for name, row in edges.items():
        results = row.get("results", {})
        total = sum(results.values())
        hits = results.get("hit", 0.0) + results.get("stale", 0.0)
        served = row.get("served", 0.0)
        offload = 1 - row.get("fetched", 0.0) / served if served else None
        rows.append(
            {"edge": name, "requests": total, "hit_ratio": hits / total if total else None, "offload": offload, **row}
        )
    return _most(rows, "requests")


def _brokers(between: Between) -> list[dict[str, Any]]:
    """A row for each broker, with the groups that lag most."""
    brokers: dict[str, dict[str, Any]] = {}
    for key in ("published", "delivered", "acked", "refused", "dead_letters"):
        for labels, rate in between.rates(f"blocks_broker_{key}_total"):
            brokers.setdefault(_owner(labels), {"published": 0.0})[key] = rate
    for key in ("topics", "groups", "in_flight", "log_bytes", "status"):
        for labels, value in between.gauges(f"blocks_broker_{key}"):
            brokers.setdefault(_owner(labels), {"published": 0.0})[key] = value
    for labels, value in between.gauges("blocks_broker_group_lag"):
        owner = brokers.setdefault(_owner(labels, "group"), {"published": 0.0})
        owner.setdefault("lag", []).append({"group": labels["group"], "lag": value})
    for row in brokers.values():
        row["lag"] = _most(row.get("lag", []), "lag")
    return _most([{"broker": name, **row} for name, row in brokers.items()], "published")


def _owner(labels: Mapping[str, str], *but: str) -> str:
    """Whose series that is: what its labels say besides those of the row."""
    return " ".join(value for label, value in labels.items() if label not in but)


def _most(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -float(row.get(key) or 0))[:ROWS]


def _rows(snapshot: Snapshot, name: str) -> Iterable[Row]:
    entry = snapshot.get(name)
    for values, value in entry["series"] if entry is not None else ():
        assert entry is not None
        yield Row(dict(zip(entry["labels"], values, strict=False)), value)


def _add_growth(into: Histogram, old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> None:
    known = dict(map(tuple, old["slots"])) if old is not None else {}
    grown = [[slot, number - known.get(slot, 0)] for slot, number in new["slots"]]
    if any(number < 0 for _, number in grown):
        grown = list(new["slots"])
    into.add({"slots": grown, "total": 0.0})
