"""How many requests a service can take at once is found out from its latency, and followed as it changes.

``Gradient`` is the controller of Envoy's adaptive concurrency filter: the latency of an unloaded service is measured now and then with a
few requests at a time; in between the limit moves by the ratio of that latency to the present one, plus room for a short queue.
``Aimd`` keeps a latency that is given: it adds one while that holds and takes a tenth when it does not (TCP Reno's rule).
Both decide from times that come in.
"""

from __future__ import annotations

from math import inf, sqrt
from random import Random

WINDOW = 0.1  # seconds between two decisions (Envoy: concurrency_update_interval 100 ms)
SAMPLES = 10  # answers that a decision needs; a slow service decides less often
KEPT = 1_000  # answers of one window that are looked at


class Adaptive:
    """Counts what is under way and moves ``limit`` between ``floor`` and ``ceiling``."""

    def __init__(self, floor: int = 3, ceiling: int = 1000, start: int = 20) -> None:
        self.floor = floor
        self.ceiling = ceiling
        self.limit = float(min(max(start, floor), ceiling))
        self.busy = 0
        self.shed = 0
        self._samples: list[float] = []
        self._until = -inf
        self._full = False  # whether the limit was reached in this window: one that was never reached is not raised

    def enter(self, share: float, now: float) -> bool:
        """Whether one more may go in that may fill up to ``share`` of the limit (its priority). It must ``leave`` again."""
        allowed = max(int(self._allowed(now) * share), 1)
        if self.busy >= allowed:
            self.shed += 1
            self._full = True
            return False
        self.busy += 1
        if self.busy * 2 >= allowed:
            self._full = True
        return True

    def leave(self) -> None:
        """One that went in is gone."""
        self.busy -= 1

    def sample(self, took: float, now: float) -> None:
        """The service answered after ``took`` seconds."""
        samples = self._samples
        if len(samples) < KEPT:
            samples.append(took)
        if now < self._until or len(samples) < SAMPLES:
            return
        samples.sort()
        self._decide(samples, now)
        self._samples = []
        self._until = now + WINDOW
        self._full = False

    def _allowed(self, now: float) -> float:
        return self.limit

    def _decide(self, samples: list[float], now: float) -> None:
        """Move the limit; ``samples`` are sorted."""
        raise AssertionError("a kind of Adaptive decides")

    def _move(self, limit: float) -> None:
        self.limit = min(max(limit, self.floor), self.ceiling)


class Gradient(Adaptive):
    """``limit = limit * (idle latency + buffer) / present latency + sqrt(limit)``; all latencies are medians."""

    def __init__(
        self,
        floor: int = 3,
        ceiling: int = 1000,
        start: int = 20,
        *,
        interval: float = 60.0,
        buffer: float = 0.25,
        count: int = 25,
        random: Random | None = None,
    ) -> None:
        super().__init__(floor, ceiling, start)
        self.idle = 0.0  # the latency of the service when it has next to nothing to do; 0.0: not known yet
        self.interval = interval  # seconds between two measurements of it (Envoy: 60 s)
        self.buffer = buffer  # of latency that is not held against the service (Envoy: 25 %)
        self.count = count  # answers that a measurement takes (Envoy: 50)
        self._random = random or Random()
        self._measure_at = -inf
        self._measuring: list[float] | None = None
        self._settled_at = 0.0

    def _allowed(self, now: float) -> float:
        if self._measuring is not None:
            return self.floor
        if now >= self._measure_at:
            self._measuring = []
            self._settled_at = now
            self._measure_at = now + self.interval * self._random.uniform(
                0.9, 1.1
            )  # so that gateways do not measure together
            return self.floor
        return self.limit

    def sample(self, took: float, now: float) -> None:
        """As ``Adaptive.sample``; while the idle latency is measured, for that."""
        measured = self._measuring
        if measured is None:
            super().sample(took, now)
            return
        if now - took < self._settled_at or self.busy > self.floor + 1:
            return  # it was under way before the others had left: not idle
        measured.append(took)
        if len(measured) >= self.count or (len(measured) >= 5 and now - self._settled_at > 5.0):
            measured.sort()
            self.idle = measured[len(measured) // 2]
            self._measuring = None
            self._samples = []

    def _decide(self, samples: list[float], now: float) -> None:
        if self.idle <= 0:
            return
        gradient = self.idle * (1 + self.buffer) / max(samples[len(samples) // 2], 1e-6)
        gradient = min(max(gradient, 0.5), 2.0)
        limit = self.limit * gradient + sqrt(self.limit)
        if limit < self.limit or self._full:
            self._move(limit)


class Aimd(Adaptive):
    """One more while nine of ten answers take at most ``target`` seconds, a tenth less when they do not."""

    def __init__(self, target: float, floor: int = 3, ceiling: int = 1000, start: int = 20) -> None:
        super().__init__(floor, ceiling, start)
        self.target = target

    def _decide(self, samples: list[float], now: float) -> None:
        if samples[len(samples) * 9 // 10] > self.target:
            self._move(self.limit * 0.9)
        elif self._full:
            self._move(self.limit + 1)
