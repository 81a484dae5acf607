"""Where a service begins to give way: loads of rising rates until an objective is missed, then halving the gap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from blocks.core.quantities import seconds

from .objectives import objectives
from .result import Result
from .traffic import load

GROWTH = 1.5  # between two steps: eight of them span a factor of 25, fine enough to draw a curve
KEPT_UP = 0.95  # of the intended rate; a service that answers less is behind, whatever its percentiles say


@dataclass(frozen=True, slots=True)
class Step:
    """One load: the ``rate`` that was asked for, what came of it, and what it missed (empty when all was kept)."""

    rate: float
    result: Result
    missed: tuple[str, ...]


@dataclass(slots=True)
class Limit:
    """``rate`` is the highest that kept every objective, 0.0 if none did; ``broke`` the lowest that did not, or None. ``steps`` by rate."""

    rate: float = 0.0
    broke: float | None = None
    steps: list[Step] = field(default_factory=list)

    def table(self) -> str:
        """Response time and throughput against load."""
        lines = [
            f"  {'rate/s':>10} {'answers/s':>10} {'p50 ms':>9} {'p99 ms':>9} {'p99.9 ms':>9} {'max ms':>9} {'errors':>7}  "
        ]
        for step in self.steps:
            r = step.result
            times = " ".join(f"{v * 1000:>9.2f}" for v in (r.quantile(0.5), r.quantile(0.99), r.quantile(0.999), r.max))
            missed = "; ".join(step.missed)
            lines.append(f"  {step.rate:>10.0f} {r.throughput:>10.1f} {times} {r.errors:>7}  {missed}".rstrip())
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        steps = [{"rate": s.rate, "missed": list(s.missed), **s.result.as_dict()} for s in self.steps]
        return {"limit": self.rate, "broke": self.broke, "steps": steps}


async def find_limit(
    target: Any,
    start: float = 100.0,
    *,
    step: float | str = 2.0,
    most: float = 100_000.0,
    halvings: int = 3,
    told: Callable[[Step], None] | None = None,
    expect: dict[str, float | str] | None = None,
    **request: Any,
) -> Limit:
    """Find the degradation point of ``target``: the highest rate that keeps ``expect`` (p99 under 100 ms and no error, unless given).

    Each step is an open load of ``step`` seconds. ``most`` bounds the rate, ``halvings`` how closely the point is searched after it was
    passed. A step also misses when fewer than 95 % of the intended answers a second come.
    """
    wanted = objectives(expect or {"p99": "<100ms", "errors": 0})
    target = target if isinstance(target, str) else getattr(target, "url", target)
    found = Limit()

    async def measure(rate: float) -> bool:
        result = await load(target, rate, seconds(step), **request)
        missed = [f"{o.figure} {o.text}" for o in wanted if not o.holds(result.figure(o.figure))]
        if result.throughput < KEPT_UP * rate:
            missed.append(f"throughput <{KEPT_UP:.0%}")
        done = Step(rate, result, tuple(missed))
        found.steps.append(done)
        if told is not None:
            told(done)
        return not missed

    rate = start
    while await measure(rate):
        found.rate = rate
        if rate >= most:
            break
        rate = min(rate * GROWTH, most)
    else:
        found.broke = rate
        low = found.rate
        for _ in range(halvings if low else 0):
            middle = (low + found.broke) / 2
            if await measure(middle):
                low = found.rate = middle
            else:
                found.broke = middle
    found.steps.sort(key=lambda s: s.rate)
    return found
