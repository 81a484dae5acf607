"""What a client is sent: from the origin's answer, or from an entry, with Age, Cache-Status and the counting (RFC 9111 §4, RFC 9211)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocks.core.errors import Failure
from blocks.http.body import Stream
from blocks.http.message import Response, Section

from . import cache_status
from .deliver import answer, lines_for
from .entry import PARTIAL, TRANSFORM, Entry, Kept
from .fill import Fill
from .validators import is_not_modified

if TYPE_CHECKING:
    from .edge import Edge
    from .visit import Visit


def first_answer(edge: Edge, visit: Visit, entry: Entry, coded: Entry, response: Response) -> Response:
    """What the one who asked the origin gets: the origin's own fields, unless it asked for a part or on a condition.

    ``coded`` is the entry in the coding that the client likes best.
    """
    body = entry.body
    status = cache_status.forwarded(
        edge.name,
        visit.reason,
        response.status,
        stored=not isinstance(body, Fill) or body.kept,
        ttl=entry.lifetime - entry.age(visit.now),
        detail=visit.detail,
    )
    transformed = entry.flags & TRANSFORM
    entry = coded
    if response.status != 206 and (transformed or not visit.facts.plain):
        age = [pair for pair in response.headers.raw if pair[0] == b"age"]
        fields = Section([*entry.section.pairs, *age, (b"cache-status", status.encode("latin-1"))])
        first = answer(visit.section, visit.request.method, entry, fields, edge.clock.wall(), edge.random)
        if isinstance(body, Fill):
            body.stop_unread()
        return counted(edge, first)
    if isinstance(response.body, Stream) and not entry.flags & PARTIAL and entry.status == response.status:
        response.body = body if isinstance(body, bytes) else body.stream()
    if entry.wire is response.headers.section.wire:
        response.headers.section = Kept(b"%bCache-Status: %b\r\n" % (entry.wire, status.encode("latin-1")))
    else:
        response.headers.replace((), [(b"cache-status", status.encode("latin-1"))])
    return counted(edge, response)


def uncached(edge: Edge, visit: Visit, response: Response) -> Response:
    """An answer that was not stored goes to the one who asked; its conditions were taken off on the way and are looked at here."""
    status = cache_status.forwarded(
        edge.name, visit.reason or cache_status.URI_MISS, visit.fetched_status, detail=visit.detail
    )
    response.headers.replace((), [(b"cache-status", status.encode("latin-1"))])
    section = response.headers.section
    if response.status == 200 and (visit.section.has(b"if-none-match") or visit.section.has(b"if-modified-since")):
        index = section.index
        first = [index.get(name, [None])[0] for name in (b"etag", b"last-modified")]
        if is_not_modified(visit.section, first[0], first[1], None, edge.clock.wall()):
            response.discard()
            return Response(304, response.headers)
    return counted(edge, response)


def deliver(edge: Edge, visit: Visit, entry: Entry, *, collapsed: bool = False, validated: bool = False) -> Response:
    """The answer made of an entry, with Age and Cache-Status (RFC 9111 §4, RFC 9211)."""
    if collapsed or validated:
        now = edge.clock.monotonic()
        age = entry.age(now)
        status = cache_status.forwarded(
            edge.name,
            visit.reason or cache_status.URI_MISS,
            visit.fetched_status or None,
            stored=validated,
            collapsed=collapsed,
            ttl=entry.lifetime - age,
        )
        section: Section = lines_for(entry, int(age), status)
    else:
        section = hit_section(edge, visit, entry)
    if isinstance(entry.body, Fill) and not entry.body.joinable:
        raise Failure("the body can no longer be read from its first byte")
    return counted(edge, answer(visit.section, visit.request.method, entry, section, edge.clock.wall(), edge.random))


def hit_section(edge: Edge, visit: Visit, entry: Entry) -> Section:
    """The entry's fields as a hit has them."""
    age = entry.age(visit.now)
    return lines_for(entry, int(age), cache_status.hit(edge.name, entry.lifetime - age, visit.detail))


def from_origin(edge: Edge, response: Response) -> None:
    """Count a body that goes to the client alone."""
    body = response.body
    size = len(body) if isinstance(body, bytes) else body.length if isinstance(body, Stream) else 0
    edge.counts.bytes_from_origin += size or 0


def counted(edge: Edge, response: Response) -> Response:
    """The response, its bytes counted as served."""
    body = response.body
    if isinstance(body, bytes):
        edge.counts.bytes_served += len(body)
    elif isinstance(body, Stream) and body.length is not None:
        edge.counts.bytes_served += body.length
    return response
