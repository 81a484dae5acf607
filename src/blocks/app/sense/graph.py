"""Which block asks which, by their names: what is named and is not there, what goes round in a circle, what nobody asks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from blocks.core.config.complaint import At, Complaint

from ..bench import is_url, meant
from ..tables import HANDLERS
from .view import View

NAMING = ("service", "mirror")  # keys of a route whose text is the name of a handler
DEEPEST = 500  # handlers inside each other: a call a level, and Python ends at 1,000


class Use(NamedTuple):
    """At ``at`` stands the name of a handler."""

    at: At
    name: str


class Graph:
    """``homes`` are the handlers' tables by name; ``uses`` what each of them (and each server) names, in the order of the file."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.homes: dict[str, At] = {}
        self.twice: list[tuple[At, At]] = []
        for kind in HANDLERS:
            for name in view.names(kind):
                if name in self.homes:
                    self.twice.append(((kind, name), self.homes[name]))
                else:
                    self.homes[name] = (kind, name)
        self.vague = {
            name for kind, tables in view.tables.items() if kind not in _kinds(view) for name in _keys(tables)
        }
        self.uses: dict[At, list[Use]] = {}
        self._below: dict[At, dict[At, None]] = {}
        for at, table in view.tables_of("servers", *HANDLERS):
            self.uses[at] = list(_uses(view, at, table))

    def below(self, at: At) -> Mapping[At, None]:
        """The handlers inside the one at ``at``, each once, the outer before the inner; it itself is the first."""
        known = self._below.get(at)
        if known is not None:
            return known
        seen: dict[At, None] = {}
        waiting = deque([at])
        while waiting:
            one = waiting.popleft()
            if one not in seen:
                seen[one] = None
                waiting += [self.homes[use.name] for use in self.uses.get(one, ()) if use.name in self.homes]
        self._below[at] = seen
        return seen

    def asked(self) -> set[At]:
        """The handlers that some server reaches."""
        return {one for at, _ in self.view.tables_of("servers") for one in self.below(at)}


def _kinds(view: View) -> set[str]:
    return {key for key in view.tables if view.kind((key,)) is not None}


def _keys(tables: Any) -> list[str]:
    return [str(name) for name in tables] if isinstance(tables, Mapping) else []


def _uses(view: View, at: At, table: Mapping[str, Any]) -> Iterator[Use]:
    if at[0] == "servers":
        yield from (Use(place, name) for place, name in view.texts((*at, "handler")) if not is_url(name))
    elif at[0] == "balancers":
        for place, text in endpoints(view, at):
            if not is_url(text):
                yield Use(place, text)
    elif at[0] == "edges":
        for place, text in view.texts((*at, "origin")):
            if not is_url(text):
                yield Use(place, text)
    elif at[0] == "apps":
        brokers = view.names("brokers")
        yield from (Use(place, name) for place, name in view.texts((*at, "needs")) if name not in brokers)
    elif at[0] == "gateways":
        own = _keys(table.get("services"))
        for place, name in services(table):
            if name not in own:
                yield Use((*at, *place), name)


def services(tables: Mapping[str, Any]) -> Iterator[tuple[At, str]]:
    """(place, name) of every service that a gateway's tables name: in routes, their steps, and the defaults."""
    gateway = tables.get("gateway")
    yield from _named(tables.get("routes"), ("routes",))
    yield from _named(gateway.get("defaults") if isinstance(gateway, Mapping) else None, ("gateway", "defaults"))


def _named(value: Any, at: At) -> Iterator[tuple[At, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in NAMING and isinstance(item, str) and item:
                yield (*at, key), item
            else:
                yield from _named(item, (*at, str(key)))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _named(item, (*at, place))


def endpoints(view: View, at: At) -> Iterator[tuple[At, str]]:
    """(place, URL or name) of a balancer's upstreams."""
    found = view.raw((*at, "upstreams"))
    for place, item in enumerate(found if isinstance(found, list) else ()):
        where: At = (*at, "upstreams", place)
        if isinstance(item, str):
            yield where, item
        elif isinstance(item, Mapping):
            for key in ("url", "upstream"):
                if isinstance(item.get(key), str):
                    yield (*where, key), item[key]
                    break


# -- rules


def references(graph: Graph) -> Iterator[Complaint]:
    """A name that no handler has."""
    for at, uses in graph.uses.items():
        if at[0] == "gateways":
            continue  # the gateway's own loader says it
        for use in uses:
            if use.name not in graph.homes and use.name not in graph.vague:
                yield Complaint(use.at, f"there is no handler {use.name!r}{meant(use.name, graph.homes)}")


def circles(graph: Graph) -> Iterator[Complaint]:
    """A handler that is inside itself; each circle is told once, where the file closes it."""
    depths: dict[At, int] = {}
    for start in graph.uses:
        if start not in depths:
            yield from _circles(graph, start, [], depths)


def _circles(graph: Graph, at: At, way: list[At], depths: dict[At, int]) -> Iterator[Complaint]:
    way.append(at)
    depth = 0
    for use in graph.uses.get(at, ()):
        home = graph.homes.get(use.name)
        if home in way:
            names = [str(one[1]) for one in way[way.index(home) :]]
            yield Complaint(use.at, f"a circle: {' → '.join([*names, use.name])}")
        elif home is not None:
            if home not in depths and len(way) <= DEEPEST:
                yield from _circles(graph, home, way, depths)
            depth = max(depth, depths.get(home, DEEPEST))
            if depth == DEEPEST:
                yield Complaint(use.at, f"more than {DEEPEST} handlers are inside each other")
    way.pop()
    depths[at] = depth + 1


def unasked(graph: Graph) -> Iterator[Complaint]:
    """A handler that no server reaches. Said of the outermost only: what is inside it is reached when it is."""
    view = graph.view
    if not view.given(("servers",)) or set(view.tables) - _kinds(view):
        return  # a misspelt table may have been a server
    asked = graph.asked()
    if any(use.name not in graph.homes for uses in graph.uses.values() for use in uses) or graph.twice:
        return  # a name is wrong: who knows which was meant
    used = {graph.homes[use.name] for uses in graph.uses.values() for use in uses if use.name in graph.homes}
    for at in graph.homes.values():
        if at not in asked and at not in used and not view.given((*at, "needs")):  # a worker beside the handlers
            place = (*at, "file") if view.given((*at, "file")) else at
            yield Complaint(place, f"nothing serves or asks [{at[0]}.{at[1]}]", "warning")


def urls(view: View, at: At) -> Iterator[tuple[At, str]]:
    """(place, URL) of the servers that the handler at ``at`` asks itself."""
    if at[0] == "servers":
        yield from ((place, text) for place, text in view.texts((*at, "handler")) if is_url(text))
    elif at[0] == "upstreams":
        yield from view.texts((*at, "url"))
    elif at[0] == "balancers":
        yield from ((place, text) for place, text in endpoints(view, at) if is_url(text))
    elif at[0] == "edges":
        yield from ((place, text) for place, text in view.texts((*at, "origin")) if is_url(text))
    elif at[0] == "gateways":
        for name in _keys(view.raw((*at, "services"))):
            yield from view.texts((*at, "services", name, "url"))
