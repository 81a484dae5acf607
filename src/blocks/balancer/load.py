"""An endpoint's load is measured here; policies choose by it.

Peak-EWMA: a moving average of the seconds to an answer that jumps up at once to a slow answer and comes down slowly, weighted by time
and not by count. Source: Finagle's ``PeakEwma``, linkerd's default.
"""

from __future__ import annotations

from math import exp

from .endpoint import Endpoint

TAU = 10.0  # seconds in which an old reading loses 63 % of its weight (Finagle's and linkerd's decay)
PENALTY = 1.0  # seconds that failures can make of a reading: who fails fast must not look fast
GROWTH = (
    4.0  # one failure is worth a reading four times as long; a single one must not silence an endpoint for a minute
)


def observe(endpoint: Endpoint, seconds: float, now: float) -> None:
    """One more answer's head took ``seconds`` and came at ``now``."""
    ewma = endpoint.ewma
    if seconds >= ewma:
        endpoint.ewma = seconds
    else:
        kept = exp((endpoint.ewma_at - now) / TAU)
        endpoint.ewma = ewma * kept + seconds * (1.0 - kept)
    endpoint.ewma_at = now


def observe_failure(endpoint: Endpoint, seconds: float, now: float) -> None:
    """A request failed after ``seconds``: it counts as a slow one, and several in a row as a very slow one."""
    known = endpoint.ewma
    observe(endpoint, max(seconds, min(PENALTY, GROWTH * known) if known else PENALTY), now)


def score(endpoint: Endpoint, now: float) -> float:
    """What one more request is expected to cost there: ``ewma * (active + 1)`` for each unit of weight.

    The reading fades while nothing is sent, so an endpoint that was slow is tried again. One without a reading costs
    ``PENALTY`` for each request under way: it gets a first one at once and no flood before that was answered.
    """
    ewma = endpoint.ewma
    if ewma == 0.0:
        return PENALTY * endpoint.active / endpoint.share
    return ewma * exp((endpoint.ewma_at - now) / TAU) * (endpoint.active + 1) / endpoint.share
