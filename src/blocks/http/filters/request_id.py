"""Each request has a name of its own, so that the lines of several logs can be put together: a random prefix and a counter.

The prefix (64 random bits, drawn at the first request of a process) makes it unique between processes, the counter within one. It costs
0.5 µs; a random UUID would cost 2 µs and say no more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from enum import Enum
from itertools import count
from random import SystemRandom
from typing import Any

from blocks.core.errors import ConfigError

from ..handler import Filter, Handler, direct
from ..message import Request, Response, Section, field_name
from .appended import Appended

_ACCEPTABLE = re.compile(rb"[0-9A-Za-z._~+/=:@-]{1,128}")


class Itself(Enum):
    """Stands for a section among its own derived values: a reference would be a cycle, left to the garbage collector."""

    ITSELF = 0


ITSELF = Itself.ITSELF


def request_id(
    *, accept: bool = False, echo: bool = False, field: str = "x-request-id", prefix: Callable[[], str] | None = None
) -> Filter:
    """A filter that sets ``x-request-id`` on the request and ``request.state["request_id"]`` to the same text.

    What the client sent is replaced, unless ``accept`` is True and it is 1–128 harmless characters (Envoy's preserve_external_request_id,
    off there too). ``echo`` puts it on the response as well, for callers who report trouble. ``prefix`` is for tests.
    """
    name = field_name(field)
    if name in (b"host", b"content-length", b"transfer-encoding", b"connection"):
        raise ConfigError(f"{field!r} cannot carry a request id")
    key = object()
    draw = prefix or (lambda: f"{SystemRandom().getrandbits(64):016x}")
    numbers = count(1)
    start: str | None = None

    @direct
    def filter(request: Request, next: Handler) -> Coroutine[Any, Any, Response]:
        nonlocal start
        headers = request.headers
        section = headers.section
        base: Section | str | Itself | None = section.derived.get(key)
        if base is None:
            base = section.derived[key] = _base(section, name, accept)
        if base is ITSELF:
            base = section
        if isinstance(base, str):
            request.state["request_id"] = given = base
        else:
            if start is None:
                start = draw() + "-"
            request.state["request_id"] = given = f"{start}{numbers.__next__():x}"
            headers.section = Appended(base, ((name, given.encode("ascii")),))
        return echoed(request, next, name, given) if echo else next(request)

    return named(filter, "request_id")


async def echoed(request: Request, next: Handler, name: bytes, value: str) -> Response:
    """The response with a field that repeats what the request was given."""
    response = await next(request)
    response.headers.replace((name,), ((name, value.encode("ascii")),))
    return response


def named(filter: Filter, name: str) -> Filter:
    """``filter`` under the name that the topology shows."""
    filter.__name__ = name
    return filter


def _base(section: Section, name: bytes, accept: bool) -> Section | str | Itself:
    """The id that the client gave, if it stays, else the section without it."""
    values = section.index.get(name)
    if values is None:
        return ITSELF
    if accept and len(values) == 1 and _ACCEPTABLE.fullmatch(values[0]):
        return values[0].decode("ascii")
    return Section([pair for pair in section.pairs if pair[0] != name])
