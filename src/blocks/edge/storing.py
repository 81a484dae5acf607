"""A response becomes an entry: judged, stripped of what must not be kept, and its body led into the stores (RFC 9111 §3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from blocks.core.errors import Failure
from blocks.http.body import Stream
from blocks.http.message import Headers, Pair, Response, Section

from .dates import format_date
from .defence import is_deceptive
from .entry import MARKER, PARTIAL, PASS, TRANSFORM, Entry, wire_of
from .fill import Fill
from .freshness import UNDERSTOOD, Asked, Verdict, corrected_age, initial_age, jittered, judge
from .ranges import Part, Parts, parse_content_range
from .ruling import ruling_of
from .search import parse_no_vary_search
from .store import Writer
from .tags import tags_of
from .validators import NEVER_STORED, freshened, freshens, strongly_same

if TYPE_CHECKING:
    from .edge import Edge
    from .visit import Visit

LONGEST_FIELDS = 64 * 1024  # bytes of field lines that one entry may have (the server's own limit on a head)
JOIN = (
    2 * 1024 * 1024
)  # up to here a filled body becomes one bytes object, which leaves in one write; above, the copy costs more
SPILL = 1024 * 1024  # from here a body goes into the second tier as it comes
PASS_FOR = (
    120.0  # seconds that requests for what was not storable do not wait for each other (Varnish: hit-for-miss, 120 s)
)
_SEARCH = b"No-Vary-Search: "
FOREVER = 10.0 * 365 * 86400


def keep(edge: Edge, visit: Visit, response: Response, asked_at: float) -> tuple[Entry | None, str]:
    """(the entry of a response, or None; why it was refused). A body that is still coming is led into the entry.

    An entry is findable once its body is complete; until then those who fly with it read it. When the body will not be stored for its
    size, the entry still serves those who came meanwhile.
    """
    section, status = response.headers.section, response.status
    got_at, wall = edge.clock.monotonic(), edge.clock.wall()
    route = visit.route
    ruling = ruling_of(visit.asked, status, section, route, edge.clock)
    verdict = ruling.verdict
    refused = verdict.refused or _refused(edge, visit, section)
    names = ruling.names
    if refused or names is None:
        return None, refused or "vary"
    key = visit.key
    coded = edge.coder is not None and edge.coder.applies(section, status)
    if ruling.as_it_is and not coded:
        wire = section.wire
    else:
        pairs = stored_pairs(section.pairs, verdict.omit, wall)
        wire = wire_of(edge.coder.plain(pairs) if edge.coder is not None and coded else pairs)
    if len(wire) > LONGEST_FIELDS:
        return None, "fields-too-long"
    entry = Entry(
        key + visit.facts.part(names, visit.section) if names else key,
        status,
        wire,
        b"",
        born=got_at - corrected_age(ruling.made, ruling.age, got_at - asked_at, wall),
        lifetime=jittered(verdict.lifetime, route.policy, edge.random.random()),
        revalidate=verdict.revalidate,
        on_error=verdict.on_error,
        flags=verdict.flags | (TRANSFORM if coded else 0),
        names=names,
        tags=tags_of(section, visit.facts.base) if ruling.tagged else (),
    )
    if status == 206:
        return _keep_part(edge, visit, entry, response)
    return _keep_body(edge, visit, entry, response)


def _refused(edge: Edge, visit: Visit, section: Section) -> str:
    if not visit.route.store:
        return "rule"
    if not edge.rfc and is_deceptive(visit.path, section):
        return "deception"
    return ""


def stored_pairs(pairs: list[Pair], omit: tuple[bytes, ...], wall: float) -> list[Pair]:
    """The fields that are kept (RFC 9111 §3.1), with a Date of our own where there is none (RFC 9110 §6.6.1)."""
    kept = [pair for pair in pairs if pair[0] not in NEVER_STORED and pair[0] not in omit]
    if not any(pair[0] == b"date" for pair in kept):
        kept.append((b"date", format_date(wall)))
    return kept


def _keep_body(edge: Edge, visit: Visit, entry: Entry, response: Response) -> tuple[Entry | None, str]:
    body = response.body
    if isinstance(body, Stream):
        return _keep_stream(edge, visit, entry, body), ""
    entry.body = body
    edge.counts.bytes_from_origin += len(body)
    if not edge.memory.fits(entry.size) and edge.store is None:
        return None, "too-large"
    commit(edge, visit.key, entry, visit.section)
    return entry, ""


def _keep_stream(edge: Edge, visit: Visit, entry: Entry, stream: Stream) -> Entry:
    """Lead a body that is coming into the second tier, or into memory, or past both in a window."""
    length = stream.length
    writer = None
    if edge.store is not None and (length is None or length > min(SPILL, edge.memory.largest)):
        writer = edge.store.open(entry.key, length)
    if writer is not None:
        entry.body = writer.content
        spill = _Spill(writer, stream, lambda error: _spilled(edge, visit, entry, writer, error))
        edge.fills.begin(entry)
        stream.pour(spill)
        return entry
    largest = edge.memory.largest
    fill = Fill(length, kept=length is None or length <= largest, limit=largest)
    entry.body = fill
    fill.finished = lambda error: _filled(edge, visit, entry, fill, error)
    edge.fills.begin(entry)
    fill.pull(stream)
    return entry


def _filled(edge: Edge, visit: Visit, entry: Entry, fill: Fill, error: BaseException | None) -> None:
    """The origin is through with a body: make the entry findable, or forget it."""
    edge.counts.bytes_from_origin += fill.size
    if error is None and fill.kept:
        if fill.size <= JOIN:
            entry.body = fill.data()
        commit(edge, visit.key, entry, visit.section)
    edge.fills.end(entry)


def _spilled(edge: Edge, visit: Visit, entry: Entry, writer: Writer, error: BaseException | None) -> None:
    edge.counts.bytes_from_origin += entry.length or 0
    if error is None:
        writer.commit(entry)
        commit(edge, visit.key, entry, visit.section, spilled=True)
    edge.fills.end(entry)


class _Spill:
    """Pours the origin's stream into the second tier, and holds the origin while that is congested."""

    __slots__ = ("_left", "_over", "_stream", "_writer")

    def __init__(self, writer: Writer, stream: Stream, over: Callable[[BaseException | None], None]) -> None:
        self._writer = writer
        self._stream = stream
        self._over = over
        self._left = stream.length
        writer.drained = stream.resume

    def write(self, data: bytes) -> None:
        if self._left is not None:
            self._left -= len(data)
        self._writer.write(data)
        if self._writer.congested:
            self._stream.pause()

    def end(self, trailers: Headers | None) -> None:
        if self._left:
            self.abort(Failure("the origin sent another number of bytes than it said", reason="bad-length", status=502))
            return
        self._over(None)

    def abort(self, error: BaseException) -> None:
        self._writer.abort(error)
        self._over(error)


def commit(edge: Edge, key: str, entry: Entry, request: Section, *, spilled: bool = False) -> None:
    """Make an entry findable: in memory, in the second tier, and, when it varies, through its marker."""
    if edge.coder is not None:
        edge.coder.prepare(entry)
    if entry.names:
        _mark(edge, key, entry)
    edge.library.put(entry)
    edge.counts.stored += 1
    if edge.store is not None and not spilled and isinstance(entry.body, bytes):
        edge.store.save(entry)
    rule = entry.find(b"no-vary-search") if _SEARCH in entry.wire else None
    variance = parse_no_vary_search(rule) if rule is not None else None
    if variance is not None and entry.status == 200:
        edge.library.remember_search(key, variance)


def _mark(edge: Edge, key: str, entry: Entry) -> None:
    """Note a variant with its resource. More than ``max_variants`` make the oldest go (a flood of Vary values does not grow the cache)."""
    marker = edge.memory.entries.get(key)
    if marker is None or not marker.flags & MARKER or marker.names != entry.names:
        old = marker
        marker = Entry(key, 0, b"", b"", born=entry.born, lifetime=FOREVER, flags=MARKER, names=entry.names)
        marker.variants = {}
        if old is not None and old.variants:
            for variant in list(old.variants):
                edge.library.forget(variant)
    variants = marker.variants
    assert variants is not None
    if entry.key not in variants:
        variants[entry.key] = None
        while len(variants) > edge.max_variants:
            oldest = next(iter(variants))
            del variants[oldest]
            edge.library.forget(oldest)
        edge.library.put(marker)
        if edge.store is not None:
            edge.store.save(marker)


def pass_by(edge: Edge, key: str, asked: Asked, status: int, now: float) -> None:
    """Note that this resource was not storable, so that those who ask next do not wait for each other in vain."""
    if status == 206 or status not in UNDERSTOOD or status >= 500 or asked.no_store or asked.method != "GET":
        return
    known = edge.memory.entries.get(key)
    if known is None:
        edge.library.put(Entry(key, 0, b"", b"", born=now, lifetime=PASS_FOR, flags=PASS))
    elif known.flags & PASS:
        known.born = now


# -- 304, HEAD and 206: what changes an entry that is there


def freshen(edge: Edge, visit: Visit, old: Entry, response: Response, asked_at: float) -> tuple[Entry | None, Verdict]:
    """The entry that a 304 (or a HEAD's 200) makes of ``old``, stored; None when it is about something else (RFC 9111 §3.2, §4.3.4)."""
    section = response.headers.section
    before = old.section
    etag, modified = before.index.get(b"etag", [None])[0], before.index.get(b"last-modified", [None])[0]
    if not freshens(etag, modified, section):
        return None, Verdict("validators")
    got_at, wall = edge.clock.monotonic(), edge.clock.wall()
    merged = Section(freshened(before.pairs, section.pairs))
    verdict = judge(
        visit.asked._replace(method="GET"), old.status, merged, visit.route.policy, wall, edge.random.random()
    )
    pairs = stored_pairs(merged.pairs, verdict.omit, wall)
    if edge.coder is not None and old.flags & TRANSFORM:
        pairs = edge.coder.plain(pairs)
    entry = Entry(
        old.key,
        old.status,
        wire_of(pairs),
        old.body,
        born=got_at - initial_age(section, asked_at, got_at, wall),
        lifetime=verdict.lifetime,
        revalidate=verdict.revalidate,
        on_error=verdict.on_error,
        flags=verdict.flags | (old.flags & (TRANSFORM | PARTIAL)),
        names=old.names,
        tags=tags_of(merged, visit.facts.base),
    )
    if verdict.refused:
        edge.library.forget(old.key)
    else:
        edge.library.put(entry)
        if edge.store is not None:
            edge.store.update(entry)
    return entry, verdict


def _keep_part(edge: Edge, visit: Visit, entry: Entry, response: Response) -> tuple[Entry | None, str]:
    """A 206: its bytes join those that are there of the same representation (RFC 9111 §3.3, §3.4).

    One that brings everything is a whole. One that cannot be understood (several parts, or a length that is not what it says) is kept as it
    is, for the very same Range. Of what is too large to be put together in memory the whole is fetched behind, into the second tier.
    """
    lines = response.headers.section.index.get(b"content-range")
    part = parse_content_range(lines[0]) if lines is not None and len(lines) == 1 else None
    body = response.body
    length = body.length if isinstance(body, Stream) else len(body)
    if part is None or part.length is None or length != part.stop - part.start:
        asked = visit.section.index.get(b"range")
        if asked is None or length is None or not edge.memory.fits(length):
            return None, "partial"
        entry.key = opaque_key(visit.key, asked[0])
        entry.names = ()
        return _keep_body(edge, visit, entry, response)
    wire, entry.wire = entry.wire, wire_of([pair for pair in entry.section.pairs if pair[0] != b"content-range"])
    if length == part.length:  # a range of everything, as players ask for first
        entry.status = 200
        kept, refused = _keep_body(edge, visit, entry, response)
        if kept is not None:
            response.body = kept.body if isinstance(kept.body, bytes) else kept.body.stream()
        return kept, refused
    if edge.memory.largest < part.length <= edge.range_fill:
        edge.fetch_whole(visit)
    if entry.names or not edge.memory.fits(length):
        return None, "partial"
    if not isinstance(body, Stream):
        edge.counts.bytes_from_origin += length
        add_part(edge, entry, part, body)
        return entry, ""
    fill = Fill(length, kept=True, limit=length)
    shared = Entry(entry.key, 206, wire, fill, born=entry.born, lifetime=entry.lifetime)
    fill.finished = lambda error: _part_filled(edge, entry, part, shared, error)
    edge.fills.begin(shared)
    response.body = fill.stream()
    fill.pull(body)
    return shared, ""


def _part_filled(edge: Edge, entry: Entry, part: Part, shared: Entry, error: BaseException | None) -> None:
    """A part has come: those who asked for the same Range read it as ``shared``, and it joins what there is of the ``entry``."""
    fill = shared.body
    assert isinstance(fill, Fill)
    edge.counts.bytes_from_origin += fill.size
    if error is None:
        add_part(edge, entry, part, fill.data())
    edge.fills.end(shared)


def add_part(edge: Edge, entry: Entry, part: Part, data: bytes) -> None:
    """Put a part's bytes to those that are there; a whole without holes becomes an ordinary 200."""
    old = edge.memory.entries.get(entry.key)
    parts = Parts(part.length)
    if (
        old is not None
        and old.flags & PARTIAL
        and isinstance(old.body, Parts)
        and old.body.length == part.length
        and _same(old, entry)
    ):
        parts.pieces = list(old.body.pieces)
    parts.add(part.start, data)
    whole = parts.whole
    if whole is not None:
        entry.flags &= ~PARTIAL
        entry.status = 200
        entry.body = whole
    else:
        entry.flags |= PARTIAL
        entry.body = parts
    edge.library.put(entry)
    edge.counts.stored += 1


def _same(old: Entry, new: Entry) -> bool:
    """Whether parts may be combined: both carry the same strong validator (RFC 9110 §15.3.7.3)."""
    one, other = old.find(b"etag"), new.find(b"etag")
    return one is not None and other is not None and strongly_same(one, other)


def opaque_key(key: str, asked: bytes) -> str:
    """The key of a 206 that is only for the same Range."""
    return f"{key}\0range={asked.decode('latin-1')[:200]}"
