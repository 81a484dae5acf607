"""Load in an open model: requests begin when the schedule says, whether or not those before have been answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from blocks.core.errors import ConfigError, Failure
from blocks.core.quantities import seconds
from blocks.http.handler import Handler
from blocks.http.message import Request, Response
from blocks.http.upstream import Upstream

from .result import Result
from .shapes import Shape, constant
from .virtual import VirtualLoop

MOST = 10_000  # requests under way at once; a server that answers nothing must not take the test's memory with it
PATIENCE = 30.0  # seconds that a request may take (wrk and oha have no bound; a browser's users have left by then)
Progress = Callable[[Result, float], None]


class Load:
    """Sends what a shape says to ``handler`` and measures. ``make`` gives the request with a number (from 0)."""

    def __init__(
        self,
        handler: Handler,
        make: Callable[[int], Request],
        *,
        timeout: float | str = PATIENCE,
        most: int = MOST,
        progress: Progress | None = None,
    ) -> None:
        self._handler = handler
        self._make = make
        self._timeout = seconds(timeout)
        self._most = most
        self._progress = progress
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = loop = asyncio.get_running_loop()
        # uvloop's time() moves in whole milliseconds: too coarse to measure with
        self._now = loop.time if isinstance(loop, VirtualLoop) else time.perf_counter
        self._bounded = isinstance(handler, Upstream)  # it keeps request.deadline, which costs no timer

    async def open(self, shape: Shape, random: Random | None = None) -> Result:
        """Run the schedule and wait for the last answer."""
        result = Result(shape.label)
        now, began = self._now, self._now()
        last = began
        try:
            for start in shape.starts(random):
                intended = began + start
                wait = intended - now()
                if wait > 0:
                    await asyncio.sleep(wait)
                elif result.intended % 64 == 63:
                    await asyncio.sleep(0)  # behind schedule: the answers still get their turns
                result.late = max(result.late, now() - intended)
                if self._progress is not None and now() - last > 0.25:
                    last = now()
                    self._progress(result, last - began)
                self._begin(result, intended, began)
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            await self._stop()
        result.duration = max(now() - began, 1e-9) if not result.requests else _span(result)
        return result

    async def closed(self, concurrency: int, duration: float | str) -> Result:
        """``concurrency`` clients, each sending its next request when the last was answered (as wrk does): for comparison only."""
        result = Result(f"{concurrency} clients, closed")
        began = self._now()
        until = began + seconds(duration)

        async def client() -> None:
            while (start := self._now()) < until:
                number, result.intended = result.intended, result.intended + 1
                await self._one(result, number, start, began)
                if self._now() == start:
                    await asyncio.sleep(0)

        try:
            self._tasks = {self._loop.create_task(client()) for _ in range(concurrency)}
            await asyncio.gather(*self._tasks)
        finally:
            await self._stop()
        result.duration = max(self._now() - began, 1e-9)
        return result

    def _begin(self, result: Result, intended: float, began: float) -> None:
        number, result.intended = result.intended, result.intended + 1
        if len(self._tasks) >= self._most:
            result.record(intended - began, 0.0, 0, "too-many-under-way", 0)
            return
        task = self._loop.create_task(self._one(result, number, intended, began))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one(self, result: Result, number: int, intended: float, began: float) -> None:
        status, cause, received = 0, "", 0
        try:
            if self._bounded:
                request = self._make(number)
                request.deadline = self._loop.time() + self._timeout
                status, received = await self._ask(request)
            else:
                async with asyncio.timeout(self._timeout):
                    status, received = await self._ask(self._make(number))
            if status >= 500:
                cause = f"status-{status}"
        except TimeoutError:
            cause = "timeout"
        except Failure as failure:
            cause = failure.reason
        except Exception as error:
            cause = type(error).__name__
        result.record(intended - began, self._now() - intended, status, cause, received)

    async def _ask(self, request: Request) -> tuple[int, int]:
        """(status, bytes of the body)."""
        response: Response = await self._handler(request)
        body = response.body if type(response.body) is bytes else await response.read()
        return response.status, len(body)

    async def _stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _span(result: Result) -> float:
    """From the first intended start to the last end, in seconds."""
    first = min(result.moments)
    last = max(moment + latency for moment, latency in zip(result.moments, result.latencies, strict=True))
    return max(last - first, 1e-9)


def requests_of(
    method: str = "GET",
    path: str | Callable[[int], str] = "/",
    headers: Mapping[str, str] | None = None,
    body: bytes | str = b"",
    host: str = "blocks.test",
) -> Callable[[int], Request]:
    """Makes the request with a number; ``path`` may be a function of the number."""
    content = body.encode() if isinstance(body, str) else body
    fields = {"host": host, **(headers or {})}

    def make(number: int) -> Request:
        return Request(method, path(number) if callable(path) else path, fields, content)

    return make


async def load(
    target: Handler | str,
    rate: float | str | None = None,
    duration: float | str = 10.0,
    *,
    shape: Shape | None = None,
    concurrency: int | None = None,
    poisson: Random | None = None,
    timeout: float | str = PATIENCE,
    most: int = MOST,
    progress: Progress | None = None,
    **request: Any,
) -> Result:
    """Put ``target``, a URL or a handler, under load and return what was measured.

    Open model: ``rate`` a second for ``duration``, or a ``shape``; ``poisson`` draws the gaps. Closed model with ``concurrency``.
    ``request`` is ``method``, ``path`` (or a function of the number), ``headers``, ``body``. Raises ``ConfigError``.
    """
    if sum(given is not None for given in (rate, shape, concurrency)) != 1:
        raise ConfigError("a load needs one of rate=, shape= and concurrency=")
    client = None
    if isinstance(target, str):
        base, path = _split(target)
        client = Upstream(base, timeout=timeout, keep=most)
        request.setdefault("path", path)
        request.setdefault("host", base.partition("://")[2])
    run = Load(client or target, requests_of(**request), timeout=timeout, most=most, progress=progress)  # type: ignore[arg-type]  # one is set
    try:
        if concurrency is not None:
            return await run.closed(concurrency, duration)
        assert rate is not None or shape is not None
        return await run.open(shape or constant(rate or 0, duration), poisson)
    finally:
        if client is not None:
            await client.close()


def _split(url: str) -> tuple[str, str]:
    """(scheme and authority, path and query) of a URL."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        raise ConfigError(f"{url!r} is no URL; write http://127.0.0.1:8080/path")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority}", slash + path or "/"
