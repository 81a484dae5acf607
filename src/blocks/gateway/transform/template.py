"""A template is text with names in braces; each name is a fact of the request, and nothing else can be reached.

``{id}`` is a path parameter; ``{consumer.name}``, ``{claims.org}``, ``{header.x-a}``, ``{query.page}``, ``{cookie.a}``, ``{body.user.id}``,
``{client}``, ``{method}``, ``{path}``, ``{host}``, ``{scheme}`` say what they are. ``{{`` and ``}}`` are braces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from blocks.core.errors import ConfigError
from blocks.gateway.auth.claims import lookup
from blocks.gateway.context import Context
from blocks.gateway.validate.parameters import pairs
from blocks.http.message import Request

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_CONSUMER = ("name", "tier", "credential", "method", "groups", "scopes")
_PLAIN = frozenset({"client", "method", "path", "host", "scheme", "query_string"})
_ROOTS = frozenset({"params", "consumer", "claims", "header", "query", "cookie", "body"})


class View:
    """What a template can see of one request; ``body`` is its decoded JSON, ``named`` more values by root name."""

    __slots__ = ("_cookies", "_query", "body", "context", "named", "request")

    def __init__(
        self, request: Request, context: Context, body: Any = None, named: Mapping[str, Any] | None = None
    ) -> None:
        self.request = request
        self.context = context
        self.body = body
        self.named: Mapping[str, Any] = named or {}
        self._query: dict[str, list[str]] | None = None
        self._cookies: dict[str, str] | None = None

    def find(self, name: str) -> Any:
        """The value of a name, None when the request has none."""
        root, _, rest = name.partition(".")
        if root in self.named:
            return dig(self.named[root], rest) if rest else self.named[root]
        if rest:
            return self._below(root, rest)
        if name in _PLAIN:
            return self._plain(name)
        return self.body if name == "body" else self.context.params.get(name)

    def _plain(self, name: str) -> str:
        match name:
            case "client":
                return self.context.client
            case "path":
                return self.context.path
            case "query_string":
                return self.request.query
        return str(getattr(self.request, name))

    def _below(self, root: str, rest: str) -> Any:
        match root:
            case "params":
                return self.context.params.get(rest)
            case "consumer":
                value = getattr(self.context.consumer, rest, None)
                return sorted(value) if isinstance(value, frozenset) else value
            case "claims":
                return None if self.context.consumer is None else lookup(self.context.consumer.claims, rest)
            case "header":
                value = self.request.headers.find(rest.lower().encode("latin-1", "replace"))
                return None if value is None else value.decode("latin-1")
            case "query":
                if self._query is None:
                    self._query = pairs(self.request.query)
                return self._query.get(rest, [None])[0]
            case "cookie":
                return self._cookie(rest)
        return dig(self.body, rest)

    def _cookie(self, name: str) -> str | None:
        if self._cookies is None:
            line = (self.request.headers.find(b"cookie") or b"").decode("latin-1").replace(", ", "; ")
            self._cookies = dict(pair.strip().split("=", 1) for pair in line.split(";") if "=" in pair)
        return self._cookies.get(name)


class Template:
    """Text with names, compiled once. ``names`` are those it uses; ``single`` is the name when it is nothing but one."""

    __slots__ = ("_pieces", "names", "single", "source")

    def __init__(self, source: str, *, params: Collection[str] | None = None, roots: Collection[str] = ()) -> None:
        """``params``: the path parameters there are (None: not checked); ``roots``: names beyond the usual. Raises ``ConfigError``."""
        self.source = source
        self._pieces: list[tuple[str, str]] = []  # (text, name that follows it)
        text, at = "", 0
        for match in _PIECE.finditer(source):
            text += source[at : match.start()]
            at = match.end()
            found = match.group()
            if found in ("{{", "}}"):
                text += found[0]
            elif match.group(1):
                _check(match.group(1), params, roots, source)
                self._pieces.append((text, match.group(1)))
                text = ""
            else:
                raise ConfigError(f"{source!r} has a brace without a name; write {{{{ for a brace")
        text += source[at:]
        self.names = frozenset(name for _, name in self._pieces)
        self.single = self._pieces[0][1] if len(self._pieces) == 1 and not text and not self._pieces[0][0] else None
        self._pieces.append((text, ""))

    def render(self, view: View, escape: Callable[[str, str], str] | None = None) -> str:
        """The text, each value as text through ``escape(name, text)``; a missing one is empty."""
        parts: list[str] = []
        for text, name in self._pieces:
            parts.append(text)
            if name:
                value = as_text(view.find(name))
                parts.append(value if escape is None else escape(name, value))
        return "".join(parts)

    def value(self, view: View) -> Any:
        """The value itself when the template is one name, so that a number stays a number; else the text."""
        return self.render(view) if self.single is None else view.find(self.single)


def _check(name: str, params: Collection[str] | None, roots: Collection[str], source: str) -> None:
    root, dot, rest = name.partition(".")
    if root in roots:
        return
    if dot:
        good = bool(rest) and root in _ROOTS and (root != "consumer" or rest in _CONSUMER)
        if good and root == "params":
            good = params is None or rest in params
    else:
        good = name in _PLAIN or name == "body" or params is None or name in params
    if not good:
        known = ", ".join(sorted(params or ())) or "none"
        raise ConfigError(f"{{{name}}} in {source!r} is no path parameter ({known}) and no name that templates know")


def as_text(value: Any) -> str:
    """A value in a text: numbers and texts as they are, true and false in lower case, lists with commas, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(as_text(one) for one in value)
    return str(value)


def dig(value: Any, path: str) -> Any:
    """The value at a dotted path in JSON, numbers being places in lists; None when there is none."""
    for step in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value
