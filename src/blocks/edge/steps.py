"""The steps of a request through the edge: a table of names, one small function each.

A step gives the response, or the name of the step that is next. ``lookup`` is the first; ``Edge`` itself takes the short way
through lookup and hit for plain requests that a fresh entry answers.

    lookup ─┬─ hit ──────────────────────────────┐
            ├─ stale ── (refresh behind) ────────┤
            ├─ revalidate ─┬─ (304) ─────────────┤
            ├─ part ───────┤                     ├─ deliver
            ├─ miss ───────┴─ fetch ── (store) ──┤
            ├─ head                              │
            ├─ pass ── (invalidate) ─────────────┘
            └─ purge
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from blocks.core.errors import Failure, Fault, UpstreamFault, UpstreamTimeout
from blocks.http.body import Stream
from blocks.http.message import Headers, Response, Section

from . import cache_status
from .answers import counted, deliver, first_answer, from_origin, hit_section, uncached
from .collapse import Abandoned, Flight, is_joinable
from .deliver import partial_response, unsatisfiable
from .entry import PARTIAL, PASS, TRANSFORM, Entry
from .freshness import is_fresh, may_revalidate_behind, may_serve_on_error
from .invalidation import invalidated_tags, invalidated_urls, invalidates, same_origin
from .ranges import Parts, parse_content_range, parse_range, range_holds, wanted
from .store import Purge
from .storing import add_part, freshen, keep, pass_by
from .validators import strongly_same, validating_pairs
from .vary import variant_part

if TYPE_CHECKING:
    from .edge import Edge
    from .visit import Visit

NEAR = 8 * 1024 * 1024  # bytes that a range waits for to come: what an origin brings in a second at 64 Mbit/s

Step = Callable[["Edge", "Visit"], Awaitable["Response | str"]]


async def run(edge: Edge, visit: Visit, first: str = "lookup") -> Response:
    """The response of a request that begins at the step ``first``."""
    step = first
    while True:
        outcome = await STEPS[step](edge, visit)
        if isinstance(outcome, Response):
            return outcome
        step = outcome


async def lookup(edge: Edge, visit: Visit) -> Response | str:
    """Find what is stored, and say what it is good for (RFC 9111 §4)."""
    request = visit.request
    edge.refuse_loop(visit.facts)
    if request.method == "PURGE":
        return "purge"
    if (
        request.method not in ("GET", "HEAD")
        or request.body
        or request.upgrade
        or visit.asked.no_store
        or edge.goes_past(visit)
    ):
        return "pass"
    entry = await edge.library.find(visit)
    alone = "only-if-cached" in visit.directives
    if entry is None or entry.flags & PASS:
        visit.reason = cache_status.VARY_MISS if visit.marker is not None else cache_status.URI_MISS
        if entry is not None:
            visit.collapse = False
        return _only_if_cached() if alone else "head" if request.method == "HEAD" else "miss"
    visit.entry = entry
    if is_fresh(entry, visit.now, visit.directives):
        return "part" if entry.flags & PARTIAL else "hit"
    if alone:
        return _only_if_cached()
    if entry.flags & PARTIAL:
        visit.entry = None
        visit.reason = cache_status.STALE
        return "miss"
    if may_revalidate_behind(entry, visit.now, visit.directives):
        return "stale"
    visit.reason = cache_status.STALE if entry.age(visit.now) >= entry.lifetime else cache_status.REQUEST
    return "head" if request.method == "HEAD" else "revalidate"


def _only_if_cached() -> Response:
    """504: the client wants what is stored or nothing (RFC 9111 §5.2.1.7)."""
    return Response(
        504, [("cache-control", "no-store"), ("content-type", "text/plain")], b"504 Gateway Timeout: only-if-cached\n"
    )


async def hit(edge: Edge, visit: Visit) -> Response | str:
    """A fresh entry answers."""
    entry = visit.entry
    assert entry is not None
    edge.counts.hits += 1
    age = entry.age(visit.now)
    if age >= entry.early:
        edge.consider_refresh(visit, entry, age)
    if edge.transforms:
        entry = await edge.coded(visit, entry)
    return deliver(edge, visit, entry)


async def stale(edge: Edge, visit: Visit) -> Response | str:
    """A stale entry answers while it is validated behind the client's back (RFC 5861 §3): the first who asks gets it, too."""
    assert visit.entry is not None
    edge.counts.stale += 1
    edge.refresh(visit)
    visit.detail = "stale-while-revalidate"
    return deliver(edge, visit, visit.entry)


async def miss(edge: Edge, visit: Visit) -> Response | str:
    """Ask the origin, or wait for one who does already (collapsing)."""
    return await _collapsed(edge, visit)


async def revalidate(edge: Edge, visit: Visit) -> Response | str:
    """Ask the origin whether the stale entry still holds, or wait for one who does already."""
    return await _collapsed(edge, visit)


async def _collapsed(edge: Edge, visit: Visit) -> Response | str:
    key = _flight_key(edge, visit)
    flight = edge.flights.get(key)
    aboard: Flight | None = None
    while flight is not None and visit.collapse:
        try:
            entry = flight.entry if flight.over else await flight.wait()
        except Abandoned:
            aboard = flight
            break
        except Failure as failure:
            return _failed(edge, visit, failure)
        if entry is None or not is_joinable(
            entry
        ):  # looked at last: a body may have moved on while this request waited
            visit.collapse = False
            break
        if entry.flags & PARTIAL:
            visit.collapse = False
            return "lookup"  # the part may be there by now
        if _is_far(visit, entry):
            visit.collapse = False
            break
        if entry.names and not entry.key.endswith(variant_part(entry.names, visit.section)):
            if visit.marker is not None:
                visit.collapse = False
                break
            visit.collapse = edge.memory.entries.get(visit.key) is not None  # once the marker is there, look again
            return "lookup" if visit.collapse else "miss"
        edge.counts.collapsed += 1
        return deliver(edge, visit, entry, collapsed=True)
    return await _lead(edge, visit, key, aboard)


def _is_far(visit: Visit, entry: Entry) -> bool:
    """Whether the range that is asked for begins so far behind what has come that the origin answers sooner.

    nginx knows this as proxy_cache_max_range_offset.
    """
    body = entry.body
    if isinstance(body, bytes) or body.complete or entry.status != 200 or visit.request.method != "GET":
        return False
    if not visit.section.has(b"range"):
        return False
    specs, length = parse_range(b",".join(visit.section.index[b"range"])), body.length
    if specs is None or length is None:
        return False
    return any(cut.start - getattr(body, "filled", 0) > NEAR for cut in wanted(specs, length))


def _flight_key(edge: Edge, visit: Visit) -> str:
    """What requests must have in common to share an answer: the variant, as far as it is known, and for a miss the Range."""
    key = visit.key
    if visit.marker is not None:
        key += variant_part(visit.marker.names, visit.section)
    if visit.entry is None and visit.section.has(b"range") and key not in edge.flights:
        key += "\0range=" + visit.section.index[b"range"][0].decode("latin-1")
    return key


async def _lead(edge: Edge, visit: Visit, key: str, aboard: Flight | None) -> Response | str:
    flight = Flight()
    if aboard is not None:
        flight.board(aboard.waiting)
    if visit.collapse:
        edge.flights[key] = flight
    asked_at = edge.clock.monotonic()
    try:
        response = await fetch(edge, visit)
        outcome = await received(edge, visit, flight, response, asked_at)
    except Failure as failure:
        crashed(edge, key, flight, failure)
        return _failed(edge, visit, failure)
    except BaseException:
        crashed(edge, key, flight, Abandoned())
        raise
    landed(edge, key, flight)
    return outcome


def landed(edge: Edge, key: str, flight: Flight) -> None:
    """The one who asked for all has its answer: others may come aboard for as long as the body is coming."""
    entry = flight.entry
    if entry is not None and entry in edge.fills:
        edge.fills.when_over(entry, lambda: _leave(edge, key, flight))
    else:
        _leave(edge, key, flight)
    if not flight.over:
        flight.land(None)


def crashed(edge: Edge, key: str, flight: Flight, error: BaseException) -> None:
    """There was no answer: the others are told, or the next of them asks."""
    _leave(edge, key, flight)
    flight.crash(error)


def _leave(edge: Edge, key: str, flight: Flight) -> None:
    if edge.flights.get(key) is flight:
        del edge.flights[key]


async def refresh(edge: Edge, visit: Visit) -> Response:
    """Validate the visit's entry with no client waiting; others who ask meanwhile may wait for it."""
    outcome = await _lead(edge, visit, _flight_key(edge, visit), None)
    return outcome if isinstance(outcome, Response) else await run(edge, visit, outcome)


async def fetch(edge: Edge, visit: Visit) -> Response:
    """Ask the origin: with what validates the stale entry, or with the client's Range (RFC 9111 §4.3.1)."""
    entry = visit.entry
    section = edge.forwarded(visit.facts, visit.request)
    if entry is not None and not entry.flags & PARTIAL:
        etag, modified = entry.find(b"etag"), entry.find(b"last-modified")
        section = Section(validating_pairs(section.pairs, etag, modified))
    elif not visit.facts.plain:
        ranged = visit.request.method == "GET" and entry is None and visit.section.index.get(b"range")
        pairs = validating_pairs(section.pairs, None, None)
        if ranged:
            pairs.append((b"range", ranged[0]))
            pairs.extend(pair for pair in visit.section.pairs if pair[0] == b"if-range")
        section = Section(pairs)
    response = await edge.ask(visit, section)
    visit.fetched_status = response.status
    return response


async def received(edge: Edge, visit: Visit, flight: Flight, response: Response, asked_at: float) -> Response | str:
    """The origin's answer: 304 freshens what is stored, a 5xx may be bridged by it, all else is stored if it may be."""
    old = visit.entry
    status = response.status
    if old is not None and status == 304:
        entry, verdict = freshen(edge, visit, old, response, asked_at)
        response.discard()
        if entry is None:  # about a representation that we do not have: ask for the whole
            visit.entry = None
            again = edge.clock.monotonic()
            return await received(edge, visit, flight, await fetch(edge, visit), again)
        edge.counts.revalidated += not visit.behind
        flight.land(entry if not verdict.refused else None)
        return deliver(edge, visit, entry, validated=True)
    if (
        status >= 500
        and old is not None
        and may_serve_on_error(old, visit.now, visit.directives, visit.route.grace, True)
    ):
        response.discard()
        edge.counts.errors += 1
        flight.land(old)
        return _bridged(edge, visit, old)
    if not visit.behind:
        edge.counts.miss(visit.key)
    entry, refused = keep(edge, visit, response, asked_at)
    if entry is not None:
        flight.land(entry)
        coded = await edge.coded(visit, entry) if entry.flags & TRANSFORM else entry
        return first_answer(edge, visit, entry, coded, response)
    edge.counts.refused += 1
    visit.detail = refused
    if old is not None and status < 500 and not visit.asked.no_store:
        edge.library.forget(old.key)
    if status >= 500:
        flight.crash(UpstreamFault(f"the origin answered {status}", reason="origin-error", status=status))
    else:
        pass_by(edge, visit.key, visit.asked, status, visit.now)
        flight.land(None)
    from_origin(edge, response)
    return uncached(edge, visit, response)


def _failed(edge: Edge, visit: Visit, failure: Failure) -> Response:
    """The origin could not be asked: a stale entry bridges that where it may (RFC 9111 §4.2.4), else it is an error."""
    old = visit.entry
    if failure.fault is Fault.CLIENT:
        raise failure
    edge.counts.errors += 1
    if old is not None and may_serve_on_error(
        old, visit.now, visit.directives, visit.route.grace, failure.reason == "origin-error"
    ):
        return _bridged(edge, visit, old)
    if old is not None and not isinstance(failure, UpstreamTimeout) and failure.reason != "origin-error":
        raise UpstreamTimeout(
            "the origin cannot be reached, and what is stored may not be used without it", reason="stale-forbidden"
        ) from failure
    raise failure


def _bridged(edge: Edge, visit: Visit, entry: Entry) -> Response:
    edge.counts.stale += 1
    visit.detail = "origin-failed"
    return deliver(edge, visit, entry)


async def part(edge: Edge, visit: Visit) -> Response | str:
    """Bytes that are here answer a range; the hole of a whole is asked for, and nothing else of it (RFC 9111 §3.3, §3.4)."""
    entry = visit.entry
    assert entry is not None
    parts = entry.body
    assert isinstance(parts, Parts)
    visit.reason = cache_status.PARTIAL
    length = parts.length
    specs = parse_range(b",".join(visit.section.index.get(b"range", ())))
    if visit.request.method == "HEAD" or length is None:
        visit.entry = None
        return "head" if visit.request.method == "HEAD" else "miss"
    if specs is not None and range_holds(
        visit.section, entry.find(b"etag"), entry.find(b"last-modified"), edge.clock.wall()
    ):
        cuts = wanted(specs, length)
        data = [parts.cut(cut) for cut in cuts]
        if all(piece is not None for piece in data):
            edge.counts.hits += 1
            section = hit_section(edge, visit, entry)
            if not cuts:
                return unsatisfiable(section, length)
            body = data[0] if len(cuts) == 1 else parts
            if body is not None and isinstance(body, bytes):
                response = partial_response(parts, cuts, length, section, edge.random)
                return counted(edge, response)
        visit.entry = None
        return "miss"
    return await _complete(edge, visit, entry, parts)


async def _complete(edge: Edge, visit: Visit, entry: Entry, parts: Parts) -> Response | str:
    """Ask for the first hole only. What cannot be put to the rest (RFC 9110 §15.3.7.3) is asked for again, as a whole."""
    hole = parts.missing
    assert hole is not None
    etag = entry.find(b"etag")
    pairs = validating_pairs(edge.forwarded(visit.facts, visit.request).pairs, None, None)
    pairs.append(
        (
            b"range",
            b"bytes=%d-" % hole.start if hole.stop == parts.length else b"bytes=%d-%d" % (hole.start, hole.stop - 1),
        )
    )
    if etag is not None and not etag.startswith(b"W/"):
        pairs.append((b"if-range", etag))
    visit.entry = None
    asked_at = edge.clock.monotonic()
    response = await edge.ask(visit, Section(pairs))
    visit.fetched_status = response.status
    if response.status != 206:
        return await received(edge, visit, Flight(), response, asked_at)
    lines = response.headers.section.index
    came = parse_content_range(lines[b"content-range"][0]) if b"content-range" in lines else None
    tag = lines.get(b"etag", [None])[0]
    fits = (
        came is not None
        and came.length == parts.length
        and etag is not None
        and tag is not None
        and strongly_same(etag, tag)
    )
    if not fits or came is None:
        response.discard()
        visit.collapse = False
        return await _lead(edge, visit, visit.key, None)
    entry_now, _ = freshen(
        edge,
        visit,
        entry,
        Response(304, Headers.of(Section([p for p in response.headers.raw if p[0] != b"content-range"]))),
        asked_at,
    )
    edge.counts.miss(visit.key)
    add_part(edge, entry_now or entry, came, await response.read(edge.memory.largest))
    whole = edge.memory.entries.get(visit.key)
    if whole is None or whole.flags & PARTIAL:
        visit.collapse = False
        return await _lead(edge, visit, visit.key, None)
    return deliver(edge, visit, whole, validated=True)


async def head(edge: Edge, visit: Visit) -> Response | str:
    """HEAD goes to the origin as HEAD, and its answer corrects what is stored of GET (RFC 9111 §4.3.5)."""
    old = visit.entry
    visit.entry = None
    asked_at = edge.clock.monotonic()
    edge.counts.miss(visit.key)
    try:
        response = await fetch(edge, visit)
    except Failure as failure:
        visit.entry = old
        return _failed(edge, visit, failure)
    if old is not None and response.status == 200 and old.status == 200:
        length = response.headers.find(b"content-length")
        same = length is None or old.length is None or length == b"%d" % old.length
        known = freshen(edge, visit, old, response, asked_at)[0] if same else None
        if known is None:
            edge.library.forget(old.key)
    return uncached(edge, visit, response)


async def forward(edge: Edge, visit: Visit) -> Response | str:
    """Requests that no stored response answers go to the origin as they are; unsafe ones that succeed invalidate (RFC 9111 §4.4)."""
    request = visit.request
    edge.counts.passes += 1
    safe = request.method in ("GET", "HEAD")
    visit.reason = cache_status.BYPASS if safe else cache_status.METHOD
    asked_at = edge.clock.monotonic()
    response = await edge.ask(visit, edge.passed_on(visit), request)
    visit.fetched_status = response.status
    section = response.headers.section
    stored = False
    if invalidates(request.method, response.status):
        url = visit.facts.url + visit.target
        for target in invalidated_urls(url, section):
            edge.invalidate(Purge("url", visit.facts.base + target.removeprefix(visit.facts.url)))
        for tag in invalidated_tags(visit.facts.base, section):
            edge.invalidate(Purge("tag", tag))
        stored = (
            request.method == "POST" and response.status == 200 and _keep_post(edge, visit, response, url, asked_at)
        )
    if response.status == 101:
        return response
    if not stored:
        from_origin(edge, response)
    status = cache_status.forwarded(edge.name, visit.reason, response.status, stored=stored)
    response.headers.replace((), [(b"cache-status", status.encode("latin-1"))])
    return counted(edge, response)


def _keep_post(edge: Edge, visit: Visit, response: Response, url: str, asked_at: float) -> bool:
    """A POST's answer that says it is what a GET would bring, and for how long, is stored for GET (RFC 9110 §9.3.3)."""
    lines = response.headers.section.index.get(b"content-location")
    if lines is None or same_origin(url, lines[0]) != url:
        return False
    entry, _ = keep(edge, visit, response, asked_at)
    if entry is not None and isinstance(response.body, Stream):
        response.body = entry.body if isinstance(entry.body, bytes) else entry.body.stream()
    return entry is not None


async def purge(edge: Edge, visit: Visit) -> Response | str:
    """PURGE takes out what is stored for its URL, when the client may (the method that nginx, Varnish and Squid know)."""
    return edge.purge_request(visit.request)


STEPS: dict[str, Step] = {
    "lookup": lookup,
    "hit": hit,
    "stale": stale,
    "revalidate": revalidate,
    "part": part,
    "miss": miss,
    "head": head,
    "pass": forward,
    "purge": purge,
}
