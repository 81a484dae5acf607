"""What a scripted TCP origin says and expects to hear, as a text: a line for each step. No I/O here.

expect HELO .*\\r\\n        bytes, or a regular expression between slashes: expect /HELO .*\\r\\n/
send 250 ok\\r\\n
wait 200ms
close                       or: reset, hang
"""

from __future__ import annotations

import re
from typing import NamedTuple

from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds

_BARE = frozenset({"close", "reset", "hang"})


class Step(NamedTuple):
    """One line: ``data`` is what to send, ``what`` what to expect, ``delay`` seconds to wait."""

    verb: str
    data: bytes = b""
    what: bytes | re.Pattern[bytes] = b""
    delay: float = 0.0


class Mismatch(AssertionError):
    """The peer said something else than the transcript expects, or left before it had said it."""


def parse(text: str) -> list[Step]:
    """The steps of a transcript; empty lines and lines that begin with # are left out. Raises ``ConfigError`` with the line's number."""
    steps = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            try:
                steps.append(_step(stripped))
            except ConfigError as error:
                raise ConfigError(f"line {number} of the transcript, {stripped!r}: {error}") from None
    return steps


def _step(line: str) -> Step:
    verb, _, rest = line.partition(" ")
    rest = rest.strip()
    if verb in _BARE:
        if rest:
            raise ConfigError(f"{verb} takes nothing")
        return Step(verb)
    if verb == "wait":
        return Step(verb, delay=seconds(rest))
    if verb not in ("expect", "send"):
        raise ConfigError("a step begins with expect, send, wait, close, reset or hang")
    if not rest:
        raise ConfigError(f"{verb} what? write it like: {verb} PING\\r\\n")
    if verb == "send":
        return Step(verb, data=_bytes(rest))
    if len(rest) > 2 and rest[0] == rest[-1] == "/":
        try:
            return Step(verb, what=re.compile(rest[1:-1].encode("latin-1"), re.DOTALL))
        except (re.error, ValueError) as error:
            raise ConfigError(f"{rest} is not a regular expression: {error}") from None
    return Step(verb, what=_bytes(rest))


def _bytes(text: str) -> bytes:
    """The bytes of a text with escapes as in Python: ``\\r\\n``, ``\\x00``."""
    try:
        return text.encode("utf-8").decode("unicode_escape").encode("latin-1")
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise ConfigError(f"{text!r} holds an escape that is none: {error}") from None


def heard(what: bytes | re.Pattern[bytes], waiting: bytes | bytearray) -> int | None:
    """How many of the waiting bytes are what is expected; None when more must come. Raises ``Mismatch``."""
    if isinstance(what, bytes):
        if waiting.startswith(what):
            return len(what)
        if what.startswith(bytes(waiting)):
            return None
        raise Mismatch(f"expected {what!r}, got {bytes(waiting[:200])!r}")
    found = what.match(waiting)
    return None if found is None else found.end()
