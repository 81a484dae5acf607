"""A number that was read off a block, whose comparisons can be asked again: ``await until(lb.healthy == 1)``."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any


class Question:
    """A comparison: true or false as of the reading, and, when it is called, as of now."""

    __slots__ = ("_compare", "_other", "_reading")

    def __init__(self, reading: Reading, compare: Callable[[Any, Any], bool], other: object) -> None:
        self._reading = reading
        self._compare = compare
        self._other = other

    def __bool__(self) -> bool:
        return self._compare(int(self._reading), self._other)

    def __call__(self) -> bool:
        """Read again, and compare."""
        return self._compare(self._reading.read(), self._other)

    def __eq__(self, other: object) -> bool:
        return bool(self) == other

    def __hash__(self) -> int:
        return hash(bool(self))

    def __repr__(self) -> str:
        return repr(bool(self))


class Reading(int):
    """An integer as it was when it was read; ``==``, ``<`` and so on give a ``Question``, which knows how to read it again."""

    read: Callable[[], int]

    def __new__(cls, read: Callable[[], int]) -> Reading:
        """What ``read`` says now; ``read`` is kept to be asked again."""
        self = super().__new__(cls, read())
        self.read = read
        return self

    # A Question is true and false as the bool is that int promises.
    def __eq__(self, other: object) -> Question:  # type: ignore[override]
        return Question(self, operator.eq, other)

    def __ne__(self, other: object) -> Question:  # type: ignore[override]
        return Question(self, operator.ne, other)

    def __lt__(self, other: object) -> Question:  # type: ignore[override]
        return Question(self, operator.lt, other)

    def __le__(self, other: object) -> Question:  # type: ignore[override]
        return Question(self, operator.le, other)

    def __gt__(self, other: object) -> Question:  # type: ignore[override]
        return Question(self, operator.gt, other)

    def __ge__(self, other: object) -> Question:  # type: ignore[override]
        return Question(self, operator.ge, other)

    __hash__ = int.__hash__
