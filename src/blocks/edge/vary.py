"""Which of the stored variants answers a request (RFC 9111 §4.1)."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

from blocks.http.message import Section

_LONGEST = 256  # characters of selecting values that are kept as they are; cookies and the like are digested
_CODINGS = b"accept-encoding"
_LANGUAGES = b"accept-language"


def vary_names(section: Section) -> tuple[bytes, ...] | None:
    """The selecting fields of a response, sorted; () when it does not vary, None for ``*`` (it never matches; RFC 9110 §12.5.5)."""
    lines = section.index.get(b"vary")
    if lines is None:
        return ()
    names = {member.strip().lower() for line in lines for member in line.split(b",")}
    names.discard(b"")
    if b"*" in names:
        return None
    return tuple(sorted(names))


def parse_qualities(value: bytes) -> list[tuple[str, float]]:
    """(member, q) of an Accept-like field in order, lower-case; a malformed q counts as 1 (RFC 9110 §12.4.2)."""
    found: list[tuple[str, float]] = []
    for part in value.decode("latin-1").lower().split(","):
        name, _, parameters = part.partition(";")
        name = name.strip()
        if not name:
            continue
        quality = 1.0
        for parameter in parameters.split(";"):
            key, _, number = parameter.partition("=")
            if key.strip() == "q":
                try:
                    quality = min(1.0, max(0.0, float(number)))
                except ValueError:
                    quality = 1.0
        found.append((name, quality))
    return found


@lru_cache(maxsize=4096)
def _preferences(value: bytes) -> str:
    """The value in one form for all that mean the same: members in order of quality, then of name."""
    members = sorted(set(parse_qualities(value)), key=lambda member: (-member[1], member[0]))
    return ",".join(name if quality == 1.0 else f"{name};q={quality:g}" for name, quality in members)


def _plain(value: bytes) -> str:
    return ",".join(part.strip() for part in value.decode("latin-1").split(","))


def selecting_values(names: tuple[bytes, ...], request: Section) -> str:
    """The request's values of the selecting fields in one normal form (RFC 9111 §4.1).

    Lines are combined and space around commas goes; Accept-Language and Accept-Encoding are read as sets with qualities. An absent
    field differs from an empty one.
    """
    index = request.index
    values: list[str] = []
    for name in names:
        lines = index.get(name)
        if lines is None:
            values.append("-")
            continue
        value = lines[0] if len(lines) == 1 else b",".join(lines)
        values.append(
            "=" + (_preferences(value) if name in (_CODINGS, _LANGUAGES) and len(value) <= _LONGEST else _plain(value))
        )
    return "\0".join(values)


def variant_part(names: tuple[bytes, ...], request: Section) -> str:
    """What the variant for this request adds to the key: a NUL and the selecting values, or a digest of long ones."""
    values = selecting_values(names, request)
    if len(values) > _LONGEST:
        values = "#" + sha256(values.encode("latin-1", "replace")).hexdigest()
    return "\0" + values


def preferred_language(request: Section) -> bytes:
    """The one language that the request likes best, lower-case; empty when it names none or several alike."""
    value = request.index.get(_LANGUAGES)
    if not value:
        return b""
    members = sorted(parse_qualities(b",".join(value)), key=lambda member: -member[1])
    if (
        not members
        or members[0][1] <= 0
        or members[0][0] == "*"
        or (len(members) > 1 and members[1][1] == members[0][1])
    ):
        return b""
    return members[0][0].encode("latin-1")
