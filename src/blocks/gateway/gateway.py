"""The gateway is a handler that chooses one: it makes the path canonical, finds the route, runs its steps, and calls its handler."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from blocks.core.clock import SYSTEM, Clock
from blocks.core.errors import ClientGone, Failure
from blocks.core.metrics import Reading
from blocks.core.status import Status, best, worst
from blocks.http.body import Stream
from blocks.http.h1.writer import phrase
from blocks.http.handler import Handler, status_of
from blocks.http.message import Request, Response

from .address import Addresses
from .context import STATE_KEY, Context
from .ending import Ending, EndingTunnel
from .figures import ByConsumer, Figures, Top, readings, step_readings
from .parts import Parts
from .path import BadPath
from .problem import problem
from .route import Route
from .routes.table import Missed
from .site import Kept, Site
from .snapshot import Lane, Snapshot
from .versions import Versions

Choose = Callable[[Request], Snapshot]
Observer = Callable[[Snapshot, int, float], None]  # (which, status, seconds)


class Gateway:
    """One front door: ``Gateway([route("/api", api, limit="100/s per key")])`` is a handler.

    ``auth`` and the other ``defaults`` hold for every route that does not say otherwise (``auth="deny"``: deny by default).
    ``trusted`` are the networks of proxies in front, whose ``forwarded_by`` field is believed. ``services``, ``publishers``,
    ``subscribers`` and ``caches`` are what routes name; ``tables`` what ``[auth.NAME]``, ``[limits.NAME]`` and ``[consumers.NAME]``
    would hold in a file; ``redis`` the URL or table of the shared store. Raises ``ConfigError``.
    """

    direct = True

    def __init__(
        self,
        *routes: Route | Iterable[Route],
        auth: Any = None,
        defaults: Mapping[str, Any] | None = None,
        trusted: Iterable[str] = (),
        forwarded_by: str = "x-forwarded-for",
        versions: Versions | None = None,
        tables: Mapping[str, Mapping[str, Any]] | None = None,
        services: Mapping[str, Handler] | None = None,
        publishers: Mapping[str, Any] | None = None,
        subscribers: Mapping[str, Any] | None = None,
        caches: Mapping[str, Any] | None = None,
        redis: str | Mapping[str, Any] | None = None,
        country: Callable[[str], str] | None = None,
        encoded_slash: bool = False,
        semicolon: bool = False,
        base: Path | None = None,
        clock: Clock = SYSTEM,
        random: Random | None = None,
    ) -> None:
        flat = [one for given in routes for one in ((given,) if isinstance(given, Route) else given)]
        tables = {**(tables or {}), **({"redis": {"url": redis} if isinstance(redis, str) else redis} if redis else {})}
        site = Site(
            clock=clock, random=random, base=base, tables=tables, services=services, publishers=publishers,
            subscribers=subscribers, caches=caches, country=country,
        )  # fmt: skip
        snapshot = Snapshot(
            flat, site, addresses=Addresses(trusted, forwarded_by), versions=versions,
            defaults={**(defaults or {}), **({} if auth is None else {"auth": auth})},
            encoded_slash=encoded_slash, semicolon=semicolon, label="code",
        )  # fmt: skip
        self._start(snapshot, clock)

    @classmethod
    def of(cls, snapshot: Snapshot) -> Gateway:
        """A gateway over a snapshot that was built from a file (see ``config.load``)."""
        gateway = cls.__new__(cls)
        gateway._start(snapshot, snapshot.site.clock)
        return gateway

    def _start(self, snapshot: Snapshot, clock: Clock) -> None:
        self.clock = clock
        self._now = clock.monotonic
        self.snapshot = snapshot
        self.kept: Kept = snapshot.site.keeper
        self.unrouted = Figures()
        self.top = Top()
        self.consumers = ByConsumer()
        self._choose: Choose | None = None
        self._observe: Observer | None = None
        self._parts = Parts()

    # -- life

    @property
    def parts(self) -> tuple[object, ...]:
        """What the gateway stands on, for ``running``, health and the topology."""
        return self.snapshot.parts

    @property
    def status(self) -> Status:
        """CLOSED when no route's service takes work, BUSY when some do not: one dead service must not take the others away."""
        handlers = {id(lane.route.handler): lane.route.handler for lane in self.snapshot.lanes.values()}
        found = [status_of(handler) for handler in handlers.values()]
        return worst(found) if best(found) is Status.CLOSED else max(worst(found), Status.BUSY)

    def readings(self) -> Iterable[Reading]:
        """The gateway's figures, for ``/metrics``."""
        lanes = self.snapshot.lanes
        yield from readings([*((route.name, lane.figures) for route, lane in lanes.items()), ("(none)", self.unrouted)])
        yield from self.consumers.readings()
        for route, lane in lanes.items():
            for part in (*lane.plan.steps, lane.route.handler):  # compositions, jobs and messages count, too
                counts = getattr(part, "figures", None)
                if callable(counts):
                    yield from step_readings(route.name, str(getattr(part, "name", "service")), counts())

    async def __aenter__(self) -> Gateway:
        """``running`` has entered the parts; they stay until it leaves them."""
        self._parts.own(self.snapshot.parts)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._parts.close()

    async def enter(self, snapshot: Snapshot) -> None:
        """Start what the snapshot needs and does not run yet, before it may be chosen."""
        await self._parts.enter(snapshot.parts)

    async def leave(self, snapshot: Snapshot) -> None:
        """Stop what only that snapshot needed. It must not be chosen any more."""
        await self._parts.leave(snapshot.parts)

    def swap(self, snapshot: Snapshot) -> Snapshot:
        """Answer with ``snapshot`` from the next request on; returns the one that answered until now."""
        old, self.snapshot = self.snapshot, snapshot
        return old

    def observe(self, choose: Choose | None, observer: Observer | None) -> None:
        """Let ``choose`` pick the snapshot of each request, and tell ``observer`` how it went; None for neither."""
        self._choose, self._observe = choose, observer

    # -- the way of a request

    async def __call__(self, request: Request) -> Response:
        """Answer one request: the route's checks, its service, its afters. One coroutine, however many steps there are."""
        now = self._now()
        snapshot = self.snapshot if self._choose is None else self._choose(request)
        try:
            found = snapshot.find(request)
        except BadPath as error:
            return self._unrouted(problem(400, "Bad Request", str(error)))
        if isinstance(found, Missed):
            return self._unrouted(_missed(found, request))
        lane, params, path = found
        route = lane.route
        plan = lane.plan
        context = Context(route, params, path, snapshot.addresses.client(request), now)
        request.state[STATE_KEY] = context
        if route.timeout is not None:
            request.deadline = min(request.deadline, asyncio.get_running_loop().time() + route.timeout)
        place = 0
        try:
            try:
                for check in plan.checks:
                    answer = check(request, context)
                    if answer is not None:
                        if type(answer) is not Response:
                            answer = await answer  # type: ignore[misc]  # what is neither None nor a Response is awaitable
                        if answer is not None:
                            lane.figures.refuse(plan.checked[place])
                            response: Response = answer
                            break
                    place += 1
                else:
                    response = await (lane.handler(request) if plan.call is None else plan.call(request, context))
            except ClientGone:
                raise
            except Failure as error:
                context.notes["failure"] = error
                response = problem(error.status, phrase(error.status), reason=error.reason)
            for after in plan.afters[place]:
                changed = after(request, response, context)
                response = changed if type(changed) is Response else await _settled(changed)
        except BaseException as error:
            self._failed(snapshot, lane, context, error)
            raise
        figures = lane.figures
        figures.classes[response.status // 100] += 1
        seconds = self._now() - now
        figures.durations.record(seconds)
        if self._observe is not None:
            self._observe(snapshot, response.status, seconds)
        if context.consumer is not None:
            counts = self.consumers.counts.get(context.consumer.name)
            if counts is None or response.status >= 400:
                self.consumers.add(context.consumer.name, response.status)
            else:
                counts[0] += 1
        if context.limited is not None:
            self.top.add(context.limited)
        if context.ends is not None:
            _end_with_body(context, response)
        return response

    def _unrouted(self, response: Response) -> Response:
        self.unrouted.classes[response.status // 100] += 1
        return response

    def _failed(self, snapshot: Snapshot, lane: Lane, context: Context, error: BaseException) -> None:
        """A request ended in an exception: it is counted, and what it held is given back."""
        lane.figures.classes[0] += 1
        if self._observe is not None and isinstance(error, Exception) and not isinstance(error, ClientGone):
            self._observe(snapshot, 500, self._now() - context.now)
        context.end(None)


async def _settled(changed: Response | Awaitable[Response]) -> Response:
    return changed if isinstance(changed, Response) else await changed


def _missed(missed: Missed, request: Request) -> Response:
    if request.target == "*" and request.method == "OPTIONS":
        return Response(204)
    if missed.allowed:
        allow = ", ".join(sorted(missed.allowed)).encode()
        return problem(405, "Method Not Allowed", f"{request.method} is not taken here", headers=((b"allow", allow),))
    return problem(404, "Not Found", "no route takes this request")


def _end_with_body(context: Context, response: Response) -> None:
    body = response.body
    if isinstance(body, Stream) and not body.ended:
        response.body = Ending(body, lambda complete: context.end(response if complete else None)).stream
    elif response.status == 101 and hasattr(body, "connect"):
        response.body = EndingTunnel(body, lambda: context.end(response))
    else:
        context.end(response)
