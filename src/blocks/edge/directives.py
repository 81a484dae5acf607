"""Cache directives: Cache-Control read as leniently as the web writes it, targeted fields as strictly as RFC 9213 says.

Both give a dict of lower-case directive names to their argument: a str, or None where there is none.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from blocks.http.message import Section

from .structured import Item, NotStructured, parse_dictionary

Directives = dict[str, str | None]


class Parsed(Directives):
    """Directives that were read from a value; ``derived`` is for what somebody works out from them, once for each value."""

    __slots__ = ("derived",)

    def __init__(self) -> None:
        self.derived: Any = None


_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# Separators, a directive, or something else up to the next separator or quote: each byte is looked at a bounded number of times.
_DIRECTIVE = re.compile(
    rf'[\s,]++|({_NAME})(?:=(?:"((?:[^"\\]|\\.)*+)"|([^\s,;"]*+)))?+(?=[\s,;]|$)|[^,"]++|"(?:[^"\\]|\\.)*+"|"'
)
_LONGEST = 4096  # bytes of a Cache-Control field that are looked at (nginx's header buffer)
_REMEMBERED = 256  # bytes of a value that is parsed once for all; longer ones are rare, and a client must not fill the memory with them
CONFLICT = "conflict"  # the argument of a directive that came twice with two values: never a number
MAX_AGE = 2**31  # seconds; what a larger or overflowing delta-seconds counts as (RFC 9111 §1.2.2)


def parse_directives(value: bytes) -> Directives:
    """Directives of a (combined) Cache-Control value (RFC 9111 §5.2). Not to be changed: the same value gives the same dict.

    What is inside a quoted string is an argument, never a directive. A directive that repeats with another argument gets
    ``CONFLICT`` (§4.2.1: consider it stale); a space around ``=`` makes it no argument.
    """
    return _parse(value) if len(value) <= _REMEMBERED else _parse.__wrapped__(value[:_LONGEST])


@lru_cache(maxsize=2048)
def _parse(value: bytes) -> Directives:
    found = Parsed()
    for match in _DIRECTIVE.finditer(value.decode("latin-1")):
        if match[1] is None:
            continue
        name = match[1].lower()
        quoted = match[2]
        argument = match[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        if name in found and found[name] != argument:
            argument = CONFLICT
        found[name] = argument
    return found


NONE: Directives = Parsed()

_BOOLEANS = frozenset(
    ("no-store", "no-cache", "private", "public", "must-revalidate", "proxy-revalidate", "must-understand", "immutable")
)
_SECONDS = frozenset(("max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"))


def parse_targeted(value: bytes) -> Directives | None:
    """Directives of a targeted field such as CDN-Cache-Control, or None when it counts for nothing (RFC 9213 §2.1).

    That is when it is empty or malformed. A known directive of the wrong type (``max-age="10"``) makes the field malformed.
    """
    return _targeted(value) if len(value) <= _REMEMBERED else _targeted.__wrapped__(value)


@lru_cache(maxsize=2048)
def _targeted(value: bytes) -> Directives | None:
    try:
        members = parse_dictionary(value)
    except NotStructured:
        return None
    found = Parsed()
    for name, member in members.items():
        argument = member.value if isinstance(member, Item) else None
        if name in _SECONDS:
            if isinstance(argument, bool) or not isinstance(argument, int):
                return None
            found[name] = str(argument)
        elif name in _BOOLEANS:
            if argument is False:
                continue
            found[name] = argument if isinstance(argument, str) else None
        else:
            found[name] = None if argument is None or argument is True else str(argument)
    return found or None


def response_directives(section: Section, targets: tuple[bytes, ...]) -> tuple[Directives, bool]:
    """The directives that hold for us, and whether a targeted field gave them (then Cache-Control and Expires are ignored; RFC 9213 §2.2).

    ``targets`` are the targeted fields we obey, in order of preference.
    """
    index = section.index
    for target in targets:
        lines = index.get(target)
        if lines is not None:
            found = parse_targeted(b", ".join(lines))
            if found is not None:
                return found, True
    lines = index.get(b"cache-control")
    if lines is None:
        return NONE, False
    return parse_directives(lines[0] if len(lines) == 1 else b", ".join(lines)), False


def seconds_of(directives: Directives, name: str) -> int | None:
    """The argument as delta-seconds (RFC 9111 §1.2.2), at most ``MAX_AGE``; 0 when it is there but no number; None when it is absent."""
    argument = directives.get(name, "")
    if argument == "":
        return None if name not in directives else 0
    if argument is None or not (argument.isascii() and argument.isdigit()):
        return 0
    return min(int(argument[:20]), MAX_AGE) if len(argument) < 20 else MAX_AGE


def fields_of(directives: Directives, name: str) -> tuple[bytes, ...]:
    """The field names of a qualified ``private="a, b"`` or ``no-cache="a"``, lower-case (RFC 9111 §5.2.2.4, §5.2.2.7)."""
    argument = directives.get(name)
    if not argument:
        return ()
    return tuple(part.strip().lower().encode("latin-1") for part in argument.split(",") if part.strip())
