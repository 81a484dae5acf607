"""Byte ranges: asked for, cut out of what is stored, put together again (RFC 9110 §14; RFC 9111 §3.3, §3.4)."""

from __future__ import annotations

import re
from typing import NamedTuple

from blocks.http.body import Stream
from blocks.http.message import Section

from .dates import parse_date
from .validators import strongly_same

_SPEC = re.compile(rb"(?:(\d{1,19})-(\d{0,19})|-(\d{1,19}))")
_CONTENT_RANGE = re.compile(rb"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.I)
MOST_RANGES = (
    32  # in one request; Apache's MaxRanges is 200, and each costs a part head: more gets the whole (RFC 9110 §14.2)
)


class Range(NamedTuple):
    """Bytes from ``start`` up to (not including) ``stop``."""

    start: int
    stop: int


class Spec(NamedTuple):
    """One range as asked: ``first`` to ``last`` inclusive; ``last`` None: to the end; ``first`` None: the last ``suffix`` bytes."""

    first: int | None
    last: int | None
    suffix: int = 0

    def within(self, length: int) -> Range | None:
        """The bytes meant of a representation of ``length``, or None when it has none of them."""
        if self.first is None:
            return Range(max(0, length - self.suffix), length) if self.suffix and length else None
        if self.first >= length:
            return None
        return Range(self.first, length if self.last is None else min(length, self.last + 1))


def parse_range(value: bytes) -> list[Spec] | None:
    """The ranges of a Range field, or None when it is to be ignored: another unit, malformed, or too many (RFC 9110 §14.2)."""
    unit, _, ranges = value.partition(b"=")
    if unit.strip().lower() != b"bytes":
        return None
    specs: list[Spec] = []
    for part in ranges.split(b","):
        part = part.strip()
        if not part:
            continue
        match = _SPEC.fullmatch(part)
        if match is None:
            return None
        if match[3] is not None:
            specs.append(Spec(None, None, int(match[3])))
        else:
            first, last = int(match[1]), int(match[2]) if match[2] else None
            if last is not None and last < first:
                return None
            specs.append(Spec(first, last))
    return specs if 0 < len(specs) <= MOST_RANGES else None


def wanted(specs: list[Spec], length: int) -> list[Range]:
    """The satisfiable ranges, those that overlap or touch put together (RFC 9110 §15.3.7.2); none of them: 416."""
    found = [cut for spec in specs if (cut := spec.within(length)) is not None]
    if len(found) < 2:
        return found
    joined: list[Range] = []
    for cut in sorted(found):
        if joined and cut.start <= joined[-1].stop:
            joined[-1] = Range(joined[-1].start, max(joined[-1].stop, cut.stop))
        else:
            joined.append(cut)
    in_order = [cut for cut in found if cut in joined]
    return in_order if len(in_order) == len(joined) else joined


def range_holds(request: Section, etag: bytes | None, modified: bytes | None, now: float) -> bool:
    """Whether If-Range, if any, lets the Range count for a response with those validators (RFC 9110 §13.1.5). ``now`` is wall time."""
    lines = request.index.get(b"if-range")
    if lines is None:
        return True
    condition = lines[0]
    if condition.startswith((b'"', b"W/")):
        return etag is not None and strongly_same(condition, etag)
    since = parse_date(condition, now)
    when = parse_date(modified, now) if modified is not None else None
    return since is not None and since == when


class Part(NamedTuple):
    """What a 206 brings: bytes ``start`` up to ``stop`` of ``length`` (None: not said)."""

    start: int
    stop: int
    length: int | None


def parse_content_range(value: bytes) -> Part | None:
    """The Content-Range of a 206 (RFC 9110 §14.4), or None when it makes no sense."""
    match = _CONTENT_RANGE.fullmatch(value.strip())
    if match is None:
        return None
    start, last = int(match[1]), int(match[2])
    length = None if match[3] == b"*" else int(match[3])
    if last < start or (length is not None and last >= length):
        return None
    return Part(start, last + 1, length)


def content_range(cut: Range, length: int) -> bytes:
    """``bytes 0-99/1000``."""
    return b"bytes %d-%d/%d" % (cut.start, cut.stop - 1, length)


def part_heads(
    cuts: list[Range], length: int, content_type: bytes | None, boundary: bytes
) -> tuple[list[bytes], bytes]:
    """The heads before each part of a multipart/byteranges body, and its end (RFC 9110 §14.6)."""
    kind = b"" if content_type is None else b"Content-Type: " + content_type + b"\r\n"
    heads = [
        b"%s--%s\r\n%sContent-Range: %s\r\n\r\n"
        % (b"\r\n" if place else b"", boundary, kind, content_range(cut, length))
        for place, cut in enumerate(cuts)
    ]
    return heads, b"\r\n--%s--\r\n" % boundary


class Parts:
    """The bytes of a representation that are here, with holes: the body of a PARTIAL entry. ``length`` is that of the whole.

    ``limit`` bounds the pieces that are kept apart; more make the smallest go.
    """

    __slots__ = ("length", "limit", "pieces")

    def __init__(self, length: int | None, limit: int = 64) -> None:
        self.length = length
        self.limit = limit
        self.pieces: list[tuple[int, bytes]] = []  # (start, bytes), in order, apart from each other

    @property
    def held(self) -> int:
        """Bytes that are here."""
        return sum(len(data) for _, data in self.pieces)

    @property
    def complete(self) -> bool:
        """Whether no byte is missing."""
        return self.whole is not None

    def stream(self, start: int = 0, stop: int | None = None) -> Stream:
        """Those bytes as a stream. Raises ``ValueError`` when not all of them are here."""
        end = self.length if stop is None else stop
        data = None if end is None else self.cut(Range(start, end))
        if data is None:
            raise ValueError(f"bytes {start} to {stop} are not all here")
        stream = Stream(None, len(data))
        stream.feed(data)
        stream.finish()
        return stream

    def release(self) -> None:
        """The entry is gone; nothing but memory is held."""

    @property
    def whole(self) -> bytes | None:
        """Every byte, when there is no hole left (RFC 9111 §3.4)."""
        if len(self.pieces) == 1 and self.pieces[0][0] == 0 and len(self.pieces[0][1]) == self.length:
            return self.pieces[0][1]
        return None

    def add(self, start: int, data: bytes) -> None:
        """Put a piece in; it replaces what it overlaps."""
        if not data:
            return
        end = start + len(data)
        before = [(at, piece) for at, piece in self.pieces if at + len(piece) < start]
        after = [(at, piece) for at, piece in self.pieces if at > end]
        for at, piece in self.pieces:
            if at + len(piece) >= start and at <= end:
                if at < start:
                    data = piece[: start - at] + data
                    start = at
                if at + len(piece) > end:
                    data += piece[end - at :]
                    end = at + len(piece)
        self.pieces = [*before, (start, data), *after]
        while len(self.pieces) > self.limit:
            self.pieces.remove(min(self.pieces, key=lambda piece: len(piece[1])))

    def cut(self, wanted: Range) -> bytes | None:
        """Those bytes, or None when not all of them are here."""
        for at, piece in self.pieces:
            if at <= wanted.start and wanted.stop <= at + len(piece):
                return piece[wanted.start - at : wanted.stop - at]
        return None

    @property
    def missing(self) -> Range | None:
        """The first hole; its end is the length of the whole. None when there is none, or the length is unknown."""
        if self.length is None:
            return None
        at = 0
        for start, piece in self.pieces:
            if start > at:
                return Range(at, start)
            at = start + len(piece)
        return Range(at, self.length) if at < self.length else None
