"""``[edges.NAME]``: a caching edge before one origin or several."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from blocks.core.errors import ConfigError
from blocks.core.logging import events
from blocks.http.handler import chain

from ..bench import Bench
from ..filters import before_edge
from ..node import Node
from ..tables import EdgeTable, RuleTable, given

_SETTINGS = (
    "memory", "profile", "default_ttl", "ttl_jitter", "grace", "allow_purge", "max_fills", "max_variants", "fill_rate",
    "refresh_ahead", "obey_clients", "via", "range_fill",
)  # fmt: skip
_LIBRARIES = {"br": "brotli", "zstd": "zstandard", "gzip": "zlib"}
_RULE = ("ttl", "default_ttl", "grace", "cookies", "authorization", "store")
_STORE_SIZE = "4GiB"  # as Edge has it


def make(name: str, table: EdgeTable, bench: Bench) -> Node:
    """The edge; what the one before has stored goes on when its key and its folder are the same."""
    from blocks.edge import Edge, KeyRules

    settings: dict[str, Any] = given(table, *_SETTINGS)
    if table.via == "off":
        settings["via"] = None
    if table.negative is not None:
        settings["negative"] = _statuses(table.negative)
    if table.key is not None:
        key: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in given(table.key).items()
        }
        settings["key"] = KeyRules(**key)
    settings["rules"] = [_rule(rule) for rule in table.rules]
    transforms = _transforms(table)
    if transforms:
        settings["transforms"] = transforms
    before = bench.before.get(("edges", name))
    settings |= _store(table, bench, before)
    named = [table.origin] if isinstance(table.origin, str) else table.origin
    places = [("origin",)] if isinstance(table.origin, str) else [("origin", place) for place in range(len(named))]
    origins = [bench.front(origin, *at) for origin, at in zip(named, places, strict=True)]
    edge = Edge(origins, **settings, name=name, clock=bench.clock, random=bench.draw())
    releases = settings.get("releases")
    if releases is not None and releases not in edge.parts:
        edge.parts = (*edge.parts, releases)
    guards = before_edge(table, bench)
    front = chain(*guards, to=edge)
    node = Node("edges", name, edge, front=front, member=front)
    node.members |= {"store": _sizes(table, bench), "guards": guards}
    if before is not None:
        node.joins = lambda: _join(edge, before.block)
    return node


def _join(edge: Any, before: Any) -> None:
    if not edge.inherit(before):
        events().warning("edge-starts-cold", edge=edge.name, reason="its key or its store is not the same as before")


def _store(table: EdgeTable, bench: Bench, before: Node | None) -> dict[str, Any]:
    """The second tier and the releases; those of the edge before while the folder is the same. Raises ``ConfigError``."""
    if table.store is None:
        return {}
    folder = bench.path(table.store)
    if before is not None and before.members["store"] == _sizes(table, bench):
        return {"store": before.block.store, "releases": before.block.releases}
    if before is not None and before.members["store"][0] == str(folder):
        raise ConfigError("store_size and push_size of a folder that is open cannot change; restart for that")
    from blocks.core.quantities import size
    from blocks.edge.push.releases import Releases
    from blocks.edge.store.disk import DiskStore

    each = size(_STORE_SIZE if table.store_size is None else table.store_size) // bench.shards
    return {
        "store": DiskStore(folder, each, shards=bench.shards, clock=bench.clock),
        "releases": Releases(folder / "push", table.push_size, compression=_available(), clock=bench.clock),
    }


def _sizes(table: EdgeTable, bench: Bench) -> tuple[Any, ...]:
    """What must be the same for a folder to stay open over a reload."""
    return (None if table.store is None else str(bench.path(table.store)), table.store_size, table.push_size)


def _rule(rule: RuleTable) -> Any:
    from blocks.edge import Rule

    return Rule(rule.path, negative=_statuses(rule.negative or {}), **given(rule, *_RULE))


def _statuses(table: dict[str, Any]) -> dict[int, Any]:
    """``{404 = "10s"}``: keys are texts in a file."""
    wrong = [key for key in table if not (key.isascii() and key.isdigit() and len(key) == 3)]
    if wrong:
        raise ConfigError(f"negative: {wrong[0]!r} is no status; write it like {{404 = '10s'}}")
    return {int(key): value for key, value in table.items()}


def _transforms(table: EdgeTable) -> list[Any]:
    if not table.minify and not table.compress:
        return []
    from blocks.edge.transform import Compression, Minification

    made: list[Any] = [Minification(table.minify)] if table.minify else []
    return [*made, Compression(table.compress)] if table.compress else made


def _available() -> Any:
    """Compression of pushed files in every coding that this installation has."""
    from blocks.edge.transform import Compression

    return Compression([coding for coding, library in _LIBRARIES.items() if find_spec(library) is not None])
