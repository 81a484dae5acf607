"""A snapshot is everything that answers requests, built whole and swapped whole: routes, their compiled steps, their figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from blocks.core.errors import ConfigError
from blocks.http.handler import bind
from blocks.http.message import Request

from .address import Addresses
from .figures import Figures
from .path import canonical, host_name, rewrite
from .route import Route
from .routes.table import NOT_FOUND, Found, Missed, Table
from .routes.template import Template
from .site import Site
from .steps import Plan, Step, build_steps
from .versions import Vary, Versions

if TYPE_CHECKING:
    from .limits.compiled import Rule

OnError = Callable[[int, ConfigError], None]


class Lane:
    """A route made ready: its plan, its handler as the gateway calls it, and its figures."""

    __slots__ = ("figures", "handler", "plan", "route")

    def __init__(self, route: Route, plan: Plan, figures: Figures) -> None:
        self.route = route
        self.plan = plan
        self.handler = bind(route.handler)
        self.figures = figures


Seen = tuple[Lane, Mapping[str, Any], str]
"""The lane of a request, the values of its parameters (shared by requests: not to be changed), and its canonical path."""
_MAX_SEEN = 4096  # ways of requests that are remembered; a client that invents paths makes the memory start again
_MAX_KEY = 256  # longer ones are not: with all of them the memory stays below 4 MiB


class Snapshot:
    """Never changed once it is made. ``label`` names it in the history; ``encoded_slash`` and ``semicolon`` are path rules."""

    __slots__ = (
        "_by_host", "_default", "_seen", "addresses", "encoded_slash", "label", "lanes", "semicolon", "site", "source", "table",
    )  # fmt: skip

    def __init__(
        self,
        routes: Iterable[Route],
        site: Site,
        *,
        addresses: Addresses | None = None,
        versions: Versions | None = None,
        defaults: dict[str, Any] | None = None,
        encoded_slash: bool = False,
        semicolon: bool = False,
        label: str = "",
        source: Any = None,
        on_error: OnError | None = None,
    ) -> None:
        self.site = site
        self.addresses = site.addresses = addresses or Addresses()
        self.encoded_slash = encoded_slash
        self.semicolon = semicolon
        self.label = label
        self.source = source
        routes = list(routes)
        if versions is None and any(route.version is not None for route in routes):
            versions = Versions()  # a version that nothing says how to ask for must not be passed over
        ready = [_versioned(route, versions) for route in routes]
        self.table = Table(ready, random=site.random, versions=versions, on_error=on_error)
        self._by_host = self.table.by_host
        self._default = (
            f"/v{versions.default}" if versions is not None and versions.in_path and versions.default else ""
        )
        self._seen: dict[str, Seen] = {}
        self.lanes: dict[Route, Lane] = {}
        for place, route in enumerate(self.table.routes):
            site.route = route
            try:
                steps = _steps(route, site, defaults or {}, versions)
                plan = Plan(steps, bind(route.handler))
            except ConfigError as error:
                if on_error is None:
                    raise ConfigError(f"route {route.name!r}: {error}") from error
                on_error(place, error)
                continue
            figures = site.kept(("figures", route.name), Figures)
            self.lanes[route] = Lane(route, plan, figures)

    @property
    def parts(self) -> tuple[object, ...]:
        """The handlers and the steps' own parts, each once."""
        found: dict[int, object] = {}
        for lane in self.lanes.values():
            for part in (*lane.plan.parts, lane.route.handler):
                found.setdefault(id(part), part)
        return tuple(found.values())

    def rules(self) -> Iterator[Rule]:
        """The limits of all routes."""
        for lane in self.lanes.values():
            for step in lane.plan.steps:
                yield from getattr(step, "rules", ())

    def find(self, request: Request) -> Seen | Missed:
        """The route of a request, whose target is rewritten to what was matched. Raises ``BadPath``.

        What the method, the host and the path decide alone is remembered for them.
        """
        target = request.target
        raw = target if "?" not in target else target.partition("?")[0]
        host = ""
        if self._by_host:
            value = request.headers.find(b"host")
            host = "" if not value else _host(value)
        key = f"{request.method} {host}{raw}"
        return self._seen.get(key) or self._look(request, host, raw, key)

    def _look(self, request: Request, host: str, raw: str, key: str) -> Seen | Missed:
        path = canonical(raw)
        clean = path is not None
        if path is None:
            if raw == "*":
                return NOT_FOUND
            path = rewrite(raw, encoded_slash=self.encoded_slash, semicolon=self.semicolon)
            request.state.setdefault("target", request.target)  # for the log: as it came
            request.target = path + request.target[len(raw) :]
        method = request.method
        found: Found | Missed | None = self.table.straight(method, host, path)
        if found is None:
            clean = False
            found = self.table.search(method, host, path, request)
        if self._default and isinstance(found, Missed) and not found.allowed:
            path, found = self._by_default(request, host, path, found)
            clean = False
        if isinstance(found, Missed):
            if method != "OPTIONS" or not found.allowed:
                return found
            asked = self._preflight(request, host, path)
            if asked is None:
                return found
            found = asked
        seen = (self.lanes[found[0]], found[1], path)
        if clean and len(key) <= _MAX_KEY:
            if len(self._seen) >= _MAX_SEEN:
                self._seen.clear()
            self._seen[key] = seen
        return seen

    def _by_default(self, request: Request, host: str, path: str, missed: Missed) -> tuple[str, Found | Missed]:
        """A path that no route takes and that says no version is that of the default one: the same route, and the same limits."""
        versioned = self._default if path == "/" else self._default + path
        found = self.table.match(request.method, host, versioned, request)
        if isinstance(found, Missed) and not found.allowed:
            return path, missed
        request.state.setdefault("target", request.target)
        request.target = versioned + request.target[len(path) :]
        return versioned, found

    def _preflight(self, request: Request, host: str, path: str) -> Found | None:
        """A CORS preflight belongs to the route of the method that it asks for, when that route has CORS."""
        wanted = request.headers.find(b"access-control-request-method")
        if wanted is None or request.headers.find(b"origin") is None:
            return None
        found = self.table.match(wanted.decode("latin-1"), host, path, request)
        if isinstance(found, Missed) or "cors" not in self.lanes[found[0]].plan.names:
            return None
        return found


_hosts: dict[bytes, str] = {}
_MAX_HOSTS = 4096  # spellings remembered; a client that invents hosts makes the memory start again


def _host(value: bytes) -> str:
    found = _hosts.get(value)
    if found is None:
        found = host_name(value.decode("latin-1"))
        if len(_hosts) >= _MAX_HOSTS:
            _hosts.clear()
        _hosts[value] = found
    return found


def _steps(route: Route, site: Site, defaults: dict[str, Any], versions: Versions | None) -> list[Step]:
    options = {**defaults, **{key: value for key, value in route.options.items() if value is not None}}
    steps = build_steps(options, site)
    if route.version is not None and versions is not None and not versions.in_path:
        steps.insert(0, Vary(versions.field))
    return steps


def _versioned(route: Route, versions: Versions | None) -> Route:
    """The route as it stands in the table: below ``/v{version}`` when versions are in the path."""
    if route.version is None or versions is None or not versions.in_path:
        return route
    template = route.template
    prefix = "/v" + route.version
    text = prefix if template.text == "/" else prefix + template.text
    twin = Route(
        Template(text, exact=template.static and not template.prefix), route.handler, route.name, route.options
    )
    for name in (
        "methods",
        "hosts",
        "headers",
        "query",
        "weight",
        "version",
        "timeout",
        "description",
        "tags",
        "named",
    ):
        setattr(twin, name, getattr(route, name))
    return twin
