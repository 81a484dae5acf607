"""A credential is carried in one place: a header, perhaps after a scheme's name, a cookie, or a query parameter.

Source: RFC 9110 §11.4 (scheme and token), RFC 6750 §2 (one place only; the query is a last resort that logs would keep).
"""

from __future__ import annotations

import re
from typing import Protocol
from urllib.parse import parse_qsl

from blocks.core.errors import ConfigError
from blocks.http.message import Request, field_name

_COOKIE = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")


class Carrier(Protocol):
    """Where a credential is. ``hide``: it is taken out of the request once it was believed, so that services never see it.

    ``in_head``: it is in the header section alone, so that what it led to may be kept with the section.
    """

    hide: bool
    in_head: bool

    def read(self, request: Request) -> bytes | None:
        """The credential, or None when the request carries none here."""
        ...

    def strip(self, request: Request) -> None:
        """Take it out, if it is to be hidden."""
        ...


class InHeader:
    """The value of a header, after ``scheme`` and a space when one is given (compared without case)."""

    __slots__ = ("_name", "_prefix", "hide")

    in_head = True

    def __init__(self, name: str = "authorization", scheme: str = "", *, hide: bool = False) -> None:
        self._name = field_name(name)
        self._prefix = scheme.lower().encode("ascii") + b" " if scheme else b""
        self.hide = hide

    def read(self, request: Request) -> bytes | None:
        """The bytes after the scheme; None for another scheme. Two header lines are one malformed credential, not a choice."""
        value = request.headers.find(self._name)
        if value is None:
            return None
        size = len(self._prefix)
        if size:
            if value[:size].lower() != self._prefix:
                return None
            value = value[size:].strip(b" ")
        return value

    def strip(self, request: Request) -> None:
        """Take the header out, if it is to be hidden."""
        if self.hide:
            request.headers.replace((self._name,), ())


class InCookie:
    """The value of a cookie. A name that occurs twice is refused as malformed: which one a service would read is anyone's guess."""

    __slots__ = ("_name", "hide")

    in_head = True

    def __init__(self, name: str, *, hide: bool = False) -> None:
        if not _COOKIE.match(name):
            raise ConfigError(f"{name!r} is not a cookie's name")
        self._name = name.encode("ascii")
        self.hide = hide

    def read(self, request: Request) -> bytes | None:
        """The cookie's value without quotes; an empty, hence malformed, credential when the name occurs twice."""
        found = [value for name, value in self._pairs(request) if name == self._name]
        if not found:
            return None
        return found[0].strip(b'"') if len(found) == 1 else b""

    def strip(self, request: Request) -> None:
        """Take the cookie out, if it is to be hidden."""
        if self.hide:
            left = b"; ".join(name + b"=" + value for name, value in self._pairs(request) if name != self._name)
            request.headers.replace((b"cookie",), ((b"cookie", left),) if left else ())

    def _pairs(self, request: Request) -> list[tuple[bytes, bytes]]:
        pairs = []
        for line in request.headers.section.index.get(b"cookie", ()):
            for pair in line.split(b";"):
                name, equals, value = pair.strip().partition(b"=")
                if equals:
                    pairs.append((name, value))
        return pairs


class InQuery:
    """The value of a query parameter, decoded. Servers log targets, so this is for clients that cannot do better."""

    __slots__ = ("_name", "hide")

    in_head = False

    def __init__(self, name: str, *, hide: bool = True) -> None:
        self._name = name
        self.hide = hide

    def read(self, request: Request) -> bytes | None:
        """The parameter's value; an empty, hence malformed, credential when it occurs twice."""
        if self._name not in request.target:
            return None
        found = [value for name, value in parse_qsl(request.query, keep_blank_values=True) if name == self._name]
        if not found:
            return None
        request.state.setdefault("target", self._without(request.target, "***"))  # for the log, also when it is refused
        return found[0].encode() if len(found) == 1 else b""

    def strip(self, request: Request) -> None:
        """Take the parameter out, if it is to be hidden."""
        if self.hide and self._name in request.target:
            request.target = self._without(request.target)

    def _without(self, target: str, mask: str = "") -> str:
        """The target without the parameter, or with ``mask`` for its value."""
        path, _, query = target.partition("?")
        left: list[str] = []
        for pair in query.split("&"):
            if [name for name, _ in parse_qsl(pair, keep_blank_values=True)] != [self._name]:
                left.append(pair)
            elif mask:
                left.append(f"{pair.partition('=')[0]}={mask}")
        return f"{path}?{'&'.join(left)}" if left else path


def bearer(*, hide: bool = False) -> InHeader:
    """``Authorization: Bearer …`` (RFC 6750 §2.1)."""
    return InHeader("authorization", "Bearer", hide=hide)
