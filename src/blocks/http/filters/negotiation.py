"""Which content coding a client takes best, and which responses may be coded: sans-IO rules (RFC 9110 §8.4, §12.5.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..message import Headers

# What text there is on the web (Caddy's encode list, shortened to families). Images, video, archives are compressed already.
TYPES = (
    "text/*", "application/json", "application/*+json", "application/javascript", "application/xml", "application/*+xml",
    "application/wasm", "application/x-ndjson", "application/jsonl", "application/graphql-response+json", "application/yaml",
    "image/svg+xml", "image/bmp", "image/x-icon", "font/ttf", "font/otf",
)  # fmt: skip
_NEVER = frozenset({204, 206, 304})  # no body, or a part of one (RFC 9110 §15.3.7)
_ELEMENT = re.compile(r"([!#$%&'*+\-.^_`|~0-9a-z]+)(?:[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?")


def parse_accept_encoding(value: str) -> dict[str, float]:
    """Weights by coding, lower case; ``x-gzip`` is gzip (§8.4.1.3). An element that is malformed is passed over."""
    weights: dict[str, float] = {}
    for part in value.lower().split(",")[:64]:
        match = _ELEMENT.fullmatch(part.strip(" \t"))
        if match is not None:
            weights["gzip" if match[1] == "x-gzip" else match[1]] = float(match[2]) if match[2] is not None else 1.0
    return weights


def choose_coding(accept_encoding: str | None, offered: Sequence[str]) -> str | None:
    """The coding of highest weight, the first of ``offered`` among equals; None for identity.

    Without the field identity is sent, although any coding would be allowed (§12.5.3): who does not ask cannot decode.
    """
    if not accept_encoding:
        return None
    weights = parse_accept_encoding(accept_encoding)
    star = weights.get("*", 0.0)
    identity = weights.get("identity", 0.0)
    best, found = 0.0, None
    for coding in offered:
        weight = weights.get(coding, star)
        if weight > best and weight >= identity:
            best, found = weight, coding
    return found


class Types:
    """Media types by pattern: ``text/*``, ``application/*+json``; parameters do not count."""

    def __init__(self, patterns: Iterable[str]) -> None:
        expressions = [re.escape(pattern.lower()).replace(r"\*", "[^/;]*") for pattern in patterns]
        self._match = re.compile("(?:" + "|".join(expressions) + r")[ \t]*(?:;.*)?").fullmatch if expressions else None
        self._known: dict[bytes, bool] = {}

    def __contains__(self, content_type: bytes) -> bool:
        known = self._known.get(content_type)
        if known is None:
            known = self._match is not None and self._match(content_type.decode("latin-1").lower()) is not None
            if len(self._known) < 256:
                self._known[content_type] = known
        return known


def may_code(status: int, headers: Headers, types: Types) -> bool:
    """Whether a response may be coded here: it is whole, of a listed type, not coded yet, not no-transform (RFC 9111 §5.2.2.6)."""
    index = headers.section.index
    content_type = index.get(b"content-type")
    if content_type is None or content_type[0] not in types:
        return False
    if status < 200 or status in _NEVER or b"content-encoding" in index or b"content-range" in index:
        return False
    return b"cache-control" not in index or b"no-transform" not in (headers.find(b"cache-control") or b"").lower()


def coded_headers(headers: Headers, coding: str) -> None:
    """Make ``headers`` those of the coded representation: another length, a weak ETag, no digests of the plain bytes."""
    etag = headers.find(b"etag")
    add = [(b"content-encoding", coding.encode("ascii"))]
    if etag is not None:
        add.append((b"etag", etag if etag.startswith(b"W/") else b"W/" + etag))
    headers.replace(
        (b"content-length", b"accept-ranges", b"content-md5", b"digest", b"content-digest", b"repr-digest", b"etag"),
        add,
    )


def vary_by_encoding(headers: Headers) -> None:
    """Tell caches that the response depends on Accept-Encoding (RFC 9110 §12.5.5)."""
    value = headers.find(b"vary")
    if value is None:
        headers.replace((), ((b"vary", b"Accept-Encoding"),))
        return
    listed = {part.strip(b" \t").lower() for part in value.split(b",")}
    if b"*" not in listed and b"accept-encoding" not in listed:
        headers.replace((b"vary",), ((b"vary", value + b", Accept-Encoding"),))
