"""A balancer is a handler over handlers: each request goes to the endpoint that the policy likes best and that can take it.

The first choice answering at once is the hot path, ``__call__``. Everything else (full, failed, waiting) is ``_persist``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from math import inf
from random import Random
from typing import Any, NoReturn

from blocks.core.clock import SYSTEM, Clock
from blocks.core.errors import Again, ConfigError, Failure, Fault, Unavailable
from blocks.core.histogram import Histogram
from blocks.core.metrics import Reading
from blocks.core.quantities import seconds
from blocks.core.status import Status
from blocks.core.sweeper import sweeper
from blocks.http.handler import Handler
from blocks.http.message import Request, Response
from blocks.http.upstream import Upstream

from .attempts import Attempts
from .endpoint import Endpoint, Recorder
from .events import Event, Kind, Tape, log
from .health import Health
from .leaving import Leaving, Members
from .load import observe, observe_failure
from .outlier import Outlier
from .policies import Policy, policy_of
from .probes import Prober
from .queue import Line, Place, Queue
from .retries import Budget, Retries
from .snapshot import readings, snapshot, status_now
from .table import Table

Upstreamlike = Endpoint | Handler | str


class LoadBalancer:
    """Spreads requests over ``upstreams``: handlers, ``Endpoint`` objects with settings of their own, or URLs.

    >>> api = LoadBalancer(["http://10.0.0.1:9000", "http://10.0.0.2:9000"], health="/healthz")       # doctest: +SKIP

    ``policy``: a name (``p2c``, ``round-robin``, ``least-requests``, ``random``, ``consistent-hash``) or a ``Policy``. p2c: linkerd's.
    ``health``: active probes: ``Health(…)``, an interval "2s", a path "/healthz", or None for none (as in nginx and Envoy).
    ``outlier``: passive health, on by default; None turns it off.
    ``retries``: ``Retries(…)``, a number of retries, or None for the default.
    ``max_requests``: under way on one endpoint, None for no limit; the others then wait in ``queue`` (``Queue(…)`` or its size).
    ``timeout``: seconds for a request with all its tries, put into ``request.deadline``, which upstreams keep; None adds none.
    ``panic``: the share of usable endpoints below which all are used; 0 (nginx, AWS ALB) means when none is left, None never.
    ``slow_start``: seconds in which an endpoint that is new or back grows to its weight; 0 for none (nginx).
    ``upstream`` makes a handler of a URL, also of one that is added at run time; by default ``Upstream`` with its default timeouts.
    ``on_event`` is called with every ``Event``; without it they go to ``blocks.core.logging``. ``clock`` must agree with the loop's.

    Raises ``ConfigError`` for settings that are wrong; a call raises the last try's ``Failure``, or ``Unavailable`` when nobody is
    in rotation.
    """

    direct = True

    def __init__(
        self,
        upstreams: Iterable[Upstreamlike] = (),
        *,
        policy: Policy | str = "p2c",
        health: Health | str | float | None = None,
        outlier: Outlier | None = Outlier(),  # noqa: B008  # frozen: one for all is right
        retries: Retries | int | None = None,
        max_requests: int | None = None,
        queue: Queue | int | None = None,
        timeout: float | str | None = None,
        panic: float | None = 0.0,
        slow_start: float | str = 0.0,
        upstream: Callable[[str], Handler] = Upstream,
        on_event: Callable[[Event], None] | None = None,
        latency: Callable[[], Recorder] = Histogram,
        clock: Clock = SYSTEM,
        random: Random | None = None,
        name: str = "balancer",
    ) -> None:
        if panic is not None and not 0 <= panic <= 1:
            raise ConfigError(f"panic is a share between 0 and 1, or None, not {panic!r}")
        if max_requests is not None and max_requests < 1:
            raise ConfigError(f"max_requests is at least 1, or None for no limit, not {max_requests!r}")
        self.name = name
        self.requests = 0
        self.retried = 0
        self.shed = 0
        self.retries = Retries.of(retries)
        self.tape = Tape(on_event or log)
        self._random = random or Random()
        self._now = now = clock.monotonic
        self._upstream = upstream
        self._policy = policy_of(policy, self._random)
        self._first: Callable[[Request, float], Endpoint] = self._nobody
        self._latency = latency
        self._timeout = inf if timeout is None else seconds(timeout)
        self._per_try = inf if self.retries.per_try is None else float(self.retries.per_try)
        self._patience = min(self._timeout, self._per_try)
        self._bad = frozenset(outlier.statuses) if outlier else frozenset()
        self._again = frozenset(self.retries.statuses) if self.retries.tries > 1 else frozenset()
        self._budget = Budget(self.retries.budget, self.retries.reserve, now())
        self._line = Line(Queue.of(queue), self._release)
        self._places = self._line.places
        self._admitting = False
        self._timer: asyncio.TimerHandle | None = None
        self.table = Table(
            self.tape, self._changed, outlier=outlier, panic=panic, slow_start=seconds(slow_start), limit=max_requests
        )
        self.health = Health.of(health)
        self._prober = None if self.health is None else Prober(self.health, self.table, now, self._random)
        self._members = Members(self.table, self.tape, self._prober, now)
        for member in upstreams:
            self._put(member, {}, late=False)

    # -- as a handler

    async def __call__(self, request: Request) -> Response:
        """The answer of the endpoint that was chosen, or of the one that a retry found."""
        began = self._now()
        self.requests += 1
        endpoint = self._first(request, began)
        until = request.deadline
        if endpoint.active >= endpoint.limit or self._places:
            return await self._wait(request, min(until, began + self._timeout))
        headers = request.headers
        method, target, section, body = request.method, request.target, headers.section, request.body
        if self._patience < inf:
            request.deadline = min(until, began + self._patience)
        endpoint.active += 1
        endpoint.requests += 1
        try:
            response = await endpoint.call(request)
        except BaseException as error:
            until = min(until, began + self._timeout)
            attempts = Attempts(request, method, target, section, body, until, 1)
            return await self._persist(attempts, endpoint, began, error, None)
        self._answered(endpoint, response, began)
        if self._again and response.status in self._again:
            until = min(until, began + self._timeout)
            attempts = Attempts(request, method, target, section, body, until, 1)
            return await self._persist(attempts, endpoint, began, None, response)
        return response

    def _nobody(self, request: Request, now: float) -> NoReturn:
        raise Unavailable(f"{self.name} has no endpoint in rotation", reason="no-endpoint", again=Again.UNSENT)

    async def _wait(self, request: Request, until: float) -> Response:
        attempts = Attempts(request, request.method, request.target, request.headers.section, request.body, until)
        endpoint = await self._admit(attempts)
        if endpoint is None:
            return self._refusal()
        return await self._persist(attempts, endpoint, self._now(), None, None)

    async def _persist(
        self,
        attempts: Attempts,
        endpoint: Endpoint,
        began: float,
        error: BaseException | None,
        response: Response | None,
    ) -> Response:
        """Goes on until there is an answer or no reason to: from a try that ended, or (neither is given) with ``endpoint`` reserved."""
        try:
            while True:
                if error is not None or response is not None:
                    if error is not None:
                        self._failed(endpoint, error, began)
                    reserved = await self._next(attempts, endpoint, error, response)
                    if reserved is None:
                        if error is not None:
                            raise error
                        assert response is not None
                        return response
                    endpoint, error, response = reserved, None, None
                began = self._now()
                attempts.tries += 1
                attempts.rewind(min(attempts.until, began + self._per_try))
                endpoint.requests += 1
                try:
                    response = await endpoint.call(attempts.request)
                except BaseException as problem:
                    error = problem
                    continue
                self._answered(endpoint, response, began)
                if response.status not in self._again:
                    return response
        finally:
            error = None  # an exception that its own frame keeps alive is a cycle

    async def _next(
        self, attempts: Attempts, endpoint: Endpoint, error: BaseException | None, response: Response | None
    ) -> Endpoint | None:
        """The endpoint for another try, a place on it taken; None when the outcome stands."""
        if error is not None and not isinstance(error, Failure):
            return None
        now = self._now()
        why = f"status {response.status}" if error is None and response is not None else getattr(error, "reason", "")
        if self._refuse(attempts, endpoint, error, why, now):
            return None
        self.retried += 1
        self.tape.mention("retry", endpoint.name, why, now)
        attempts.tried += (endpoint,)
        chosen: Endpoint | None = None
        try:
            everybody = all(other in attempts.tried for other in self.table.rotation)
            if everybody and self.table.spare(attempts.tried) is None:
                pause = attempts.pause(self.retries, self._random)
                if error is None or error.again is not Again.REUSED:  # a stale connection is no reason to wait
                    await asyncio.sleep(min(pause, max(0.0, attempts.until - now)))
            chosen = await self._admit(attempts)
        except BaseException:  # the client left while this waited: nobody will read the answer that was kept
            if response is not None:
                response.discard()
            raise
        if chosen is not None and response is not None:
            response.discard()
        return chosen

    def _refuse(self, attempts: Attempts, endpoint: Endpoint, error: Failure | None, why: str, now: float) -> bool:
        kind: Kind = "retry-refused"
        objection = attempts.refusal(self.retries, error, now)
        if not objection and attempts.tries >= self.retries.tries:
            kind, objection = "retry-exhausted", f"after {attempts.tries} tries"
        if not objection and not self._budget.spend(self.requests, now):
            objection = "the budget for retries is spent"
        if objection:
            self.tape.mention(kind, endpoint.name, f"{why}; {objection}", now)
        return bool(objection)

    # -- counting

    def _answered(self, endpoint: Endpoint, response: Response, began: float) -> None:
        now = self._now()
        took = now - began
        status = response.status
        endpoint.statuses[status // 100 if 100 <= status < 600 else 0] += 1
        endpoint.latency.record(took)  # type: ignore[union-attr]  # set when it joined
        if status in self._bad:
            observe_failure(endpoint, took, now)
            self.table.failed(endpoint, f"status {status}", now)
        else:
            observe(endpoint, took, now)
            if endpoint.streak:
                endpoint.streak = 0
                if endpoint.ejected:
                    self.table.proved(endpoint, now)
        body = response.body
        if type(body) is not bytes:
            watch = getattr(body, "watch", None)
            if watch is not None:
                watch(endpoint.on_end)
                return
        endpoint.active -= 1
        if self._places or endpoint.awaited:
            self._freed(endpoint)

    def _failed(self, endpoint: Endpoint, error: BaseException, began: float) -> None:
        now = self._now()
        if not isinstance(error, Exception) or (isinstance(error, Failure) and error.fault is Fault.CLIENT):
            endpoint.cancelled += 1
        else:
            endpoint.failures += 1
            observe_failure(endpoint, now - began, now)
            if isinstance(error, Failure) and error.fault is Fault.UPSTREAM:
                self.table.failed(endpoint, error.reason, now)
        self._release(endpoint)

    def _ended(self, endpoint: Endpoint, error: BaseException | None) -> None:
        """A body that was still coming when the head was passed on has ended."""
        if isinstance(error, Failure) and error.fault is Fault.UPSTREAM:
            endpoint.failures += 1
            self.table.failed(endpoint, error.reason, self._now())
        self._release(endpoint)

    # -- capacity

    async def _admit(self, attempts: Attempts) -> Endpoint | None:
        """A place on an endpoint, after waiting in line when all are full; None when there is none to be had."""
        now = self._now()
        request, tried = attempts.request, attempts.tried
        if not self.table.rotation:
            return None
        if not self._places:
            endpoint = self._choose(request, tried, now)
            if endpoint is not None:
                endpoint.active += 1
                return endpoint
        place = self._line.join(request, tried, now, attempts.until, sweeper())
        if place is None:
            self.tape.mention("queue-full", "", f"{len(self._places)} requests wait already", now)
            return None
        head = self._line.head
        if head is not None and head.tried:
            self._call_up()  # the first in line waits for what it has not tried; there may be room for the others
        endpoint = await place
        if endpoint is None:
            self.tape.mention("queue-timeout", "", "no endpoint had room in time", self._now())
        return endpoint

    def _choose(self, request: Request, tried: tuple[Endpoint, ...], now: float) -> Endpoint | None:
        """The best one with room: one that was not tried yet while there is any, even if that means to wait for it.

        When everybody in rotation has failed this very request, an ejected one that failed a while ago is the better bet.
        """
        again: Endpoint | None = None
        untried = False
        for endpoint in self._policy.candidates(request, now):
            new = endpoint not in tried
            if endpoint.active >= endpoint.limit:
                endpoint.refusals += 1
                untried = untried or new
            elif new:
                return endpoint
            elif again is None:
                again = endpoint
        if untried:
            return None
        return (self.table.spare(tried) if tried else None) or again

    def _release(self, endpoint: Endpoint) -> None:
        endpoint.active -= 1
        if self._places or endpoint.awaited:
            self._freed(endpoint)

    def _freed(self, endpoint: Endpoint) -> None:
        if endpoint.awaited and endpoint.active == 0:
            self._members.emptied(endpoint)
        if self._places:
            self._call_up()

    def _call_up(self) -> None:
        """Those first in line go as long as there is room; one loop for all, as a place may be free again before ``give`` returns."""
        if self._admitting:
            return
        self._admitting = True
        try:
            passed: set[Place] = set()
            while (place := self._line.after(passed)) is not None:
                endpoint = self._choose(place.request, place.tried, self._now())
                if endpoint is None:
                    if not place.tried:
                        return  # there is no room for anybody
                    passed.add(place)
                    continue
                endpoint.active += 1
                self._line.leave(place)
                place.give(endpoint)
        finally:
            self._admitting = False

    def _refusal(self) -> Response:
        self.shed += 1
        after = str(self._line.queue.retry_after)
        headers = {"content-type": "text/plain; charset=utf-8", "retry-after": after}
        return Response(503, headers, b"503 Service Unavailable: all upstreams are busy\n")

    # -- the table at run time

    async def add(self, upstream: Upstreamlike, **settings: Any) -> Endpoint:
        """Take ``upstream`` in; ``settings`` are those of ``Endpoint``.

        While the balancer is open, a handler that is a context manager is entered here, and left when it is removed; before that
        ``running`` will enter it as one of the parts. Raises ``ConfigError``.
        """
        endpoint = self._make(upstream, settings)
        await self._members.enter(endpoint)
        try:
            self._put(endpoint, {}, late=True)
        except BaseException:
            await self._members.leave(endpoint)
            raise
        return endpoint

    def remove(self, name: str, timeout: float | str | None = None) -> Leaving:
        """Take the endpoint out at once. Await the result to wait until what it had under way is done, as with ``drain``."""
        endpoint = self.table.find(name)
        return self._members.remove(endpoint, timeout)

    def drain(self, name: str, timeout: float | str | None = None) -> Leaving:
        """Give the endpoint nothing new. Await the result to wait until it is empty: True when it is, within ``timeout``.

        Raises ``KeyError`` for a name that there is not.
        """
        return self._members.drain(self.table.find(name), timeout)

    def restore(self, name: str) -> None:
        """Take a drained endpoint into service again."""
        self._members.restore(self.table.find(name))

    def weigh(self, name: str, weight: float) -> None:
        """Set the endpoint's weight; it counts from the next request on."""
        self.table.weigh(self.table.find(name), weight, self._now())

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The rows of the table, as they are now."""
        return self.table.endpoints

    def inherit(self, other: LoadBalancer) -> None:
        """Go on with the counts and the tape of a balancer that this one takes the place of; rows have inherited theirs."""
        self.requests, self.retried, self.shed = other.requests, other.retried, other.shed
        self.tape.last.extend(other.tape.last)
        self.table.tick(self._now())

    def _make(self, upstream: Upstreamlike, settings: dict[str, Any]) -> Endpoint:
        if isinstance(upstream, Endpoint):
            if settings:
                raise ConfigError("an Endpoint carries its settings; give them to it")
            return upstream
        if isinstance(upstream, str):
            upstream = self._upstream(upstream)
        return Endpoint(upstream, **settings)

    def _put(self, upstream: Upstreamlike, settings: dict[str, Any], *, late: bool) -> None:
        endpoint = self._make(upstream, settings)
        endpoint.latency = endpoint.latency or self._latency()
        endpoint.on_end = lambda error: self._ended(endpoint, error)
        self.table.add(endpoint, self._now(), late=late)
        if self._prober is not None:
            self._prober.watch(endpoint)

    def _changed(self) -> None:
        """The rotation changed (called by the table)."""
        table = self.table
        self._policy.arrange(table.rotation)
        self._first = self._policy.first if table.rotation else self._nobody
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if table.next_at < inf:
            delay = max(0.0, table.next_at - self._now())
            try:
                self._timer = asyncio.get_running_loop().call_later(delay, self._tick)
            except RuntimeError:  # set up before there is a loop; the next change in one sets the timer
                pass
        if self._places:
            self._call_up()

    def _tick(self) -> None:
        self._timer = None
        self.table.tick(self._now())

    # -- as a part

    @property
    def parts(self) -> tuple[Handler, ...]:
        """The endpoints' handlers."""
        return tuple(endpoint.handler for endpoint in self.table.endpoints)

    @property
    def status(self) -> Status:
        """OPEN when every endpoint is usable, BUSY when some are or somebody waits, CLOSED when none is."""
        return status_now(self.table, waiting=len(self._places))

    def snapshot(self) -> dict[str, Any]:
        """What there is to see, as plain values: for an admin page and for metrics."""
        return snapshot(self, self._policy.name, len(self._places))

    def readings(self) -> Iterable[Reading]:
        """Its series for ``/metrics``."""
        return readings(self)

    async def __aenter__(self) -> LoadBalancer:
        self._members.open = True
        if self._prober is not None:
            self._prober.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._prober is not None:
            await self._prober.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._line.dismiss()
        await self._members.close()

    def __repr__(self) -> str:
        return f"<LoadBalancer {self.name} {self._policy.name} {list(self.table.endpoints)}>"
