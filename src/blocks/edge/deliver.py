"""The last step: a response made of an entry, for one request (RFC 9111 §4, RFC 9110 §13, §14)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random

from blocks.http.body import Body, Stream
from blocks.http.message import Headers, Pair, Response, Section

from .entry import Content, Entry, Kept
from .ranges import Parts, Range, content_range, parse_range, part_heads, range_holds, wanted
from .validators import in_304, is_not_modified


def lines_for(entry: Entry, age: int, status_line: str) -> Kept:
    """The entry's fields with Age and Cache-Status."""
    return Kept(b"%bAge: %d\r\nCache-Status: %b\r\n" % (entry.wire, age, status_line.encode("latin-1")))


def answer(request: Section, method: str, entry: Entry, section: Section, wall: float, random: Random) -> Response:
    """The response to a request from an entry whose fields were made ready in ``section``: 200, 304, 206 or 416 as it asks.

    ``wall`` is the wall time, for dates that are compared. The body is bytes, or a stream over the entry's content.
    """
    body = entry.body
    if 200 <= entry.status < 300 and _conditional(request):
        stored = entry.section.index
        etag, modified = _first(stored, b"etag"), _first(stored, b"last-modified")
        if is_not_modified(request, etag, modified, _first(stored, b"date"), wall):
            return Response(304, Headers.of(Section(in_304(section.pairs))))
    if method == "GET" and entry.status == 200 and request.has(b"range"):
        part = _partial(request, entry, section, wall, random)
        if part is not None:
            return part
    if method == "HEAD":
        return Response(entry.status, Headers.of(_with_length(section, entry)))
    return Response(entry.status, Headers.of(section), body if type(body) is bytes else _open(body))


def _conditional(request: Section) -> bool:
    return request.has(b"if-none-match") or request.has(b"if-modified-since")


def _first(index: dict[bytes, list[bytes]], name: bytes) -> bytes | None:
    lines = index.get(name)
    return lines[0] if lines else None


def _with_length(section: Section, entry: Entry) -> Section:
    """The fields of an answer to HEAD: with the length that a GET would bring."""
    length = entry.length
    return section if length is None else Section([*section.pairs, (b"content-length", b"%d" % length)])


def _open(body: bytes | Content) -> Body:
    return body if isinstance(body, bytes) else body.stream()


def _partial(request: Section, entry: Entry, section: Section, wall: float, random: Random) -> Response | None:
    """206 or 416, or None when the whole is to be sent: no valid Range, If-Range says no, or the length is not known yet."""
    length = entry.length
    specs = parse_range(b",".join(request.index[b"range"]))
    if specs is None or length is None:
        return None
    stored = entry.section.index
    if not range_holds(request, _first(stored, b"etag"), _first(stored, b"last-modified"), wall):
        return None
    cuts = wanted(specs, length)
    if not cuts:
        return unsatisfiable(section, length)
    return partial_response(entry.body, cuts, length, section, random)


def unsatisfiable(section: Section, length: int) -> Response:
    """416 with the length that ranges would have to lie in (RFC 9110 §15.5.17)."""
    kept = [pair for pair in section.pairs if pair[0] in (b"date", b"cache-status", b"age", b"vary")]
    return Response(416, Headers.of(Section([*kept, (b"content-range", b"bytes */%d" % length)])))


def partial_response(
    body: bytes | Content, cuts: list[Range], length: int, section: Section, random: Random
) -> Response:
    """206 with those bytes: as they are for one range, as multipart/byteranges for several (RFC 9110 §15.3.7)."""
    pairs: list[Pair] = [pair for pair in section.pairs if pair[0] != b"content-length"]
    if len(cuts) == 1:
        cut = cuts[0]
        pairs.append((b"content-range", content_range(cut, length)))
        return Response(206, Headers.of(Section(pairs)), _slice(body, cut))
    boundary = b"%032x" % random.getrandbits(128)
    kind = next((value for name, value in pairs if name == b"content-type"), None)
    pairs = [pair for pair in pairs if pair[0] != b"content-type"]
    pairs.append((b"content-type", b"multipart/byteranges; boundary=" + boundary))
    heads, end = part_heads(cuts, length, kind, boundary)
    total = sum(map(len, heads)) + sum(cut.stop - cut.start for cut in cuts) + len(end)
    if isinstance(body, bytes):
        pieces = [piece for head, cut in zip(heads, cuts, strict=True) for piece in (head, body[cut.start : cut.stop])]
        return Response(206, Headers.of(Section(pairs)), b"".join([*pieces, end]))
    return Response(206, Headers.of(Section(pairs)), Stream.of(_parts(body, cuts, heads, end), total))


def _slice(body: bytes | Content, cut: Range) -> Body:
    if isinstance(body, bytes):
        return body[cut.start : cut.stop]
    if isinstance(body, Parts):
        return body.cut(cut) or b""
    return body.stream(cut.start, cut.stop)


async def _parts(body: Content, cuts: list[Range], heads: list[bytes], end: bytes) -> AsyncIterator[bytes]:
    for head, cut in zip(heads, cuts, strict=True):
        yield head
        async for chunk in body.stream(cut.start, cut.stop):
            yield chunk
    yield end
