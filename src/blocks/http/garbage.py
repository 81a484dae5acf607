"""Full garbage collections are kept short: what has survived a long one is not looked at again for an hour.

Python's collector walks every container that lives, 0.1 µs each, whenever a quarter as many have come. With 150,000 entries in
a cache that is a pause of 85 ms among misses, and there is nothing to find: requests, connections and entries are freed by their
reference counts (tests hold them to it). So the survivors are set aside (``gc.freeze``); once an hour they are looked at with the
rest, as an application may leave cycles.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

LONG = 0.005  # seconds: a pause that is seen in a p99
PERIOD = 3600.0  # seconds between two looks at everything


class Keeper:
    """A callback for ``gc.callbacks``. ``freeze`` and ``unfreeze`` are those of ``gc``; ``clock`` gives seconds."""

    def __init__(
        self,
        freeze: Callable[[], None] = gc.freeze,
        unfreeze: Callable[[], None] = gc.unfreeze,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._freeze = freeze
        self._unfreeze = unfreeze
        self._clock = clock
        self._began = 0.0
        self._whole = clock()  # when everything was looked at last
        self.set_aside = 0  # times that survivors were

    def __call__(self, phase: str, info: Mapping[str, Any]) -> None:
        """A collection begins or ends."""
        if info["generation"] != 2:
            return
        now = self._clock()
        if phase == "start":
            self._began = now
            if self.set_aside and now - self._whole >= PERIOD:
                self._whole = now
                self._unfreeze()  # before the collector takes its lists: this one sees all
        elif now - self._began >= LONG:
            self.set_aside += 1
            self._freeze()


@contextmanager
def kept_short() -> Iterator[Keeper]:
    """Inside of it the process's full collections are kept short; what lives at the beginning is set aside at once."""
    gc.collect()
    gc.freeze()
    keeper = Keeper()
    gc.callbacks.append(keeper)
    try:
        yield keeper
    finally:
        gc.callbacks.remove(keeper)
