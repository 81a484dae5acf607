"""Every decision of a balancer is an event with its reason.

What a request can cause (a retry, a refusal) is told at most once a second for each kind and endpoint, with the count of those
in between: a backend that dies under 20,000 requests a second must not become 20,000 events a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal[
    "added",
    "removed",
    "weighed",
    "draining",
    "drained",
    "restored",
    "unhealthy",
    "healthy",
    "ejected",
    "ejection-refused",
    "returned",
    "warmed",
    "panic",
    "panic-over",
    "retry",
    "retry-refused",
    "retry-exhausted",
    "queue-full",
    "queue-timeout",
]

TAPE = 256  # events kept for whoever asks later
PERIOD = 1.0  # seconds between two events of one request-caused kind


@dataclass(frozen=True, slots=True)
class Event:
    """What was decided about an endpoint ("" when about the whole balancer), why, and when (``monotonic`` seconds).

    ``count`` is how many of the same happened since the last one that was told; it is over 1 only for what requests cause.
    """

    kind: Kind
    endpoint: str
    reason: str
    at: float
    count: int = 1

    def __str__(self) -> str:
        times = f" ({self.count} times)" if self.count > 1 else ""
        return f"{self.kind} {self.endpoint or 'balancer'}: {self.reason}{times}"

    def as_dict(self) -> dict[str, Any]:
        """The event as plain values."""
        return asdict(self)


class Tape:
    """The last events, and those who listen. A listener that raises harms nobody else: its last error is kept in ``broken``."""

    __slots__ = ("_muted", "broken", "last", "listeners")

    def __init__(self, *listeners: Callable[[Event], None]) -> None:
        self.last: deque[Event] = deque(maxlen=TAPE)
        self.listeners = list(listeners)
        self.broken: Exception | None = None
        self._muted: dict[tuple[Kind, str], list[float]] = {}  # (kind, endpoint) -> [told last, kept back since]

    def tell(self, kind: Kind, endpoint: str, reason: str, at: float, count: int = 1) -> None:
        """Record an event and pass it to every listener."""
        event = Event(kind, endpoint, reason, at, count)
        self.last.append(event)
        for listener in self.listeners:
            try:
                listener(event)
            except Exception as error:
                self.broken = error

    def mention(self, kind: Kind, endpoint: str, reason: str, at: float) -> None:
        """Record an event that a request caused: told at once, then at most every ``PERIOD`` with the count of all since."""
        muted = self._muted.get((kind, endpoint))
        if muted is None:
            self._muted[kind, endpoint] = [at, 0]
            self.tell(kind, endpoint, reason, at)
        elif at - muted[0] < PERIOD:
            muted[1] += 1
        else:
            count = int(muted[1]) + 1
            muted[0], muted[1] = at, 0
            self.tell(kind, endpoint, reason, at, count)

    def forget(self, endpoint: str) -> None:
        """Drop what is kept for an endpoint that is gone."""
        for key in [key for key in self._muted if key[1] == endpoint]:
            del self._muted[key]


_GRAVE = frozenset({"unhealthy", "ejected", "ejection-refused", "panic", "retry-exhausted", "queue-full"})


def log(event: Event) -> None:
    """Pass an event on to ``blocks.core.logging``; what takes capacity away is a warning."""
    from blocks.core.logging import events

    write = events().warning if event.kind in _GRAVE else events().info
    write(f"balancer-{event.kind}", endpoint=event.endpoint, reason=event.reason, count=event.count)
