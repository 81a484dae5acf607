"""Requests that wait for a free endpoint, first come, first served; bounded in number and in time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import inf

from blocks.core.errors import ConfigError
from blocks.core.pending import Pending
from blocks.core.quantities import seconds
from blocks.core.sweeper import Sweeper
from blocks.http.message import Request

from .endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Queue:
    """At most ``size`` requests wait (1,024: Envoy's max_pending_requests), each for ``timeout`` seconds.

    5 s is what HAProxy's examples give ``timeout queue``.
    ``size=0``: nobody waits. ``retry_after`` (seconds) is what a refused client is told (RFC 9110 §10.2.3). Raises ``ConfigError``.
    """

    size: int = 1024
    timeout: float | str = 5.0
    retry_after: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "timeout", seconds(self.timeout))
        if self.size < 0 or self.retry_after < 0:
            raise ConfigError("size and retry_after of a queue are 0 or more")

    @classmethod
    def of(cls, value: Queue | int | None) -> Queue:
        """A queue from itself or from a size; None is the default."""
        if isinstance(value, Queue):
            return value
        if value is None:
            return cls()
        if not isinstance(value, int):
            raise ConfigError(f"queue is a number of requests or Queue(…), not {value!r}")
        return cls(size=value)


class Place(Pending[Endpoint | None]):
    """One place in the line: resolves to an endpoint on which a place is already taken for it, or to None when its time is over."""

    __slots__ = ("_given", "_line", "deadline", "request", "tried")

    def __init__(self, line: Line, request: Request, tried: tuple[Endpoint, ...], deadline: float) -> None:
        super().__init__()
        self._line = line
        self._given: Endpoint | None = None
        self.request = request
        self.tried = tried
        self.deadline = deadline

    def give(self, endpoint: Endpoint) -> None:
        """It may go on ``endpoint``."""
        self._given = endpoint
        self.deadline = inf
        self.resolve(endpoint)

    def expire(self, now: float) -> None:
        """Its time is over (called by the sweeper)."""
        self.deadline = inf
        self._line.leave(self)
        self.resolve(None)

    def abandoned(self) -> None:
        """The one who waited is gone: what was given to it goes to the next."""
        self._line.leave(self)
        if self._given is not None:
            self._line.returned(self._given)


class Line:
    """The places in order. ``returned`` is called with an endpoint that was given to one who had left meanwhile."""

    __slots__ = ("_sweeper", "places", "queue", "returned")

    def __init__(self, queue: Queue, returned: Callable[[Endpoint], None]) -> None:
        self.queue = queue
        self.returned = returned
        self.places: OrderedDict[Place, None] = OrderedDict()  # read by the hot path: is anybody waiting?
        self._sweeper: Sweeper | None = None

    def join(
        self, request: Request, tried: tuple[Endpoint, ...], now: float, until: float, sweeper: Sweeper
    ) -> Place | None:
        """A place at the end, for the queue's time and at most until ``until``; None when the line is full."""
        if len(self.places) >= self.queue.size:
            return None
        place = Place(self, request, tried, min(now + float(self.queue.timeout), until))
        self.places[place] = None
        self._sweeper = sweeper
        sweeper.add(place)
        return place

    def leave(self, place: Place) -> None:
        """Take a place out of the line; nothing happens when it is out already."""
        if place in self.places:
            del self.places[place]
            if self._sweeper is not None:
                self._sweeper.discard(place)

    def dismiss(self) -> None:
        """Send everybody away: the balancer stops."""
        for place in list(self.places):
            place.expire(inf)

    def after(self, passed: Collection[Place]) -> Place | None:
        """The first who is not in ``passed``."""
        for place in self.places:
            if place not in passed:
                return place
        return None

    @property
    def head(self) -> Place | None:
        """Whose turn it is."""
        return next(iter(self.places), None)
