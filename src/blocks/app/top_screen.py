"""What ``blocks top`` draws, by rich: a head with the last minute's rates, then a table for each block that is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .remote_report import span

_BARS = "▁▂▃▄▅▆▇█"
_PAST = 60  # looks that are remembered for the curves
_COLOURS = {"OPEN": "green", "BUSY": "yellow", "CLOSED": "red"}
_CODES = ("1xx", "2xx", "3xx", "4xx", "5xx", "failed", "gone")


class Screen:
    """Draws one view after the other; remembers ``_PAST`` of them for the curves."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._rates: deque[float] = deque(maxlen=_PAST)
        self._p99s: deque[float] = deque(maxlen=_PAST)

    def draw(self, view: Mapping[str, Any], events: Iterable[Mapping[str, Any]] = ()) -> RenderableType:
        """The whole picture of a view and the last events."""
        servers = view.get("http", [])
        self._rates.append(sum(row["requests"] for row in servers))
        self._p99s.append(max((row["latency"].get("p99", 0.0) for row in servers), default=0.0))
        parts: list[RenderableType] = [self._head(view)]
        if servers:
            parts.append(_servers(servers))
        parts += [_balancer(one) for one in view.get("balancers", [])]
        if "gateway" in view:
            parts.append(_gateway(view["gateway"]))
        if "edges" in view:
            parts.append(_edges(view["edges"]))
        parts += [_broker(one) for one in view.get("brokers", [])]
        tape = [_event(event) for event in events]
        if tape:
            parts.append(Text("\n").join(tape))
        return Group(*parts)

    def lost(self, why: str) -> RenderableType:
        """Instead of a picture: the process does not answer."""
        return Panel(Text(why, style="red"), title=self._where)

    def _head(self, view: Mapping[str, Any]) -> RenderableType:
        health = str(view.get("health") or "?")
        head = Text.assemble(
            (f"{view.get('block')}  ", "bold"),
            (health, _COLOURS.get(health, "white")),
            (" draining" if view.get("draining") else "", "yellow"),
            f"  up {span(float(view.get('uptime') or 0))}",
        )
        if digest := (view.get("config") or {}).get("digest"):
            head.append(f"  config {digest}")
        if (view.get("config") or {}).get("last_error"):
            head.append("  the last reload was refused", "red")
        if len(self._rates) > 1:
            head.append(f"\n{number(self._rates[-1]):>8}/s {curve(self._rates)}")
            head.append(f"\n{time(self._p99s[-1]):>8} {curve(self._p99s)} p99")
        return Panel(head, title=self._where, title_align="left")


def _servers(rows: Iterable[Mapping[str, Any]]) -> Table:
    rows = list(rows)
    used = [code for code in _CODES if any(code in row["codes"] for row in rows)]
    table = _table("", "server", *(f"{code}/s" for code in used), "requests/s", "open", "p50", "p90", "p99", "p99.9")
    for row in rows:
        codes = [_coloured(code, row["codes"].get(code, 0.0)) for code in used]
        table.add_row(
            row["server"] or "http", *codes, number(row["requests"]), number(row["connections"]), *_times(row)
        )
    return table


def _balancer(one: Mapping[str, Any]) -> Table:
    title = (
        f"balancer {one['balancer']}: {number(one['requests'])}/s, {one['usable']} of {one['endpoints_total']} usable, "
        f"retries {number(one['retries'])}/s, shed {number(one['shed'])}/s"
    )
    table = _table(title, "upstream", "state", "tries/s", "failures/s", "active", "ewma", "p50", "p99", "p99.9")
    for row in one["endpoints"]:
        state = Text("ok", "green") if row.get("usable") else Text("out", "red")
        times = [time(row["latency"].get(share, 0.0)) for share in ("p50", "p99", "p99.9")]
        failures = _coloured("failed", row.get("failures", 0.0))
        active, ewma = number(row.get("active", 0)), time(row.get("ewma", 0.0))
        table.add_row(row["endpoint"], state, number(row.get("tries", 0.0)), failures, active, ewma, *times)
    return table


def _gateway(one: Mapping[str, Any]) -> Table:
    refusals = ", ".join(f"{step} {number(rate)}/s" for step, rate in one["refusals"].items() if rate) or "none"
    table = _table(
        f"gateway: {one['routes_total']} routes; refused by: {refusals}", "route", "requests/s", "errors/s", "refused/s",
        "p50", "p90", "p99", "p99.9",
    )  # fmt: skip
    for row in one["routes"]:
        errors, refused = _coloured("5xx", row["errors"]), _coloured("4xx", row["refused"])
        table.add_row(row["route"], number(row["requests"]), errors, refused, *_times(row))
    return table


def _edges(rows: Iterable[Mapping[str, Any]]) -> Table:
    table = _table(
        "", "edge", "requests/s", "hits", "offload", "fills/s", "from origin/s", "served/s", "entries", "memory", "disk"
    )
    for row in rows:
        table.add_row(
            row["edge"] or "edge", number(row["requests"]), share(row["hit_ratio"]), share(row["offload"]),
            number(row.get("fills", 0.0)), size(row.get("fetched", 0.0)), size(row.get("served", 0.0)),
            number(row.get("entries", 0)), size(row.get("memory_bytes", 0)), size(row.get("disk_bytes", 0)),
        )  # fmt: skip
    return table


def _broker(one: Mapping[str, Any]) -> Table:
    name = f"broker {one['broker']}".strip()
    title = f"{name}: {number(one.get('topics', 0))} topics, {number(one.get('groups', 0))} groups, {size(one.get('log_bytes', 0))}"
    table = _table(title, "published/s", "delivered/s", "acked/s", "in flight", "dead letters/s", "lag")
    lag = ", ".join(f"{row['group']} {number(row['lag'])}" for row in one["lag"][:5]) or "-"
    table.add_row(
        number(one.get("published", 0.0)), number(one.get("delivered", 0.0)), number(one.get("acked", 0.0)),
        number(one.get("in_flight", 0)), _coloured("failed", one.get("dead_letters", 0.0)), lag,
    )  # fmt: skip
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="dim", expand=False)
    for place, column in enumerate(columns):
        left = place == 0 or column in ("state", "lag")
        table.add_column(column, justify="left" if left else "right", no_wrap=place > 0, overflow="fold")
    return table


def _times(row: Mapping[str, Any]) -> list[str]:
    latency = row.get("latency", {})
    return [time(latency.get(name, 0.0)) for name in ("p50", "p90", "p99", "p99.9")]


def _event(event: Mapping[str, Any]) -> Text:
    fields = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("at", "level", "event"))
    style = {"warning": "yellow", "error": "red"}.get(str(event.get("level")), "")
    return Text.assemble(
        (str(event.get("event")), style), (f" {fields}"[:200], "dim"), no_wrap=True, overflow="ellipsis"
    )


def _coloured(code: str, rate: float) -> Text:
    style = {"5xx": "red", "failed": "red", "4xx": "yellow", "gone": "yellow"}.get(code, "")
    return Text(number(rate), style if rate else "dim")


def number(value: float) -> str:
    """Three digits that matter: ``0``, ``3.1``, ``42``, ``1.2k``, ``3.4M``."""
    value = float(value)
    for unit, step in (("", 1e3), ("k", 1e6), ("M", 1e9), ("G", 1e12)):
        if value < step * 0.9995:
            scaled = value / (step / 1e3)
            return (f"{scaled:.1f}".removesuffix(".0") if 0 < scaled < 10 else f"{scaled:.0f}") + unit
    return f"{value:.3g}"


def size(value: float) -> str:
    """Bytes: ``12B``, ``3.4KiB``, ``5GiB``."""
    value = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return (f"{value:.1f}".removesuffix(".0") if value < 10 else f"{value:.0f}") + unit
        value /= 1024
    return f"{value:.1f}TiB"


def time(seconds: float) -> str:
    """``36µs``, ``1.4ms``, ``12ms``, ``1.2s``; ``-`` for nothing measured."""
    if not seconds:
        return "-"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f}µs"
    if seconds < 0.01:
        return f"{seconds * 1e3:.1f}ms"
    return f"{seconds * 1e3:.0f}ms" if seconds < 1 else f"{seconds:.1f}s"


def share(value: float | None) -> str:
    """``93%``; ``-`` when there was nothing to share."""
    return "-" if value is None else f"{value:.0%}"


def curve(values: Iterable[float]) -> str:
    """Values as bars, the highest at the top."""
    values = list(values)
    top = max(values, default=0.0)
    return "".join(_BARS[round(value / top * (len(_BARS) - 1))] if top > 0 else _BARS[0] for value in values)
