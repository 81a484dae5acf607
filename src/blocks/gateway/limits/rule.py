"""A limit as people write it: ``"100/s per key burst 50"``, or a table with the same words as keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import msgspec

from blocks.core.config.kinds import Duration
from blocks.core.errors import ConfigError
from blocks.core.quantities import rate

from .quota import UNITS

_AT_ONCE = re.compile(r"(\d+)\s*(?:concurrent|at once)")
_WORDS = re.compile(
    r"(?P<rate>\d+(?:\.\d+)?\s*/\s*\w+|\d+\s+(?:concurrent|at once))"
    r"(?:\s+per\s+(?P<per>\S+))?(?:\s+burst\s+(?P<burst>\d+))?(?:\s+cost\s+(?P<cost>\d+))?(?P<flags>(?:\s+(?:early|dry-run))*)"
)
_CALENDAR = {"day": "day", "d": "day", "week": "week", "month": "month"}


class Amount(msgspec.Struct, frozen=True):
    """``amount`` in every ``period`` seconds, or in every calendar ``unit``, or (``period`` 0) at once."""

    amount: float
    period: float = 0.0
    unit: str = ""


class Limit(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One limit of a route.

    ``rate``: ``100/s``, ``5/10s``; ``1000/day`` and ``10000/month`` are calendar quotas; ``10 concurrent`` is how many at once; ``none``.
    ``per``: whose requests are counted together: ``all``, ``route``, ``ip``, ``key`` (the credential), ``consumer``, ``host``, ``country``,
    ``claim:NAME``, ``header:NAME``, ``param:NAME``, several joined by ``+``, or (in code) a function of request and context.
    ``algorithm``: ``gcra`` (default), ``window``, ``quota``, ``concurrency``. ``burst``: at once, of gcra (default: the amount).
    ``cost`` of a request: a number or (in code) a function; ``learn`` names a response field with the real cost, charged afterwards.
    ``tiers``: other rates by the consumer's tier. ``dry_run`` only counts. ``early`` decides before identity is known.
    ``store``: ``memory`` or ``redis``; ``on_error``: ``open``, ``closed`` or ``local`` while Redis does not answer; ``sync`` in seconds
    makes Redis limits local first. ``max_keys``: keys kept. ``zone``: the time zone of quotas. ``fields``: whether clients are told.
    """

    rate: str
    per: Any = "all"
    algorithm: Literal["", "gcra", "window", "quota", "concurrency"] = ""
    burst: float | None = None
    cost: Any = 1
    learn: str = ""
    tiers: dict[str, str] = {}
    name: str = ""
    dry_run: bool = False
    early: bool = False
    store: Literal["memory", "redis"] = "memory"
    on_error: Literal["open", "closed", "local"] = "local"
    sync: Duration = 0.0
    max_keys: int = 1_000_000
    zone: str = "UTC"
    fields: bool = True

    @classmethod
    def of(cls, text: str) -> Limit:
        """A limit from its text; the same text gives the same object. Raises ``ConfigError``."""
        return _parse(text.strip())

    @property
    def kind(self) -> str:
        """The algorithm in use."""
        return self.algorithm or _kind(self.rate)


@lru_cache(4096)
def _parse(text: str) -> Limit:
    match = _WORDS.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"{text!r} is not a limit; write it like '100/s per key', '1000/day per consumer' or '10 concurrent per ip'"
        )
    flags = match.group("flags") or ""
    limit = Limit(
        rate=match.group("rate"), per=match.group("per") or "all", early="early" in flags, dry_run="dry-run" in flags
    )  # fmt: skip
    if match.group("burst"):
        limit.burst = float(match.group("burst"))
    if match.group("cost"):
        limit.cost = int(match.group("cost"))
    amount_of(limit.rate, limit)
    return limit


@lru_cache(4096)
def _kind(rate: str) -> str:
    if _AT_ONCE.fullmatch(rate.strip()):
        return "concurrency"
    return "quota" if _calendar(rate) else "gcra"


def amount_of(text: str, limit: Limit) -> Amount | None:
    """What a rate text says under a limit's algorithm; None for ``none``. Raises ``ConfigError``."""
    return _amount(text.strip(), limit.kind)


@lru_cache(4096)
def _amount(text: str, kind: str) -> Amount | None:
    words = text
    if words == "none":
        return None
    at_once = _AT_ONCE.fullmatch(words)
    if kind == "concurrency":
        if at_once is None and not words.isdecimal():
            raise ConfigError(f"{text!r} is not a number at once; write it like '10 concurrent'")
        return _positive(Amount(float(at_once.group(1) if at_once else words)), text)
    if at_once is not None:
        raise ConfigError(f"{text!r} is a number at once, and the algorithm is {kind}")
    if kind == "quota":
        number, _, unit = words.partition("/")
        unit = _CALENDAR.get(unit.strip(), unit.strip())
        if unit not in UNITS or not re.fullmatch(r"\d+", number.strip()):
            raise ConfigError(
                f"{text!r} is not a quota; write a whole number for each of {', '.join(UNITS)}, like 1000/day"
            )
        return _positive(Amount(float(number), unit=unit), text)
    if _calendar(words) == "month":
        raise ConfigError(f"{text!r}: only a quota counts by the month")
    found = rate(words)
    if kind == "window" and found.amount != int(found.amount):
        raise ConfigError(f"{text!r}: a sliding window counts whole requests")
    return _positive(Amount(found.amount, found.period), text)


def _positive(amount: Amount, text: str) -> Amount:
    if amount.amount <= 0:
        raise ConfigError(f"{text!r} lets nothing pass; use auth = 'deny' for that")
    return amount


def _calendar(text: str) -> str:
    return _CALENDAR.get(text.partition("/")[2].strip(), "")


def limits_of(value: Any, named: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """A route's ``limit`` as (name of the table or "", text, table or Limit); ``named`` are the names that ``[limits.NAME]`` gives.

    A text that begins with a digit is a limit; any other is a name.
    """
    items = value if isinstance(value, list | tuple) else [value]
    return [(item, named[item]) if isinstance(item, str) and item in named else ("", item) for item in items]
