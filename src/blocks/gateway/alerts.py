"""Alerts by rule: a figure over a span of time goes above a bound, and somebody is told; again when it is well below it.

The bound to clear lies below the bound to fire (hysteresis), so that a figure that trembles at the bound rings once. ``Alarm`` decides
from numbers; ``Alerts`` looks at the gateway's figures at intervals and posts JSON to a webhook.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from blocks.core.backoff import Backoff
from blocks.core.clock import SYSTEM, Clock
from blocks.core.config.complaint import below
from blocks.core.config.suggest import suggestion
from blocks.core.errors import ConfigError, Failure
from blocks.core.histogram import Histogram
from blocks.core.quantities import seconds
from blocks.core.status import Status
from blocks.http.handler import status_of
from blocks.http.message import Request
from blocks.http.upstream import Upstream

from .config.schema import AlertTable
from .gateway import Gateway

KINDS = ("error_rate", "p99", "limited", "down")
LOOKS = 6  # looks in the span of a rule
QUEUE = 100  # messages that wait for the webhook; the oldest go first when it is away for long
TRIES = 5


class Alarm:
    """One rule on one route. ``look`` answers ``firing`` or ``resolved`` when the state changes, else None."""

    __slots__ = ("above", "clear", "firing", "minimum")

    def __init__(self, above: float, clear: float, minimum: int) -> None:
        self.above = above
        self.clear = clear
        self.minimum = minimum
        self.firing = False

    def look(self, value: float, requests: int) -> str | None:
        """``value`` over the rule's span, from ``requests`` requests; too few say nothing new above the bound."""
        if not self.firing and value > self.above and requests >= self.minimum:
            self.firing = True
            return "firing"
        if self.firing and value <= self.clear:
            self.firing = False
            return "resolved"
        return None


class Totals(NamedTuple):
    """A route's figures at one moment."""

    requests: int
    errors: int
    limited: int
    slots: list[int]


class Watch:
    """A rule made ready: its alarms by route, and the last figures of each."""

    def __init__(self, rule: AlertTable) -> None:
        with below("when"):
            if rule.when not in KINDS:
                raise ConfigError(f"when = {rule.when!r} is not known{suggestion(rule.when, KINDS)}")
        self.rule = rule
        with below("over"):
            self.over = seconds(rule.over)
        self.above = seconds(rule.above) if rule.when == "p99" else _share(rule.above, "above")
        given = rule.clear
        self.clear = (
            self.above / 2 if given is None else seconds(given) if rule.when == "p99" else _share(given, "clear")
        )
        if self.clear > self.above or self.over <= 0:
            raise ConfigError("clear is at most above, and over is longer than nothing")
        if rule.webhook and urlsplit(rule.webhook).scheme not in ("http", "https"):
            raise ConfigError(f"webhook = {rule.webhook!r} is not an http or https URL")
        self._alarms: dict[str, Alarm] = {}
        self._past: dict[str, deque[Totals]] = {}

    def look(self, route: str, totals: Totals, up: bool) -> tuple[str, float] | None:
        """(new state, value) when the state of a route changes."""
        alarm = self._alarms.get(route)
        if alarm is None:
            minimum = 0 if self.rule.when == "down" else self.rule.minimum
            alarm = self._alarms[route] = Alarm(self.above, self.clear, minimum)
        past = self._past.setdefault(route, deque(maxlen=LOOKS))
        before = past[0] if past else Totals(0, 0, 0, [0] * len(totals.slots))
        past.append(totals)
        value, requests = self._value(before, totals, up)
        changed = alarm.look(value, requests)
        return None if changed is None else (changed, value)

    def _value(self, before: Totals, now: Totals, up: bool) -> tuple[float, int]:
        requests = now.requests - before.requests
        if self.rule.when == "down":
            return (0.0 if up else 1.0), requests
        if self.rule.when == "p99":
            histogram = Histogram()
            histogram.slots = [new - old for new, old in zip(now.slots, before.slots, strict=True)]
            return histogram.quantile(0.99), requests
        counted = now.errors - before.errors if self.rule.when == "error_rate" else now.limited - before.limited
        return (counted / requests if requests else 0.0), requests

    def firing(self) -> Iterable[str]:
        """The routes for which it rings now."""
        return [route for route, alarm in self._alarms.items() if alarm.firing]


def _share(value: float | str, name: str) -> float:
    try:
        found = float(value[:-1]) / 100 if isinstance(value, str) and value.endswith("%") else float(value)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise ConfigError(f"{name} = {value!r} is not a share; write it like 0.05 or 5%")
    return found


class Alerts:
    """Looks at the figures while it is entered. ``told(event, fields)`` gets every change; webhooks get it as JSON."""

    def __init__(
        self,
        gateway: Gateway,
        rules: Iterable[AlertTable],
        *,
        clock: Clock = SYSTEM,
        told: Callable[[str, dict[str, Any]], None] | None = None,
    ) -> None:
        self._gateway = gateway
        self._clock = clock
        self._told = told or (lambda event, fields: None)
        self.watches = [Watch(rule) for rule in rules]
        self._hooks = {watch.rule.webhook: _hook(watch.rule.webhook) for watch in self.watches if watch.rule.webhook}
        self._queue: deque[tuple[str, bytes]] = deque(maxlen=QUEUE)
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting = asyncio.Event()
        self.undelivered = 0

    async def __aenter__(self) -> Alerts:
        if self.watches:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._look_on()), loop.create_task(self._send_on())]
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for upstream, _target in self._hooks.values():
            await upstream.close()

    async def _look_on(self) -> None:
        interval = max(min(watch.over for watch in self.watches) / LOOKS, 0.05)
        while True:
            await asyncio.sleep(interval)
            self.look()

    def look(self) -> list[dict[str, Any]]:
        """One look at all rules; the changes, which are also told."""
        changes: list[dict[str, Any]] = []
        for route, lane in self._gateway.snapshot.lanes.items():
            name, figures = route.name, lane.figures
            limited = figures.refused_by.get("limit", 0)
            errors = figures.classes[5] + figures.classes[0]
            totals = Totals(figures.requests, errors, limited, list(figures.durations.slots))
            up = status_of(lane.route.handler) > Status.CLOSED
            for watch in self.watches:
                if watch.rule.route in ("", name):
                    changed = watch.look(name, totals, up)
                    if changed is not None:
                        changes.append(self._tell(watch, name, *changed))
        return changes

    def _tell(self, watch: Watch, route: str, state: str, value: float) -> dict[str, Any]:
        rule = watch.rule
        message = {
            "alert": rule.name, "state": state, "when": rule.when, "route": route, "value": round(value, 6),
            "bound": watch.above if state == "firing" else watch.clear, "over": watch.over, "at": self._clock.wall(),
        }  # fmt: skip
        self._told("alert", message)
        if rule.webhook:
            if len(self._queue) == QUEUE:
                self.undelivered += 1
            self._queue.append((rule.webhook, msgspec.json.encode(message)))
            self._waiting.set()
        return message

    async def _send_on(self) -> None:
        while True:
            await self._waiting.wait()
            while self._queue:
                url, body = self._queue.popleft()
                if not await self._send(url, body):
                    self.undelivered += 1
            self._waiting.clear()

    async def _send(self, url: str, body: bytes) -> bool:
        upstream, target = self._hooks[url]
        backoff = Backoff(first=0.2, cap=10.0)
        host = urlsplit(url).netloc
        for _ in range(TRIES):
            request = Request("POST", target, {"host": host, "content-type": "application/json"}, body)
            try:
                response = await asyncio.get_running_loop().create_task(upstream(request))
                response.discard()
                if response.status < 500:
                    return response.status < 400
            except Failure:
                pass
            await asyncio.sleep(backoff.next())
        return False


def _hook(url: str) -> tuple[Upstream, str]:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Upstream(f"{parts.scheme}://{parts.netloc}", timeout=5.0, connect_timeout=2.0), target
