"""A new configuration is tried on a share of the requests, compared with the old one, and promoted or rolled back by itself.

``judge`` decides from counts alone; ``Changes`` does what it says. What runs is always a whole snapshot: a request is answered by
the old one or by the new one, never by a mixture. State that has a name (limits, figures, key sets) is shared by both and survives.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Literal, NamedTuple

from blocks.core.clock import SYSTEM, Clock
from blocks.core.config.complaint import below
from blocks.core.errors import ConfigError
from blocks.core.histogram import Histogram
from blocks.core.quantities import seconds
from blocks.http.message import Request

from .config.schema import ChangeTable
from .gateway import Gateway
from .snapshot import Snapshot

Verdict = Literal["wait", "promote", "roll back"]
FLOOR = 0.005  # seconds: a p99 below it is never called slow, whatever it is compared with
LOOK = 16  # answers of the new one between two looks


class Side:
    """What one snapshot answered while both were at work."""

    __slots__ = ("durations", "errors", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.durations = Histogram()

    def add(self, status: int, seconds: float) -> None:
        """One answer; 5xx are errors."""
        self.requests += 1
        if status >= 500:
            self.errors += 1
        self.durations.record(seconds)

    @property
    def error_rate(self) -> float:
        """Errors a request."""
        return self.errors / self.requests if self.requests else 0.0

    def table(self) -> dict[str, Any]:
        """For people: requests, errors, p99 in seconds."""
        return {"requests": self.requests, "errors": self.errors, "p99": round(self.durations.quantile(0.99), 6)}


class Judgement(NamedTuple):
    """What to do, and why."""

    verdict: Verdict
    why: str


def judge(old: Side, new: Side, rules: ChangeTable, over: bool) -> Judgement:
    """Whether the new side is worse. ``over``: the time to watch has passed.

    Its error rate may exceed the old one's by ``errors``, its p99 may be ``slower`` times the old one's; neither is held against it
    before it has answered ``requests`` (a tenth of them is enough when half of its answers are errors).
    """
    rate = new.error_rate - old.error_rate
    if (
        new.requests >= rules.requests
        or over
        or (new.requests * 10 >= rules.requests and new.errors * 2 >= new.requests)
    ):
        if rate > rules.errors:
            return Judgement(
                "roll back", f"{new.error_rate:.1%} of its answers are errors, {old.error_rate:.1%} of the old one's"
            )
        if new.requests >= rules.requests and old.requests >= rules.requests:
            fast, slow = old.durations.quantile(0.99), new.durations.quantile(0.99)
            if slow > max(fast * rules.slower, FLOOR):
                return Judgement("roll back", f"its p99 is {slow * 1000:.1f} ms, the old one's {fast * 1000:.1f} ms")
    if not over:
        return Judgement("wait", "")
    if new.requests < rules.requests:
        return Judgement("promote", f"nothing speaks against it, after only {new.requests} requests")
    return Judgement("promote", f"as good as the old one, after {new.requests} requests")


class Entry(NamedTuple):
    """One line of the history."""

    at: float
    label: str
    outcome: str
    why: str
    snapshot: Snapshot


class Changes:
    """Applies snapshots to a gateway. One trial at a time; ``history`` holds the last ones, which can be gone back to."""

    def __init__(
        self,
        gateway: Gateway,
        rules: ChangeTable | None = None,
        *,
        clock: Clock = SYSTEM,
        random: Random | None = None,
        told: Callable[[str, dict[str, Any]], None] | None = None,
    ) -> None:
        self._gateway = gateway
        self.rules = rules or ChangeTable()
        check_rules(self.rules)
        self._clock = clock
        self._random = random or Random()
        self._told = told or (lambda event, fields: None)
        self._old: Side | None = None
        self._new: Side | None = None
        self._candidate: Snapshot | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._decided: asyncio.Future[Judgement] | None = None
        self._lock = asyncio.Lock()
        self.history: deque[Entry] = deque()
        self._remember(gateway.snapshot, "running", "the first")

    @property
    def trial(self) -> dict[str, Any] | None:
        """The trial that runs: label and both sides; None when there is none."""
        if self._candidate is None or self._old is None or self._new is None:
            return None
        return {"label": self._candidate.label, "old": self._old.table(), "new": self._new.table()}

    async def apply(self, snapshot: Snapshot, *, share: float | None = None) -> Judgement:
        """Try ``snapshot`` on a share of the requests (``0`` and ``1``: swap at once) until it is promoted or rolled back.

        Raises ``ConfigError`` while another trial runs, and whatever starting the snapshot's parts raises: then nothing has changed.
        """
        if self._lock.locked():
            raise ConfigError("another configuration is being tried; wait for it, or abort it")
        async with self._lock:
            share = self.rules.share if share is None else share
            await self._gateway.enter(snapshot)
            if not 0 < share < 1:
                return await self._promote(snapshot, Judgement("promote", "at once"))
            judgement = await self._try(snapshot, share)
            if judgement.verdict == "promote":
                return await self._promote(snapshot, judgement)
            self._remember(snapshot, "rolled back", judgement.why)
            self._told("rolled_back", {"label": snapshot.label, "why": judgement.why})
            await self._trim()
            return judgement

    def abort(self) -> None:
        """End the trial that runs: the old snapshot goes on alone."""
        self._decide(Judgement("roll back", "aborted"))

    async def roll_back(self, label: str | None = None) -> str:
        """Go back to the last snapshot that ran before this one (or to that of ``label``). Returns its label. Raises ``ConfigError``."""
        known = [entry for entry in self.history if entry.outcome == "running"]
        current = self._gateway.snapshot
        for entry in reversed(known):
            if entry.snapshot is not current and label in (None, entry.label):
                async with self._lock:
                    await self._gateway.enter(entry.snapshot)
                    await self._promote(entry.snapshot, Judgement("promote", "gone back to"))
                return entry.label
        raise ConfigError(f"there is no earlier configuration{'' if label is None else f' {label!r}'} to go back to")

    async def _try(self, snapshot: Snapshot, share: float) -> Judgement:
        loop = asyncio.get_running_loop()
        old, new = self._old, self._new = Side(), Side()
        self._candidate = snapshot
        self._decided = loop.create_future()
        gateway, random = self._gateway, self._random.random
        current = gateway.snapshot

        def choose(request: Request) -> Snapshot:
            return snapshot if random() < share else current

        def observe(which: Snapshot, status: int, took: float) -> None:
            if which is snapshot:
                new.add(status, took)
                if new.requests % LOOK == 0:
                    self._decide(judge(old, new, self.rules, over=False))
            else:
                old.add(status, took)

        self._told("trial_began", {"label": snapshot.label, "share": share})
        gateway.observe(choose, observe)
        self._timer = loop.call_later(
            check_rules(self.rules), lambda: self._decide(judge(old, new, self.rules, over=True))
        )
        try:
            return await self._decided
        finally:
            gateway.observe(None, None)
            self._timer.cancel()
            self._candidate = self._old = self._new = self._decided = None

    def _decide(self, judgement: Judgement) -> None:
        if judgement.verdict != "wait" and self._decided is not None and not self._decided.done():
            self._decided.set_result(judgement)

    async def _promote(self, snapshot: Snapshot, judgement: Judgement) -> Judgement:
        self._gateway.swap(snapshot)
        self._remember(snapshot, "running", judgement.why)
        self._told("promoted", {"label": snapshot.label, "why": judgement.why})
        await self._trim()
        return judgement

    def _remember(self, snapshot: Snapshot, outcome: str, why: str) -> None:
        self.history.append(Entry(self._clock.wall(), snapshot.label, outcome, why, snapshot))

    async def _trim(self) -> None:
        """Forget the oldest; what only they stood on is stopped, long after their last request."""
        while len(self.history) > max(self.rules.history, 1) + 1:
            gone = self.history.popleft().snapshot
            if gone is not self._gateway.snapshot:
                await self._gateway.leave(gone)
        used = {key for entry in self.history for key in entry.snapshot.site.used}
        self._gateway.kept.forget(set(self._gateway.kept.objects) - used)

    def table(self) -> list[dict[str, Any]]:
        """The history, for people."""
        return [
            {"at": entry.at, "label": entry.label, "outcome": entry.outcome, "why": entry.why} for entry in self.history
        ]


def check_rules(rules: ChangeTable) -> float:
    """The seconds to watch. Raises ``ConfigError`` for what is out of range."""
    if not 0 <= rules.share <= 1:
        raise ConfigError(f"share is {rules.share}; it is between 0 and 1")
    if rules.requests < 1 or not 0 <= rules.errors <= 1 or rules.slower < 1 or rules.history < 1:
        raise ConfigError("requests and history are at least 1, errors between 0 and 1, slower at least 1")
    with below("watch"):
        return seconds(rules.watch)
