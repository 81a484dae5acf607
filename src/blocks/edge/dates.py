"""HTTP dates: three forms are read, strictly but in any case; one is written (RFC 9110 §5.6.7)."""

from __future__ import annotations

import re
from functools import lru_cache

_MONTHS = {name: number for number, name in enumerate(b"jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
_MONTH_NAMES = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_DAY_NAMES = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
_MONTH = rb"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_TIME = rb"(\d\d):(\d\d):(\d\d)"
_DAY = rb"(?:mon|tue|wed|thu|fri|sat|sun)"
_LONG_DAY = rb"(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
_FIXED = re.compile(_DAY + rb", (\d\d) " + _MONTH + rb" (\d{4}) " + _TIME + rb" gmt", re.I)
_RFC850 = re.compile(_LONG_DAY + rb", (\d\d)-" + _MONTH + rb"-(\d\d) " + _TIME + rb" gmt", re.I)
_ASCTIME = re.compile(_DAY + rb" " + _MONTH + rb" (\d\d| \d) " + _TIME + rb" (\d{4})", re.I)


def _days(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 to that day of the Gregorian calendar."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


def _seconds(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int | None:
    longest = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]
    if not (1 <= day <= longest and hour < 24 and minute < 60 and second <= 60):
        return None
    return _days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second


@lru_cache(maxsize=1024)
def _fixed(value: bytes) -> int | None:
    found = _FIXED.fullmatch(value)
    if found is not None:
        return _seconds(
            int(found[3]), _MONTHS[found[2].lower()], int(found[1]), int(found[4]), int(found[5]), int(found[6])
        )
    found = _ASCTIME.fullmatch(value)
    if found is not None:
        return _seconds(
            int(found[6]), _MONTHS[found[1].lower()], int(found[2]), int(found[3]), int(found[4]), int(found[5])
        )
    return None


def parse_date(value: bytes, now: float) -> int | None:
    """Seconds since 1970 of an HTTP-date in any of its three forms, or None when it is none (RFC 9110 §5.6.7).

    ``now`` (wall, seconds) decides the century of an RFC 850 year: more than 50 years ahead means the past.
    """
    if len(value) > 40:
        return None
    when = _fixed(value)
    if when is not None:
        return when
    found = _RFC850.fullmatch(value)
    if found is None:
        return None
    this_year = int(now // 31556952) + 1970
    year = this_year - this_year % 100 + int(found[3])
    if year > this_year + 50:
        year -= 100
    return _seconds(year, _MONTHS[found[2].lower()], int(found[1]), int(found[4]), int(found[5]), int(found[6]))


def format_date(when: float) -> bytes:
    """``Sun, 06 Nov 1994 08:49:37 GMT`` of a wall time in seconds."""
    return _formatted(int(when))


@lru_cache(maxsize=16)
def _formatted(when: int) -> bytes:
    days, rest = divmod(when, 86400)
    shifted = days + 719468
    era, of_era = divmod(shifted, 146097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month += 3 if month < 10 else -9
    year = year_of_era + era * 400 + (month <= 2)
    name = _DAY_NAMES[(days + 3) % 7]
    text = f"{name}, {day:02d} {_MONTH_NAMES[month - 1]} {year:04d} {rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d} GMT"
    return text.encode()
