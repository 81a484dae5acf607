"""State by key in two generations, so that idle keys leave without a search and the table has a bound.

What is touched lives in ``young``. Each ``life`` seconds the young become the old, and the old are let go: by then nobody has touched
them for a whole life, and a state of that age says nothing any more. They also change when the young are half of ``max_keys``, so that
the table never holds more than ``max_keys``, and always the state of the ``max_keys / 2`` keys that were touched last; keys that
lose their state so start afresh and are counted as ``evicted``. What is let go is
freed a few keys at a time, so that no request pays for a million.
"""

from __future__ import annotations

from typing import Any

_DRAIN = 8  # dead keys that a new key buries: they go faster than keys can come
_DRAIN_TURN = 1_000  # and at each turn


class Generations:
    """A bounded map from a key to a number. ``young`` may be read and written by the algorithm that owns the map."""

    __slots__ = ("_dead", "evicted", "life", "max_keys", "old", "turn", "young")

    def __init__(self, life: float, max_keys: int) -> None:
        self.life = life
        self.max_keys = max_keys
        self.turn = 0.0  # the moment of the next change of generations
        self.young: dict[str, Any] = {}
        self.old: dict[str, Any] = {}
        self.evicted = 0
        self._dead: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self.young) + len(self.old)

    def recall(self, key: str) -> Any:
        """The state of a key that is not among the young, moved to them, or None. Makes room when the table is full."""
        self.make_room()
        value = self.old.pop(key, None)
        if value is not None:
            self.young[key] = value
        return value

    def make_room(self) -> None:
        """A key is about to come: bury some of the dead, and let the old go if the table is full."""
        if self._dead:
            self._bury(_DRAIN)
        if len(self.young) >= self.max_keys // 2:
            self.evicted += len(self.old)
            self.change()

    def advance(self, now: float) -> None:
        """``now`` is past ``turn``: change generations, twice when nobody asked for so long that all are idle."""
        if self.turn and now >= self.turn + self.life:
            self.change()
        self.change()
        self.turn = now + self.life
        self.bury()

    def change(self) -> None:
        """The young become the old, and the old are let go."""
        if self.old:
            self._dead.append(self.old)
        self.old = self.young
        self.young = {}

    def clear(self) -> None:
        """Let everything go."""
        self.change()
        self.change()

    def bury(self) -> None:
        """Free some of what was let go."""
        self._bury(_DRAIN_TURN)

    def _bury(self, number: int) -> None:
        dead = self._dead
        while dead and number:
            last = dead[-1]
            for _ in range(min(number, len(last))):
                last.popitem()
                number -= 1
            if not last:
                dead.pop()
