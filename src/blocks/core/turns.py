"""While a thread works beside an event loop, the two take turns every half a millisecond instead of every five.

Python lets a thread that computes go on for ``sys.getswitchinterval()`` (5 ms) once another wants to run. A loop wants to run after each
wait for its sockets, and more than once a request, so that 60 ms of work in a thread become pauses of 10 ms and more for those it serves.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

SHORT = 0.0005  # seconds: a tenth of Python's default; shorter ones cost more switches than they save (measured)

_lock = Lock()
_inside = 0
_before = 0.0


@contextmanager
def short_turns() -> Iterator[None]:
    """Inside of it, threads take short turns; the interval is restored when the last one leaves."""
    global _inside, _before
    with _lock:
        if _inside == 0:
            _before = sys.getswitchinterval()
            sys.setswitchinterval(min(SHORT, _before))
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                sys.setswitchinterval(_before)
