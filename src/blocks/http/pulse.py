"""How a parent knows that its workers' loops turn: each writes its number into one pipe, and the service manager hears of all or none."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress

from blocks.core.notify import Notifier


class Pulse:
    """The parent's end. Between two calls of ``beat`` every worker that it is given must have been heard; else the watchdog is not fed.

    Nothing happens when the service manager does not watch: ``interval`` is None then.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self.interval = notifier.interval
        self._heard: set[int] = set()
        self._next = 0.0
        self.reading, self._writing = os.pipe()
        os.set_blocking(self.reading, False)
        os.set_blocking(self._writing, False)

    def of(self, number: int) -> Notifier:
        """What worker ``number`` tells that it is alive, twice as often as the parent needs to hear it."""
        return _Beat(number, self._writing, self.interval)

    def receive(self) -> None:
        """Note who has beaten."""
        with suppress(BlockingIOError):
            self._heard.update(os.read(self.reading, 4096))

    def wait(self, now: float) -> float | None:
        """Seconds until ``beat`` has something to do; None when the manager does not watch."""
        return None if self.interval is None else max(0.0, self._next - now)

    def beat(self, now: float, workers: Collection[int]) -> None:
        """Feed the watchdog if it is time and all of ``workers`` have been heard since the last time."""
        if self.interval is None or now < self._next:
            return
        if self._heard.issuperset(workers):
            self._heard.clear()
            self._notifier.alive()
            self._next = now + self.interval
        else:
            self._next = now + self.interval / 4

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self.reading)
        os.close(self._writing)


class _Beat(Notifier):
    """A worker's notifier: it says nothing to the manager, and to the parent only that it is alive."""

    def __init__(self, number: int, pipe: int, interval: float | None) -> None:
        super().__init__({})
        self.interval = None if interval is None else interval / 2
        self._number = bytes([number])
        self._pipe = pipe

    def alive(self) -> None:
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._pipe, self._number)
