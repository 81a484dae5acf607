"""A route says which requests it takes, what they must pass, and which handler answers them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from blocks.core.config.suggest import suggestion
from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds
from blocks.http.handler import Handler

from .path import BadPath, host_name
from .routes.leaf import methods_of
from .routes.template import Template
from .steps import KEYWORDS

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Route:
    """Made by ``route``; never changed. ``options`` are the keywords of its steps as they were given (see ``steps.FEATURES``)."""

    __slots__ = (
        "description", "handler", "headers", "hosts", "methods", "name", "named", "options", "query", "tags", "template",
        "timeout", "version", "weight",
    )  # fmt: skip

    def __init__(self, template: Template, handler: Handler, name: str, options: Mapping[str, Any]) -> None:
        self.template = template
        self.handler = handler
        self.name = name
        self.named = True  # by hand: then it must be unique; names that are made up get a number where they meet
        self.options = options
        self.methods: frozenset[str] | None = None
        self.hosts: tuple[str, ...] = ()
        self.headers: Mapping[str, Any] = NOTHING
        self.query: Mapping[str, Any] = NOTHING
        self.weight: float | None = None
        self.version: str | None = None
        self.timeout: float | None = None
        self.description = ""
        self.tags: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Route {self.name} {self.template.text}>"


def route(
    template: str,
    handler: Handler,
    *,
    methods: str | Iterable[str] | None = None,
    host: str | Iterable[str] | None = None,
    headers: Mapping[str, Any] | None = None,
    query: Mapping[str, Any] | None = None,
    weight: float | None = None,
    version: str | None = None,
    name: str | None = None,
    exact: bool = False,
    timeout: float | str | None = None,
    description: str = "",
    tags: Iterable[str] = (),
    **options: Any,
) -> Route:
    """A route from ``template`` to ``handler``; ``options`` are its steps: ``limit``, ``auth``, ``scopes``, ``cors`` … (see ``steps``).

    ``template`` without parameters takes its path and everything below it (``exact`` makes it take the path alone);
    ``/orders/{id:int}`` takes exactly such paths; ``{rest:path}``, last, takes the rest. ``host`` is a name or ``*.example.com``.
    ``headers`` and ``query`` ask for a value, one of a list, or presence (True, False). Routes that take the same requests share them
    by ``weight``. ``timeout`` in seconds bounds the whole request. Raises ``ConfigError``.
    """
    unknown = next((word for word in options if word not in KEYWORDS), None)
    if unknown is not None:
        raise ConfigError(f"route() has no keyword {unknown!r}{suggestion(unknown, KEYWORDS)}")
    if not callable(handler):
        raise ConfigError(f"the handler of {template!r} cannot be called: {handler!r}")
    at = "path"
    try:
        made = Route(Template(template, exact=exact), handler, name or template, MappingProxyType(options))
        at = "methods"
        made.methods = methods_of(methods)
        at = "host"
        made.hosts = tuple([_host(word) for word in ([host] if isinstance(host, str) else host or ())])
        at = "timeout"
        made.timeout = None if timeout is None else seconds(timeout)
    except ConfigError as error:
        error.at = (at,)  # type: ignore[attr-defined]  # for the report: the keyword that is wrong
        raise
    made.headers = MappingProxyType(dict(headers)) if headers else NOTHING
    made.query = MappingProxyType(dict(query)) if query else NOTHING
    if weight is not None and not 0 <= weight < float("inf"):
        raise ConfigError(f"the weight of {template!r} is {weight!r}; it must be a number from 0 up")
    made.weight = weight
    made.version = None if version is None else str(version)
    made.description = description
    made.tags = tuple(tags)
    if name is None:
        made.named = False
        made.name = _name(made)
    return made


def _name(made: Route) -> str:
    """``GET|POST api.example.com/orders v2``: what tells a route from others, without what is not said."""
    methods = "|".join(sorted(made.methods - {"HEAD"})) if made.methods else ""
    version = f"v{made.version}" if made.version else ""
    return " ".join(
        word for word in (methods, (made.hosts[0] if made.hosts else "") + made.template.text, version) if word
    )


def _host(text: str) -> str:
    if text == "*":
        return text
    bare = text.removeprefix("*.")
    try:
        return text[: len(text) - len(bare)] + host_name(bare)
    except BadPath as error:
        raise ConfigError(f"{text!r} is not a host name; write it like api.example.com or *.example.com") from error
