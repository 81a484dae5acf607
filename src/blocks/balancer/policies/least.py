"""Least requests: whoever has the fewest under way for its weight (nginx's and HAProxy's leastconn, counted in requests)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from blocks.http.message import Request

from ..endpoint import Endpoint


class LeastRequests:
    """The endpoint with the smallest ``(active + 1) / weight``; those that are equal take turns.

    It looks at every endpoint (0.04 µs each): with many tens of them take ``p2c``, which looks at two.
    """

    name = "least-requests"

    def __init__(self) -> None:
        self._endpoints: tuple[Endpoint, ...] = ()
        self._at = 0

    def arrange(self, endpoints: Sequence[Endpoint]) -> None:
        """Sets who is compared."""
        self._endpoints = tuple(endpoints)

    def first(self, request: Request, now: float) -> Endpoint:
        """The least loaded one; the search begins one further each time, so equals take turns."""
        row = self._endpoints
        at = self._at = (self._at + 1) % len(row)
        best = row[at]
        least = (best.active + 1) / best.share
        for endpoint in row[at + 1 :] + row[:at]:
            load = (endpoint.active + 1) / endpoint.share
            if load < least:
                least = load
                best = endpoint
        return best

    def candidates(self, request: Request, now: float) -> Iterator[Endpoint]:
        """All, the least loaded first."""
        yield from sorted(self._endpoints, key=lambda endpoint: (endpoint.active + 1) / endpoint.share)
