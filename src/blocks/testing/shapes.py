"""How many requests begin when: a shape is a rate over time, and ``starts`` turns it into a schedule.

The schedule is made before anything is sent and does not wait for answers (an open model): a slow server does not slow down its
load, and so its waiting time is measured (Tene, "How NOT to Measure Latency": coordinated omission).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from blocks.core.errors import ConfigError
from blocks.core.quantities import rate as rate_of
from blocks.core.quantities import seconds

STEP = 0.01  # seconds over which a rate counts as steady; fine against every shape below


@dataclass(frozen=True, slots=True)
class Shape:
    """``at(t)`` is the rate a second at ``t`` seconds; it ends after ``duration``. ``label`` names it in reports."""

    at: Callable[[float], float]
    duration: float
    label: str

    def starts(self, random: Random | None = None) -> Iterator[float]:
        """The moments, in seconds from the beginning, at which requests begin.

        Evenly spaced by the rate; with ``random`` as a Poisson process, as independent users arrive.
        """
        area, time = 0.0, 0.0
        wanted = 0.0 if random is None else random.expovariate(1.0)
        while time < self.duration - 1e-12:
            step = min(STEP, self.duration - time)
            rate = max(0.0, self.at(time + step / 2))
            gained = rate * step
            while gained and wanted < area + gained - 1e-9:
                yield time + max(0.0, wanted - area) / rate
                wanted += 1.0 if random is None else random.expovariate(1.0)
            area += gained
            time += step


def per_second(rate: float | str) -> float:
    """A rate a second from ``500`` or ``"500/s"``. Raises ``ConfigError``."""
    value = rate_of(rate).per_second if isinstance(rate, str) and "/" in rate else float(rate)
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"a load of {rate!r} is none; give a rate over 0")
    return value


def constant(rate: float | str, duration: float | str) -> Shape:
    """The same rate all the time."""
    value = per_second(rate)
    return Shape(lambda t: value, seconds(duration), f"{value:g}/s")


def ramp(low: float | str, high: float | str, duration: float | str) -> Shape:
    """From one rate to another in a straight line."""
    first, last, span = per_second(low), per_second(high), seconds(duration)
    return Shape(lambda t: first + (last - first) * t / span, span, f"{first:g}/s to {last:g}/s")


def spike(
    rate: float | str, peak: float | str, duration: float | str, *, at: float | str, lasts: float | str = 1.0
) -> Shape:
    """A steady rate, and ``peak`` for the ``lasts`` seconds from ``at`` on."""
    base, top, begin, span = per_second(rate), per_second(peak), seconds(at), seconds(lasts)
    return Shape(
        lambda t: top if begin <= t < begin + span else base, seconds(duration), f"{base:g}/s, {top:g}/s at {begin:g}s"
    )


def day(low: float | str, high: float | str, duration: float | str = "24h") -> Shape:
    """A day pressed into ``duration``: ``low`` at its ends (night), ``high`` in its middle, a cosine between."""
    night, noon, span = per_second(low), per_second(high), seconds(duration)
    middle, swing = (night + noon) / 2, (noon - night) / 2
    return Shape(lambda t: middle - swing * math.cos(2 * math.pi * t / span), span, f"day of {night:g}/s to {noon:g}/s")
