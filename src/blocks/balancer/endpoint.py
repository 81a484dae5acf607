"""An endpoint is one row of the balancer's table: a handler, what was set for it, and what was counted and judged of it.

Everybody reads rows; each column has one writer: settings by ``Table``, counters and load by the balancer, health by the probes'
and the outliers' rules through ``Table``. Health, discovery and the run-time API so feed one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Protocol

from blocks.core.errors import ConfigError
from blocks.http.handler import Handler, bind

if TYPE_CHECKING:
    from collections.abc import Callable

NO_LIMIT = 1 << 60


class State(Enum):
    """What an endpoint is to the balancer, the gravest that holds."""

    DRAINING = "draining"  # finishes what it has, gets nothing new
    UNHEALTHY = "unhealthy"  # its probes fail
    EJECTED = "ejected"  # real requests failed on it, one after another
    WARMING = "warming"  # back or new, its share grows (slow start)
    HEALTHY = "healthy"


class Recorder(Protocol):
    """Takes a latency, as ``blocks.core.metrics.Histogram`` does."""

    def record(self, seconds: float) -> None:
        """One more answer took ``seconds``."""
        ...


_LEARNT = (
    "cancelled", "draining", "ejected_until", "ejections", "ewma", "ewma_at", "failures", "latency", "passes", "probe_reason",
    "probed", "probes", "refusals", "requests", "returned_at", "streak", "well",
)  # fmt: skip


class Endpoint:
    """One row of the table. Make it yourself to set more than the handler; it belongs to one balancer.

    ``weight`` is its share of traffic relative to the others (> 0). ``priority`` 0 is used first; a higher number is a backup that
    takes over when those before it are too few. ``max_requests`` bounds the requests under way (None: the balancer's setting).
    ``zone`` and ``metadata`` are for policies and for you. ``name`` is made from the handler when it is not given.

    Raises ``ConfigError`` for a weight, priority or limit that cannot be.
    """

    __slots__ = (
        "active", "awaited", "call", "cancelled", "draining", "ejected_until", "ejections", "ewma", "ewma_at",
        "failures", "handler", "latency", "limit", "max_requests", "metadata", "name", "on_end", "owner",
        "passes", "priority", "probe_reason", "probed", "probes", "refusals", "requests", "returned_at",
        "share", "statuses", "streak", "turn", "warm_from", "weight", "well", "zone",
    )  # fmt: skip

    def __init__(
        self,
        handler: Handler,
        *,
        name: str = "",
        weight: float = 1.0,
        zone: str = "",
        priority: int = 0,
        max_requests: int | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        if not callable(handler):
            raise ConfigError(f"an endpoint is a handler (an async function of a request), not {handler!r}")
        if max_requests is not None and (not isinstance(max_requests, int) or max_requests < 1):
            raise ConfigError(f"max_requests of an endpoint must be at least 1, not {max_requests!r}")
        if not isinstance(priority, int) or priority < 0:
            raise ConfigError(f"priority of an endpoint is 0 or more, not {priority!r}; 0 is used first")
        if not isinstance(name, str) or not isinstance(zone, str) or not isinstance(metadata or {}, Mapping):
            raise ConfigError("name and zone of an endpoint are texts, metadata is a mapping")
        # what was set
        self.handler = handler
        self.call: Handler = bind(handler)
        self.name = name
        self.weight = valid_weight(weight)
        self.zone = zone
        self.priority = priority
        self.max_requests = max_requests
        self.limit = max_requests or NO_LIMIT
        self.metadata: dict[str, Any] = dict(metadata or {})
        # what was counted
        self.active = 0  # requests under way, bodies included
        self.requests = 0
        self.failures = 0
        self.cancelled = 0  # the client left first
        self.refusals = 0  # passed over because it was full
        self.statuses = [0, 0, 0, 0, 0, 0]  # answers by the first digit of their status; [0] holds what is none
        self.latency: Recorder | None = None
        # its load
        self.ewma = 0.0  # seconds to the answer's head, see load.py; 0 when not measured yet
        self.ewma_at = 0.0
        self.share = self.weight  # the weight that counts now; less than ``weight`` while it warms
        self.turn = 0.0  # smooth weighted round robin's running credit
        # its health
        self.draining = False
        self.well = True  # by its probes; an endpoint that was never probed is trusted, as HAProxy does
        self.probed = False
        self.probes = 0
        self.passes = 0  # in a row; negative: failed in a row
        self.probe_reason = ""
        self.streak = 0  # failures of real requests in a row
        self.ejections = 0  # in close succession: the length of the next grows with them
        self.ejected_until = -inf
        self.returned_at = -inf  # when the last ejection ended
        self.warm_from = -inf  # when slow start began
        # its life
        self.on_end: Callable[[BaseException | None], None] | None = None  # a body that was still coming has ended
        self.awaited = False  # somebody waits for ``active`` to fall to 0
        self.owner: object = None  # the table that it is in

    def inherit(self, other: Endpoint) -> None:
        """Take over what was counted and judged of the same server in another table: a balancer is made anew around what stays."""
        for name in _LEARNT:
            setattr(self, name, getattr(other, name))
        self.statuses = list(other.statuses)

    @property
    def ejected(self) -> bool:
        """Whether it is out of rotation for failures of real requests."""
        return self.ejected_until > -inf

    @property
    def usable(self) -> bool:
        """Whether health speaks for it; it may still be full."""
        return self.well and self.ejected_until == -inf and not self.draining

    @property
    def state(self) -> State:
        """The gravest state that holds."""
        if self.draining:
            return State.DRAINING
        if not self.well:
            return State.UNHEALTHY
        if self.ejected:
            return State.EJECTED
        if self.warm_from > -inf:
            return State.WARMING
        return State.HEALTHY

    def __repr__(self) -> str:
        return f"<Endpoint {self.name} {self.state.value} weight={self.weight:g} active={self.active}>"


def valid_weight(weight: float) -> float:
    """The weight as a float. Raises ``ConfigError`` unless it is finite and over 0; drain an endpoint to give it nothing."""
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not (isfinite(weight) and weight > 0):
        raise ConfigError(f"a weight is a number over 0, not {weight!r}; drain an endpoint that is to get nothing")
    return float(weight)


def name_of(handler: object, taken: Mapping[str, Any]) -> str:
    """A name for a handler that is not among ``taken``: its own name, its url, or what it is; numbered when there are several."""
    own = getattr(handler, "name", None) or getattr(handler, "url", None) or getattr(handler, "__name__", None)
    stem = str(own or type(handler).__name__.lower())
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}#{number}"
    return name
