"""An edge is a handler that remembers: it answers from what it has stored, and asks its origin for the rest."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any

from blocks.core.clock import SYSTEM, Clock
from blocks.core.errors import ConfigError, Failure, Unavailable
from blocks.core.logging import events
from blocks.core.quantities import Rate, rate, seconds, size
from blocks.core.status import Status
from blocks.http.handler import Handler
from blocks.http.message import Headers, Request, Response, Section

from . import cache_status, steps
from .admission import Admission, LoopDetected
from .collapse import Flight
from .defence import is_plain_path, without_unkeyed
from .deliver import lines_for
from .directives import NONE, parse_directives
from .entry import MARKER, NO_CACHE, PARTIAL, PASS, TRANSFORM, Entry
from .fills import Fills
from .freshness import Asked, Policy
from .key import KeyRules, authority, base_of, extras, forwarded_target
from .library import Library
from .miss import plain_miss
from .origins import Origins
from .purgers import Purgers
from .rules import Route, Rule, route_of
from .settings import lifetimes_of, origins_of, share_of, store_of
from .stats import Counts
from .store import Purge, Store
from .transforming import Coder, Transform
from .validators import CONDITIONALS, is_precondition
from .visit import Facts, Visit

if TYPE_CHECKING:
    from pathlib import Path

_HEEDED = frozenset(("no-cache", "no-store", "max-age", "max-stale", "min-fresh", "only-if-cached", "stale-if-error"))
_ASKS_MORE = (b"range", b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since", b"if-range")
_SPECIAL = NO_CACHE | PARTIAL | MARKER | PASS | TRANSFORM  # entries that do not take the short way
_RENDERED = 4096  # entries whose fields are kept as they were sent last; a hot entry's head is then made once a second
_WHOLES = (
    32  # bodies on their way at which no range starts another: a range of a byte must not cost gigabytes for each URL
)
_HOT = 3  # hits (in the counting of the memory store) from which an entry is worth refreshing before it expires


class Edge:
    """Answers from memory, then from ``store``, then from ``origin``, a handler or several in order of liking (fail-over).

    ``memory`` is a size (nginx: keys_zone and page cache together). ``store`` is a second tier: a ``Store``, or the path of a
    folder (of ``store_size``). ``profile`` is ``safe`` or ``rfc``; safe does not store Set-Cookie, does not forward the fields that
    caches are poisoned with, and checks extension against content type. ``default_ttl`` is for responses without freshness (0: not
    stored). ``ttl_jitter`` shortens lifetimes by up to that share. ``grace`` is how long a stale response bridges a dead origin.
    ``rules`` are routes with their own; ``key`` says what is in the key. ``allow_purge`` names who may PURGE. ``max_fills``
    bounds requests to the origin at a time, ``fill_rate`` those that one client causes (``"100/s"``), ``max_variants`` the variants of
    a URL. ``refresh_ahead`` is the last share of a lifetime in which a hot entry is refreshed before it expires. Without
    ``obey_clients`` the Cache-Control of requests counts for nothing, as CDNs have it: a reload then costs the origin nothing. ``via`` is
    this edge's name in the Via that origins get (RFC 9110 §7.6.3), None for no Via. ``releases`` is what was pushed, a ``Releases``.
    A range of what is larger than memory takes, and not larger than ``range_fill``, makes the edge fetch the whole into the store.
    ``on_event(kind, detail)`` is told of fills, purges and origins that fail and return.

    Use it as an async context manager, or inside ``serve``/``running``. Raises ``ConfigError`` for settings that make no sense.
    """

    direct = True

    def __init__(
        self,
        origin: Handler | Sequence[Handler],
        memory: int | str = "256MiB",
        store: Store | str | Path | None = None,
        profile: str = "safe",
        *,
        store_size: int | str = "4GiB",
        default_ttl: float | str = 0.0,
        ttl_jitter: float | str = "10%",
        grace: float | str = "1h",
        negative: dict[int, float | str] | None = None,
        rules: Iterable[Rule] = (),
        key: KeyRules | None = None,
        name: str = "blocks",
        allow_purge: Iterable[str] = ("127.0.0.1", "::1"),
        max_fills: int = 1024,
        max_variants: int = 64,
        fill_rate: Rate | str | None = None,
        refresh_ahead: float = 0.1,
        obey_clients: bool = True,
        via: str | None = "blocks",
        range_fill: int | str = "1GiB",
        transforms: Iterable[Transform] = (),
        releases: Any = None,
        clock: Clock = SYSTEM,
        random: Random | None = None,
        on_event: Callable[[str, str], None] | None = None,
    ) -> None:
        if profile not in ("safe", "rfc"):
            raise ConfigError(f"profile={profile!r} is not one; choose 'safe' or 'rfc'")
        self.name = name
        self.profile = profile
        self.rfc = profile == "rfc"
        self.clock = clock
        self.random = random or Random()
        self.max_variants = max_variants
        self.range_fill = 0 if store is None else size(range_fill)
        self.transforms = tuple(transforms)
        self._obey = obey_clients
        self.told = on_event
        self.releases = releases
        origins = origins_of(origin)
        self.parts: tuple[object, ...] = origins if releases is None else (*origins, releases)
        self._origins = Origins(origins, clock.monotonic, self._origin_changed)
        self.origin = self._origins.only or self._origins.ask
        self._key = key or KeyRules()
        self._keyed = frozenset(header.lower().encode("latin-1") for header in self._key.headers)
        jitter = share_of(ttl_jitter, "ttl_jitter")
        policy = Policy(seconds(default_ttl), None, lifetimes_of(negative), jitter, rfc=self.rfc)
        self._route = Route(policy, seconds(grace))
        self._rules = [(rule, route_of(rule, policy, self._route.grace)) for rule in rules]
        limit = rate(fill_rate) if fill_rate is not None else None
        self.admission = Admission(name, max_fills, limit, self.random, via)
        self.purgers = Purgers(allow_purge)
        self.now = clock.monotonic
        self.coder = Coder(self) if self.transforms else None
        self.store = store_of(store, size(store_size), clock)
        self._remember(size(memory), refresh_ahead)

    def _remember(self, capacity: int, ahead: float) -> None:
        """Begin with an empty memory, and nothing under way."""
        self.counts = Counts()
        self.events: deque[tuple[float, str, str]] = deque(maxlen=256)
        self.flights: dict[str, Flight] = {}
        self.fills = Fills()
        self._refreshing: set[asyncio.Task[None]] = set()
        dropped = self.coder.drop if self.coder is not None else None
        self.library = Library(capacity, self.store, self._key, ahead, self.now, self.random, dropped)
        self.memory = self.library.memory
        self._entries = self.memory.entries
        self._plain_key = not self._key.touches_query
        self._rendered: deque[Entry] = deque()

    # -- life

    async def __aenter__(self) -> Edge:
        if self.store is not None:
            await self.store.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = list(self._refreshing)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        if self.coder is not None:
            await self.coder.close()
        for flight in list(self.flights.values()):
            body = flight.entry.body if flight.entry is not None else None
            cancel = getattr(body, "cancel", None)
            if cancel is not None:
                cancel(ConnectionAbortedError("the edge is closing"))
        if self.store is not None:
            await self.store.__aexit__(kind, error, trace)

    def inherit(self, other: Edge) -> bool:
        """Go on with what ``other`` has stored and counted; False, and cold, when key or store are not the same.

        Entries keep the lifetimes that they were stored with: new rules hold for what is stored from now on.
        """
        if self._key != other._key or self.store is not other.store:
            return False
        other.library.go_on(self.library)
        self.library, self.memory, self._entries = other.library, other.memory, other._entries
        self.counts, self.events = other.counts, other.events
        return True

    @property
    def status(self) -> Status:
        """BUSY when no origin takes work: what is stored is still served."""
        return max(Status.BUSY, self._origins.status)

    # -- requests

    async def __call__(self, request: Request) -> Response:
        """The short way for a plain GET that a fresh entry in memory answers; the steps for all else."""
        section = request.headers.section
        facts: Facts | None = section.derived.get(self)
        if facts is None:
            facts = self._facts(request)
        if self.releases is not None:
            found = self.releases.find(request, f"{facts.base}{request.target}")
            if found is not None:
                return await self._pushed(request, facts, found)
        if facts.plain and request.method == "GET" and self._plain_key and not request.body and not request.upgrade:
            key = f"{facts.base}{request.target}{facts.extra}"
            entry = self._entries.get(key)
            if entry is None or entry.flags & PASS:
                if entry is not None and self.now() - entry.born > entry.lifetime:
                    entry = None
                if entry is not None and self.store is None and not self._rules and not self.library.searches:
                    route: Route | None = self._route  # nothing can have changed since it was noted
                else:
                    route = self._straight_on(request.target, key, entry)
                if route is not None:
                    return await plain_miss(self, request, facts, route, key, entry)
            elif entry.flags & MARKER:
                entry = self._variant(entry, facts, section)
            if entry is not None and not entry.flags & _SPECIAL:
                age = self.now() - entry.born
                body = entry.body
                if age < entry.early and type(body) is bytes:
                    counts = self.counts
                    counts.hits += 1
                    counts.bytes_served += len(body)
                    if entry.frequency < 3:
                        entry.frequency += 1
                    second = int(age)
                    fields = entry.rendered if entry.second == second else self._render(entry, second)
                    return Response(entry.status, Headers.of(fields), body)
        return await steps.run(self, self.visit(request, facts))

    async def _pushed(self, request: Request, facts: Facts, found: Entry | Response) -> Response:
        """What belongs to a release, or the answer that there is nothing under its prefix."""
        if isinstance(found, Response):
            return found
        visit = self.visit(request, facts)
        visit.entry = found
        return await steps.run(self, visit, "hit")

    def _straight_on(self, target: str, key: str, noted: Entry | None) -> Route | None:
        """The route of a miss that can go to the origin at once: no tier has anything for ``key``, and there is nobody to wait for.

        Waiting helps nobody where a PASS was ``noted``.
        """
        store = self.store
        if (
            (noted is None and key in self.flights)
            or (store is not None and store.holds(key))
            or self.library.searches
            or not target.startswith("/")
        ):
            return None
        route = self.route_of(target.partition("?")[0]) if self._rules else self._route
        return route if route.store else None

    def _variant(self, marker: Entry, facts: Facts, section: Section) -> Entry | None:
        return self._entries.get(marker.key + facts.part(marker.names, section))

    def _render(self, entry: Entry, second: int) -> Section:
        """The fields of a hit at that age; kept for entries that are asked for again."""
        section = lines_for(entry, max(0, second), cache_status.hit(self.name, entry.lifetime - second))
        if entry.frequency > 1:
            if entry.rendered is None:
                if len(self._rendered) >= _RENDERED:
                    old = self._rendered.popleft()
                    old.rendered, old.second = None, -1
                self._rendered.append(entry)
            entry.rendered, entry.second = section, second
        return section

    def _facts(self, request: Request) -> Facts:
        section = request.headers.section
        scheme, host = request.peer.scheme, request.host
        lines = section.index.get(b"cache-control")
        directives = NONE
        if lines is not None and self._obey:
            found = parse_directives(b", ".join(lines))
            if not _HEEDED.isdisjoint(found):
                directives = found
        plain = not directives and not any(section.has(name) for name in _ASKS_MORE)
        extra = extras(self._key, section)
        loops = self.admission.is_loop(section)
        facts = Facts(
            section, base_of(self._key, scheme, host), authority(scheme, host), extra, plain, loops, directives
        )
        section.derived[self] = facts
        return facts

    def visit(self, request: Request, facts: Facts) -> Visit:
        """The state of a request on its way through the steps."""
        target = request.target
        if self._key.touches_query:
            target = forwarded_target(self._key, target)
        path = target.partition("?")[0]
        asked = Asked(
            request.method,
            facts.authorized,
            facts.cookies,
            "no-store" in facts.directives,
            self.rfc or is_plain_path(path),
        )
        key = f"{facts.base}{target}{facts.extra}"
        return Visit(request, facts, target, key, self.route_of(path), asked, self.now())

    def route_of(self, path: str) -> Route:
        """What holds for a path: the first rule that matches, else the edge's own settings."""
        for rule, its in self._rules:
            if rule.matches(path):
                return its
        return self._route

    def refuse_loop(self, facts: Facts) -> None:
        """Raise 508 for a request that has been here before: it would wait for itself (RFC 8586)."""
        if facts.loops:
            raise LoopDetected("the request has been through this edge before (RFC 8586)")

    def goes_past(self, visit: Visit) -> bool:
        """Whether nothing stored may answer: the request is for the origin to evaluate, or its route is not stored."""
        return is_precondition(visit.section) or not visit.route.store or not visit.target.startswith("/")

    # -- asking the origin

    def forwarded(self, facts: Facts, request: Request) -> Section:
        """The fields that go to the origin for a request whose answer may be stored."""
        section = facts.forward
        if section is None or facts.forward_version != request.version:
            pairs = request.headers.section.pairs
            if not self.rfc:
                pairs = without_unkeyed(pairs, self._keyed)
            section = facts.forward = Section(self.admission.marked(pairs, request.version))
            facts.forward_version = request.version
        return section

    def passed_on(self, visit: Visit) -> Section:
        """The fields that go to the origin for a request that is passed."""
        if visit.request.method in ("GET", "HEAD") and not self.rfc:
            return self.forwarded(visit.facts, visit.request)
        return Section(self.admission.marked(visit.section.pairs, visit.request.version))

    async def ask(self, visit: Visit, section: Section, request: Request | None = None) -> Response:
        """The origin's answer, within the bounds on fills. Raises ``Failure``."""
        came = visit.request
        self.admit(came, visit.target, visit.behind)
        asked = Request(
            came.method, visit.target, Headers.of(section), b"" if request is None else came.body,
            peer=came.peer, upgrade=came.upgrade if request is not None else "", expects=came.expects, deadline=came.deadline,
            inform=None if visit.behind else came.inform,
        )  # fmt: skip
        try:
            return await self.origin(asked)
        finally:
            self.admission.under_way -= 1

    def admit(self, request: Request, target: str, behind: bool = False) -> None:
        """One more request to the origin: ``admission.under_way`` goes down when it has its answer. Raises ``Unavailable``."""
        try:
            self.admission.enter(request.peer.client[0], self.now, behind)
        except Unavailable:
            self.counts.fills_refused += 1
            raise
        self.counts.fills += 1
        if self.told is not None:
            self.told("fill", f"{request.method} {target}{' behind' if behind else ''}")

    def _origin_changed(self, place: int, well: bool) -> None:
        origin = repr(self._origins.handlers[place])
        self._note("origin-up" if well else "origin-down", origin)
        if well:
            events().info("edge-origin-up", edge=self.name, origin=origin)
        else:
            events().warning("edge-origin-down", edge=self.name, origin=origin)

    # -- refreshing behind

    def consider_refresh(self, visit: Visit, entry: Entry, age: float) -> None:
        """A hit close to the end of a lifetime: refresh what is hot now, so that nobody waits for it later."""
        if entry.frequency >= _HOT and age < entry.lifetime and not entry.flags & (PARTIAL | PASS):
            entry.early = entry.lifetime
            self.refresh(visit)

    def refresh(self, visit: Visit) -> None:
        """Validate the visit's entry in the background, once for all who ask."""
        entry = visit.entry
        if entry is None or entry.key in self.flights or len(self._refreshing) >= self.admission.limit:
            return
        behind = Visit(
            visit.request,
            visit.facts,
            visit.target,
            visit.key,
            visit.route,
            visit.asked._replace(method="GET"),
            visit.now,
        )
        if visit.request.method != "GET":
            behind.request = visit.request.copy()
            behind.request.method = "GET"
        behind.entry, behind.marker, behind.reason, behind.behind = entry, visit.marker, cache_status.STALE, True
        self._behind(behind)

    def fetch_whole(self, visit: Visit) -> None:
        """Fetch what a range was asked of in the background, all of it, once for all who ask."""
        if visit.key in self.flights or len(self.fills) + len(self._refreshing) >= _WHOLES:
            return
        asked = visit.request
        pairs = [pair for pair in visit.section.pairs if pair[0] not in CONDITIONALS and pair[0] != b"range"]
        headers = Headers.of(Section(pairs))
        request = Request("GET", asked.target, headers, peer=asked.peer, version=asked.version)
        behind = self.visit(request, self._facts(request))
        behind.reason, behind.behind = cache_status.PARTIAL, True
        self._behind(behind)

    def _behind(self, visit: Visit) -> None:
        task = asyncio.get_running_loop().create_task(self._refresh(visit))
        self._refreshing.add(task)
        task.add_done_callback(self._refreshing.discard)

    async def _refresh(self, visit: Visit) -> None:
        self.counts.refreshed += 1
        try:
            response = await steps.refresh(self, visit)
        except Failure:
            return  # the stale one is still there, and the next request tries again
        response.discard()

    async def prefetch(self, *urls: str) -> int:
        """Fetch URLs (``http://host/path``) ahead of demand, one after another; how many are stored now. Failures count as not."""
        stored = 0
        for url in urls:
            scheme, _, rest = url.partition("://")
            host, _, path = rest.partition("/")
            request = Request("GET", "/" + path, {"host": host})
            request.peer = type(request.peer)(scheme=scheme)
            try:
                response = await self(request)
                await response.read()
            except Failure:
                continue
            stored += self.entry(url) is not None
        return stored

    async def coded(self, visit: Visit, entry: Entry) -> Entry:
        """The entry in the coding that the client likes best, when there are transforms for it."""
        if self.coder is None or not entry.flags & TRANSFORM:
            return entry
        return await self.coder.twin(visit, entry)

    # -- purging

    def purge(
        self, *, url: str = "", prefix: str = "", host: str = "", tag: str = "", group: str = "", soft: bool = False
    ) -> int:
        """Take out, or with ``soft`` make stale, what is stored for one of those; how many entries that was.

        A URL or prefix is ``http://host/path``, or ``/path`` for that path on every host; both schemes are meant. A group is
        ``http://host name`` (RFC 9875). Exactly one is given, else ``ConfigError``.
        """
        pairs = (("url", url), ("prefix", prefix), ("host", host), ("tag", tag), ("tag", group))
        given = [(kind, value) for kind, value in pairs if value]
        if len(given) != 1:
            raise ConfigError("purge what? give exactly one of url=, prefix=, host=, tag=, group=")
        kind, value = given[0]
        values = self.library.keys_of(value, prefix=kind == "prefix") if kind in ("url", "prefix") else [value]
        found = sum(self.library.purge(Purge(kind, each, soft)) for each in values)
        self.counts.purged += found
        self._note("purge", f"{kind} {value}{' soft' if soft else ''}: {found}")
        return found

    def invalidate(self, purge: Purge) -> None:
        """What an unsafe request changed is stored no more (RFC 9111 §4.4, RFC 9875 §3)."""
        self.counts.invalidated += self.library.purge(purge)

    def entry(self, url: str) -> Entry | None:
        """What memory holds for a URL (for a resource that varies: its marker)."""
        for key in self.library.keys_of(url):
            entry = self._entries.get(key)
            if entry is not None and not entry.flags & PASS:
                return entry
        return None

    def purge_request(self, request: Request) -> Response:
        """The answer to a PURGE: 403 for those who may not.

        ``Soft-Purge: 1`` makes stale only, ``Surrogate-Key: tag …`` means tags, and a final ``*`` of the URL a prefix.
        """
        client = request.peer.client[0]
        if not self.purgers.may(client):
            return Response.json({"error": "not allowed to purge"}, 403)
        soft = (request.headers.find(b"soft-purge") or request.headers.find(b"fastly-soft-purge")) == b"1"
        tags = (request.headers.get("surrogate-key") or "").split()
        url = authority(request.peer.scheme, request.host) + request.target
        if tags:
            found = sum(self.purge(tag=tag, soft=soft) for tag in tags)
        elif url.endswith("*"):
            found = self.purge(prefix=url[:-1], soft=soft)
        else:
            found = self.purge(url=url, soft=soft)
        events().info("edge-purge", edge=self.name, client=client, target=request.target[:200], soft=soft, purged=found)
        return Response.json({"purged": found})

    # -- seeing

    def stats(self) -> dict[str, Any]:
        """Counts and ratios: hits, stale, misses, passes, collapsed, fills, offload, bytes and entries in memory, top misses …"""
        found = self.counts.summary()
        memory = self.memory
        found.update(
            entries=len(memory), memory_bytes=memory.bytes, memory_capacity=memory.capacity, evictions=memory.evictions,
            filling=len(self.fills), profile=self.profile, age_median=self._age(),
        )  # fmt: skip
        return found

    def _age(self) -> float:
        """The median age of the entries that came first in memory's table, seconds; a sample, so that it costs the same with a million."""
        now = self.now()
        ages = sorted(entry.age(now) for entry in islice(self.memory, 500) if entry.status)
        return ages[len(ages) // 2] if ages else 0.0

    def _note(self, kind: str, detail: str) -> None:
        self.events.append((self.clock.wall(), kind, detail))
        if self.told is not None:
            self.told(kind, detail)
