"""Bytes that arrive later, in the order in which they were sent: latency of a link, in one direction."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Lag:
    """What is ``put`` is passed on ``delay`` seconds later, and never before what was put earlier. ``held`` are bytes on their way."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.held = 0
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._line: deque[tuple[float, bytes | Callable[[], None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def put(self, what: bytes | Callable[[], None], delay: float) -> None:
        """Pass bytes on, or make a call (an end of the stream), ``delay`` seconds from now; at once if nothing is on its way."""
        if delay <= 0 and not self._line:
            self._pass(what)
            return
        if not callable(what):
            self.held += len(what)
        self._line.append((self._loop.time() + delay, what))
        if self._timer is None:
            self._timer = self._loop.call_at(self._line[0][0], self._due)

    def _due(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._line and self._line[0][0] <= now:
            what = self._line.popleft()[1]
            if not callable(what):
                self.held -= len(what)
            self._pass(what)
        if self._line:
            self._timer = self._loop.call_at(self._line[0][0], self._due)

    def _pass(self, what: bytes | Callable[[], None]) -> None:
        if callable(what):
            what()
        else:
            self._write(what)

    def stop(self) -> None:
        """Drop what is on its way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._line.clear()
        self.held = 0
