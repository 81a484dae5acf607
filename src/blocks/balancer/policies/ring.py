"""Consistent hashing with bounded loads: the same key to the same endpoint, unless that one has too much already.

Sources: Karger et al. 1997; the ring is libketama's (160 points); Mirrokni, Thorup, Zadimoghaddam 2016 for the bound.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

from blocks.core.errors import ConfigError
from blocks.http.message import Request

from ..endpoint import Endpoint

POINTS = (
    160  # points on the ring for an endpoint of average weight (libketama, nginx, Envoy's ring of 1024 for a few hosts)
)


def by_client(request: Request) -> bytes:
    """The client's address: the key that needs nothing from the client."""
    return str(request.peer.client[0]).encode()


def by_path(request: Request) -> bytes:
    """The path without the query: for endpoints that cache."""
    return request.target.partition("?")[0].encode()


def by_header(name: str) -> Callable[[Request], bytes]:
    """The value of a header; the client's address where it is missing."""
    key = name.lower().encode("latin-1")

    def read(request: Request) -> bytes:
        return request.headers.find(key) or by_client(request)

    return read


class Ring:
    """The endpoint that comes next on the ring after the hash of ``key(request)``; over the bound, the next after it.

    When an endpoint comes or goes only the keys of its part move. ``bound`` is how much over the average of requests under way
    an endpoint may have (1.25: the paper's and HAProxy's recommendation; ``math.inf`` for none). Raises ``ConfigError``.
    """

    name = "consistent-hash"

    def __init__(self, key: Callable[[Request], bytes] = by_client, bound: float = 1.25) -> None:
        if not bound > 1:
            raise ConfigError(f"bound is over 1 (1.25 allows a quarter over the average), not {bound!r}")
        self._key = key
        self._bound = bound
        self._endpoints: Sequence[Endpoint] = ()
        self._total = 0.0
        self._places: list[int] = []
        self._owners: list[Endpoint] = []
        self._kept: dict[tuple[str, int], list[int]] = {}

    def arrange(self, endpoints: Sequence[Endpoint]) -> None:
        """Lays the ring out; the points of an endpoint depend on its name and weight alone."""
        self._endpoints = endpoints
        self._total = sum(endpoint.share for endpoint in endpoints)
        points: list[tuple[int, int]] = []
        kept: dict[tuple[str, int], list[int]] = {}
        for at, endpoint in enumerate(endpoints):
            count = max(1, min(POINTS * 100, round(POINTS * endpoint.share)))
            key = (endpoint.name, count)
            places = self._kept.get(key) or [_place(f"{endpoint.name}-{n}".encode()) for n in range(count)]
            kept[key] = places
            points += [(place, at) for place in places]
        points.sort()
        self._kept = kept
        self._places = [place for place, _ in points]
        self._owners = [endpoints[at] for _, at in points]

    def first(self, request: Request, now: float) -> Endpoint:
        """The owner of the key, or the next that is within the bound."""
        at = bisect_left(self._places, _place(self._key(request)))
        owner = self._owners[at if at < len(self._owners) else 0]
        if owner.active < 1 or self._within(owner, self._under_way()):
            return owner
        return next(self.candidates(request, now))

    def candidates(self, request: Request, now: float) -> Iterator[Endpoint]:
        """All in the order of the ring, those within the bound before those over it."""
        owners = self._owners
        start = bisect_left(self._places, _place(self._key(request)))
        under_way = self._under_way()
        full: list[Endpoint] = []
        seen: set[int] = set()
        for step in range(len(owners)):
            endpoint = owners[(start + step) % len(owners)]
            if id(endpoint) in seen:
                continue
            seen.add(id(endpoint))
            if self._within(endpoint, under_way):
                yield endpoint
            else:
                full.append(endpoint)
            if len(seen) == len(self._endpoints):
                break
        yield from full

    def _under_way(self) -> int:
        return sum([endpoint.active for endpoint in self._endpoints]) + 1

    def _within(self, endpoint: Endpoint, under_way: int) -> bool:
        return endpoint.active + 1 <= max(1.0, self._bound * under_way * endpoint.share / self._total)


def _place(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
