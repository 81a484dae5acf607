"""Passive health: an endpoint on which real requests fail one after another is ejected for a time that grows.

Rules only; ``Table`` applies them. The words and most defaults are Envoy's outlier detection.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds


@dataclass(frozen=True, slots=True)
class Outlier:
    """When real requests eject an endpoint, and for how long.

    ``failures`` in a row eject (5: Envoy's consecutive_5xx). A failure is an error that is the upstream's fault (refused, reset, timed out,
    no usable answer) and an answer whose status is in ``statuses`` (none: nginx's max_fails counts errors only by default).
    The n-th ejection in close succession lasts ``base * 2**(n-1)``, at most ``cap`` (30 s and 300 s: Envoy's base_ejection_time
    and max_ejection_time). None is ejected while the share ``max_ejected`` of all endpoints is out already; the first always may be
    (0.5; Envoy's 0.1 is made for large clusters). Durations take "30s". Raises ``ConfigError``.
    """

    failures: int = 5
    statuses: Collection[int] = ()
    base: float | str = 30.0
    cap: float | str = 300.0
    max_ejected: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "statuses", frozenset(self.statuses))
        object.__setattr__(self, "base", seconds(self.base))
        object.__setattr__(self, "cap", seconds(self.cap))
        if self.failures < 1:
            raise ConfigError(f"failures must be at least 1, not {self.failures!r}")
        if not 0 < self.max_ejected <= 1:
            raise ConfigError(f"max_ejected is a share over 0 and up to 1, not {self.max_ejected!r}")
        if not 0 < float(self.base) <= float(self.cap):
            raise ConfigError(f"an ejection needs 0 < base <= cap, not base={self.base!r} and cap={self.cap!r}")

    def length(self, ejections: int) -> float:
        """Seconds that the ``ejections``-th ejection in close succession lasts (1 is the first)."""
        return min(float(self.cap), float(self.base) * 2.0 ** min(ejections - 1, 60))

    def may_eject(self, out: int, total: int) -> bool:
        """Whether one more of ``total`` endpoints may go when ``out`` are out already, for whatever reason."""
        return out < max(1, int(total * self.max_ejected)) and total > 1
