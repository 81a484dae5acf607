"""Health is an ordered value, OPEN > BUSY > CLOSED: a whole is as well as its worst needed part and its best alternative.

Source: Finagle's ``Status``.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class Status(IntEnum):
    """How well something can take work now."""

    CLOSED = 0  # it takes nothing
    BUSY = 1  # it takes work, degraded: a part is missing or a limit is near
    OPEN = 2  # it takes work


def worst(parts: Iterable[Status]) -> Status:
    """Of parts that are all needed: the worst; OPEN when there are none."""
    return min(parts, default=Status.OPEN)


def best(alternatives: Iterable[Status]) -> Status:
    """Of alternatives: the best; CLOSED when there are none."""
    return max(alternatives, default=Status.CLOSED)
