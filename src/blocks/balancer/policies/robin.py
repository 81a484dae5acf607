"""Round robin that honours weights: nginx's smooth weighted round robin, and a plain turn while all weigh the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from blocks.http.message import Request

from ..endpoint import Endpoint


class RoundRobin:
    """Every endpoint in turn, in proportion to its weight and as evenly spread as can be: 5:1:1 gives a a b a c a a.

    With equal weights a turn costs the same for any number of endpoints; with unequal ones it grows with them
    (0.03 µs each), as nginx's does: with many tens of unequal endpoints take ``p2c``.
    """

    name = "round-robin"

    def __init__(self) -> None:
        self._endpoints: Sequence[Endpoint] = ()
        self._even = True
        self._total = 0.0
        self._at = -1

    def arrange(self, endpoints: Sequence[Endpoint]) -> None:
        """Keeps the credits of those that stay, so that a change favours nobody."""
        stayed = set(self._endpoints)
        for endpoint in endpoints:
            if endpoint not in stayed:
                endpoint.turn = 0.0
        even = len({endpoint.share for endpoint in endpoints}) <= 1
        if even != self._even:
            for endpoint in endpoints:
                endpoint.turn = 0.0
        self._endpoints = endpoints
        self._even = even
        self._total = sum(endpoint.share for endpoint in endpoints)

    def first(self, request: Request, now: float) -> Endpoint:
        """The one whose turn it is."""
        endpoints = self._endpoints
        if self._even:
            at = self._at = (self._at + 1) % len(endpoints)
            return endpoints[at]
        best = endpoints[0]
        most = float("-inf")
        for endpoint in endpoints:
            turn = endpoint.turn = endpoint.turn + endpoint.share
            if turn > most:
                most = turn
                best = endpoint
        best.turn -= self._total
        return best

    def candidates(self, request: Request, now: float) -> Iterator[Endpoint]:
        """Those who come next; asking moves no turn."""
        endpoints = self._endpoints
        if self._even:
            for step in range(len(endpoints)):
                yield endpoints[(self._at + step) % len(endpoints)]
        else:
            yield from sorted(endpoints, key=lambda endpoint: -endpoint.turn)
