"""Retries are paid for out of a budget that requests fill, so that an upstream in trouble is not pushed further down by them.

Source: Finagle's ``RetryBudget``: over a window of 10 s, retries may be 20 % of the requests, and at least ``minimum`` a second.
"""

from __future__ import annotations

from blocks.core.errors import ConfigError

_SLOTS = 10


class Budget:
    """``deposit`` for each request, ``withdraw`` for each retry; False means that there is nothing left. ``now`` is in seconds.

    ``ratio`` is retries per request (Finagle: 0.2), ``minimum`` retries a second that are free (10), ``window`` seconds of memory (10).
    """

    __slots__ = ("_deposits", "_edge", "_slot", "_withdrawals", "minimum", "ratio", "refused", "span", "window")

    def __init__(self, ratio: float = 0.2, minimum: float = 10.0, window: float = 10.0) -> None:
        if not (0 <= ratio <= 1000 and minimum >= 0 and window > 0):
            raise ConfigError("a retry budget needs 0 <= ratio <= 1000, minimum >= 0 and window > 0")
        self.ratio, self.minimum, self.window = ratio, minimum, window
        self.span = window / _SLOTS
        self.refused = 0
        self._deposits = [0] * _SLOTS
        self._withdrawals = [0] * _SLOTS
        self._slot = 0
        self._edge: float | None = None  # when the present slot ends

    def deposit(self, now: float) -> None:
        """A request began."""
        if self._edge is None or now >= self._edge:
            self._turn(now)
        self._deposits[self._slot] += 1

    def withdraw(self, now: float) -> bool:
        """Whether one more retry may be made; if so it is counted."""
        if self._edge is None or now >= self._edge:
            self._turn(now)
        if self.balance() < 1:
            self.refused += 1
            return False
        self._withdrawals[self._slot] += 1
        return True

    def balance(self) -> float:
        """Retries that could be made now."""
        return sum(self._deposits) * self.ratio + self.minimum * self.window - sum(self._withdrawals) + 1e-9

    def _turn(self, now: float) -> None:
        """Forget the slots that have left the window."""
        if self._edge is None:
            self._edge = now + self.span
            return
        turns = int((now - self._edge) / self.span) + 1
        for _ in range(min(turns, _SLOTS)):
            self._slot = (self._slot + 1) % _SLOTS
            self._deposits[self._slot] = self._withdrawals[self._slot] = 0
        self._edge += turns * self.span
