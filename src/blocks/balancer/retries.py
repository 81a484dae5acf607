"""Whether a request may be sent once more, and how often all of them together may. Rules only, no I/O.

Source: RFC 9110 §9.2.2 for idempotent methods; the budget is Finagle's ``RetryBudget``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from blocks.core.errors import Again, ConfigError, Failure, Fault
from blocks.core.quantities import seconds

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110 §9.2.2


@dataclass(frozen=True, slots=True)
class Retries:
    """When a request that failed is sent again, to another endpoint while there is one.

    ``tries`` in all (3: HAProxy's retries), each of at most ``per_try`` seconds (None: until the request's deadline).
    If no byte of it was sent, any request may go again. If a reused connection closed before an answer, those of ``methods`` may (the
    idempotent ones; add "POST" only when yours can be repeated). With ``failures`` they also may after every other fault of the
    upstream before an answer's head: refused, reset, timed out (nginx's proxy_next_upstream error timeout). An answer with a status in
    ``statuses`` is given up for another try, for the same methods (none by default).
    A body that was read from a stream is never sent again.

    The budget lets retries be at most the share ``budget`` of recent requests (0.2: Finagle, linkerd) plus ``reserve`` a second (10: the
    same), so that retries never multiply an overload. When every endpoint has been tried, the next round waits
    ``backoff * 2**round``, jittered, at most 10 of it (25 ms: Envoy). Raises ``ConfigError``.
    """

    tries: int = 3
    per_try: float | str | None = None
    methods: Collection[str] = IDEMPOTENT
    failures: bool = True
    statuses: Collection[int] = ()
    budget: float = 0.2
    reserve: float = 10.0
    backoff: float | str = 0.025

    def __post_init__(self) -> None:
        if isinstance(self.methods, str):
            raise ConfigError(f"methods is a collection such as {{'GET', 'PUT'}}, not {self.methods!r}")
        object.__setattr__(self, "methods", frozenset(method.upper() for method in self.methods))
        object.__setattr__(self, "statuses", frozenset(self.statuses))
        object.__setattr__(self, "backoff", seconds(self.backoff))
        if self.per_try is not None:
            object.__setattr__(self, "per_try", seconds(self.per_try))
            if not self.per_try:
                raise ConfigError("per_try must be over 0; None sets no limit")
        if self.tries < 1:
            raise ConfigError(f"tries is at least 1 (1: never again), not {self.tries!r}")
        if self.budget < 0 or self.reserve < 0:
            raise ConfigError("budget and reserve are 0 or more")
        if not float(self.backoff) > 0:
            raise ConfigError("backoff must be over 0")

    @classmethod
    def of(cls, value: Retries | int | None) -> Retries:
        """Retries from themselves or from a number of retries (0: never again); None is the default."""
        if isinstance(value, Retries):
            return value
        if value is None:
            return cls()
        if not isinstance(value, int):
            raise ConfigError(f"retries is a number of retries or Retries(…), not {value!r}")
        return cls(tries=value + 1)


NEVER = Retries(tries=1)


def may_retry(retries: Retries, method: str, error: Failure) -> bool:
    """Whether the nature of ``error`` lets a request be sent once more."""
    if error.again is Again.UNSENT:
        return True
    if error.fault is not Fault.UPSTREAM or method not in retries.methods:
        return False
    return error.again is Again.REUSED or retries.failures


class Budget:
    """Tokens for retries: each request adds ``share`` of one, each second ``reserve``; they are kept for about ``WINDOW`` seconds.

    Nothing is done per request: the tokens are reckoned from the count of requests when a retry asks.
    """

    WINDOW = 10.0  # seconds (Finagle's ttl)

    __slots__ = ("_at", "_rate", "_requests", "_reserve", "_share", "tokens")

    def __init__(self, share: float, reserve: float, now: float) -> None:
        self._share = share
        self._reserve = reserve
        self._at = now
        self._requests = 0
        self._rate = 0.0  # requests a second, lately
        self.tokens = reserve * self.WINDOW

    def spend(self, requests: int, now: float) -> bool:
        """Whether a retry may be made now; takes its token. ``requests`` is the running count of all requests."""
        new, passed = requests - self._requests, max(0.0, now - self._at)
        rate = new / passed if passed >= 1.0 else max(self._rate, float(new))
        most = max(1.0, self.WINDOW * (self._reserve + self._share * rate)) if self._share or self._reserve else 0.0
        self.tokens = min(most, self.tokens + self._share * new + self._reserve * passed)
        self._requests, self._at, self._rate = requests, now, rate
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
