"""A metric is an integer slot: counting costs an attribute, and only a reader pays for names, labels and text.

Names are ``blocks_<block>_<noun>_<unit>`` (Prometheus naming practice). The values of labels are bounded: beyond ``limit`` sets of
one family everything is counted under ``other``. Snapshots are plain data, so that the workers of one process group can be added up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

from .errors import ConfigError
from .histogram import BOUNDS, Histogram

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")
_LABEL = re.compile(r"[a-z][a-z0-9_]*")
OTHER = "other"
LIMIT = 1000  # sets of labels in one family; Prometheus' advice is below 10 for most, hundreds for few

Snapshot = dict[str, dict[str, Any]]


class Counter:
    """A number that only grows; a hot path does ``counter.value += 1``."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def add(self, number: float = 1) -> None:
        """Count ``number`` more."""
        self.value += number


class Gauge:
    """A number that goes up and down; ``gauge.value`` is read and set."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


S = TypeVar("S", Counter, Gauge, Histogram)


class Reading(NamedTuple):
    """One series as a collector gives it. ``kind`` is a Prometheus type, ``labels`` are (name, value), ``fold`` as for a gauge."""

    name: str
    kind: str
    help: str
    labels: tuple[tuple[str, str], ...]
    value: float | Histogram
    fold: str = "sum"


class Family(Generic[S]):
    """All series of one name. ``of("GET", "200")`` gives a series' slot, to be kept by whoever counts often."""

    __slots__ = ("_limit", "_make", "_series", "fold", "help", "kind", "labels", "name")

    def __init__(
        self, make: type[S], kind: str, name: str, help: str, labels: tuple[str, ...], limit: int, fold: str
    ) -> None:
        self.name, self.kind, self.help, self.labels, self.fold = name, kind, help, labels, fold
        self._make: type[S] = make
        self._limit = limit
        self._series: dict[tuple[str, ...], S] = {}

    def of(self, *values: str) -> S:
        """The slot of these label values, in the order of ``labels``; past the limit that of ``other``."""
        slot = self._series.get(values)
        if slot is None:
            if len(values) != len(self.labels):
                raise ConfigError(f"{self.name} has the labels {self.labels}, and {len(values)} values were given")
            if len(self._series) >= self._limit:
                values = (OTHER,) * len(self.labels)
                slot = self._series.get(values)
            if slot is None:
                slot = self._series[values] = self._make()
        return slot

    def forget(self, *values: str) -> None:
        """Leave a series out from now on: what it counted is gone (an upstream that was removed)."""
        self._series.pop(values, None)

    def items(self) -> list[tuple[tuple[str, ...], S]]:
        """(label values, slot) of every series."""
        return list(self._series.items())


class Metrics:
    """The metrics of one process, by name. Singular methods give a slot, plural ones a family with labels.

    >>> metrics = Metrics()
    >>> answers = metrics.counters("blocks_gateway_responses_total", "Answers by code.", "code")
    >>> answers.of("200").value += 1
    >>> print(metrics.render(), end="")
    # HELP blocks_gateway_responses_total Answers by code.
    # TYPE blocks_gateway_responses_total counter
    blocks_gateway_responses_total{code="200"} 1
    """

    def __init__(self) -> None:
        self._families: dict[str, Family[Any]] = {}
        self._reads: list[tuple[Counter | Gauge, Callable[[], float]]] = []
        self._collectors: list[Callable[[], Iterable[Reading]]] = []

    def counter(self, name: str, help: str, read: Callable[[], float] | None = None) -> Counter:
        """One counter; its name ends in ``_total``. With ``read`` it takes that function's number whenever it is looked at."""
        return self._single(Counter, "counter", name, help, read)

    def gauge(self, name: str, help: str, read: Callable[[], float] | None = None, *, fold: str = "sum") -> Gauge:
        """One gauge. ``fold`` says how workers' values become one: ``sum``, ``max`` or ``min``."""
        return self._single(Gauge, "gauge", name, help, read, fold)

    def histogram(self, name: str, help: str) -> Histogram:
        """One histogram of seconds; its name ends in ``_seconds``."""
        return self.histograms(name, help).of()

    def counters(self, name: str, help: str, *labels: str, limit: int = LIMIT) -> Family[Counter]:
        """A family of counters."""
        return self._family(Counter, "counter", name, help, labels, limit)

    def gauges(self, name: str, help: str, *labels: str, limit: int = LIMIT, fold: str = "sum") -> Family[Gauge]:
        """A family of gauges."""
        return self._family(Gauge, "gauge", name, help, labels, limit, fold)

    def histograms(self, name: str, help: str, *labels: str, limit: int = LIMIT) -> Family[Histogram]:
        """A family of histograms of seconds; each holds 12 KiB."""
        return self._family(Histogram, "histogram", name, help, labels, limit)

    def collect(self, collector: Callable[[], Iterable[Reading]]) -> None:
        """Ask ``collector`` for further readings whenever somebody looks: for those who keep their own integers."""
        self._collectors.append(collector)

    def snapshot(self) -> Snapshot:
        """Everything as plain data: ``{name: {kind, help, fold, labels, series: [[label values, number or histogram]]}}``."""
        for slot, read in self._reads:
            slot.value = read()
        result: Snapshot = {}
        for family in self._families.values():
            series = [[list(values), _plain(slot)] for values, slot in family.items()]
            result[family.name] = {
                "kind": family.kind,
                "help": family.help,
                "fold": family.fold,
                "labels": list(family.labels),
                "series": series,
            }
        self._add_collected(result)
        return result

    def _add_collected(self, result: Snapshot) -> None:
        """What collectors read; two readings of one series (two filters of a kind) are added up."""
        seen: dict[tuple[str, tuple[tuple[str, str], ...]], list[Any]] = {}
        for collector in self._collectors:
            for name, kind, help, labels, value, fold in collector():
                entry = result.get(name)
                if entry is None:
                    names = [label for label, _ in labels]
                    entry = result[name] = {"kind": kind, "help": help, "fold": fold, "labels": names, "series": []}
                known = seen.get((name, labels))
                if known is not None:
                    known[1] = _folded(known[1], _plain(value), fold)
                elif len(entry["series"]) < LIMIT:
                    row = seen[name, labels] = [[content for _, content in labels], _plain(value)]
                    entry["series"].append(row)

    def render(self) -> str:
        """The text that Prometheus scrapes (text format 0.0.4)."""
        return render(self.snapshot())

    def _single(
        self, make: type[S], kind: str, name: str, help: str, read: Callable[[], float] | None, fold: str = "sum"
    ) -> S:
        slot = self._family(make, kind, name, help, (), LIMIT, fold).of()
        if read is not None and not isinstance(slot, Histogram):
            self._reads.append((slot, read))
        return slot

    def _family(
        self, make: type[S], kind: str, name: str, help: str, labels: tuple[str, ...], limit: int, fold: str = "sum"
    ) -> Family[S]:
        found = self._families.get(name)
        if found is not None:
            if found.kind != kind or found.labels != labels:
                raise ConfigError(f"{name} is already a {found.kind} with the labels {found.labels}")
            return found
        if not _NAME.fullmatch(name) or (kind == "counter") != name.endswith("_total"):
            raise ConfigError(
                f"{name!r} is no metric name: it reads blocks_<block>_<noun>_<unit>, and counters end in _total"
            )
        if bad := [label for label in labels if not _LABEL.fullmatch(label) or label == "le"]:
            raise ConfigError(f"{bad[0]!r} is no label name")
        if fold not in _FOLDS:
            raise ConfigError(f"{fold!r} is no fold; it is one of {', '.join(_FOLDS)}")
        family = self._families[name] = Family(make, kind, name, help, labels, limit, fold)
        return family


_FOLDS: dict[str, Callable[[float, float], float]] = {"sum": lambda a, b: a + b, "max": max, "min": min}


def _plain(value: Counter | Gauge | Histogram | float) -> float | dict[str, Any]:
    if isinstance(value, Histogram):
        return value.snapshot()
    return value.value if isinstance(value, Counter | Gauge) else value


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """One snapshot of several workers': counters and histograms add up, gauges fold as they were told to."""
    result: Snapshot = {}
    tables: dict[str, dict[tuple[str, ...], Any]] = {}
    for snapshot in snapshots:
        for name, entry in snapshot.items():
            if name not in result:
                result[name] = {**entry, "series": []}
            table = tables.setdefault(name, {})
            for values, value in entry["series"]:
                key = tuple(values)
                table[key] = _folded(table[key], value, entry["fold"]) if key in table else value
    for name, table in tables.items():
        result[name]["series"] = [[list(values), value] for values, value in table.items()]
    return result


def _folded(one: Any, other: Any, fold: str) -> Any:
    if isinstance(one, dict):
        histogram = Histogram()
        histogram.add(one)
        histogram.add(other)
        return histogram.snapshot()
    return _FOLDS[fold](one, other)


def render(snapshot: Snapshot) -> str:
    """A snapshot in Prometheus' text format 0.0.4."""
    lines: list[str] = []
    for name, entry in snapshot.items():
        lines.append(f"# HELP {name} {_escape(entry['help'])}")
        lines.append(f"# TYPE {name} {entry['kind']}")
        labels = entry["labels"]
        for values, value in entry["series"]:
            pairs = ",".join([f'{label}="{_quoted(content)}"' for label, content in zip(labels, values, strict=True)])
            if isinstance(value, dict):
                _render_histogram(lines, name, pairs, value)
            else:
                lines.append(f"{name}{{{pairs}}} {_number(value)}" if pairs else f"{name} {_number(value)}")
    lines.append("")
    return "\n".join(lines)


def _render_histogram(lines: list[str], name: str, pairs: str, value: dict[str, Any]) -> None:
    histogram = Histogram()
    histogram.add(value)
    before = pairs + "," if pairs else ""
    for bound, number in zip(BOUNDS, histogram.below(BOUNDS), strict=True):
        lines.append(f'{name}_bucket{{{before}le="{bound!r}"}} {number}')
    count = histogram.count
    tail = f"{{{pairs}}}" if pairs else ""
    lines.append(f'{name}_bucket{{{before}le="+Inf"}} {count}')
    lines.append(f"{name}_sum{tail} {histogram.total!r}")
    lines.append(f"{name}_count{tail} {count}")


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(int(value))
    if value != value:
        return "NaN"
    return {float("inf"): "+Inf", float("-inf"): "-Inf"}.get(value) or repr(value)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escape(text).replace('"', '\\"')
