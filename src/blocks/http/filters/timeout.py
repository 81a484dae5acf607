"""A request has so long in all: every handler below is told its deadline, and one that does not keep it is cancelled (504)."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

from blocks.core.errors import ConfigError, UpstreamTimeout
from blocks.core.pending import Driver, Pending
from blocks.core.quantities import seconds
from blocks.core.sweeper import sweeper

from ..handler import Filter, Handler, direct
from ..message import Request, Response
from .request_id import named


def timeout(total: float | str, *, enforce: bool = True) -> Filter:
    """A filter that gives a request ``total`` seconds (``"5s"``) until its response's head, never more than it had already.

    It sets ``request.deadline``, which upstreams keep by themselves. With ``enforce`` a handler that has not answered a quarter of a
    second (the sweep's interval) later is cancelled, and ``UpstreamTimeout`` (504) raised; that costs 2 µs a request. The body of a
    response is bounded by the server's and the upstream's own timeouts.
    """
    span = seconds(total)
    if span <= 0:
        raise ConfigError("a timeout of 0 would let nothing through; leave the filter out for none")

    @direct
    async def filter(request: Request, next: Handler) -> Response:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + span
        if deadline < request.deadline:
            request.deadline = deadline
        if not enforce:
            return await next(request)
        return await _Timed(loop, request.deadline).run(next, request)

    return named(filter, "timeout")


class _Answer(Pending[Response]):
    """The response that is waited for; giving up on it cancels the work."""

    __slots__ = ("timed",)

    timed: _Timed | None

    def abandoned(self) -> None:
        if self.timed is not None:
            self.timed.interrupt()


class _Timed(Driver):
    """Drives one handler's coroutine while the sweeper watches its deadline."""

    __slots__ = ("_answer", "_cause", "deadline")

    def __init__(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        super().__init__(loop)
        self.deadline = deadline
        self._answer = _Answer()
        self._answer.timed = self
        self._cause: UpstreamTimeout | None = None

    async def run(self, next: Handler, request: Request) -> Response:
        """The response in time, or ``UpstreamTimeout``."""
        answer = self._answer
        try:
            self.start(next(request), direct=True)
            if answer.done:
                return await answer
            watch = sweeper(self._loop)
            watch.add(self)
            try:
                return await answer
            finally:
                watch.discard(self)
        finally:
            answer.timed = None  # or each request would leave a cycle to the garbage collector

    def returned(self, value: Any) -> None:
        """The handler answered; too late is too late."""
        if self._answer.done:
            value.discard()
        else:
            self._answer.resolve(value)

    def raised(self, error: BaseException) -> None:
        """The handler failed, perhaps because it was cancelled for its time."""
        if self._cause is not None and isinstance(error, asyncio.CancelledError):
            error = self._cause
        self._answer.fail(error)

    def expire(self, now: float) -> None:
        """Time is up."""
        self.deadline = inf
        self._cause = UpstreamTimeout("the request's total time is over", reason="timeout")
        self.interrupt()
