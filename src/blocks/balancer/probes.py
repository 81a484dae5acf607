"""Sends the probes that ``Health`` asks for, and tells the table what came back. The rules are in ``health.py`` and ``table.py``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random

from blocks.core.errors import Failure
from blocks.http.body import Stream, TooLarge
from blocks.http.message import Request, Response

from .endpoint import Endpoint
from .health import Health, objection
from .table import Table

FIRST_WITHIN = 0.25  # the share of an interval in which the first probes are spread


class Prober:
    """Probes every endpoint each interval, through its own handler: what a request would meet, the probe meets.

    One timer for each endpoint and one task for each probe under way; no more than ``health.parallel`` at once, the others
    wait their turn. Probes are not counted as requests of the endpoint.
    """

    def __init__(self, health: Health, table: Table, now: Callable[[], float], random: Random) -> None:
        self._health = health
        self._table = table
        self._now = now
        self._random = random
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timers: dict[Endpoint, asyncio.TimerHandle] = {}
        self._tasks: dict[Endpoint, asyncio.Task[float]] = {}
        self._due: dict[Endpoint, None] = {}  # their time has come but too many are under way; in order

    def start(self) -> None:
        """Begin, on the running loop."""
        self._loop = asyncio.get_running_loop()
        for endpoint in self._table.endpoints:
            self.watch(endpoint)

    async def stop(self) -> None:
        """End every probe under way, and begin no other."""
        self._loop = None
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._due.clear()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def watch(self, endpoint: Endpoint) -> None:
        """Probe ``endpoint`` from now on; the first time soon. Nothing happens before ``start``."""
        known = endpoint in self._timers or endpoint in self._tasks or endpoint in self._due
        if self._loop is not None and not known:
            self._later(endpoint, float(self._health.interval) * FIRST_WITHIN * self._random.random())

    def forget(self, endpoint: Endpoint) -> None:
        """Probe it no more."""
        self._due.pop(endpoint, None)
        timer = self._timers.pop(endpoint, None)
        if timer is not None:
            timer.cancel()
        task = self._tasks.get(endpoint)
        if task is not None:
            task.cancel()

    def _later(self, endpoint: Endpoint, delay: float) -> None:
        if self._loop is not None and endpoint.owner is self._table:
            self._timers[endpoint] = self._loop.call_later(delay, self._fall_due, endpoint)

    def _fall_due(self, endpoint: Endpoint) -> None:
        del self._timers[endpoint]
        self._due[endpoint] = None
        self._begin()

    def _begin(self) -> None:
        while self._loop is not None and self._due and len(self._tasks) < self._health.parallel:
            endpoint = next(iter(self._due))
            del self._due[endpoint]
            task = self._tasks[endpoint] = self._loop.create_task(self._probe(endpoint))
            task.add_done_callback(partial(self._ended, endpoint))

    async def _probe(self, endpoint: Endpoint) -> float:
        """One probe; the seconds until the next."""
        began = self._now()
        problem = await self._problem(endpoint)
        now = self._now()
        self._table.probed(endpoint, problem, self._health, now)
        interval = float(self._health.interval)
        spread = self._health.jitter * self._random.uniform(-1.0, 1.0)
        return max(0.0, interval * (1.0 + spread) - (now - began))

    def _ended(self, endpoint: Endpoint, task: asyncio.Task[float]) -> None:
        self._tasks.pop(endpoint, None)
        delay = float(self._health.interval)
        error = None if task.cancelled() else task.exception()
        if error is not None and self._loop is not None:  # a policy's bug, say: told, and the probes go on
            self._loop.call_exception_handler({"message": f"a probe of {endpoint.name} failed", "exception": error})
        elif not task.cancelled():
            delay = task.result()
        self._later(endpoint, delay)
        self._begin()

    async def _problem(self, endpoint: Endpoint) -> str:
        """Why the endpoint is not well; empty when it is."""
        ask = self._connect if self._health.mode == "tcp" else self._ask
        timeout = float(self._health.timeout)
        try:
            async with asyncio.timeout(timeout):
                return await ask(endpoint)
        except TimeoutError:
            return f"no answer within {timeout:g} s"
        except Failure as failure:
            return failure.reason
        except Exception as error:  # a handler's bug makes it unwell, and must not end its probes
            return f"{type(error).__name__}: {error}"

    async def _ask(self, endpoint: Endpoint) -> str:
        health = self._health
        request = Request(health.method, health.path, {"user-agent": "blocks-health-check", **health.headers})
        request.deadline = self._now() + float(health.timeout)
        response = await endpoint.call(request)
        try:
            body = await response.read(int(health.max_body))
        except TooLarge:
            if health.expect_body is not None:
                return f"body is over {health.max_body} bytes"
            body = b""
        finally:
            _give_up(response)
        return objection(health, response, body)

    async def _connect(self, endpoint: Endpoint) -> str:
        address = getattr(endpoint.handler, "address", None)
        if address is None:
            return f"{endpoint.name} has no address to connect to; use mode='http'"
        loop = asyncio.get_running_loop()
        try:
            if isinstance(address, str):
                transport, _ = await loop.create_unix_connection(asyncio.Protocol, address)
            else:
                transport, _ = await loop.create_connection(asyncio.Protocol, *address)
        except OSError as error:
            return f"cannot connect: {error.strerror or error}"
        transport.close()
        return ""


def _give_up(response: Response) -> None:
    if isinstance(response.body, Stream) or hasattr(response.body, "cancel"):
        response.body.cancel()
