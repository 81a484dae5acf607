"""A request's path and query are rewritten with every inserted value percent-encoded: no value can add a segment or a parameter.

Source: RFC 3986 §2 (encoding), §3.3–3.4 (path, query).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import quote, unquote

import msgspec

from blocks.core.config.complaint import below
from blocks.core.errors import ConfigError
from blocks.gateway.path import BadPath, normalise

from .template import Template, View

_HOLES = re.compile(r"(?:\{[^{}]+\})+")  # a segment of nothing but names
_RAW = re.compile(r"[^\x21-\x7e]|[#\"<>\\^`{|}]")


class QuerySettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``keep``: only these stay (if any are named); ``remove``: these go; ``rename``: old → new; ``set`` and ``add``: name → template."""

    keep: list[str] = []
    remove: list[str] = []
    rename: dict[str, str] = {}
    set: dict[str, str] = {}
    add: dict[str, str] = {}


class Query:
    """What is done to a query, in the order keep, remove, rename, set, add. What is not named passes byte for byte."""

    __slots__ = ("_add", "_keep", "_remove", "_rename", "_set")

    def __init__(self, settings: QuerySettings, params: Collection[str] | None) -> None:
        self._keep = frozenset(settings.keep)
        self._remove = frozenset(settings.remove)
        self._rename = dict(settings.rename)
        self._set = _templates("set", settings.set, params)
        self._add = _templates("add", settings.add, params)

    def apply(self, query: str, view: View) -> str:
        """The new query."""
        out: list[str] = []
        for pair in query.split("&") if query else ():
            raw, equals, value = pair.partition("=")
            name = unquote(raw.replace("+", " "))
            if (self._keep and name not in self._keep) or name in self._remove or name in self._set:
                continue
            new = self._rename.get(name)
            out.append(pair if new is None else quote(new, safe="") + equals + value)
        for name, template in (*self._set.items(), *self._add.items()):
            if template.single is None or view.find(template.single) is not None:
                out.append(f"{quote(name, safe='')}={quote(template.render(view), safe='')}")
        return "&".join(out)


def _templates(key: str, given: dict[str, str], params: Collection[str] | None) -> dict[str, Template]:
    made: dict[str, Template] = {}
    for name, text in given.items():
        with below(key, name):
            made[name] = Template(text, params=params)
    return made


class Path:
    """The new path: ``template`` of the whole, or ``strip`` a prefix and ``prefix`` another, or ``pattern`` → ``replacement``."""

    __slots__ = ("_pattern", "_prefix", "_replacement", "_rest", "_strip", "_template", "_whole")

    def __init__(
        self, *, template: str = "", strip: str = "", prefix: str = "", pattern: str = "", replacement: str = "",
        params: Collection[str] | None = None, rest: str | None = None, roots: Collection[str] = (),
    ) -> None:  # fmt: skip
        if sum((bool(template), bool(strip or prefix), bool(pattern))) > 1:
            raise ConfigError("a path is rewritten by one of path, strip_prefix/prefix, or pattern")
        for key, text in (("path", template), ("prefix", prefix), ("strip_prefix", strip)):
            with below(key):
                if text and (not text.startswith("/") or _RAW.search(re.sub(r"\{[^{}]*\}", "", text))):
                    raise ConfigError(
                        f"{text!r} is not a path: it starts with / and other characters are percent-encoded"
                    )
        with below("path"):
            self._template = Template(template, params=params, roots=roots) if template else None
        self._rest = rest
        whole = [part for part in template.split("/") if _HOLES.fullmatch(part)]
        self._whole = frozenset(name for part in whole for name in re.findall(r"\{([^{}]+)\}", part)) - {rest}
        self._strip = strip.rstrip("/")
        self._prefix = prefix.rstrip("/")
        try:
            self._pattern = re.compile(pattern) if pattern else None
        except re.error as error:
            with below("pattern"):
                raise ConfigError(f"{pattern!r} is not a regular expression: {error}") from None
        self._replacement = replacement

    def apply(self, path: str, view: View) -> str:
        """The new path, canonical. Raises ``BadPath`` (400) when values make it none."""
        if self._template is not None:
            made = self._template.render(view, self._segment)
            if not {".", ".."}.isdisjoint(made.split("/")):
                raise BadPath("a dot segment cannot be put into a path")
        elif self._pattern is not None:
            made = "/" + _RAW.sub(_encode, self._pattern.sub(self._replacement, path, count=1)).lstrip("/")
        else:
            made = path
            if self._strip and (path == self._strip or path.startswith(self._strip + "/")):
                made = path[len(self._strip) :] or "/"
            made = self._prefix + made
        return normalise(made, encoded_slash=True, semicolon=True)

    def _segment(self, name: str, text: str) -> str:
        """A value as one segment; only what ``{rest:path}`` took keeps its slashes, as it came encoded and canonical."""
        if name == self._rest:
            return text
        if not text and name in self._whole:  # the segments around it would move together, and name something else
            raise BadPath(f"{{{name}}} is empty, and a segment of a path is not")
        return quote(text, safe="")


def _encode(match: re.Match[str]) -> str:
    return quote(match.group())
