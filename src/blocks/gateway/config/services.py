"""A service of a file becomes a handler: a server asked by URL, an object of a Python module, or a fixed answer."""

from __future__ import annotations

from collections.abc import Coroutine
from importlib import import_module
from typing import Any, cast

from blocks.core.config.complaint import Complaint, ConfigErrors
from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds
from blocks.http.filters.forwarded import Forwarded
from blocks.http.filters.trace_context import trace_context
from blocks.http.handler import Filter, Handler, chain
from blocks.http.message import Headers, Request, Response

from .schema import GatewayTable, RespondTable, ServiceTable


class Fixed:
    """Answers every request alike."""

    direct = True

    def __init__(self, table: RespondTable) -> None:
        if not 200 <= table.status <= 599:
            raise ConfigError(f"status is {table.status}; an answer has 200 to 599")
        self._status = table.status
        self._body = table.body.encode()
        try:
            headers = Headers(table.headers)
        except ValueError as error:
            raise ConfigError(f"headers: {error}") from error
        if self._body:
            headers.setdefault("content-type", "text/plain; charset=utf-8")
        self._section = headers.section

    async def __call__(self, request: Request) -> Response:
        """The answer."""
        return Response(self._status, Headers.of(self._section), self._body)


class Service:
    """A handler behind the filters that a service is asked through: who the client is (Forwarded) and which trace this is.

    They stand here, and not before the gateway, because what the gateway works out of a connection's repeating head is kept with that
    head: a field that changes with each request would make each head a new one.
    """

    direct = True

    def __init__(self, name: str, handler: Handler, filters: tuple[Filter, ...]) -> None:
        self.name = name
        self.parts = (handler,)
        self._handler = chain(*filters, to=handler)

    def __call__(self, request: Request) -> Coroutine[Any, Any, Response]:
        """Ask."""
        return self._handler(request)


def service_of(name: str, table: ServiceTable, general: GatewayTable) -> Handler:
    """The handler of ``[services.NAME]``. Raises ``ConfigError``."""
    handler = _end(name, table)
    if table.respond is not None:
        return handler
    filters: list[Filter] = []
    if table.forwarded:
        believe: Any = "forwarded" if general.forwarded_by.lower() == "forwarded" else "x-forwarded"
        filters.append(Forwarded([*general.trusted, *(["unix"] if general.trust_unix else [])], believe=believe))
    if table.trace:
        filters.append(trace_context())
    return Service(name, handler, tuple(filters))


def _end(name: str, table: ServiceTable) -> Handler:
    if sum([bool(table.url), bool(table.python), table.respond is not None]) != 1:
        raise ConfigError("a service has exactly one of url, python and respond")
    if table.respond is not None:
        return Fixed(table.respond)
    if table.python:
        return cast(Handler, python_object(table.python, "mypackage.services:orders"))
    from blocks.http.upstream import Upstream

    complaints: list[Complaint] = []
    for key in ("timeout", "connect_timeout", "idle"):
        try:
            seconds(getattr(table, key))
        except ConfigError as error:
            complaints.append(Complaint((key,), str(error)))
    try:
        Upstream(table.url)
    except ConfigError as error:
        complaints.append(Complaint(("url",), str(error)))
    if complaints:
        raise ConfigErrors(complaints)
    return Upstream(
        table.url, name=name, timeout=table.timeout, connect_timeout=table.connect_timeout, host=table.host or None,
        idle=table.idle, keep=table.keep,
    )  # fmt: skip


def python_object(words: str, like: str) -> Any:
    """The callable of ``module:name``. Raises ``ConfigError``."""
    module, colon, name = words.partition(":")
    if not colon:
        raise ConfigError(f"python = {words!r} is not understood; write it like {like}")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"python = {words!r} cannot be loaded: {error}") from error
    if not callable(found):
        raise ConfigError(f"python = {words!r} cannot be called")
    return found
