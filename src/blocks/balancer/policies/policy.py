"""A policy yields endpoints in order of liking. It keeps no health: capacity, health and retry rules consume what it yields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from blocks.http.message import Request

from ..endpoint import Endpoint


class Policy(Protocol):
    """Chooses among the endpoints in rotation. Write your own with these three methods."""

    name: str

    def arrange(self, endpoints: Sequence[Endpoint]) -> None:
        """The rotation, or a weight in it, changed; ``endpoints`` is a tuple that will not change, and may be empty."""
        ...

    def first(self, request: Request, now: float) -> Endpoint:
        """The one liked best: the hot path. Not called while the rotation is empty."""
        ...

    def candidates(self, request: Request, now: float) -> Iterator[Endpoint]:
        """All of them, the best first, each once: asked when the first could not take the request."""
        ...
