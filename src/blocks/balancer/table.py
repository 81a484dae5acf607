"""The table of endpoints: who is in it, who is in rotation, and why. Snapshots are tuples that are swapped, never changed.

Set-up, discovery, probes and outliers all act here, and only here, so a verdict of one never hides that of another. No I/O:
``now`` is an argument, and ``next_at`` says when ``tick`` wants to be called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from blocks.core.errors import ConfigError

from .endpoint import NO_LIMIT, Endpoint, name_of, valid_weight
from .events import Tape
from .health import Health, verdict
from .outlier import Outlier

WARM_FLOOR = 0.1  # the share of its weight that slow start begins with (Envoy's min_weight_percent)
WARM_STEPS = 20  # steps in which it grows

Snapshot = tuple[Endpoint, ...]


def rotate(endpoints: Iterable[Endpoint], panic: float | None) -> tuple[Snapshot, bool]:
    """Who gets traffic, and whether that is a panic.

    The usable ones of the first priority; where they are fewer than the share ``panic`` of it (at least one), those of the next
    priorities join. When all together are too few, all that are not draining are used: better to try the ones in doubt
    than to break the last ones (Envoy's panic threshold). ``panic=None`` never uses an endpoint that is known to be bad.
    """
    members = [endpoint for endpoint in endpoints if not endpoint.draining]
    first = min((endpoint.priority for endpoint in members), default=0)
    wanted = max(1.0, (panic or 0.0) * sum(endpoint.priority == first for endpoint in members))
    chosen: list[Endpoint] = []
    for priority in sorted({endpoint.priority for endpoint in members}):
        chosen += [endpoint for endpoint in members if endpoint.priority == priority and endpoint.usable]
        if len(chosen) >= wanted:
            return tuple(chosen), False
    if panic is None or not members:
        return tuple(chosen), False
    return tuple(members), True


class Table:
    """Rows by name, and the rotation that follows from them. ``changed`` is called after every change of the rotation."""

    __slots__ = (
        "_changed", "_limit", "_outlier", "_panic", "_slow_start", "_tape", "by_name", "endpoints", "next_at", "panic", "rotation"
    )  # fmt: skip

    def __init__(
        self,
        tape: Tape,
        changed: Callable[[], None],
        *,
        outlier: Outlier | None = None,
        panic: float | None = 0.0,
        slow_start: float = 0.0,
        limit: int | None = None,
    ) -> None:
        self._tape = tape
        self._changed = changed
        self._outlier = outlier
        self._panic = panic
        self._slow_start = slow_start
        self._limit = limit or NO_LIMIT
        self.by_name: dict[str, Endpoint] = {}
        self.endpoints: Snapshot = ()
        self.rotation: Snapshot = ()
        self.panic = False
        self.next_at = inf

    # -- set-up, discovery and the run-time API

    def add(self, endpoint: Endpoint, now: float, *, late: bool = False) -> None:
        """A new row; it warms when it comes ``late``, to a balancer at work. Raises ``ConfigError`` for a name or a row that is in use."""
        if endpoint.owner is not None:
            raise ConfigError(
                f"endpoint {endpoint.name!r} belongs to a balancer already; make a new Endpoint of its handler"
            )
        name = endpoint.name or name_of(endpoint.handler, self.by_name)
        if name in self.by_name:
            raise ConfigError(f"there is an endpoint {name!r} already; endpoints of one balancer have different names")
        endpoint.name = name
        endpoint.owner = self
        endpoint.limit = endpoint.max_requests or self._limit
        self.by_name[name] = endpoint
        self.endpoints = (*self.endpoints, endpoint)
        if late:
            self._tape.tell("added", name, "added at run time", now)
            self._warm(endpoint, now)
        self._arrange(now)

    def remove(self, endpoint: Endpoint, now: float) -> None:
        """Take a row out. What it has under way goes on."""
        del self.by_name[endpoint.name]
        endpoint.owner = None
        self.endpoints = tuple(other for other in self.endpoints if other is not endpoint)
        self._tape.tell("removed", endpoint.name, f"removed at run time, {endpoint.active} under way", now)
        self._tape.forget(endpoint.name)
        self._arrange(now)

    def find(self, name: str) -> Endpoint:
        """The row of that name. Raises ``KeyError`` with the names that there are."""
        endpoint = self.by_name.get(name)
        if endpoint is None:
            raise KeyError(f"no endpoint {name!r}; there are {', '.join(sorted(self.by_name)) or 'none'}")
        return endpoint

    def weigh(self, endpoint: Endpoint, weight: float, now: float) -> None:
        """Set a weight; it counts from the next request on. Raises ``ConfigError``."""
        before, endpoint.weight = endpoint.weight, valid_weight(weight)
        endpoint.share = endpoint.share * endpoint.weight / before
        self._tape.tell("weighed", endpoint.name, f"weight {before:g} → {endpoint.weight:g}", now)
        self._arrange(now)

    def drain(self, endpoint: Endpoint, now: float) -> None:
        """Give it nothing new; what it has under way goes on."""
        if not endpoint.draining:
            endpoint.draining = True
            self._tape.tell("draining", endpoint.name, f"asked to, {endpoint.active} under way", now)
            self._arrange(now)

    def restore(self, endpoint: Endpoint, now: float) -> None:
        """Take it into service again after a drain; it warms."""
        if endpoint.draining:
            endpoint.draining = False
            self._tape.tell("restored", endpoint.name, "asked to", now)
            self._warm(endpoint, now)
            self._arrange(now)

    # -- health

    def probed(self, endpoint: Endpoint, problem: str, health: Health, now: float) -> None:
        """A probe came back; ``problem`` is empty when it was good."""
        if endpoint.owner is not self:
            return
        change = verdict(endpoint, problem, health)
        if change is False:
            endpoint.well = False
            self._tape.tell("unhealthy", endpoint.name, f"{-endpoint.passes} probes failed: {problem}", now)
            self._arrange(now)
        elif change is True:
            endpoint.well = True
            endpoint.ejected_until = -inf  # the outage that it was ejected in was seen to end
            endpoint.streak = 0
            self._tape.tell("healthy", endpoint.name, f"{endpoint.passes} probes passed", now)
            self._warm(endpoint, now)
            self._arrange(now)
        elif endpoint.ejected and endpoint.passes >= health.rise:
            self._return(endpoint, f"{endpoint.passes} probes passed", now)
            self._arrange(now)

    def failed(self, endpoint: Endpoint, reason: str, now: float) -> None:
        """A real request failed on it; in a row they eject it."""
        endpoint.streak += 1
        outlier = self._outlier
        if outlier is None or endpoint.streak < outlier.failures or not endpoint.usable or endpoint.owner is not self:
            return
        out = sum(not other.usable for other in self.endpoints)
        if not outlier.may_eject(out, len(self.endpoints)):
            if endpoint.streak == outlier.failures:
                self._tape.mention(
                    "ejection-refused", endpoint.name, f"{reason}; {out} of {len(self.endpoints)} are out", now
                )
            return
        if now - endpoint.returned_at > outlier.length(endpoint.ejections or 1):
            endpoint.ejections = 0  # it stood for as long as it had been out: a new series
        endpoint.ejections += 1
        length = outlier.length(endpoint.ejections)
        endpoint.ejected_until = now + length
        endpoint.warm_from = -inf
        endpoint.passes = min(endpoint.passes, 0)  # only probes that pass from now on speak for it
        self._tape.tell(
            "ejected", endpoint.name, f"{endpoint.streak} failures in a row, last {reason}; for {length:g} s", now
        )
        self._arrange(now)

    def spare(self, tried: tuple[Endpoint, ...]) -> Endpoint | None:
        """The ejected endpoint with room whose time is up first: the last resort of a request that all others have failed."""
        spares = [
            endpoint
            for endpoint in self.endpoints
            if endpoint.ejected
            and endpoint.well
            and not endpoint.draining
            and endpoint not in tried
            and endpoint.active < endpoint.limit
        ]
        return min(spares, key=lambda endpoint: endpoint.ejected_until, default=None)

    def proved(self, endpoint: Endpoint, now: float) -> None:
        """An ejected endpoint has answered a real request: it is back at once."""
        if endpoint.owner is self:
            self._return(endpoint, "it answered as a last resort", now)
            endpoint.streak = 0
            self._arrange(now)

    # -- time

    def tick(self, now: float) -> None:
        """Do what has fallen due: end ejections, go on with slow starts. Call it when ``next_at`` has come; more often does no harm."""
        for endpoint in self.endpoints:
            if endpoint.ejected and endpoint.ejected_until <= now:
                self._return(endpoint, "its ejection is over", now)
            if endpoint.warm_from > -inf:
                self._grow(endpoint, now)
        self._arrange(now)

    def _return(self, endpoint: Endpoint, reason: str, now: float) -> None:
        endpoint.ejected_until = -inf
        endpoint.returned_at = now
        endpoint.streak = (
            max(0, self._outlier.failures - 1) if self._outlier else 0
        )  # on probation: one failure ejects again
        self._tape.tell("returned", endpoint.name, reason, now)
        self._warm(endpoint, now)

    def _warm(self, endpoint: Endpoint, now: float) -> None:
        endpoint.ewma = 0.0  # what was measured before it left says nothing any more
        if self._slow_start > 0:
            endpoint.warm_from = now
            endpoint.share = endpoint.weight * WARM_FLOOR

    def _grow(self, endpoint: Endpoint, now: float) -> None:
        part = (now - endpoint.warm_from) / self._slow_start
        if part >= 1:
            endpoint.warm_from = -inf
            endpoint.share = endpoint.weight
            self._tape.tell("warmed", endpoint.name, "slow start is over", now)
        else:
            endpoint.share = endpoint.weight * max(WARM_FLOOR, part)

    def _arrange(self, now: float) -> None:
        self.rotation, panic = rotate(self.endpoints, self._panic)
        if panic != self.panic:
            self.panic = panic
            usable = sum(endpoint.usable for endpoint in self.endpoints)
            reason = f"{usable} of {len(self.endpoints)} are usable"
            self._tape.tell("panic" if panic else "panic-over", "", reason + (": all are used" if panic else ""), now)
        self.next_at = min((endpoint.ejected_until for endpoint in self.endpoints if endpoint.ejected), default=inf)
        if any(endpoint.warm_from > -inf for endpoint in self.endpoints):
            self.next_at = min(self.next_at, now + self._slow_start / WARM_STEPS)
        self._changed()
