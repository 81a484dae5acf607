"""Every request carries a W3C traceparent: a valid one is passed on as it is, otherwise a new trace begins here.

A proxy that records no spans must not put a span of its own into the chain, or the tree of the trace has a hole: so the
parent's id is passed on unchanged (W3C Trace Context, §4.3 "A vendor … may forward").
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from random import Random
from typing import Any, NamedTuple

from ..handler import Filter, Handler, direct
from ..message import Request, Response, Section
from .appended import Appended
from .request_id import ITSELF, Itself, named

# Version 00 is exactly this; a higher version may have more behind the flags (§3.2.4); ff is invalid, as are ids of zeros (§3.2.2).
_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NOT_ZERO = 1 << 64 | 1  # the last bit of either id: ids of zeros are invalid (§3.2.2)


class Trace(NamedTuple):
    """``request.state["trace"]``: ids in lower-case hex, and whether the caller records it."""

    trace_id: str
    parent_id: str
    sampled: bool


def parse_traceparent(value: bytes) -> Trace | None:
    """What a traceparent says, or None if it is not valid (W3C Trace Context §3.2)."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None or (match[1] == b"00" and match[5] is not None):
        return None
    return Trace(match[2].decode("ascii"), match[3].decode("ascii"), bool(int(match[4], 16) & 1))


def trace_context(*, accept: bool = True, sampled: bool = False, random: Random | None = None) -> Filter:
    """A filter that passes traceparent and tracestate on, or begins a trace when there is none or a bad one.

    ``accept=False`` begins a new trace always, for callers who are not trusted. ``sampled`` is the flag of traces that begin here
    (off: nobody records them unless told). ``request.state["trace"]`` is a ``Trace``.
    """
    key = object()
    source = random
    flags = "01" if sampled else "00"

    @direct
    def filter(request: Request, next: Handler) -> Coroutine[Any, Any, Response]:
        nonlocal source
        headers = request.headers
        section = headers.section
        found: Trace | Section | Itself | None = section.derived.get(key)
        if found is None:
            found = section.derived[key] = _found(section, accept)
        if found is ITSELF:
            found = section
        if isinstance(found, Trace):
            request.state["trace"] = found
        else:
            if source is None:
                source = Random()  # seeded by the system, in the process that uses it
            digits = "%048x" % (source.getrandbits(192) | _NOT_ZERO)
            trace_id, parent_id = digits[:32], digits[32:]
            request.state["trace"] = tuple.__new__(Trace, (trace_id, parent_id, sampled))  # half the price of Trace(…)
            value = f"00-{trace_id}-{parent_id}-{flags}".encode("ascii")
            headers.section = Appended(found, ((b"traceparent", value),), b"Traceparent: %b\r\n" % value)
        return next(request)

    return named(filter, "trace_context")


def _found(section: Section, accept: bool) -> Trace | Section | Itself:
    """The trace that goes on, or the section without what cannot be used: a tracestate means nothing without its parent (§3.3)."""
    values = section.index.get(b"traceparent", ())
    if accept and len(values) == 1:
        trace = parse_traceparent(values[0])
        if trace is not None:
            return trace
    if not values and b"tracestate" not in section.index:
        return ITSELF
    return Section([pair for pair in section.pairs if pair[0] not in (b"traceparent", b"tracestate")])
