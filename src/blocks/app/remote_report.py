"""What ``blocks status`` prints: the answers of one process, or of all its workers, as lines for people."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

_PARTS = 40  # lines of the topology
_WORST = ("CLOSED", "BUSY", "OPEN")


def summary(bodies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One status of all workers': counts add up, the health is the worst, the settings are the first one's; ``workers`` has each."""
    first = dict(bodies[0])
    if len(bodies) == 1:
        return first
    first["workers"] = [
        {key: body.get(key) for key in ("pid", "health", "requests", "connections", "config")} for body in bodies
    ]
    first["health"] = min((str(body.get("health")) for body in bodies), key=_rank)
    first["draining"] = any(body.get("draining") for body in bodies)
    for key in ("requests", "connections"):
        first[key] = sum(int(body.get(key) or 0) for body in bodies)
    first["uptime"] = max(float(body.get("uptime") or 0) for body in bodies)
    return first


def lines(status: Mapping[str, Any]) -> list[str]:
    """The status as a table of names and values, then the parts as a tree."""
    config = status.get("config") or {}
    workers = status.get("workers") or []
    rows = [
        ("block", f"{status.get('block')} {status.get('version', '')}".strip()),
        ("health", f"{status.get('health')}{', draining' if status.get('draining') else ''}"),
        ("listen", ", ".join(status.get("listen") or ()) or "-"),
        ("uptime", span(float(status.get("uptime") or 0))),
        ("pid", str(status.get("pid"))),
        ("requests", f"{status.get('requests', 0)} ({status.get('connections', 0)} connections open)"),
    ]
    if config.get("digest"):
        rows.append(("config", f"{config['digest']}, loaded {clock(config.get('loaded'))}"))
    if config.get("last_error"):
        rows.append(("refused", _indented(str(config["last_error"]))))
    if workers:
        rows.append(("workers", ", ".join(f"{one['pid']} {one['health']}" for one in workers)))
    for key in ("servers", "brokers"):
        for name, body in (status.get(key) or {}).items():
            rows.append((key[:-1], f"{name}: {_place(body)}"))
    parts = status.get("parts") or []
    told = [f"{name + ':':10} {value}" for name, value in rows]
    if parts:
        told.append("parts:")
        told += [f"  {'  ' * int(part['depth'])}{part['part']}  {part['health']}" for part in parts[:_PARTS]]
        more = int(status.get("parts_total") or len(parts)) - min(len(parts), _PARTS)
        if more > 0:
            told.append(f"  … and {more} more")
    return told


def span(seconds: float) -> str:
    """A time for people: ``3d 4h``, ``2m 5s``, ``1.5s``."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    left, found = int(seconds), []
    for name, size in units:
        if left >= size:
            found.append(f"{left // size}{name}")
            left %= size
    return " ".join(found[:2])


def clock(at: Any) -> str:
    """A date of this machine's time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(at))) if at else "-"


def _rank(health: str) -> int:
    return _WORST.index(health) if health in _WORST else 0


def _place(body: Mapping[str, Any]) -> str:
    urls = [str(body[key]) for key in ("url", "http") if body.get(key)]
    return ", ".join(urls or map(str, body.get("listen") or ["-"]))


def _indented(text: str) -> str:
    return text.replace("\n", "\n           ")
