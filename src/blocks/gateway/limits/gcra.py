"""The generic cell rate algorithm: a bucket that leaks evenly, kept as one number, the theoretical arrival time.

Source: ITU-T I.371 (1996), as a virtual schedule. A key may have ``burst`` at once and ``amount`` in every ``period`` after that.
"""

from __future__ import annotations

from math import inf

from .generations import Generations

_EXACT = 1e-9  # relative: what float sums of times may be off, so that the last of a burst is not refused by rounding


class Gcra:
    """``attempt`` takes and answers 0.0, or answers the seconds after which the same would pass."""

    __slots__ = ("amount", "burst", "interval", "memory", "period", "slack", "span")

    def __init__(self, memory: Generations, amount: float, period: float, burst: float) -> None:
        self.amount = amount
        self.period = period
        self.burst = burst
        self.memory = memory
        self.interval = period / amount
        self.span = burst * self.interval
        self.slack = self.span + max(self.span * _EXACT, 1e-9)

    @property
    def life(self) -> float:
        """Seconds after which an untouched state says nothing: a full bucket's, twice, for what was charged beyond it."""
        return max(2 * self.span, 1.0)

    def attempt(self, key: str, cost: float, now: float) -> float:
        """Take ``cost`` if it may pass now: 0.0, else the wait in seconds (inf: never)."""
        memory = self.memory
        if now >= memory.turn:
            memory.advance(now)
        tat = memory.young.get(key)
        if tat is None:
            tat = memory.recall(key)
        tat = cost * self.interval + (now if tat is None or tat < now else tat)
        if tat - now > self.slack:
            return inf if cost > self.burst else float(tat - now - self.span)
        memory.young[key] = tat
        return 0.0

    def wait(self, key: str, cost: float, now: float) -> float:
        """What ``attempt`` would answer, without taking."""
        tat = self._tat(key, now) + cost * self.interval
        if tat - now > self.slack:
            return inf if cost > self.burst else tat - now - self.span
        return 0.0

    def take(self, key: str, cost: float, now: float) -> None:
        """Take without asking: after ``wait`` said 0.0."""
        self.memory.young[key] = self._tat(key, now) + cost * self.interval

    def charge(self, key: str, cost: float, now: float) -> None:
        """Take what turned out afterwards (negative: give back). The debt is at most one more burst."""
        tat = self._tat(key, now) + cost * self.interval
        self.memory.young[key] = min(max(tat, now), now + 2 * self.span)

    def standing(self, key: str, now: float) -> tuple[float, float]:
        """(how much may pass now, seconds until the bucket is full again)."""
        tat = self.memory.young.get(key)
        used = (self._tat(key, now) if tat is None or tat < now else tat) - now
        left = (self.slack - used) / self.interval
        return left if left > 0.0 else 0.0, used

    def _tat(self, key: str, now: float) -> float:
        memory = self.memory
        if now >= memory.turn:
            memory.advance(now)
        tat = memory.young.get(key)
        if tat is None:
            tat = memory.recall(key)
        return now if tat is None or tat < now else float(tat)
