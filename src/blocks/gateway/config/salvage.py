"""What is right in a wrong file is looked at all the same: one run finds everything, and says nothing because of what it took out."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import takewhile
from typing import Any, TypeVar

from blocks.core.config.complaint import At, Complaint, ConfigErrors, complaints_of
from blocks.core.errors import ConfigError

T = TypeVar("T")
_ROUNDS = 16  # of taking out what is wrong
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)")


def without(tables: dict[str, Any], places: Iterable[At]) -> dict[str, Any]:
    """A copy of the tables without what stands at the places; a list with something wrong in it goes as a whole, and so does a service."""
    left = copy.deepcopy(tables)
    for at in places:
        way = tuple(takewhile(lambda key: isinstance(key, str), at))
        way = way[:2] if way[:1] == ("services",) else way
        holder: Any = left
        for key in way[:-1]:
            holder = holder.get(key) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and way:
            holder.pop(way[-1], None)
    return left


def stand_in(path: Any) -> str:
    """A right template with the parameters of a wrong one, so that steps which name them are not wrong, too."""
    names = dict.fromkeys(_PARAMETER.findall(path)) if isinstance(path, str) else {}
    return "/" + "/".join(f"{{{name}}}" for name in names)


def tell_all(make: Callable[[Any], T], value: Any) -> T:
    """What ``make`` makes of settings. Raises ``ConfigErrors`` with all that is wrong, where ``make`` alone would stop at the first.

    What is wrong is taken out and the rest is tried, as long as all errors have places. What is then said of a place that something was
    taken out of is not told.
    """
    try:
        return make(value)
    except ConfigError as error:
        found = fresh = complaints_of(error, ())
    left, out = value, [one.at for one in found]
    for _ in range(_ROUNDS):
        if not isinstance(left, Mapping) or not fresh or not all(one.at for one in fresh):
            break
        left = without(dict(left), [one.at for one in fresh])
        fresh = [one for one in _wrong_with(make, left) if not _is_missed(one.at, out)]
        found = [*found, *fresh]
        out += [one.at for one in fresh]
    raise ConfigErrors(found)


def _wrong_with(make: Callable[[Any], Any], value: Any) -> list[Complaint]:
    try:
        make(value)
    except ConfigError as error:
        return complaints_of(error, ())
    return []


def _is_missed(at: At, out: Iterable[At]) -> bool:
    return any(place[: len(at)] == at for place in out)
