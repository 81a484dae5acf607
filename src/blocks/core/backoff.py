"""Waits between tries grow, are capped, and are spread, so that those who failed together do not return together.

Source: "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015), full jitter.
"""

from __future__ import annotations

from random import Random


class Backoff:
    """Seconds to wait before try 1, 2, …: drawn from ``[floor, min(cap, first * factor**tries)]``; ``reset`` after a success."""

    __slots__ = ("_random", "cap", "factor", "first", "floor", "tries")

    def __init__(
        self,
        first: float = 0.1,
        cap: float = 10.0,
        factor: float = 2.0,
        floor: float = 0.0,
        random: Random | None = None,
    ) -> None:
        if first <= 0 or cap < first or factor < 1 or not 0 <= floor <= first:
            raise ValueError("a backoff needs 0 <= floor <= first <= cap and factor >= 1")
        self.first, self.cap, self.factor, self.floor = first, cap, factor, floor
        self.tries = 0
        self._random = random or Random()

    def next(self) -> float:
        """The next wait in seconds; each call counts as a try."""
        exponent = min(self.tries, 64)  # beyond it the cap holds for every sensible factor, and floats do not overflow
        ceiling = min(self.cap, self.first * self.factor**exponent)
        self.tries += 1
        return self._random.uniform(self.floor, ceiling)

    def reset(self) -> None:
        """Start again from ``first``."""
        self.tries = 0
