"""The routing table: hosts, then a static dictionary, then a trie. Built at load and swapped whole; a match changes nothing in it.

Precedence: the exact host, then the longest wildcard host (``*.example.com``), then no host; in each of them the narrowest path
(see ``trie``); there the most predicates, then the fewest methods, then the order of the file. A host whose routes do not take
the path leaves it to the next. A path that is taken only for other methods is answered 405 with Allow (RFC 9110 §15.5.6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from blocks.core.errors import ConfigError
from blocks.http.message import Request

from ..context import NO_PARAMS
from .leaf import Leaf
from .template import Template
from .trie import Node, leaf_of, search

if TYPE_CHECKING:
    from ..route import Route
    from ..versions import Versions


Found = tuple["Route", Mapping[str, Any]]
"""The route of a request and the values of its parameters (a plain tuple: it is made for every request)."""


class Missed:
    """No route: ``allowed`` are the methods that would have found one (405), empty for 404."""

    __slots__ = ("allowed",)

    def __init__(self, allowed: frozenset[str]) -> None:
        self.allowed = allowed


NOT_FOUND = Missed(frozenset())


class Paths:
    """The routes of one host."""

    __slots__ = ("root", "static")

    def __init__(self) -> None:
        self.root: Node[Leaf] = Node()
        self.static: dict[str, Leaf] = {}

    def add(self, route: Route, versions: Versions | None) -> None:
        """Add a route to its leaf."""
        template = route.template
        leaf = leaf_of(self.root, template, Leaf)
        leaf.add(route, versions)
        if template.static:
            path = template.text
            if not template.prefix or path not in self.static:  # an exact route goes before a prefix of the same path
                self.static[path] = leaf


class Table:
    """All routes, ready to match."""

    __slots__ = ("_any", "_exact", "_random", "_suffixes", "routes", "versions")

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        random: Random,
        versions: Versions | None = None,
        on_error: Callable[[int, ConfigError], None] | None = None,
    ) -> None:
        self.routes = tuple(routes)
        self.versions = versions
        self._random = random
        self._any = Paths()
        self._exact: dict[str, Paths] = {}
        self._suffixes: dict[str, Paths] = {}
        names: set[str] = set()
        for place, route in enumerate(self.routes):
            try:
                names.add(_name(route, names))
                for host in route.hosts or ("",):
                    self._paths(host).add(route, versions)
            except ConfigError as error:
                if on_error is None:
                    raise
                on_error(place, error)

    @property
    def by_host(self) -> bool:
        """Whether any route asks for a host."""
        return bool(self._exact or self._suffixes)

    def _paths(self, host: str) -> Paths:
        if host in ("", "*"):
            return self._any
        if host.startswith("*."):
            return self._suffixes.setdefault(host[1:], Paths())
        return self._exact.setdefault(host, Paths())

    def match(self, method: str, host: str, path: str, request: Request) -> Found | Missed:
        """The route for a canonical path on a canonical host."""
        return self.straight(method, host, path) or self.search(method, host, path, request)

    def search(self, method: str, host: str, path: str, request: Request) -> Found | Missed:
        """What ``match`` finds when ``straight`` does not know."""
        if self._exact or self._suffixes:
            return self._by_host(method, host, path, request)
        allowed: set[str] = set()
        return self._in(self._any, method, path, request, allowed) or self._missed(allowed)

    def straight(self, method: str, host: str, path: str) -> Found | None:
        """The route when method, host and path alone decide it, so that the answer may be remembered for them; else None.

        At each segment only the first branch that fits is followed; where it ends, nothing narrower can have been missed.
        """
        paths = self._any
        if self._exact or self._suffixes:
            exact = self._exact.get(host)
            if exact is None and self._suffixes:
                return None
            paths = exact or paths
        values: list[Any] = []
        rest = ""
        leaf = paths.static.get(path)
        if leaf is None:
            segments = path.split("/")
            node = paths.root
            place = 1
            last = len(segments)
            while place < last:
                segment = segments[place]
                child = node.literals.get(segment)
                if child is None:
                    for _, convert, below in node.parameters:
                        value = convert(segment)
                        if value is not None:
                            values.append(value)
                            child = below
                            break
                    else:
                        break
                assert child is not None
                node = child
                place += 1
            if place == last:
                leaf = node.exact or node.below
            elif segments[place]:
                leaf = node.below_slash or node.below
                rest = "/".join(segments[place:])
            else:
                leaf = node.slash or node.below_slash or node.below
        route = leaf.straight(method) if leaf is not None else None
        return None if route is None else (route, _params(route.template, values, rest))

    def _by_host(self, method: str, host: str, path: str, request: Request) -> Found | Missed:
        allowed: set[str] = set()
        exact = self._exact.get(host)
        if exact is not None:
            found = self._in(exact, method, path, request, allowed)
            if found is not None:
                return found
        if self._suffixes:
            dot = host.find(".")
            while dot >= 0:
                paths = self._suffixes.get(host[dot:])
                if paths is not None:
                    found = self._in(paths, method, path, request, allowed)
                    if found is not None:
                        return found
                dot = host.find(".", dot + 1)
        return self._in(self._any, method, path, request, allowed) or self._missed(allowed)

    def _in(self, paths: Paths, method: str, path: str, request: Request, allowed: set[str]) -> Found | None:
        random = self._random

        def ask(leaf: Leaf, values: Sequence[Any], rest: str) -> Found | None:
            route = leaf.straight(method) or leaf.choose(method, request, random, allowed)
            return None if route is None else (route, _params(route.template, values, rest))

        static = paths.static.get(path)
        if static is not None:
            found = ask(static, (), "")
            if found is not None:
                return found
        segments = path.split("/")
        if path == "/":
            segments = [""]
        return search(paths.root, segments, 0 if path == "/" else 1, (), ask)

    def _missed(self, allowed: set[str]) -> Missed:
        return Missed(frozenset(allowed)) if allowed else NOT_FOUND


def _params(template: Template, values: Sequence[Any], rest: str) -> Mapping[str, Any]:
    names = template.names
    if not names:
        return NO_PARAMS
    if template.rest is not None:
        values = (*values, rest)
    return MappingProxyType(dict(zip(names, values, strict=True)))


def _name(route: Route, taken: set[str]) -> str:
    """The route's name, made unique when it was made up. Raises ``ConfigError`` when two were named alike by hand."""
    if route.name in taken:
        if route.named:
            raise ConfigError(f"two routes are named {route.name!r}")
        number = 2
        while f"{route.name} #{number}" in taken:
            number += 1
        route.name = f"{route.name} #{number}"
    return route.name
