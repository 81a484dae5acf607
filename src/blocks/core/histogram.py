"""A duration is counted in one of 1,440 slots, so that a quantile is at most 1.6 % off and a record costs a fifth of a microsecond.

Log-linear: each power of two is cut into 32 equal slots (the idea of HdrHistogram, Tene 2012). A slot's middle stands for its
values: at most half of 1/32 away from any of them. Snapshots are plain data; adding them up loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import frexp
from typing import Any

_PARTS = 32  # slots in each power of two
_FIRST = -30  # the lowest exponent: 2**-30 s is 0.93 ns, below the clock's own step
_LAST = 14  # 2**14 s is 4.5 hours; what is longer is counted as that
_LOWEST = 2.0**_FIRST
_SLOTS = (_LAST - _FIRST) * _PARTS
_OFFSET = -(_FIRST + 1) * _PARTS - _PARTS  # frexp gives e with 2**(e-1) <= x, and int(m * 64) begins at 32

BOUNDS = tuple(2.0**exponent for exponent in range(-13, 7))
"""The upper bounds that Prometheus is shown, in seconds: 0.12 ms to 64 s in powers of two, where slots begin, so the counts are exact."""


class Histogram:
    """Counts durations in seconds. ``record`` is all that a hot path calls; ``slots`` and ``total`` may be read at any time."""

    __slots__ = ("slots", "total")

    def __init__(self) -> None:
        self.slots = [0] * _SLOTS
        self.total = 0.0

    def record(self, seconds: float) -> None:
        """Count one duration. Below 1 ns (also negative ones, of a clock that jumped) counts as 1 ns, above 4.5 h as 4.5 h."""
        if seconds < _LOWEST:
            seconds = _LOWEST
        mantissa, exponent = frexp(seconds)
        try:
            self.slots[(exponent << 5) + int(mantissa * 64.0) + _OFFSET] += 1
        except (IndexError, ValueError, OverflowError):  # too long, or no number at all
            self.slots[-1] += 1
            seconds = 2.0**_LAST
        self.total += seconds

    @property
    def count(self) -> int:
        """How many were recorded."""
        return sum(self.slots)

    @property
    def mean(self) -> float:
        """Seconds on average; 0.0 when nothing was recorded."""
        count = self.count
        return self.total / count if count else 0.0

    def quantile(self, share: float) -> float:
        """Seconds that ``share`` (0..1) of the records do not exceed; 0.0 when nothing was recorded."""
        return self.quantiles((share,))[0]

    def quantiles(self, shares: Iterable[float]) -> list[float]:
        """As ``quantile``, for several shares in one pass over the slots (60 µs)."""
        asked = list(shares)
        found = dict.fromkeys(asked, 0.0)
        count = self.count
        wanted = sorted(found)
        seen = 0
        for slot, number in enumerate(self.slots):
            if not number:
                continue
            seen += number
            while wanted and seen >= wanted[0] * count:
                found[wanted.pop(0)] = middle(slot)
        return [found[share] for share in asked]

    def below(self, bounds: Iterable[float] = BOUNDS) -> list[int]:
        """How many were below each of the ascending ``bounds``, cumulative; exact where a bound is a power of two."""
        result: list[int] = []
        at = seen = 0
        for bound in bounds:
            stop = min(max(slot_of(bound), 0), _SLOTS)
            seen += sum(self.slots[at:stop])
            at = stop
            result.append(seen)
        return result

    def snapshot(self) -> dict[str, Any]:
        """``{"slots": [[slot, count], …], "total": seconds}``, only the slots in use: small enough to send between processes."""
        return {"slots": [[slot, number] for slot, number in enumerate(self.slots) if number], "total": self.total}

    def add(self, snapshot: dict[str, Any]) -> None:
        """Count what another histogram counted: its ``snapshot()``."""
        for slot, number in snapshot["slots"]:
            self.slots[slot] += number
        self.total += snapshot["total"]


def slot_of(seconds: float) -> int:
    """The slot that counts ``seconds``; not checked against the range."""
    mantissa, exponent = frexp(seconds)
    return (exponent << 5) + int(mantissa * 64.0) + _OFFSET


def middle(slot: int) -> float:
    """The duration that stands for a slot."""
    exponent, part = divmod(slot, _PARTS)
    return float(2.0 ** (exponent + _FIRST) * (1 + (part + 0.5) / _PARTS))
