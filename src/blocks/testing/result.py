"""What a load measured: exact percentiles of the time from the intended start, throughput, and errors by cause."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from typing import Any

from .objectives import objectives, percentile

TABLE = ("p50", "p75", "p90", "p95", "p99", "p99.9")


class Result:
    """The outcome of a load. Latencies are seconds from the moment a request was *meant* to begin to its last byte.

    ``statuses`` counts answers, ``errors`` what went wrong by cause: a 5xx answer is ``status-503``, a failure its ``reason``.
    Requests that failed have a latency too: they took that long to fail. ``late`` is the longest that the generator itself was behind
    its schedule, in seconds: when it is not small against the percentiles, the figures are of the generator.
    """

    def __init__(self, label: str = "") -> None:
        self.label = label
        self.latencies = array("d")
        self.moments = array("f")  # seconds from the beginning, one for each latency
        self.statuses: Counter[int] = Counter()
        self.causes: Counter[str] = Counter()
        self.received = 0
        self.duration = 0.0
        self.intended = 0
        self.late = 0.0
        self.unfinished = 0
        self._sorted: array[float] | None = None

    def record(self, moment: float, latency: float, status: int, cause: str, received: int) -> None:
        """Count one request that ended."""
        self.latencies.append(latency)
        self.moments.append(moment)
        self._sorted = None
        if status:
            self.statuses[status] += 1
        if cause:
            self.causes[cause] += 1
        self.received += received

    # -- figures

    @property
    def requests(self) -> int:
        """How many ended, well or not."""
        return len(self.latencies)

    @property
    def errors(self) -> int:
        """How many ended badly, or not at all."""
        return self.causes.total()

    @property
    def availability(self) -> float:
        """The share of requests that ended well; 1.0 when there was none."""
        return 1.0 - self.errors / self.requests if self.requests else 1.0

    @property
    def throughput(self) -> float:
        """Good answers a second, from the first intended start to the last answer."""
        return (self.requests - self.errors) / self.duration if self.duration else 0.0

    def quantile(self, share: float) -> float:
        """The smallest latency that ``share`` (0..1) of the requests did not exceed (nearest rank); 0.0 when there was none."""
        if not self.latencies:
            return 0.0
        if self._sorted is None:
            self._sorted = array("d", sorted(self.latencies))
        rank = math.ceil(share * len(self._sorted) - 1e-9)
        return self._sorted[min(max(rank, 1), len(self._sorted)) - 1]

    @property
    def mean(self) -> float:
        """The mean latency; look at a percentile instead."""
        return sum(self.latencies) / len(self.latencies) if self.latencies else 0.0

    @property
    def max(self) -> float:
        """The longest latency."""
        return max(self.latencies, default=0.0)

    @property
    def min(self) -> float:
        """The shortest latency."""
        return min(self.latencies, default=0.0)

    def figure(self, name: str) -> float:
        """Any figure by its name: p50, p99_9, mean, max, errors, availability, throughput, requests."""
        share = percentile(name)
        return float(getattr(self, name)) if share is None else self.quantile(share)

    # -- judging

    def expect(self, **bounds: float | str) -> Result:
        """Raise ``AssertionError``, with every figure and the causes, unless all bounds hold: ``expect(errors=0, p99="<20ms")``."""
        wanted = objectives(bounds)
        missed = [o for o in wanted if not o.holds(self.figure(o.figure))]
        if missed:
            lines = [f"  {o.figure} {o.text}: it was {_shown(o.figure, self.figure(o.figure))}" for o in missed]
            raise AssertionError("the load missed its objectives\n" + "\n".join(lines) + "\n" + self.table())
        return self

    def table(self) -> str:
        """The figures as text."""
        rows = [
            ("requests", f"{self.requests} of {self.intended} intended, in {self.duration:.3f} s"),
            ("throughput", f"{self.throughput:.1f}/s"),
            ("availability", f"{self.availability:.4%}"),
        ]
        rows += [(name, _milliseconds(self.figure(name))) for name in (*TABLE, "max", "mean")]
        rows.append(("late", f"{_milliseconds(self.late)} (the generator behind its own schedule, at most)"))
        rows += [(f"status {status}", str(count)) for status, count in sorted(self.statuses.items())]
        rows += [(f"error {cause}", str(count)) for cause, count in self.causes.most_common()]
        return "\n".join(f"  {name:<24} {value}" for name, value in rows)

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain values, times in seconds."""
        return {
            "label": self.label,
            "requests": self.requests,
            "intended": self.intended,
            "duration": self.duration,
            "throughput": self.throughput,
            "availability": self.availability,
            "latency": {name: self.figure(name) for name in (*TABLE, "max", "mean", "min")},
            "late": self.late,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "errors": dict(self.causes.most_common()),
            "received": self.received,
        }

    def __repr__(self) -> str:
        return f"<Result {self.requests} requests, {self.errors} errors, p99 {_milliseconds(self.quantile(0.99))}>"


def _milliseconds(value: float) -> str:
    return f"{value * 1000:.3f} ms"


def _shown(figure: str, value: float) -> str:
    if figure in ("errors", "requests"):
        return f"{value:.0f}"
    if figure == "availability":
        return f"{value:.4%}"
    return f"{value:.1f}/s" if figure == "throughput" else _milliseconds(value)
