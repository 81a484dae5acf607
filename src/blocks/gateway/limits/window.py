"""The sliding window of two counters: what passed in this window, and the share of the last one that is still in sight.

``amount`` in any ``period``, as close as an even spread of the last window tells (Cloudflare, "How we built rate limiting", 2017).
All keys share the windows' borders, so the two generations of the table *are* the two counters.
"""

from __future__ import annotations

from math import floor, inf

from .generations import Generations

_EXACT = 1e-9


class SlidingWindow:
    """``memory.young`` counts this window, ``memory.old`` the last one; ``memory.turn`` is where this one ends."""

    __slots__ = ("_top", "amount", "memory", "period")

    def __init__(self, memory: Generations, amount: float, period: float) -> None:
        self.amount = amount
        self.period = period
        self.memory = memory
        self._top = amount + _EXACT

    @property
    def life(self) -> float:
        """One window, then it is the last one for another."""
        return self.period

    @property
    def burst(self) -> float:
        """What may pass at once."""
        return self.amount

    def attempt(self, key: str, cost: float, now: float) -> float:
        """Take ``cost`` if it may pass now: 0.0, else the wait in seconds (inf: never)."""
        memory = self.memory
        if now >= memory.turn:
            self._turn(now)
        this = memory.young.get(key, 0)
        last = memory.old.get(key)
        used = this + cost
        if last is not None:
            used += last * (memory.turn - now) / self.period
        if used <= self._top:
            if not this:
                memory.make_room()
            memory.young[key] = this + cost
            return 0.0
        return self.wait(key, cost, now)

    def wait(self, key: str, cost: float, now: float) -> float:
        """Seconds until ``cost`` may pass, 0.0 for now."""
        if cost > self.amount:
            return inf
        this, last, left = self._counts(key, now)
        free = self.amount - cost
        if last * left + this <= free + _EXACT:
            return 0.0
        if this <= free:  # some of the last window has to leave sight first
            return float(max((left - (free - this) / last) * self.period, _EXACT))
        return float((left + max(1 - free / this, 0.0)) * self.period)

    def take(self, key: str, cost: float, now: float) -> None:
        """Take without asking (negative: give back)."""
        this, _, _ = self._counts(key, now)
        if not this:
            self.memory.make_room()
        self.memory.young[key] = max(this + cost, 0)

    charge = take

    def standing(self, key: str, now: float) -> tuple[float, float]:
        """(how much may pass now, seconds until nothing is counted any more)."""
        this, last, left = self._counts(key, now)
        windows = left + 1 if this else left if last else 0.0
        return max(self._top - last * left - this, 0.0), windows * self.period

    def _counts(self, key: str, now: float) -> tuple[float, float, float]:
        """(this window's count, the last one's, the share of the last one still in sight)."""
        memory = self.memory
        if now >= memory.turn:
            self._turn(now)
        return memory.young.get(key, 0), memory.old.get(key, 0), (memory.turn - now) / self.period

    def _turn(self, now: float) -> None:
        memory = self.memory
        if now >= memory.turn + self.period:
            memory.clear()
        else:
            memory.change()
        memory.turn = (floor(now / self.period) + 1) * self.period
        memory.bury()
