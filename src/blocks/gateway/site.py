"""A site is what a step may use while it is built: clocks, files, services and named tables, and state that survives a reload."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar, cast

from blocks.core.clock import SYSTEM, Clock
from blocks.core.config.complaint import ConfigErrors
from blocks.core.errors import ConfigError
from blocks.http.handler import Handler

from .address import Addresses

if TYPE_CHECKING:
    from .redis import Link
    from .route import Route

T = TypeVar("T")
MAKERS = {
    "auth": "blocks.gateway.auth",
    "brokers": "blocks.gateway.messages.connection",
}  # the modules that make the objects of named tables


class Kept:
    """State that outlives a configuration: the same key gives the same object, until nobody asked for it in a whole reload."""

    __slots__ = ("objects",)

    def __init__(self) -> None:
        self.objects: dict[tuple[Any, ...], Any] = {}

    def get(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """The object of ``key``, made when there is none."""
        found = self.objects.get(key)
        if found is None:
            found = self.objects[key] = make()
        return cast(T, found)

    def forget(self, keys: set[tuple[Any, ...]]) -> None:
        """Let go of what no configuration that may still come back uses."""
        for key in keys & set(self.objects):
            del self.objects[key]


class Site:
    """Given to every ``step(settings, site)``. ``route`` is the route being compiled; the rest is the gateway's."""

    def __init__(
        self,
        *,
        clock: Clock = SYSTEM,
        random: Random | None = None,
        base: Path | None = None,
        tables: Mapping[str, Mapping[str, Any]] | None = None,
        services: Mapping[str, Handler] | None = None,
        publishers: Mapping[str, Any] | None = None,
        subscribers: Mapping[str, Any] | None = None,
        caches: Mapping[str, Any] | None = None,
        country: Callable[[str], str] | None = None,
        country_field: str = "",
        kept: Kept | None = None,
    ) -> None:
        self.clock = clock
        self.random = random or Random()
        self.base = base or Path()
        self.tables: Mapping[str, Mapping[str, Any]] = tables or {}
        self.services = services or {}
        self.publishers = publishers or {}
        self.subscribers = subscribers or {}
        self.caches = caches or {}
        self.country = country
        self.country_field = country_field
        self.keeper = kept or Kept()
        self.addresses = Addresses()
        self.used: set[tuple[Any, ...]] = set()
        self._made: dict[tuple[str, str], Any] = {}
        self.failed: set[tuple[str, str]] = set()  # named tables whose errors have been told: not again by each route
        self.prototypes: dict[Any, Any] = {}  # steps made once for all routes that say the same, see ``steps``
        self.asked_route = False  # whether the step that is being made looked at its route
        self._route: Route | None = None

    @property
    def route(self) -> Route:
        """The route whose steps are being built."""
        self.asked_route = True
        if self._route is None:
            raise RuntimeError("no route is being compiled")
        return self._route

    @route.setter
    def route(self, route: Route) -> None:
        self._route = route

    def file(self, path: str) -> bytes:
        """The bytes of a file beside the configuration. Raises ``ConfigError`` when it cannot be read."""
        try:
            return (self.base / path).read_bytes()
        except OSError as error:
            raise ConfigError(f"the file {path!r} cannot be read: {error.strerror or error}") from error

    def named(self, kind: str, name: str) -> Any:
        """The object of the table ``[kind.name]``, made once. Raises ``ConfigError`` when there is none of that name."""
        found = self._made.get((kind, name))
        if (kind, name) in self.failed:
            raise ConfigErrors([])
        if found is None:
            table = self._entry(kind, self.tables.get(kind, {}), name)
            made = table if not isinstance(table, Mapping) else import_module(MAKERS[kind]).make(dict(table), self)
            found = self._made[(kind, name)] = made
        return found

    def decode(self, type: type[T], value: Any) -> T:
        """``value`` as a ``type``, every error in it collected into one ``ConfigError``."""
        from blocks.core.config.decode import decode

        return decode(type, value)

    def settings(self, home: Any, value: Any) -> Any:
        """A plain table as the ``Settings`` of the module ``home``; anything else unchanged."""
        settings = getattr(home, "Settings", None)
        if settings is not None and isinstance(value, Mapping):
            return self.decode(settings, value)
        return value

    def service(self, name: str) -> Handler:
        """The handler of ``[services.name]``."""
        return cast(Handler, self._entry("services", self.services, name))

    def publisher(self, name: str) -> Any:
        """The ``Publisher`` of that name or URL."""
        return self._messages("publishers", self.publishers, name)

    def subscriber(self, name: str) -> Any:
        """The ``Subscriber`` of that name or URL."""
        return self._messages("subscribers", self.subscribers, name)

    def cache(self, name: str) -> Any:
        """The cache of that name, as given to ``Gateway(caches=…)``."""
        return self._entry("caches", self.caches, name)

    @property
    def consumers(self) -> Mapping[str, Any]:
        """The ``[consumers.NAME]`` tables."""
        return self.tables.get("consumers", {})

    def kept(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """State that survives a reload: the same key gives the same object."""
        self.used.add(key)
        return self.keeper.get(key, make)

    def redis(self) -> Link:
        """The link to the Redis of ``[redis]``, one for each gateway. Raises ``ConfigError`` when there is no such table."""
        from .redis import make_link

        return make_link(self)

    def _messages(self, kind: str, given: Mapping[str, Any], name: str) -> Any:
        """An object that was given by that name, else the connection of ``[brokers.NAME]`` or to the URL that the name is."""
        if name in given:
            return given[name]
        if "://" in name:
            return import_module(MAKERS["brokers"]).at_url(name, self)
        brokers = self.tables.get("brokers", {})
        return self.named("brokers", name) if name in brokers else self._entry(kind, {**brokers, **given}, name)

    def _entry(self, kind: str, table: Mapping[str, Any], name: str) -> Any:
        found = table.get(name)
        if found is None:
            from blocks.core.config.suggest import suggestion

            raise ConfigError(f"there is no {kind.removesuffix('s')} named {name!r}{suggestion(name, table)}")
        return found
