"""Folders and lifetimes of what is kept: an edge's store, a broker's log."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from blocks.core.config.complaint import At, Complaint
from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds

from .graph import Graph
from .view import View

MEMORY = ":memory:"  # a broker's folder that is none


def folders(graph: Graph) -> Iterator[Complaint]:
    """A folder that two edges or brokers would write to, or one inside another's."""
    seen: list[tuple[At, PurePath]] = []
    for at, text in _folders(graph.view):
        path = PurePath(posixpath.normpath((graph.view.folder(at) / text).as_posix()))
        for other, taken in seen:
            if path == taken:
                yield Complaint(
                    at, f"the folder {text!r} is used already by [{other[0]}.{other[1]}]: each needs its own"
                )
                break
            if taken in path.parents or path in taken.parents:
                said = (
                    f"the folder {text!r} and that of [{other[0]}.{other[1]}] are inside each other: each needs its own"
                )
                yield Complaint(at, said)
                break
        else:
            seen.append((at, path))


def _folders(view: View) -> Iterator[tuple[At, str]]:
    for kind, key in (("edges", "store"), ("brokers", "data")):
        for at, _ in view.tables_of(kind):
            found = view.text((*at, key)) if view.given((*at, key)) else None
            if found is not None and found != MEMORY:
                yield (*at, key), found


def lifetimes(graph: Graph) -> Iterator[Complaint]:
    """A store for what is never fresh, and a store for less than memory holds."""
    view = graph.view
    for at, _ in view.tables_of("edges"):
        if view.given((*at, "store")):
            if view.given((*at, "default_ttl")) and view.seconds((*at, "default_ttl")) == 0:
                said = "0 with a store: what does not say how long it is fresh never gets there; give it a time or leave it out"
                yield Complaint((*at, "default_ttl"), said, "warning")
            memory, disk = view.size((*at, "memory")), view.size((*at, "store_size"))
            if memory is not None and disk is not None and disk < memory:
                place = (*at, "store_size") if view.given((*at, "store_size")) else (*at, "memory")
                said = f"the second tier ({disk} bytes) is smaller than memory ({memory} bytes)"
                yield Complaint(place, said, "warning")
        yield from _rules(view, at)


def _rules(view: View, at: At) -> Iterator[Complaint]:
    rules = view.raw((*at, "rules"))
    earlier: list[str] = []
    for number, rule in enumerate(rules if isinstance(rules, list) else ()):
        if not isinstance(rule, Mapping):
            continue
        where: At = (*at, "rules", number)
        path = rule.get("path")
        if isinstance(path, str):
            for other in earlier:
                if _covers(other, path):
                    said = f"is never looked at: the rule for {other!r} stands before it and takes every path of it"
                    yield Complaint((*where, "path"), said, "warning")
                    break
            earlier.append(path)
        if _is_zero(rule.get("ttl")) and rule.get("store", True) is True:
            said = "0 stores what is never fresh; store = false says that nothing of it is stored"
            yield Complaint((*where, "ttl"), said, "warning")


def _covers(earlier: str, path: str) -> bool:
    """Whether the rule before takes every path of this one: a prefix of a prefix, or the same pattern."""
    if "*" in earlier or "?" in earlier:
        return earlier in (path, "*")
    return path.startswith(earlier)


def _is_zero(value: Any) -> bool:
    try:
        return value is not None and seconds(value) == 0
    except ConfigError:
        return False


def brokers(graph: Graph) -> Iterator[Complaint]:
    """What a broker is asked to keep, and how."""
    view = graph.view
    for at, _ in view.tables_of("brokers"):
        durability = view.text((*at, "durability"))
        if view.given((*at, "interval")) and durability not in (None, "interval"):
            said = f"counts only with durability = 'interval', and it is {durability!r}"
            yield Complaint((*at, "interval"), said, "warning")
        if (
            view.raw((*at, "data")) == MEMORY
            and durability in ("fsync", "interval")
            and view.given((*at, "durability"))
        ):
            said = f"{durability!r} of a log that is kept nowhere (data = ':memory:')"
            yield Complaint((*at, "durability"), said, "warning")


def counted(graph: Graph) -> Iterator[Complaint]:
    """Limits of a gateway that each of several workers counts by itself."""
    view = graph.view
    if view.workers < 2:
        return
    for at, _ in view.tables_of("gateways"):
        limits = view.raw((*at, "limits"))
        for name, limit in (limits if isinstance(limits, Mapping) else {}).items():
            if isinstance(limit, Mapping) and limit.get("store", "memory") == "memory":
                said = f"each of the {view.workers} workers counts it by itself; store = 'redis' counts for all"
                yield Complaint((*at, "limits", name), said, "warning")
