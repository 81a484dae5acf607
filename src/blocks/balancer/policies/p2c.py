"""P2C: of two drawn at random the one that is expected to answer first (Mitzenmacher 2001; Finagle's and linkerd's default)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from blocks.http.message import Request

from ..endpoint import Endpoint
from ..load import score


class P2C:
    """Two endpoints drawn at random, the one with the lower ``ewma * (active + 1) / weight`` is taken: two numbers, no sort.

    Slow and failing endpoints get little, a herd cannot form, and the price is the same for any number of endpoints.
    """

    name = "p2c"

    def __init__(self, random: Random | None = None) -> None:
        self._draw = (random or Random()).random
        self._endpoints: Sequence[Endpoint] = ()
        self._many = 0

    def arrange(self, endpoints: Sequence[Endpoint]) -> None:
        """Sets who is drawn from."""
        self._endpoints = endpoints
        self._many = len(endpoints)

    def first(self, request: Request, now: float) -> Endpoint:
        """The better of two."""
        many = self._many
        endpoints = self._endpoints
        if many == 1:
            return endpoints[0]
        draw = self._draw
        i = int(draw() * many)
        j = int(draw() * (many - 1))
        if j >= i:
            j += 1
        one, other = endpoints[i], endpoints[j]
        return one if score(one, now) <= score(other, now) else other

    def candidates(self, request: Request, now: float) -> Iterator[Endpoint]:
        """All, the one that is expected to answer first before the others."""
        yield from sorted(self._endpoints, key=lambda endpoint: score(endpoint, now))
