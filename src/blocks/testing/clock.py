"""The clock that a kit gives to every block: durations are the loop's, dates follow it and can be made to jump."""

from __future__ import annotations

import asyncio
import time


class LoopClock:
    """``monotonic`` is the loop's time; ``wall`` is the machine's date when the clock was made, plus what passed on the loop since.

    ``jump`` moves the wall clock alone, as an NTP step does. On a ``VirtualLoop`` both are virtual.
    """

    __slots__ = ("_offset", "monotonic")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.monotonic = loop.time
        self._offset = time.time() - loop.time()

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return self._offset + self.monotonic()

    def jump(self, seconds: float) -> None:
        """Set the wall clock forwards, or back with a negative number, without time passing."""
        self._offset += seconds
