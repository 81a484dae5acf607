"""A share of a route's requests is also sent to another service, whose answer nobody sees: to try it with real traffic.

The copy never delays and never changes the real answer; what is too large, or too much at a time, is not copied, and counted.
"""

from __future__ import annotations

import asyncio
from math import inf
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from blocks.core.config.complaint import below
from blocks.core.config.kinds import Duration, Size
from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds, size
from blocks.http.body import Stream
from blocks.http.handler import Handler
from blocks.http.message import Request, Response

from .context import Context
from .steps import Proceed

if TYPE_CHECKING:
    from .site import Site

SHORTHAND = (str,)
AT_ONCE = 32
TIMEOUT = 10.0
MAX_BODY = 64 * 1024  # bytes held for the copy; Envoy buffers as much as its per-connection limit allows


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``service`` gets the copies of a ``share`` (0 to 1) of the requests with one of ``methods`` (none named: all)."""

    service: Any
    share: float = 1.0
    methods: list[str] = []
    at_once: int = AT_ONCE
    timeout: Duration = TIMEOUT
    max_body: Size = MAX_BODY


class Mirror:
    """The step that mirrors. Copies carry ``Gateway-Mirror: 1``, so that the service can keep from acting on them."""

    name = "mirror"

    def __init__(self, service: Handler, settings: Settings, random: Random) -> None:
        with below("share"):
            if not 0 <= settings.share <= 1:
                raise ConfigError(f"share is {settings.share!r}; it is a number from 0 to 1")
        self._service = service
        self.parts = (service,)
        self._share = settings.share
        self._methods = frozenset(method.upper() for method in settings.methods)
        self._at_once = settings.at_once
        self._timeout = seconds(settings.timeout)
        self._max_body = size(settings.max_body)
        self._random = random
        self._running: set[asyncio.Task[None]] = set()
        self.copied = self.failed = self.skipped = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def around(self, request: Request, context: Context, proceed: Proceed) -> Response:
        """The real answer; the copy goes its own way."""
        if (not self._methods or request.method in self._methods) and self._random.random() < self._share:
            body = request.body
            small = (
                (body.length is not None and body.length <= self._max_body)
                if isinstance(body, Stream)
                else len(body) <= self._max_body
            )
            if not small or request.upgrade or len(self._running) >= self._at_once:
                self.skipped += 1
            else:
                await request.read(self._max_body)
                self._send(request)
        return await proceed(request)

    def figures(self) -> dict[str, int]:
        """Counters for the metrics."""
        return {"copied": self.copied, "failed": self.failed, "skipped": self.skipped}

    def _send(self, request: Request) -> None:
        copy = request.copy()
        copy._state = None
        copy.deadline = inf
        copy.inform = None
        copy.headers.replace((b"gateway-mirror",), ((b"gateway-mirror", b"1"),))
        self.copied += 1
        task = asyncio.get_running_loop().create_task(self._ask(copy))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _ask(self, copy: Request) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._service(copy)
                self.failed += response.status >= 500
                if isinstance(response.body, Stream):
                    async for _ in response.body:  # to the end, so that the connection can be used again
                        pass
        except Exception:
            self.failed += 1


def step(settings: Any, site: Site) -> Mirror:
    """The step of a route's ``mirror``: a service, or a table. Raises ``ConfigError``."""
    if not isinstance(settings, Settings):
        settings = Settings(service=settings)
    with below("service"):
        service = site.service(settings.service) if isinstance(settings.service, str) else settings.service
    return Mirror(service, settings, site.random)
