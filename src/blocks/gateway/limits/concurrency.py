"""How many at once: a count a key, given back when the answer's body has ended. Only keys that have something under way are kept."""

from __future__ import annotations

from math import inf

RETRY = 1.0  # seconds told to who is refused: nobody knows when a place becomes free (nginx's limit_conn says nothing at all)


class Places:
    """The counts, shared by the tiers of one limit."""

    __slots__ = ("busy",)

    def __init__(self) -> None:
        self.busy: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self.busy)


class Concurrency:
    """At most ``amount`` under way for each key."""

    __slots__ = ("_places", "amount")

    period = 0.0

    def __init__(self, places: Places, amount: float) -> None:
        self.amount = amount
        self._places = places

    @property
    def burst(self) -> float:
        """What may pass at once."""
        return self.amount

    def attempt(self, key: str, cost: float, now: float) -> float:
        """Take ``cost`` places if they are free: 0.0, else ``RETRY`` (inf: never)."""
        wait = self.wait(key, cost, now)
        if not wait:
            self.take(key, cost, now)
        return wait

    def wait(self, key: str, cost: float, now: float) -> float:
        """0.0 when ``cost`` places are free."""
        if self._places.busy.get(key, 0) + cost <= self.amount:
            return 0.0
        return inf if cost > self.amount else RETRY

    def take(self, key: str, cost: float, now: float) -> None:
        """Take without asking."""
        busy = self._places.busy
        busy[key] = busy.get(key, 0) + cost

    def charge(self, key: str, cost: float, now: float) -> None:
        """Give places back (``cost`` is negative), or take more."""
        busy = self._places.busy
        left = busy.get(key, 0) + cost
        if left > 0:
            busy[key] = left
        else:
            busy.pop(key, None)

    def standing(self, key: str, now: float) -> tuple[float, float]:
        """(free places, 0)."""
        return max(self.amount - self._places.busy.get(key, 0), 0), 0.0
