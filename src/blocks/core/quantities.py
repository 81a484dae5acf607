"""Durations, sizes and rates as people write them: ``"30s"``, ``"256MiB"``, ``"100/s"``.

Inside ``blocks`` a duration is a float in seconds, a size an int in bytes, a rate a ``Rate``. Numbers pass unchanged.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from .errors import ConfigError

_UNITS_TIME = {
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}
_UNITS_SIZE = {
    "": 1, "b": 1,
    "k": 1024, "kb": 1000, "kib": 1024,
    "m": 1024**2, "mb": 1000**2, "mib": 1024**2,
    "g": 1024**3, "gb": 1000**3, "gib": 1024**3,
    "t": 1024**4, "tb": 1000**4, "tib": 1024**4,
}  # fmt: skip
_UNITS_PER = {
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
}
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|µs|ms|min|s|m|h|d|w)", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", re.ASCII)
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*/\s*(\d*)\s*([a-z]+)", re.ASCII)


class Rate(NamedTuple):
    """``amount`` of things (or bytes) in every ``period`` seconds."""

    amount: float
    period: float

    @property
    def per_second(self) -> float:
        """Things a second."""
        return self.amount / self.period


def seconds(value: float | str) -> float:
    """A duration in seconds from ``1.5``, ``"30s"``, ``"250ms"``, ``"1h30m"``. Raises ``ConfigError``."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ConfigError(f"{value!r} is not a duration; write it like 30s, 250ms or 1h30m")
    if not isinstance(value, str):
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{value!r} is not a duration: it must be finite and not negative")
        return float(value)
    text = value.strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.replace(" ", ""):
        raise ConfigError(f"{value!r} is not a duration; write it like 30s, 250ms or 1h30m")
    return sum(float(number) * _UNITS_TIME[unit] for number, unit in parts)


def size(value: float | str) -> int:
    """A size in bytes from ``1024``, ``"256MiB"``, ``"10kB"``; ``k``, ``M`` and ``G`` alone are powers of 1024, as nginx has them."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ConfigError(f"{value!r} is not a size; write it like 64KiB, 256MiB or 4GiB")
    if not isinstance(value, str):
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{value!r} is not a size: it must be finite and not negative")
        return int(value)
    match = _SIZE.fullmatch(value.strip())
    unit = _UNITS_SIZE.get(match.group(2).lower()) if match else None
    if match is None or unit is None:
        raise ConfigError(f"{value!r} is not a size; write it like 64KiB, 256MiB or 4GiB")
    return int(float(match.group(1)) * unit)


def rate(value: Rate | str) -> Rate:
    """A rate from ``"100/s"``, ``"5/10s"``, ``"1000/day"``, ``"500B/s"``, ``"2MiB/s"``. Raises ``ConfigError``."""
    if isinstance(value, Rate):
        return value
    match = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    unit = _UNITS_SIZE.get(match.group(2).lower()) if match else None
    period = _UNITS_PER.get(match.group(4)) if match else None
    if match is None or unit is None or period is None:
        raise ConfigError(f"{value!r} is not a rate; write it like 100/s, 5/10s, 1000/day or 500B/s")
    span = int(match.group(3) or 1) * period
    if span == 0:
        raise ConfigError(f"{value!r} is not a rate: its period is zero")
    return Rate(float(match.group(1)) * unit, span)
