"""Time is an argument: whoever needs the time is given a ``Clock``, so that a test can turn it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio


class Clock(Protocol):
    """Two readings of time: ``monotonic`` for durations, ``wall`` for dates that leave the process (seconds)."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; its zero means nothing."""
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC; it may jump."""
        ...


class SystemClock:
    """The machine's clock."""

    __slots__ = ()
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


def exact(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The time of ``loop``, for durations: uvloop's own is in whole milliseconds, and as old as the turn that runs."""
    return time.monotonic if type(loop).__module__.partition(".")[0] == "uvloop" else loop.time


class FakeClock:
    """A clock that moves only when told: ``advance`` moves both readings, ``jump`` the wall alone (an NTP step)."""

    __slots__ = ("_monotonic", "_wall")

    def __init__(self, wall: float = 1_700_000_000.0, monotonic: float = 1_000.0) -> None:
        self._wall = wall
        self._monotonic = monotonic

    def monotonic(self) -> float:
        """The reading that durations are measured with."""
        return self._monotonic

    def wall(self) -> float:
        """The reading that dates are made from."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        if seconds < 0:
            raise ValueError("time passes forwards; use jump() for the wall clock")
        self._monotonic += seconds
        self._wall += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forwards or back without time passing."""
        self._wall += seconds


SYSTEM = SystemClock()
