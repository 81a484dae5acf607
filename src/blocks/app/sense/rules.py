"""All rules, and the way to ask them: what is known to be wrong already is not said again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from blocks.core.config.complaint import At, Complaint

from ..tables import StackTable
from . import files, graph, keeping, listeners, readings, times, trying
from .graph import Graph
from .view import View

Rule = Callable[[Graph], Iterable[Complaint]]

RULES: tuple[Rule, ...] = (
    readings.quantities,
    readings.addresses,
    readings.places,
    readings.networks,
    graph.references,
    graph.circles,
    listeners.own_tail,
    listeners.taken_twice,
    listeners.exposed,
    listeners.believed,
    keeping.folders,
    keeping.brokers,
    keeping.lifetimes,
    keeping.counted,
    trying.twice,
    trying.repeated,
    trying.alone,
    trying.multiplied,
    trying.blind,
    trying.capacity,
    times.probes,
    times.connecting,
    times.tries,
    times.inside,
    times.leaving,
    graph.unasked,
    files.missing,
    files.certificates,
    files.tokens,
    files.imports,
)


def judge(tables: Mapping[str, Any], folder: Callable[[At], Path], told: Iterable[Complaint] = ()) -> list[Complaint]:
    """What the rules say of a stack's tables (those of its gateways' files in their places); ``folder`` says what paths are relative to.

    ``told`` is what is known to be wrong already: it is not said again, and nothing is said because of it.
    """
    whole = Graph(View(tables, StackTable, folder))
    heard = [one for one in told if one.level == "error"]
    found = (complaint for rule in RULES for complaint in rule(whole))
    return list(dict.fromkeys(one for one in found if not any(_same(one.at, other.at) for other in heard)))


def _same(at: At, other: At) -> bool:
    """Whether a complaint at ``at`` is about what ``other`` is wrong with: the same place, or the value that encloses or is inside it."""
    if len(other) <= 2 or len(at) <= 2:
        return at == other
    return at[: len(other)] == other or other[: len(at)] == at
