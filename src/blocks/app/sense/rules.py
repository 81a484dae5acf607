"""All rules, and the way to ask them: what is known to be wrong already is not said again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from blocks.core.config.complaint import At, Complaint

from ..source import Source
from ..tables import StackTable
from . import files, graph, idle, keeping, listeners, readings, times, trying
from .graph import Graph
from .inlined import inlined
from .view import View

Rule = Callable[[Graph], Iterable[Complaint]]

_REFERENCES = frozenset(("handler", "upstreams", "origin", "routes", "service", "file"))
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
    trying.unheard,
    trying.blind,
    trying.capacity,
    times.probes,
    times.connecting,
    times.tries,
    times.inside,
    times.leaving,
    idle.needless,
    idle.unverified,
    idle.bodies,
    graph.unasked,
    files.missing,
    files.certificates,
    files.tokens,
    files.imports,
)


def sense(source: Source, environment: Mapping[str, str], told: Iterable[Complaint] = ()) -> list[Complaint]:
    """What does not make sense in a stack, errors and warnings.

    The rules look at the tables as they were written (those of its gateways' files in their places), so that one mistake does not hide
    another. ``told`` is what is known to be wrong already: it is not said again, and nothing is said because of it.
    """
    whole = Graph(View(inlined(source, environment), StackTable, source.folder))
    heard = [one for one in told if one.level == "error"]
    deep = list(graph.circles(whole))
    if any("inside each other" in one.message for one in deep):
        return deep
    rules = [rule for rule in RULES if rule is not graph.unasked or not any(map(_names, heard))]
    found = (complaint for rule in rules for complaint in rule(whole))
    return list(dict.fromkeys(one for one in found if not said_already(one, heard)))


def _names(complaint: Complaint) -> bool:
    """Whether it is about who asks whom: then nobody knows what is asked by none."""
    return len(complaint.at) <= 2 or complaint.at[0] == "gateways" or not _REFERENCES.isdisjoint(complaint.at)


def said_already(complaint: Complaint, told: Iterable[Complaint]) -> bool:
    """Whether a complaint is about what another is wrong with: the same place, or the value that encloses it or is inside it."""
    return any(_same(complaint.at, other.at) for other in told)


def _same(at: At, other: At) -> bool:
    if len(other) <= 2 or len(at) <= 2:
        return at == other
    return at[: len(other)] == other or other[: len(at)] == at
