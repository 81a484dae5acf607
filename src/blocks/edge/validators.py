"""Conditional requests, both ways: answered from a stored response, and made to validate one (RFC 9110 §13, RFC 9111 §4.3)."""

from __future__ import annotations

import re

from blocks.http.message import Pair, Section

from .dates import parse_date

_TAG = re.compile(rb'[\s,]++|((?:W/)?"[^"]*+"|[^\s,"]++|")')  # separators or a tag; nothing to go back over
CONDITIONALS = frozenset((b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since", b"if-range"))
# Fields that a 304 does not change: framing, and what describes the bytes that are stored (RFC 9111 §3.2).
KEPT_THROUGH_304 = frozenset((b"content-length", b"content-encoding", b"content-range", b"transfer-encoding"))
# What is never stored (RFC 9111 §3.1): fields between two connections, and those of proxy authentication.
NEVER_STORED = frozenset((
    b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization",
))  # fmt: skip


def entity_tags(value: bytes) -> list[bytes]:
    """The members of If-None-Match or If-Match, as they stand."""
    return [match[1] for match in _TAG.finditer(value) if match[1] is not None]


def _opaque(tag: bytes) -> bytes:
    return tag[2:] if tag.startswith(b"W/") else tag


def weakly_same(one: bytes, other: bytes) -> bool:
    """Weak comparison (RFC 9110 §8.8.3.2)."""
    return _opaque(one) == _opaque(other)


def strongly_same(one: bytes, other: bytes) -> bool:
    """Strong comparison (RFC 9110 §8.8.3.2)."""
    return one == other and not one.startswith(b"W/")


def is_not_modified(
    request: Section, etag: bytes | None, modified: bytes | None, date: bytes | None, now: float
) -> bool:
    """Whether a request with those conditions is answered 304 by a response with those validators (RFC 9110 §13.2.2).

    If-None-Match goes before If-Modified-Since. Without Last-Modified the response's Date stands in for it (RFC 9111 §4.3.2).
    ``now`` is wall time.
    """
    index = request.index
    lines = index.get(b"if-none-match")
    if lines is not None:
        if lines == [b"*"]:
            return True
        return etag is not None and any(weakly_same(etag, tag) for line in lines for tag in entity_tags(line))
    lines = index.get(b"if-modified-since")
    if lines is None or len(lines) != 1:
        return False
    since = parse_date(lines[0], now)
    if since is None:
        return False
    basis = modified if modified is not None else date
    when = parse_date(basis, now) if basis is not None else None
    return when is not None and when <= since


def is_precondition(section: Section) -> bool:
    """Whether the request has If-Match or If-Unmodified-Since: those are for the origin alone to evaluate (RFC 9111 §4.3.2)."""
    return b"if-match" in section.index or b"if-unmodified-since" in section.index


def validating_pairs(pairs: list[Pair], etag: bytes | None, modified: bytes | None) -> list[Pair]:
    """The request's fields with its own conditions and Range replaced by those that validate a stored response (RFC 9111 §4.3.1)."""
    out = [pair for pair in pairs if pair[0] not in CONDITIONALS and pair[0] != b"range"]
    if etag is not None:
        out.append((b"if-none-match", etag))
    if modified is not None:
        out.append((b"if-modified-since", modified))
    return out


def freshens(stored_etag: bytes | None, stored_modified: bytes | None, answer: Section) -> bool:
    """Whether a 304 is about the stored response (RFC 9111 §4.3.4): its strong tag is ours, or its weak validator, or it has none."""
    tags = answer.index.get(b"etag")
    if tags is not None:
        if stored_etag is None:
            return False
        return weakly_same(tags[0], stored_etag)
    dates = answer.index.get(b"last-modified")
    return dates is None or stored_modified is None or dates[0] == stored_modified


def freshened(stored: list[Pair], answer: list[Pair], omit: tuple[bytes, ...] = ()) -> list[Pair]:
    """The stored fields with those of a 304 (or a HEAD's 200) in their place (RFC 9111 §3.2)."""
    new = [
        pair
        for pair in answer
        if pair[0] not in KEPT_THROUGH_304 and pair[0] not in NEVER_STORED and pair[0] not in omit
    ]
    names = {name for name, _ in new}
    return [pair for pair in stored if pair[0] not in names and pair[0] not in omit] + new


def in_304(pairs: list[Pair]) -> list[Pair]:
    """The fields of a 304 in place of a 200 with those fields (RFC 9110 §15.4.5): no representation metadata but the validators."""
    return [pair for pair in pairs if not pair[0].startswith(b"content-") or pair[0] == b"content-location"]
