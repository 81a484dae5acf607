"""A template says which paths a route takes: ``/orders/{id:int}``, ``/files/{rest:path}``, or a prefix without braces.

A template without parameters takes its path and everything below it, by whole segments (``/api`` takes ``/api`` and
``/api/x``, never ``/apix``), unless the route says ``exact``. One with parameters takes exactly as many segments as it
has; ``{name:path}``, last, takes the rest, which may be empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote
from uuid import UUID

from blocks.core.errors import ConfigError

from ..path import BadPath, normalise

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+))?\}")
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_INT = re.compile(r"0|[1-9][0-9]{0,18}")


def _int(segment: str) -> int | None:
    return int(segment) if _INT.fullmatch(segment) else None


def _uuid(segment: str) -> UUID | None:
    return UUID(segment) if _UUID.fullmatch(segment) else None


def _text(segment: str) -> str | None:
    return (unquote(segment) if "%" in segment else segment) or None


Converter = Callable[[str], Any]
# In the order in which they are tried at a segment: the narrower first. ``int`` has one spelling for each number, so that
# /orders/7 and /orders/007 are not two keys for one order.
CONVERTERS: dict[str, Converter] = {"int": _int, "uuid": _uuid, "str": _text}
RANKS = {kind: rank for rank, kind in enumerate(CONVERTERS)}


class Parameter(NamedTuple):
    """A segment that is a value: its name and kind (``int``, ``uuid``, ``str``)."""

    name: str
    kind: str


class Template:
    """A parsed template. ``segments`` are literals (str) or ``Parameter``; ``rest`` names the parameter that takes what is left."""

    __slots__ = ("names", "prefix", "rest", "segments", "text", "trailing")

    def __init__(self, text: str, *, exact: bool = False) -> None:
        if not text.startswith("/"):
            raise ConfigError(f"the template {text!r} does not begin with '/'")
        self.text = text
        self.rest: str | None = None
        self.segments: list[str | Parameter] = []
        self.names: list[str] = []
        parts = text[1:].split("/")
        self.trailing = len(parts) > 1 and parts[-1] == ""
        if parts[-1] == "":
            parts.pop()
        for place, part in enumerate(parts):
            self._add(part, last=place == len(parts) - 1)
        if len(set(self.names)) != len(self.names):
            raise ConfigError(f"the template {text!r} names a parameter twice")
        self.prefix = not self.names and not exact

    def _add(self, part: str, last: bool) -> None:
        if "{" not in part and "}" not in part:
            self.segments.append(_literal(self.text, part))
            return
        match = _PARAMETER.fullmatch(part)
        if match is None:
            raise ConfigError(
                f"{part!r} in {self.text!r} is not a parameter; write a whole segment like {{id}} or {{id:int}}"
            )
        name, kind = match.group(1), match.group(2) or "str"
        self.names.append(name)
        if kind == "path":
            if not last or self.trailing:
                raise ConfigError(f"{{{name}:path}} must be the last segment of {self.text!r}")
            self.rest = name
        elif kind in CONVERTERS:
            self.segments.append(Parameter(name, kind))
        else:
            raise ConfigError(
                f"{kind!r} in {self.text!r} is not a kind of parameter; there are int, uuid, str and path"
            )

    @property
    def static(self) -> bool:
        """Whether it has no parameter at all."""
        return not self.names

    @property
    def shape(self) -> tuple[object, ...]:
        """The same for two templates that take the same paths, whatever their parameters are called."""
        kinds = tuple(part if isinstance(part, str) else (part.kind,) for part in self.segments)
        return (kinds, self.rest is not None, self.prefix, self.trailing)

    def __repr__(self) -> str:
        return f"<Template {self.text}>"


def _literal(template: str, part: str) -> str:
    if part == "":
        raise ConfigError(f"the template {template!r} has an empty segment; no canonical path has one")
    try:
        canonical = normalise("/" + part, encoded_slash=True, semicolon=True)
    except BadPath as error:
        raise ConfigError(f"no path can match {part!r} in {template!r}: {error}") from error
    if canonical != "/" + part:
        raise ConfigError(f"no canonical path holds {part!r}, in {template!r}; write {canonical[1:]!r}")
    return part
