"""What a trusted proxy says about the client, in either family of fields: sans-IO rules for ``forwarded``."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..message import Section
from .addresses import address_of, element, parse_forwarded

_HOST = re.compile(r"[0-9A-Za-z._\[\]:-]{1,260}")


class Told(NamedTuple):
    """``chain``: the addresses, the client's first. ``elements``: the same for Forwarded. The rest is "" when it was not said."""

    chain: list[str]
    elements: list[bytes]
    scheme: str
    host: str
    port: str
    prefix: bytes


def told_by_x(section: Section) -> Told:
    """What X-Forwarded-For, -Proto, -Host, -Port and -Prefix say; of a list the first, which the outermost proxy set."""
    index = section.index
    chain = [part.strip().decode("latin-1") for line in index.get(b"x-forwarded-for", ()) for part in line.split(b",")]
    chain = [part for part in chain if part]
    first = {
        name: index[field][0].partition(b",")[0].strip().decode("latin-1")
        for name in ("proto", "host", "port")
        if (field := b"x-forwarded-" + name.encode("ascii")) in index
    }
    scheme, host, port = _scheme(first.get("proto", "")), _host(first.get("host", "")), first.get("port", "")
    elements = [element(address_of(part) or "unknown", "", "") for part in chain]
    if elements and (scheme or host):
        elements[0] = element(address_of(chain[0]) or "unknown", host, scheme)
    prefix = index.get(b"x-forwarded-prefix", [b""])[0]
    port = port if port.isascii() and port.isdigit() and len(port) <= 5 else ""
    return Told(chain, elements, scheme, host, port, prefix)


def told_by_forwarded(section: Section) -> Told:
    """What Forwarded says (RFC 7239 §5); nothing when it is malformed."""
    lines = section.index.get(b"forwarded", [])
    said = parse_forwarded(lines)
    if not said:
        return Told([], [], "", "", "", b"")
    chain = [address_of(entry.get("for", "")) or "unknown" for entry in said]
    return Told(chain, list(lines), _scheme(said[0].get("proto", "")), _host(said[0].get("host", "")), "", b"")


def _scheme(text: str) -> str:
    text = text.lower()
    return text if text in ("http", "https") else ""


def _host(text: str) -> str:
    return text if _HOST.fullmatch(text) else ""
