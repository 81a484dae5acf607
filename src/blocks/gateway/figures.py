"""What a route did: requests, answers by class, refusals by step, and how long they took. Plain integers; a reader names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from blocks.core.histogram import Histogram
from blocks.core.metrics import OTHER, Reading

MAX_NAMED = 200  # consumers with figures of their own: labels must be bounded (Prometheus' advice: hundreds at most)
MAX_CONSUMERS = 50  # keys that are told apart; the sketch replaces the least of them


_NONE = Histogram()


class Figures:
    """One for each route. ``classes[s]`` counts answers of ``s``xx; ``classes[0]`` those that ended in an exception.

    ``durations`` has 11 KiB, made at the first answer: most of a thousand routes have none yet.
    """

    __slots__ = ("classes", "durations", "refused", "refused_by")

    durations: Histogram

    def __init__(self) -> None:
        self.classes = [0] * 10  # a service may answer anything of three digits
        self.refused = 0
        self.refused_by: dict[str, int] = {}

    def __getattr__(self, name: str) -> Histogram:
        """Called when there is nothing of that name yet."""
        if name != "durations":
            raise AttributeError(name)
        self.durations = made = Histogram()
        return made

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(self.classes)

    def refuse(self, step: str) -> None:
        """A step answered instead of the service."""
        self.refused += 1
        self.refused_by[step] = self.refused_by.get(step, 0) + 1


class ByConsumer:
    """Requests, errors and refusals by limits of each consumer; those who come when ``size`` are known are counted as ``other``."""

    __slots__ = ("counts", "size")

    def __init__(self, size: int = MAX_NAMED) -> None:
        self.size = size
        self.counts: dict[str, list[int]] = {}

    def add(self, name: str, status: int) -> None:
        """One answer."""
        entry = self.counts.get(name)
        if entry is None:
            if len(self.counts) >= self.size:
                name = OTHER
            entry = self.counts.setdefault(name, [0, 0, 0])
        entry[0] += 1
        if status >= 500:
            entry[1] += 1
        elif status == 429:
            entry[2] += 1

    def readings(self) -> Iterable[Reading]:
        """As Prometheus series."""
        for name, (requests, errors, limited) in self.counts.items():
            label = (("consumer", name),)
            yield Reading("blocks_gateway_consumer_requests_total", "counter", "Requests by consumer.", label, requests)
            yield Reading(
                "blocks_gateway_consumer_errors_total", "counter", "Answers of 5xx by consumer.", label, errors
            )
            yield Reading(
                "blocks_gateway_consumer_limited_total", "counter", "Answers of 429 by consumer.", label, limited
            )


def readings(figures: Iterable[tuple[str, Figures]]) -> Iterable[Reading]:
    """The figures of all routes as Prometheus series; labels are route names and step names, bounded by the configuration."""
    for route, own in figures:
        label = ("route", route)
        for leading, number in enumerate(own.classes):
            if number:
                code = f"{leading}xx" if leading else "failed"
                yield Reading(
                    "blocks_gateway_requests_total", "counter", "Requests by route and class of the answer.",
                    (label, ("code", code)), number,
                )  # fmt: skip
        for step, number in own.refused_by.items():
            yield Reading(
                "blocks_gateway_refusals_total", "counter", "Requests that a step answered instead of the service.",
                (label, ("step", step)), number,
            )  # fmt: skip
        yield Reading(
            "blocks_gateway_request_seconds", "histogram", "Seconds from the request's head to the answer's.",
            (label,), own.durations if own.requests else _NONE,
        )  # fmt: skip


def step_readings(route: str, step: str, counts: Mapping[str, int]) -> Iterable[Reading]:
    """What a step counts by itself."""
    for what, number in counts.items():
        labels = (("route", route), ("step", step), ("what", what))
        yield Reading("blocks_gateway_step_events_total", "counter", "What steps count by themselves.", labels, number)


class Top:
    """Who does something most, in bounded memory: of ``size`` names each count is too high by at most its ``error``.

    The Space-Saving sketch (Metwally et al., 2005): a newcomer takes the place of the least and inherits its count.
    """

    __slots__ = ("_counts", "size")

    def __init__(self, size: int = MAX_CONSUMERS) -> None:
        self.size = size
        self._counts: dict[str, list[int]] = {}

    def add(self, name: str) -> None:
        """Count one for ``name``."""
        entry = self._counts.get(name)
        if entry is not None:
            entry[0] += 1
        elif len(self._counts) < self.size:
            self._counts[name] = [1, 0]
        else:
            least = min(self._counts, key=lambda known: self._counts[known][0])
            count = self._counts.pop(least)[0]
            self._counts[name] = [count + 1, count]

    def most(self, number: int = 10) -> list[dict[str, Any]]:
        """The ``number`` names that were counted most: ``{"name", "count", "error"}``."""
        rows = sorted(self._counts.items(), key=lambda item: -item[1][0])[:number]
        return [{"name": name, "count": count, "error": error} for name, (count, error) in rows]
