"""A quota is an amount for each calendar hour, day, week or month of a time zone; it is whole again when the next one begins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from math import inf

from .generations import Generations

UNITS = ("minute", "hour", "day", "week", "month")


def span_of(unit: str, wall: float, zone: tzinfo = UTC) -> tuple[float, float]:
    """(begin, end) of the calendar unit that holds ``wall`` (seconds since 1970), in ``zone``; a week begins on Monday."""
    moment = datetime.fromtimestamp(wall, zone)
    begin = moment.replace(second=0, microsecond=0)
    if unit == "minute":
        return begin.timestamp(), begin.timestamp() + 60.0
    begin = begin.replace(minute=0)
    if unit == "hour":
        return begin.timestamp(), begin.timestamp() + 3600.0
    begin = begin.replace(hour=0, fold=0)
    if unit == "day":
        end = begin + timedelta(days=1)
    elif unit == "week":
        begin -= timedelta(days=begin.weekday())
        end = begin + timedelta(days=7)
    else:
        begin = begin.replace(day=1)
        end = (begin + timedelta(days=32)).replace(day=1)
    return begin.timestamp(), end.timestamp()


class Quota:
    """Counts by key until the unit ends. A wall clock that steps back gives nobody a second quota."""

    __slots__ = ("_begin", "_end", "_memory", "_wall", "_zone", "amount", "unit")

    def __init__(
        self, memory: Generations, amount: float, unit: str, wall: Callable[[], float], zone: tzinfo = UTC
    ) -> None:
        self.amount = amount
        self.unit = unit
        self._memory = memory
        self._wall = wall
        self._zone = zone
        self._begin = self._end = -inf
        self._turn(wall())

    @property
    def life(self) -> float:
        """For ever: the calendar empties the table, not age."""
        return inf

    @property
    def burst(self) -> float:
        """What may pass at once."""
        return self.amount

    @property
    def period(self) -> float:
        """Seconds of the unit that runs now."""
        return self._end - self._begin

    def attempt(self, key: str, cost: float, now: float) -> float:
        """Take ``cost`` if the quota has it: 0.0, else seconds until the next unit (inf: never)."""
        wait = self.wait(key, cost, now)
        if not wait:
            self.take(key, cost, now)
        return wait

    def wait(self, key: str, cost: float, now: float) -> float:
        """Seconds until ``cost`` may pass, 0.0 for now."""
        if self._used(key) + cost <= self.amount:
            return 0.0
        return inf if cost > self.amount else max(self._end - self._wall(), 1e-3)

    def take(self, key: str, cost: float, now: float) -> None:
        """Take without asking."""
        self._memory.young[key] = max(self._used(key) + cost, 0)

    charge = take

    def standing(self, key: str, now: float) -> tuple[float, float]:
        """(what is left, seconds until the next unit)."""
        return max(self.amount - self._used(key), 0), max(self._end - self._wall(), 0.0)

    def spans(self) -> tuple[float, float, float]:
        """(begin and end of the unit that runs now, end of the next one), in seconds since 1970."""
        if self._wall() >= self._end:
            self._turn(self._wall())
        return self._begin, self._end, span_of(self.unit, self._end, self._zone)[1]

    def _used(self, key: str) -> float:
        wall = self._wall()
        if wall >= self._end:
            self._turn(wall)
        memory = self._memory
        used = memory.young.get(key)
        if used is None:
            used = memory.recall(key)
        return used or 0

    def _turn(self, wall: float) -> None:
        """A new unit has begun. The table remembers which one it counts, for those who share it and for a reload."""
        self._begin, self._end = span_of(self.unit, wall, self._zone)
        memory = self._memory
        if memory.turn != self._end:
            if memory.turn:
                memory.clear()
            memory.turn = self._end
