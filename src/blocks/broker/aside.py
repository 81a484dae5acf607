"""Work in threads that answer through ``call_soon_threadsafe``: a loop in virtual time is told of it, and does not jump past the answer.

A loop knows what it gave to ``run_in_executor``, and nothing of other threads. One whose clock can jump has a method ``working(count)``
(``blocks.testing.VirtualLoop``); others are not told anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Aside:
    """Counts work that is under way in threads, for the loop. Both calls are made in the loop's thread."""

    __slots__ = ("_tell",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._tell: Callable[[int], None] | None = getattr(loop, "working", None)

    def begin(self) -> None:
        """A thread is given work."""
        if self._tell is not None:
            self._tell(1)

    def end(self) -> None:
        """Its answer is here."""
        if self._tell is not None:
            self._tell(-1)
