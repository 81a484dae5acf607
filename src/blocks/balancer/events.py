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


class _Held:
    """What is held back of one kind at one endpoint."""

    __slots__ = ("count", "reason", "told")

    def __init__(self, told: float) -> None:
        self.told = told  # when the last one was told
        self.count = 0
        self.reason = ""


class Tape:
    """The last events, and those who listen. A listener that raises harms nobody else: its last error is kept in ``broken``."""

    __slots__ = ("_held", "broken", "last", "listeners")

    def __init__(self, *listeners: Callable[[Event], None]) -> None:
        self.last: deque[Event] = deque(maxlen=TAPE)
        self.listeners = list(listeners)
        self.broken: Exception | None = None
        self._held: dict[tuple[Kind, str], _Held] = {}

    def tell(self, kind: Kind, endpoint: str, reason: str, at: float) -> None:
        """Record an event and pass it to every listener, after what was held back of the same endpoint."""
        for (held_kind, name), held in list(self._held.items()):  # a listener may remove an endpoint
            if name == endpoint and held.count:
                self._release(held_kind, name, held, at)
        self._pass_on(Event(kind, endpoint, reason, at))

    def mention(self, kind: Kind, endpoint: str, reason: str, at: float) -> None:
        """Record an event that a request caused: told at once, then at most every ``PERIOD`` with the count of all since."""
        held = self._held.get((kind, endpoint))
        if held is None:
            self._held[kind, endpoint] = _Held(at)
            self._pass_on(Event(kind, endpoint, reason, at))
            return
        held.count += 1
        held.reason = reason
        if at - held.told >= PERIOD:
            self._release(kind, endpoint, held, at)

    def _release(self, kind: Kind, endpoint: str, held: _Held, at: float) -> None:
        event = Event(kind, endpoint, held.reason, at, held.count)
        held.told, held.count = at, 0
        self._pass_on(event)

    def _pass_on(self, event: Event) -> None:
        self.last.append(event)
        for listener in self.listeners:
            try:
                listener(event)
            except Exception as error:
                self.broken = error

    def forget(self, endpoint: str) -> None:
        """Drop what is kept for an endpoint that is gone."""
        for key in [key for key in self._held if key[1] == endpoint]:
            del self._held[key]


_GRAVE = frozenset({"unhealthy", "ejected", "ejection-refused", "panic", "retry-exhausted", "queue-full"})


def log(event: Event) -> None:
    """Pass an event on to ``blocks.core.logging``; what takes capacity away is a warning."""
    from blocks.core.logging import events

    write = events().warning if event.kind in _GRAVE else events().info
    write(f"balancer-{event.kind}", endpoint=event.endpoint, reason=event.reason, count=event.count)
