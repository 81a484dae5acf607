"""Answers carry the fields that tell browsers what not to do; what a service says itself is left as it is.

Source: OWASP REST Security and HTTP Headers cheat sheets; RFC 6797 (HSTS is sent over https only, §7.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from blocks.core.errors import ConfigError
from blocks.http.message import Pair, Request, Response, field_name, field_value

from .context import Context

if TYPE_CHECKING:
    from .site import Site

SHORTHAND = (bool,)


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Each field's value, or "" to leave it out. ``extra``: more fields; ``remove``: fields of services that tell too much.

    ``override``: replace what a service says (default: its word stands).
    """

    hsts: str = "max-age=31536000; includeSubDomains"
    content_type_options: str = "nosniff"
    frame_options: str = "DENY"
    content_security_policy: str = "default-src 'none'; frame-ancestors 'none'"
    referrer_policy: str = "no-referrer"
    permissions_policy: str = ""
    cross_origin_opener_policy: str = ""
    cross_origin_resource_policy: str = ""
    cross_origin_embedder_policy: str = ""
    extra: dict[str, str] = {}
    remove: tuple[str, ...] = ("server", "x-powered-by", "x-aspnet-version", "x-aspnetmvc-version")
    override: bool = False


_FIELDS = {
    "content_type_options": "x-content-type-options",
    "frame_options": "x-frame-options",
    "content_security_policy": "content-security-policy",
    "referrer_policy": "referrer-policy",
    "permissions_policy": "permissions-policy",
    "cross_origin_opener_policy": "cross-origin-opener-policy",
    "cross_origin_resource_policy": "cross-origin-resource-policy",
    "cross_origin_embedder_policy": "cross-origin-embedder-policy",
}


class SecurityHeaders:
    """The step that adds the fields to every answer of a route."""

    name = "security_headers"

    def __init__(self, settings: Settings) -> None:
        pairs: dict[bytes, bytes] = {}
        for attribute, name in _FIELDS.items():
            if getattr(settings, attribute):
                pairs[name.encode()] = _value(getattr(settings, attribute), attribute)
        for name, value in settings.extra.items():
            pairs[_name(name)] = _value(value, name)
        self._plain = list(pairs.items())
        self._https = (
            [*self._plain, (b"strict-transport-security", _value(settings.hsts, "hsts"))]
            if settings.hsts
            else self._plain
        )
        self._remove = frozenset(_name(name) for name in settings.remove)
        self._override = settings.override

    def after(self, request: Request, response: Response, context: Context) -> Response:
        """The answer with the fields that it lacks."""
        pairs = self._https if request.scheme == "https" else self._plain
        index = response.headers.section.index
        drop = self._remove
        add: list[Pair] = pairs
        if self._override:
            drop = drop | {name for name, _ in pairs}
        elif not index.keys().isdisjoint([name for name, _ in pairs]):
            add = [pair for pair in pairs if pair[0] not in index]
        response.headers.replace(drop, add)
        return response


def _name(text: str) -> bytes:
    try:
        return field_name(text)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _value(text: str, name: str) -> bytes:
    try:
        return field_value(text)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def step(settings: Any, site: Site) -> SecurityHeaders | None:
    """The step of a route's ``security_headers``: True for the defaults, or a table. Raises ``ConfigError``."""
    if settings is False:
        return None
    if settings is not True and not isinstance(settings, Settings):
        raise ConfigError("security_headers is true or a table")
    return SecurityHeaders(Settings() if settings is True else settings)
