"""A consumer is who a request is made for, once its credential was verified."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})


class Consumer:
    """Who is asking: made by an authenticator, shared between requests of the same credential, never changed.

    ``name`` is the consumer's (a client id, a subject); ``tier`` chooses the amounts of its limits; ``groups`` and ``scopes``
    are what routes ask for; ``claims`` the token's; ``credential`` a stable id of what was shown (``key:ab12``), never the
    secret; ``method`` how (``jwt``, ``api-key``, …); ``priority`` its rank when load is shed, None for the route's own.
    """

    __slots__ = ("claims", "credential", "groups", "method", "name", "priority", "scopes", "tier")

    def __init__(
        self,
        name: str,
        *,
        tier: str = "",
        groups: Iterable[str] = (),
        scopes: Iterable[str] = (),
        claims: Mapping[str, Any] = NO_CLAIMS,
        credential: str = "",
        method: str = "",
        priority: int | None = None,
    ) -> None:
        self.name = name
        self.tier = tier
        self.groups = frozenset(groups)
        self.scopes = frozenset(scopes)
        self.claims = claims
        self.credential = credential or name
        self.method = method
        self.priority = priority

    def __repr__(self) -> str:
        return f"<Consumer {self.name} by {self.method or 'hand'}>"
