"""A leaf holds the routes of one template: the method, fields, query and version decide among them, and weights share them out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from blocks.core.errors import ConfigError
from blocks.http.message import Request, field_name

from ..path import BadPath

if TYPE_CHECKING:
    from ..route import Route
    from ..versions import Versions

Predicate = Callable[[Request], bool]
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
MAX_QUERY_FIELDS = 1000  # a longer query is refused when a route asks for a query parameter (PHP's max_input_vars)


def methods_of(given: Any) -> frozenset[str] | None:
    """The methods of a route: None for all; GET brings HEAD with it (RFC 9110 §9.3.2). Raises ``ConfigError``."""
    if given is None:
        return None
    words = [given] if isinstance(given, str) else list(given)
    methods = {str(word).upper() for word in words}
    for method in methods:
        if not _METHOD.fullmatch(method):
            raise ConfigError(f"{method!r} is not a method")
    if not methods:
        raise ConfigError("methods is empty: leave it out to take every method")
    if "GET" in methods:
        methods.add("HEAD")
    return frozenset(methods)


def field_predicate(name: str, wanted: Any) -> Predicate:
    """Whether a request field has the wanted value: a str (equal), a list (one of), True (there), False (not there)."""
    key = field_name(name)
    if isinstance(wanted, bool):
        return lambda request: (request.headers.find(key) is not None) is wanted
    values = frozenset(word.encode("latin-1") for word in ([wanted] if isinstance(wanted, str) else wanted))
    return lambda request: request.headers.find(key) in values


def query_predicate(name: str, wanted: Any) -> Predicate:
    """The same for a query parameter; of repeated ones, all must match, so that no service sees another than was matched."""
    values = None if isinstance(wanted, bool) else frozenset([wanted] if isinstance(wanted, str) else wanted)

    def asks(request: Request) -> bool:
        try:
            fields = parse_qsl(request.query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
        except ValueError as error:
            raise BadPath(f"the query has more than {MAX_QUERY_FIELDS} fields") from error
        found = [value for key, value in fields if key == name]
        if values is None:
            return bool(found) is wanted
        return bool(found) and all(value in values for value in found)

    return asks


class Candidate:
    """One route, or several that share a place by weight."""

    __slots__ = ("marks", "methods", "predicates", "routes", "total", "version", "weights")

    def __init__(self, route: Route, versions: Versions | None) -> None:
        self.routes: list[Route] = [route]
        self.weights = [1.0 if route.weight is None else route.weight]
        self.total = self.weights[0]
        self.methods = route.methods
        self.version = route.version
        self.marks = marks_of(route)
        predicates = [field_predicate(name, value) for name, value in route.headers.items()] if route.headers else []
        if route.query:
            predicates += [query_predicate(name, value) for name, value in route.query.items()]
        if route.version is not None and versions is not None and not versions.in_path:
            version = route.version
            predicates.append(lambda request: versions.asked(request) == version)
        self.predicates = tuple(predicates)

    @property
    def rank(self) -> tuple[int, int]:
        """The more is asked, the earlier it is tried: predicates, then methods (fewer are narrower)."""
        return (-len(self.predicates), 1000 if self.methods is None else len(self.methods))

    def add(self, route: Route) -> None:
        """Share the place with one more route, by weight."""
        self.routes.append(route)
        self.weights.append(1.0 if route.weight is None else route.weight)
        self.total = sum(self.weights)

    def draw(self, random: Random) -> Route:
        """One of the routes, by weight."""
        if len(self.routes) == 1:
            return self.routes[0]
        return random.choices(self.routes, self.weights)[0]


def marks_of(route: Route) -> tuple[object, ...]:
    """What a route asks of a request beside the path: equal for two routes that take the same requests."""

    def frozen(table: Mapping[str, Any]) -> tuple[object, ...]:
        return tuple(sorted((name, repr(value)) for name, value in table.items())) if table else ()

    return (route.methods, frozen(route.headers), frozen(route.query), route.version)


class Leaf:
    """The candidates of one template, in order of precedence."""

    __slots__ = ("_plain", "candidates")

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self._plain = False  # no predicates and no siblings: the method alone decides, the common case

    def add(self, route: Route, versions: Versions | None) -> None:
        """Add a route. Raises ``ConfigError`` when another takes the same requests and they do not share them by weight."""
        marks = marks_of(route)
        for candidate in self.candidates:
            if candidate.marks == marks:
                first = candidate.routes[0]
                if route.weight is None or first.weight is None:
                    raise ConfigError(
                        f"routes {first.name!r} and {route.name!r} take the same requests; give both a weight, or tell them apart"
                    )
                candidate.add(route)
                break
        else:
            self.candidates.append(Candidate(route, versions))
            if len(self.candidates) > 1:
                self.candidates.sort(key=lambda candidate: candidate.rank)
        self._plain = all(len(one.routes) == 1 and one.total > 0 and not one.predicates for one in self.candidates)

    def straight(self, method: str) -> Route | None:
        """The route that takes the method, when nothing else has a say; else None."""
        if self._plain:
            for candidate in self.candidates:
                if candidate.methods is None or method in candidate.methods:
                    return candidate.routes[0]
        return None

    def choose(self, method: str, request: Request, random: Random, allowed: set[str]) -> Route | None:
        """The route that takes the request, or None; methods that others would take are added to ``allowed``."""
        for candidate in self.candidates:
            methods = candidate.methods
            if candidate.predicates and not all(asks(request) for asks in candidate.predicates):
                continue
            if methods is not None and method not in methods:
                allowed.update(methods)
                continue
            if candidate.total > 0:
                return candidate.draw(random)
        return None
