"""What a service must keep, and what it kept: ``p99="<20ms"``, ``availability=">=99.95%"``, ``errors=0``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from blocks.core.errors import ConfigError
from blocks.core.quantities import rate, seconds

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "==": operator.eq,
}  # fmt: skip
_OBJECTIVE = re.compile(r"\s*(<=|>=|==|=|<|>)?\s*(.+?)\s*")
_PERCENTILE = re.compile(r"p(\d{1,2})(?:[_.]?(\d+))?")
TIMES = frozenset({"mean", "max", "min"})
COUNTS = frozenset({"errors", "requests"})


@dataclass(frozen=True, slots=True)
class Objective:
    """One figure with its bound: ``p99 < 0.02``. ``text`` is the bound as it was written."""

    figure: str
    relation: str
    bound: float
    text: str

    def holds(self, value: float) -> bool:
        """Whether ``value`` keeps it."""
        return _OPERATORS[self.relation](value, self.bound)


def percentile(figure: str) -> float | None:
    """The share that a name stands for: p50 is 0.5, p99_9 and p999 are 0.999; None when it is no percentile."""
    match = _PERCENTILE.fullmatch(figure)
    return None if match is None else float(f"0.{int(match[1]):02d}{match[2] or ''}")


def objective(figure: str, bound: float | str) -> Objective:
    """Read one objective. A bare time or count is an upper bound, a bare share or rate a lower one, ``errors=0`` exact.

    Raises ``ConfigError`` for a figure that there is not, and for a bound that cannot be read.
    """
    match = _OBJECTIVE.fullmatch(str(bound))
    if match is None:
        raise ConfigError(f"{figure}={bound!r} is no bound; write it like p99='<20ms' or errors=0")
    relation, number = match[1], match[2]
    try:
        if figure in COUNTS:
            return Objective(figure, relation or "==", float(number), str(bound))
        if figure == "availability":
            value = float(number[:-1]) / 100 if number.endswith("%") else float(number)
            return Objective(figure, relation or ">=", value, str(bound))
        if figure == "throughput":
            value = rate(number).per_second if "/" in number else float(number)
            return Objective(figure, relation or ">=", value, str(bound))
        if figure in TIMES or percentile(figure) is not None:
            return Objective(figure, relation or "<=", seconds(number), str(bound))
    except ValueError as error:
        raise ConfigError(f"{figure}={bound!r} is no bound: {error}") from None
    raise ConfigError(
        f"there is no figure {figure!r}; there are errors, requests, availability, throughput, mean, min, max, p50, p99, p99_9"
    )


def objectives(given: Mapping[str, float | str]) -> list[Objective]:
    """Read them all."""
    return [objective(figure, bound) for figure, bound in given.items()]
