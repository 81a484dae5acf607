"""The clock that a kit gives to every block: durations are the loop's, dates follow it and can be made to jump."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from blocks.core.quantities import seconds as seconds_of


class LoopClock:
    """``monotonic`` is the loop's time; ``wall`` is the machine's date when the clock was made, plus what passed on the loop since.

    ``jump`` moves the wall clock alone, as an NTP step does: leases, timeouts and TTLs must not notice, dates must.
    ``sleep`` lets time pass on both. On a ``VirtualLoop`` both are virtual.
    """

    __slots__ = ("_jumped", "_offset", "monotonic")

    def __init__(self, loop: asyncio.AbstractEventLoop, jumped: Callable[[float], None] | None = None) -> None:
        self.monotonic = loop.time
        self._offset = time.time() - loop.time()
        self._jumped = jumped

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return self._offset + self.monotonic()

    def jump(self, by: float | str) -> None:
        """Set the wall clock forwards by ``"2h"``, or back by ``"-2h"``, without time passing."""
        back = isinstance(by, str) and by.startswith("-")
        step = seconds_of(by.lstrip("+-")) if isinstance(by, str) else float(by)
        step = -step if back else step
        self._offset += step
        if self._jumped is not None:
            self._jumped(step)

    async def sleep(self, time: float | str) -> None:
        """Let time pass, for both clocks and everything that waits: ``await blocks.clock.sleep("1h")``."""
        await asyncio.sleep(seconds_of(time))
