"""A file becomes a snapshot, or everything that is wrong with it. Nothing that runs is touched until all of it is right."""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
from msgspec import structs

from blocks.core.clock import SYSTEM, Clock
from blocks.core.config.complaint import At, Complaint, ConfigErrors, Misread, complaints_of
from blocks.core.config.decode import convert
from blocks.core.config.read import Source, read
from blocks.core.config.suggest import suggestion
from blocks.core.errors import ConfigError, MissingExtra
from blocks.http.handler import Handler
from blocks.http.message import Request, Response

from ..address import Addresses
from ..alerts import Watch
from ..auth.complaints import consumer_complaints
from ..auth.consumers import ConsumerSettings
from ..change import check_rules
from ..conflicts import unreachable
from ..limits.keys import KINDS, is_kind, kinds_of
from ..limits.rule import Limit, amount_of
from ..redis import Address
from ..route import Route, route
from ..site import Kept, Site
from ..snapshot import Snapshot
from ..steps import ENDS, KEYWORDS, build_steps
from .caches import CacheOf
from .salvage import stand_in, tell_all, without
from .schema import FileTable, GatewayTable, RouteTable, ServiceTable
from .services import Fixed, service_of

_OWN = frozenset(field.encode_name for field in msgspec.structs.fields(RouteTable))
_ENDS = {feature.key: feature for feature in ENDS}
_ROUNDS = 5  # of taking out what is wrong; what is left of it then is not looked at


class Loaded(NamedTuple):
    """What a file came to. ``warnings`` are complaints that do not stop it; ``digest`` names this very content."""

    snapshot: Snapshot
    settings: FileTable
    source: Source
    warnings: list[Complaint]
    digest: str


class Objects(NamedTuple):
    """What a file may name but cannot hold: brokers' and caches' objects, handlers, and a table of countries."""

    services: Mapping[str, Handler] = {}
    publishers: Mapping[str, Any] = {}
    subscribers: Mapping[str, Any] = {}
    caches: Mapping[str, Any] = {}
    country: Callable[[str], str] | None = None


def load(
    path: Path | str,
    *,
    objects: Objects = Objects(),  # noqa: B008  # a tuple of empty tables, never changed
    kept: Kept | None = None,
    clock: Clock = SYSTEM,
    random: Random | None = None,
    environment: Mapping[str, str] | None = None,
) -> Loaded:
    """Read, check and build. Raises ``ConfigErrors`` whose ``source`` (if the file could be read) gives the places.

    ``kept`` is the running gateway's state (``gateway.kept``): limits, key sets and figures of the same names go on.
    """
    source = read(Path(path), os.environ if environment is None else environment)
    return build(source, objects=objects, kept=kept, clock=clock, random=random)


def build(
    source: Source,
    *,
    objects: Objects = Objects(),  # noqa: B008  # a tuple of empty tables, never changed
    kept: Kept | None = None,
    clock: Clock = SYSTEM,
    random: Random | None = None,
) -> Loaded:
    """Check and build tables that were read already. Raises ``ConfigErrors``; files are looked for beside ``source.path``."""
    collecting = gc.isenabled()
    gc.disable()  # a collection among a hundred thousand new objects would hold every request up, and find nothing
    try:
        return _Loader(source, objects, kept, clock, random).run()
    except ConfigErrors as error:
        error.source = source
        raise
    finally:
        if collecting:
            gc.enable()


class _Loader:
    """One run over one file; ``complaints`` collects."""

    def __init__(
        self, source: Source, objects: Objects, kept: Kept | None, clock: Clock, random: Random | None
    ) -> None:
        self._source = source
        self._objects = objects
        self._complaints: list[Complaint] = []
        self._kept = kept or Kept()
        self._used: set[tuple[Any, ...]] = set()
        self._clock = clock
        self._random = random
        self._services: dict[str, Handler] = dict(objects.services)
        self._broken: set[str] = set()  # services whose own table is wrong: said once, not again by each route

    def run(self) -> Loaded:
        """The whole way."""
        settings: Any = convert(FileTable, self._source.tables, (), self._complaints)
        if not isinstance(settings, FileTable):
            settings = self._what_can_be_read()
        addresses = self._addresses(settings)
        site = self._site(settings)
        site.addresses = addresses
        self._consumers(settings)
        self._named("auth", settings.auth, site)
        self._named("brokers", settings.brokers, site)
        places: list[int] = []
        routes: list[Route] = []
        for number, table in enumerate(settings.routes):
            made = self._route(number, table, site)
            if made is not None:
                routes.append(made)
                places.append(number)
        self._operation(settings, routes)
        if not settings.routes and not self._complaints:
            self._complaints.append(Complaint((), "there is no [[routes]]: a gateway without routes answers nothing"))

        def on_error(place: int, error: ConfigError) -> None:
            self._complaints.extend(complaints_of(error, ("routes", places[place])))

        digest = hashlib.blake2b(repr(self._source.tables).encode(), digest_size=6).hexdigest()
        general = settings.gateway
        defaults = {**general.defaults, **self._general_auth(general, site)}
        for word in general.defaults:
            if word not in KEYWORDS:
                at = ("gateway", "defaults", word)
                self._complaints.append(Complaint(at, f"unknown key {word!r}{suggestion(word, KEYWORDS)}"))
        snapshot = Snapshot(
            routes, site, addresses=addresses, versions=settings.versions, defaults=defaults, encoded_slash=general.encoded_slash,
            semicolon=general.semicolon, label=digest, source=self._source, on_error=on_error,
        )  # fmt: skip
        if self._complaints:
            raise ConfigErrors(list(dict.fromkeys(self._complaints)))
        warnings = [Complaint(("routes", places[place]), words, "warning") for place, words in unreachable(routes)]
        warnings += self._unused(settings)
        return Loaded(snapshot, settings, self._source, warnings, digest)

    def _operation(self, settings: FileTable, routes: list[Route]) -> None:
        """Look at ``[redis]``, ``[change]`` and ``[[alerts]]``, which a snapshot does without: no reload is to fail over them."""
        urls = settings.redis.url if settings.redis is not None else []
        for place, url in enumerate([urls] if isinstance(urls, str) else urls):
            try:
                Address.of(url)
            except ConfigError as error:
                at: At = ("redis", "url") if isinstance(urls, str) else ("redis", "url", place)
                self._complaints.extend(complaints_of(error, at))
        try:
            check_rules(settings.change)
        except ConfigError as error:
            self._complaints.extend(complaints_of(error, ("change",)))
        names = [route.name for route in routes] if len(routes) == len(settings.routes) else []
        for place, rule in enumerate(settings.alerts):
            try:
                Watch(rule)
            except ConfigError as error:
                self._complaints.extend(complaints_of(error, ("alerts", place)))
            if rule.route and names and rule.route not in names:
                said = f"there is no route named {rule.route!r}{suggestion(rule.route, names)}"
                self._complaints.append(Complaint(("alerts", place, "route"), said))

    def _what_can_be_read(self) -> FileTable:
        """The file without what is wrong with it, so that the others' errors are found in the same run."""
        tables = self._source.tables
        for _ in range(_ROUNDS):
            unheard: list[Complaint] = []
            settings: Any = convert(FileTable, tables, (), unheard)
            if isinstance(settings, FileTable):
                limits = self._source.tables.get("limits")
                for name in set(limits if isinstance(limits, dict) else ()) - set(settings.limits):
                    settings.limits[name] = Limit(rate="none")  # its error has been told: not again by each route
                return settings
            unheard = [one for one in unheard if not isinstance(one, Misread)]
            self._broken |= {str(one.at[1]) for one in unheard if one.at[:1] == ("services",) and len(one.at) > 1}
            tables = without(tables, [one.at for one in unheard])
        return FileTable()

    def _site(self, settings: FileTable) -> Site:
        for name, table in settings.services.items():
            try:
                self._services[name] = self._service(name, table, settings.gateway)
            except ConfigError as error:
                self._broken.add(name)
                self._complaints.extend(complaints_of(error, ("services", name)))
        caches: dict[str, Any] = {}
        for name, cache in settings.caches.items():
            try:
                caches[name] = CacheOf(cache)
            except ConfigError as error:
                caches[name] = _nothing_cached  # said once, not again by each route
                self._complaints.extend(complaints_of(error, ("caches", name)))
        for name, limit in settings.limits.items():
            if not self._limit(name, limit):
                settings.limits[name] = Limit(rate="none")  # said once, not again by each route
        tables: dict[str, Mapping[str, Any]] = {
            "auth": settings.auth, "limits": settings.limits, "consumers": settings.consumers, "brokers": settings.brokers,
            "redis": msgspec.to_builtins(settings.redis) if settings.redis is not None else {},
        }  # fmt: skip
        objects = self._objects
        site = Site(
            clock=self._clock, random=self._random, base=self._source.path.parent, tables=tables, services=self._services,
            publishers=objects.publishers, subscribers=objects.subscribers, caches={**caches, **objects.caches}, country=objects.country,
            country_field=settings.gateway.country_field, kept=self._kept,
        )  # fmt: skip
        site.used |= self._used
        return site

    def _service(self, name: str, table: ServiceTable, general: GatewayTable) -> Handler:
        """The handler of a service; one whose settings are the same as before goes on, with its open connections."""
        seen = (general.trusted, general.forwarded_by, general.trust_unix)
        key = ("service", name, msgspec.json.encode((table, seen)))
        made = self._kept.get(key, lambda: service_of(name, table, general))
        self._used.add(key)
        return made

    def _consumers(self, settings: FileTable) -> None:
        """Decode ``[consumers.NAME]``: what is wrong with one is said here, and not again by each authenticator that knows them."""
        for name, table in settings.consumers.items():
            found: list[Complaint] = []
            made: Any = convert(ConsumerSettings, table, (), found)
            if found:
                made = convert(ConsumerSettings, without(table, [one.at for one in found]), (), [])
            if isinstance(made, ConsumerSettings):
                found += consumer_complaints(made)
            self._complaints.extend(one._replace(at=("consumers", name, *one.at)) for one in found)
            settings.consumers[name] = ConsumerSettings() if found else made

    def _named(self, kind: str, tables: Mapping[str, Any], site: Site) -> None:
        """Make the objects of ``[kind.NAME]``; what is wrong with one is said here and not again by each route."""
        for name in tables:
            try:
                site.named(kind, name)
            except (ConfigError, MissingExtra) as error:
                site.failed.add((kind, name))
                said = error if isinstance(error, ConfigError) else ConfigError(str(error))
                self._complaints.extend(complaints_of(said, (kind, name)))

    def _general_auth(self, general: GatewayTable, site: Site) -> dict[str, Any]:
        """What ``[gateway] auth`` adds to the defaults; nothing when it is wrong, which is said once and not by each route."""
        if general.auth is None:
            return {}
        try:
            build_steps({"auth": general.auth}, site)
        except ConfigError as error:
            self._complaints.extend(complaints_of(error, ("gateway",)))
            return {}
        return {"auth": general.auth}

    def _limit(self, name: str, limit: Limit) -> bool:
        """Whether its rates and its key are right."""
        before = len(self._complaints)
        rates: list[tuple[At, str]] = [(("rate",), limit.rate)]
        rates += [(("tiers", tier), text) for tier, text in limit.tiers.items()]
        for at, text in rates:
            try:
                amount_of(text, limit)
            except ConfigError as error:
                self._complaints.append(Complaint(("limits", name, *at), str(error)))
        for kind in kinds_of(limit.per):
            if not is_kind(kind):
                said = f"per = {kind!r} is not known; there is {', '.join(KINDS)}{suggestion(kind, KINDS)}"
                self._complaints.append(Complaint(("limits", name, "per"), said))
        return len(self._complaints) == before

    def _addresses(self, settings: FileTable) -> Addresses:
        own = settings.gateway
        try:
            Addresses(own.trusted)
        except ConfigError as error:
            self._complaints.append(Complaint(("gateway", "trusted"), str(error)))
            own.trusted = []  # services are told of them, too
            return Addresses()
        try:
            return Addresses(own.trusted, own.forwarded_by, own.ipv6_prefix, own.ipv4_prefix, own.trust_unix)
        except (ConfigError, ValueError) as error:
            self._complaints.append(Complaint(("gateway",), str(error)))
            return Addresses()

    def _route(self, number: int, table: dict[str, Any], site: Site) -> Route | None:
        at: At = ("routes", number)
        own = {key: value for key, value in table.items() if key in _OWN}
        options = {key: value for key, value in table.items() if key in KEYWORDS}
        ends = [key for key in table if key in _ENDS]
        for key in table:
            if key not in _OWN and key not in KEYWORDS and key not in _ENDS:
                known = [*_OWN, *KEYWORDS, *_ENDS]
                self._complaints.append(Complaint((*at, key), f"unknown key {key!r}{suggestion(key, known)}"))
        before = len(self._complaints)
        words, made = self._made(at, own, options)
        right = len(self._complaints) == before
        site.route = made
        taken_out = not right and any(word in own and not getattr(words, word) for word in ("service", "respond"))
        handler = None if taken_out else self._handler(at, words, ends, table, site)
        if not right:
            try:
                build_steps(options, site)
            except ConfigError as error:
                self._complaints.extend(complaints_of(error, at))
            return None
        if handler is not None:
            made.handler = handler
        return made  # with nobody behind it when that was wrong: its steps are looked at all the same

    def _made(self, at: At, own: dict[str, Any], options: dict[str, Any]) -> tuple[RouteTable, Route]:
        """The route; where its table is wrong one that stands in for it, so that its steps and its end are looked at all the same."""
        words: Any = convert(RouteTable, own, at, self._complaints)
        if not isinstance(words, RouteTable):
            unheard: list[Complaint] = []
            convert(RouteTable, own, (), unheard)
            left = {"path": stand_in(own.get("path")), **without(own, [one.at for one in unheard])}
            words = convert(RouteTable, left, (), [])
        for _ in range(_ROUNDS):
            try:
                return words, self._make(words, options)
            except (ConfigError, ValueError) as error:
                said = error if isinstance(error, ConfigError) else ConfigError(str(error))
                self._complaints.extend(complaints_of(said, at))
                key = next(iter(getattr(error, "at", ())), "weight")
                words = structs.replace(words, **{key: stand_in(words.path) if key == "path" else None})
        return words, self._make(RouteTable(path=stand_in(words.path)), options)

    def _make(self, words: RouteTable, options: dict[str, Any]) -> Route:
        return route(
            words.path, _nobody, methods=words.methods, host=words.host, headers=words.headers, query=words.query,
            weight=words.weight, version=words.version, name=words.name, exact=words.exact, timeout=words.timeout,
            description=words.description, tags=words.tags, **options,
        )  # fmt: skip

    def _handler(self, at: At, words: RouteTable, ends: list[str], table: dict[str, Any], site: Site) -> Handler | None:
        """The end of a route: exactly one of a service, a fixed answer, and the features of ``ENDS``."""
        given = [*(["service"] if words.service else []), *(["respond"] if words.respond is not None else []), *ends]
        try:
            if len(given) != 1:
                known = ", ".join(["service", "respond", *_ENDS])
                said = f"not {' and '.join(given)} together" if given else "and this one has none"
                raise ConfigError(f"a route ends in exactly one of {known}, {said}")
            if words.respond is not None:
                at = (*at, "respond")
                return Fixed(words.respond)
            if words.service:
                if words.service in self._broken:
                    return None
                at = (*at, "service")
                return site.service(words.service)
            at = (*at, given[0])
            from importlib import import_module

            home: Any = import_module(_ENDS[given[0]].home)
            handler: Handler = tell_all(lambda told: home.handler(site.settings(home, told), site), table[given[0]])
            return handler
        except ConfigError as error:
            self._complaints.extend(complaints_of(error, at))
            return None

    def _unused(self, settings: FileTable) -> list[Complaint]:
        """Tables that nothing names: most often a name that was misspelt."""
        text = repr(settings.routes) + repr(settings.gateway)
        return [
            Complaint((kind, name), f"nothing uses [{kind}.{name}]", "warning")
            for kind in ("services", "auth", "limits", "brokers", "caches")
            for name in getattr(settings, kind)
            if repr(name) not in text
        ]


def _nothing_cached(inner: Handler) -> Handler:
    """Stands for a cache that is wrong, while the rest of the file is read."""
    return inner


async def _nobody(request: Request) -> Response:
    """Stands for a route's end while the route is being read."""
    return Response(503)
