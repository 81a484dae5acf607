"""The broker's numbers as Prometheus series: what ``Engine.stats`` says, and the lag of the first groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from blocks.core.metrics import Reading

if TYPE_CHECKING:
    from .broker import Broker

GROUPS = 100  # groups with a lag of their own: labels must be bounded
_COUNTERS = {
    "published": "Messages stored.",
    "duplicates": "Messages that were stored before.",
    "refused": "Messages that were refused.",
    "delivered": "Deliveries, repeated ones too.",
    "acked": "Messages that are done.",
    "dead_letters": "Messages that were given up.",
    "scheduled": "Messages stored for later.",
}


def readings(broker: Broker, labels: tuple[tuple[str, str], ...] = ()) -> Iterator[Reading]:
    """Every series of a broker, named ``blocks_broker_<noun>``; at most 20 and one for each of 100 groups."""
    engine = broker.engine
    for name, value in engine.stats().items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            if name in _COUNTERS:
                yield Reading(f"blocks_broker_{name}_total", "counter", _COUNTERS[name], labels, value)
            else:
                yield Reading(
                    f"blocks_broker_{name}", "gauge", f"{name.replace('_', ' ').capitalize()} now.", labels, value
                )
    yield Reading(
        "blocks_broker_status", "gauge", "2: takes all, 1: degraded, 0: nothing.", labels, int(broker.status), "min"
    )
    lags: dict[str, int] = {}
    for row in engine.lag():
        if row["group"] in lags or len(lags) < GROUPS:
            lags[row["group"]] = lags.get(row["group"], 0) + row["lag"]
    for group, lag in lags.items():
        own = (*labels, ("group", group))
        yield Reading("blocks_broker_group_lag", "gauge", "Messages that are not done, by group.", own, lag)
