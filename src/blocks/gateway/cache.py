"""A route's answers may be remembered by any handler that is a cache: it is given what lies behind it, and asked first.

The gateway knows no cache by name; ``Edge`` fits as ``cache=Edge``, or by name through ``Gateway(caches={"edge": Edge})``. What one
consumer was answered is not given to another: unless ``per = "all"`` says so, answers are kept apart by consumer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from blocks.core.errors import ConfigError, Failure
from blocks.http.handler import Handler
from blocks.http.message import Pair, Request, Response

from .context import Context
from .ownership import owner_of
from .steps import Proceed

if TYPE_CHECKING:
    from .site import Site

SHORTHAND = (str,)
Factory = Callable[[Handler], Handler]
_CONSUMER = b"gateway-consumer"
_CONSUMER_TOLD = b"Gateway-Consumer"


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``use``: the name of a cache, or in code a factory ``handler -> handler``. ``per``: ``consumer`` (answers kept apart) or ``all``."""

    use: Any
    per: Literal["consumer", "all"] = "consumer"


class _Visit(NamedTuple):
    """What goes on behind the cache for one request."""

    proceed: Proceed
    kept_back: list[Pair]
    apart: bool


_visit: ContextVar[_Visit] = ContextVar("blocks_gateway_cache")


class Cache:
    """The step that asks the cache first. What the cache does in the background still goes through the route's inner steps."""

    name = "cache"

    def __init__(self, factory: Factory, *, per: str = "consumer") -> None:
        if per not in ("consumer", "all"):
            raise ConfigError(f"per is {per!r}; it can be consumer or all")
        if not callable(factory):
            raise ConfigError("a cache is made by a function from a handler to a handler")
        self._apart = per == "consumer"
        self.handler = factory(_Behind())
        if not callable(self.handler):
            raise ConfigError("what the cache's factory made is no handler")
        self.parts = (self.handler,)

    async def around(self, request: Request, context: Context, proceed: Proceed) -> Response:
        """The cache's answer. It runs in a task of its own: the way on is found by the task's context."""
        consumer = context.consumer
        apart = self._apart and consumer is not None
        kept_back: list[Pair] = []
        drop = {_CONSUMER}
        add: list[Pair] = []
        if consumer is not None:
            kept_back = [pair for pair in request.headers.raw if pair[0] == b"authorization"]
            drop.add(b"authorization")
            if apart:
                add.append((_CONSUMER, owner_of(consumer).encode()))
        if add or not drop.isdisjoint(request.headers.section.index):
            request.headers = request.headers.copy()
            request.headers.replace(drop, add)
        response = await asyncio.get_running_loop().create_task(self._ask(request, _Visit(proceed, kept_back, apart)))
        if apart:
            _untell(response)
        return response

    async def _ask(self, request: Request, visit: _Visit) -> Response:
        _visit.set(visit)
        return await self.handler(request)


class _Behind:
    """What the cache takes for its origin: the rest of the route, of the request that is on its way."""

    async def __call__(self, request: Request) -> Response:
        visit = _visit.get(None)
        if visit is None:
            raise Failure(
                "the cache asks for something on its own account, outside of any request", reason="cache-alone"
            )
        if visit.apart or visit.kept_back:
            request.headers = request.headers.copy()
            request.headers.replace((_CONSUMER,), visit.kept_back)
        response = await visit.proceed(request)
        if visit.apart:
            vary = response.headers.find(b"vary")
            told = _CONSUMER_TOLD if vary is None else vary + b", " + _CONSUMER_TOLD
            response.headers.replace((b"vary",), ((b"vary", told),))
        return response


def _untell(response: Response) -> None:
    """Take our own word out of Vary: clients do not send that field."""
    vary = response.headers.find(b"vary")
    if vary is not None and _CONSUMER_TOLD in vary:
        words = [word for part in vary.split(b",") if (word := part.strip()) != _CONSUMER_TOLD]
        response.headers.replace((b"vary",), ((b"vary", b", ".join(words)),) if words else ())


def step(settings: Any, site: Site) -> Cache:
    """The step of a route's ``cache``: a name, a factory, or a table. What the cache holds survives a reload. Raises ``ConfigError``."""
    if not isinstance(settings, Settings):
        settings = Settings(use=settings)
    if isinstance(settings.use, str):
        factory = site.cache(settings.use)
        return site.kept(
            ("cache", settings.use, settings.per, site.route.name, getattr(factory, "mark", "")),
            lambda: Cache(factory, per=settings.per),
        )
    return Cache(settings.use, per=settings.per)
