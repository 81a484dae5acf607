"""The step that sheds load: what the service cannot take in time is refused at once, the less important first.

Under overload a queue helps nobody: everybody waits, and answers come when their clients have gone. So only as much is let in as the
service answers without a queue (see ``adaptive``), and priorities say how far each kind of request may fill that.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from blocks.core.config.kinds import Duration
from blocks.core.errors import ConfigError, UpstreamTimeout
from blocks.core.quantities import seconds
from blocks.http.message import Request, Response

from ..context import Context
from ..problem import problem
from ..site import Site
from ..steps import Proceed
from .adaptive import Adaptive, Aimd, Gradient

PRIORITIES = ("critical", "normal", "low", "bulk")
SHARES = (1.0, 0.9, 0.7, 0.5)  # of the limit that each may fill: what is critical always finds the last tenth free
SHORTHAND = (str, bool)


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``shed`` of a route. Routes of the same ``name`` (default: of the same service) share a limit.

    ``algorithm``: ``gradient`` (finds the latency to keep by itself) or ``aimd`` (keeps ``target``). ``priority``: critical, normal, low,
    bulk; a consumer's own goes before. ``min``, ``max``, ``start``: the limit's bounds and first value. ``interval``: between two
    measurements of the idle latency.
    """

    name: str = ""
    algorithm: Literal["gradient", "aimd"] = "gradient"
    target: Duration = 0.0
    priority: str = "normal"
    min: int = 3
    max: int = 1000
    start: int = 20
    interval: Duration = 60.0


class Shed:
    """One route's view of a shared ``Adaptive``."""

    name = "shed"

    def __init__(self, own: Adaptive, priority: int, site: Site) -> None:
        self.own = own
        self._share = SHARES[priority]
        self._now = site.clock.monotonic
        self._refused = 0

    def check(self, request: Request, context: Context) -> Response | None:
        """None when there is room for the request's priority, else 503."""
        consumer = context.consumer
        share = self._share
        if consumer is not None and consumer.priority is not None:
            share = SHARES[min(max(consumer.priority, 0), len(SHARES) - 1)]
        own = self.own
        if not own.enter(share, context.now):
            self._refused += 1
            return problem(503, "Service Unavailable", "too much is under way", headers=((b"retry-after", b"1"),))
        context.at_end(lambda response: own.leave())
        return None

    async def around(self, request: Request, context: Context, proceed: Proceed) -> Response:
        """Measure the service alone: from the call to the head of its answer."""
        begun = self._now()
        try:
            response = await proceed(request)
        except UpstreamTimeout:
            now = self._now()
            self.own.sample(now - begun, now)
            raise
        now = self._now()
        self.own.sample(now - begun, now)
        return response

    def figures(self) -> dict[str, int]:
        """The limit, what is under way, and what was shed here."""
        return {"limit": int(self.own.limit), "under way": self.own.busy, "shed": self._refused}


def step(settings: Any, site: Site) -> Shed | None:
    """The step. ``shed = true`` takes all defaults, ``shed = "low"`` is a priority. Raises ``ConfigError``."""
    if settings is False:
        return None
    if settings is True:
        settings = Settings()
    elif isinstance(settings, str):
        settings = Settings(priority=settings)
    if settings.priority not in PRIORITIES:
        raise _at("priority", f"{settings.priority!r} is not a priority; there is {', '.join(PRIORITIES)}")
    if not 1 <= settings.min <= settings.start <= settings.max:
        raise _at("min", "it must be 1 <= min <= start <= max")
    handler = site.route.handler
    name = settings.name or str(getattr(handler, "name", "") or site.route.name)
    interval, target = seconds(settings.interval), seconds(settings.target)
    if settings.algorithm == "aimd":
        if target <= 0:
            raise _at("target", "aimd needs the latency to keep, like target = '250ms'")

        def make() -> Adaptive:
            return Aimd(target, settings.min, settings.max, settings.start)

    else:

        def make() -> Adaptive:
            return Gradient(settings.min, settings.max, settings.start, interval=interval, random=site.random)

    key = ("shed", name, settings.algorithm, settings.min, settings.max, settings.start, interval, target)
    return Shed(site.kept(key, make), PRIORITIES.index(settings.priority), site)


def _at(key: str, words: str) -> ConfigError:
    error = ConfigError(words)
    error.at = (key,)  # type: ignore[attr-defined]  # where in the table
    return error
