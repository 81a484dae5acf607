"""A version of an API is asked for by path, field or media type, and ends in the open: Deprecation (RFC 9745), Sunset (RFC 8594)."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from email.utils import format_datetime
from typing import Any, Literal

import msgspec

from blocks.core.config.complaint import below
from blocks.core.errors import ConfigError
from blocks.http.message import Pair, Request, Response, field_name

from .context import Context
from .site import Site

_PARAMETER = re.compile(rb';\s*version\s*=\s*"?([A-Za-z0-9._\-]{1,32})"?')
_SUBTYPE = re.compile(rb"/vnd\.[A-Za-z0-9.\-_]*?\.?v([0-9][A-Za-z0-9._\-]{0,31}?)(?=\+|;|,|\s|$)")


class Versions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """How a request says which version it wants, for routes that have one.

    ``by``: ``path`` puts ``/v{version}`` before the template; ``header`` reads the field ``name``; ``media-type`` reads Accept
    (``application/vnd.acme.v2+json`` or ``application/json;version=2``). ``default`` is for requests that say none; "" finds none.
    """

    by: Literal["path", "header", "media-type"] = "path"
    name: str = "api-version"
    default: str = ""

    @property
    def in_path(self) -> bool:
        """Whether the version is a part of the path, and so nothing to ask of a request."""
        return self.by == "path"

    @property
    def field(self) -> bytes:
        """The request field that decides, for Vary."""
        return field_name(self.name) if self.by == "header" else b"accept"

    def asked(self, request: Request) -> str:
        """The version that a request asks for."""
        value = request.headers.find(self.field)
        if value is None:
            return self.default
        if self.by == "header":
            return value.decode("latin-1")
        match = _PARAMETER.search(value) or _SUBTYPE.search(value)
        return match.group(1).decode() if match else self.default


class Vary:
    """The step that says in Vary which field chose the version (RFC 9110 §12.5.5)."""

    name = "version"

    def __init__(self, field: bytes) -> None:
        self._pair: Pair = (b"vary", field)

    def after(self, request: Request, response: Response, context: Context) -> Response:
        """Add the field."""
        response.headers.replace((), (self._pair,))
        return response


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``deprecated`` and ``sunset``: dates (or RFC 3339 text); ``successor``: the URL of what replaces the route."""

    deprecated: Any = None
    sunset: Any = None
    successor: str = ""


class Lifecycle:
    """The step that puts Deprecation, Sunset and Link on every answer of a route."""

    name = "lifecycle"

    def __init__(self, pairs: tuple[Pair, ...]) -> None:
        self._pairs = pairs

    def after(self, request: Request, response: Response, context: Context) -> Response:
        """Add the fields."""
        response.headers.replace((), self._pairs)
        return response


def step(settings: Settings, site: Site) -> Lifecycle:
    """The step for a route's ``deprecated``, ``sunset`` and ``successor``. A sunset before the deprecation is refused (RFC 9745 §4)."""
    pairs: list[Pair] = []
    with below("deprecated"):
        deprecated = moment(settings.deprecated, "deprecated")
    with below("sunset"):
        sunset = moment(settings.sunset, "sunset")
        if deprecated and sunset and sunset < deprecated:
            raise ConfigError("sunset is earlier than deprecated (RFC 9745 §4)")
    if deprecated:
        pairs.append((b"deprecation", b"@%d" % int(deprecated.timestamp())))
    if sunset:
        pairs.append((b"sunset", format_datetime(sunset, usegmt=True).encode()))
    if settings.successor:
        with below("successor"):
            if re.search(r"[\x00-\x20<>\"\x7f-\uffff]", settings.successor):
                raise ConfigError(f"successor {settings.successor!r} is not a URL")
        pairs.append((b"link", b'<%s>; rel="successor-version"' % settings.successor.encode()))
    return Lifecycle(tuple(pairs))


def moment(value: Any, name: str) -> datetime | None:
    """A moment in UTC from a date, a datetime or RFC 3339 text; a date means its first second. Raises ``ConfigError``."""
    if value is None:
        return None
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif not isinstance(value, datetime) and isinstance(value, date):
            value = datetime(value.year, value.month, value.day)
    except ValueError:
        value = None
    if not isinstance(value, datetime):
        raise ConfigError(f"{name} must be a date like 2026-12-31")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
