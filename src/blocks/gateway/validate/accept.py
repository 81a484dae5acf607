"""What a request says of itself in its head is judged before anything is read: media type, size, length of target and fields.

Source: RFC 9110 §15.5.14–15.5.16 (413, 414, 415), §12.5.1 (Accept, told with a 415), RFC 6585 §5 (431).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from blocks.core.config.kinds import Size
from blocks.core.errors import ConfigError
from blocks.core.quantities import size
from blocks.gateway.context import Context
from blocks.gateway.problem import problem
from blocks.http.body import Stream, TooLarge
from blocks.http.filters.negotiation import Types
from blocks.http.filters.relay import Relay
from blocks.http.message import Request, Response

if TYPE_CHECKING:
    from blocks.gateway.site import Site


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``types``: media types of request bodies (``application/json``, ``image/*``); ``max_body``, ``max_target``, ``max_fields`` (bytes).

    ``length``: a body must state its length (411). ``encodings``: content codings of request bodies (default: none).
    """

    types: list[str] = []
    max_body: Size | None = None
    max_target: Size | None = None
    max_fields: Size | None = None
    length: bool = False
    encodings: list[str] = []


class Accept:
    """The step that refuses what is too large or of the wrong type by its head, and cuts a body of unknown length where it goes over."""

    name = "accept"

    def __init__(self, settings: Settings) -> None:
        self._types = Types(settings.types) if settings.types else None
        self._told = ", ".join(settings.types).encode()
        self._body = None if settings.max_body is None else size(settings.max_body)
        self._target = None if settings.max_target is None else size(settings.max_target)
        self._fields = None if settings.max_fields is None else size(settings.max_fields)
        self._length = settings.length
        self._encodings = frozenset(name.lower().encode() for name in settings.encodings)
        self.refused = 0

    def check(self, request: Request, context: Context) -> Response | None:
        """None, or 411, 413, 414, 415 or 431."""
        refusal = self._head(request) or (self._bodied(request) if request.body else None)
        if refusal is not None:
            self.refused += 1
        return refusal

    def figures(self) -> dict[str, int]:
        """Counters for the metrics."""
        return {"refused": self.refused}

    def _head(self, request: Request) -> Response | None:
        if self._target is not None and len(request.target) > self._target:
            return problem(414, "URI Too Long", f"a target of more than {self._target} bytes is not taken")
        if self._fields is not None:
            section = request.headers.section
            length = section.derived.get("size")
            if length is None:
                length = section.derived["size"] = sum(len(name) + len(value) + 4 for name, value in section.pairs)
            if length > self._fields:
                return problem(
                    431, "Request Header Fields Too Large", f"fields of more than {self._fields} bytes are not taken"
                )
        return None

    def _bodied(self, request: Request) -> Response | None:
        body = request.body
        known = body.length if isinstance(body, Stream) else len(body)
        if known == 0:
            return None
        if known is None and self._length:
            return problem(411, "Length Required", "the body must state its length")
        if self._body is not None:
            if known is not None and known > self._body:
                return problem(
                    413, "Content Too Large", f"a body of more than {self._body} bytes is not taken", limit=self._body
                )
            if known is None and isinstance(body, Stream):
                request.body = Capped(body, self._body).start()
        if self._types is not None:
            return self._typed(request)
        return None

    def _typed(self, request: Request) -> Response | None:
        kind = request.headers.find(b"content-type")
        if self._types is None or kind is None or kind not in self._types:
            return problem(
                415, "Unsupported Media Type", "the body's media type is not taken", headers=((b"accept", self._told),)
            )
        coding = request.headers.find(b"content-encoding")
        if coding is not None and not {word.strip().lower() for word in coding.split(b",")} <= self._encodings | {
            b"identity"
        }:
            told = b", ".join(sorted(self._encodings)) or b"identity"
            return problem(
                415, "Unsupported Media Type", "the body's coding is not taken", headers=((b"accept-encoding", told),)
            )
        return None


class Capped(Relay):
    """Passes so many bytes of a body, and breaks it off at the next one."""

    __slots__ = ("_left", "_most")

    def __init__(self, inner: Stream, most: int) -> None:
        super().__init__(inner)
        self._left = self._most = most

    def write(self, data: bytes) -> None:
        """The next bytes, or the end of patience."""
        self._left -= len(data)
        if self._left >= 0:
            self.stream.feed(data)
        elif not self.stream.ended:
            self.stream.fail(TooLarge(f"a request body of more than {self._most} bytes is over the limit"))
            self.inner.cancel()


def step(settings: Any, site: Site) -> Accept:
    """The step of a route's ``accept``. Raises ``ConfigError``."""
    if not isinstance(settings, Settings):
        raise ConfigError('accept is a table such as {types = ["application/json"], max_body = "1MiB"}')
    return Accept(settings)
