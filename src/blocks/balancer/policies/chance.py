"""Random: by weight, with no memory. The yardstick for the others, and safe with any number of balancers side by side."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from random import Random

from blocks.http.message import Request

from ..endpoint import Endpoint


class Chance:
    """Each endpoint with a probability in proportion to its weight."""

    name = "random"

    def __init__(self, random: Random | None = None) -> None:
        self._random = random or Random()
        self._endpoints: Sequence[Endpoint] = ()
        self._sums: list[float] = []

    def arrange(self, endpoints: Sequence[Endpoint]) -> None:
        """Sets who is drawn, and with which weights."""
        self._endpoints = endpoints
        self._sums = list(accumulate(endpoint.share for endpoint in endpoints))

    def first(self, request: Request, now: float) -> Endpoint:
        """One draw."""
        sums = self._sums
        at = bisect_right(sums, self._random.random() * sums[-1])
        return self._endpoints[at if at < len(sums) else -1]

    def candidates(self, request: Request, now: float) -> Iterator[Endpoint]:
        """All, in a weighted random order (Efraimidis and Spirakis 2006)."""
        draw = self._random.random
        yield from sorted(self._endpoints, key=lambda endpoint: -(draw() ** (1.0 / endpoint.share)))
