"""Policies by name: ``p2c`` (the default), ``round-robin``, ``least-requests``, ``random``, ``consistent-hash``."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from random import Random

from blocks.core.errors import ConfigError

from .chance import Chance
from .least import LeastRequests
from .p2c import P2C
from .policy import Policy
from .ring import Ring, by_client, by_header, by_path
from .robin import RoundRobin

__all__ = [
    "P2C",
    "POLICIES",
    "Chance",
    "LeastRequests",
    "Policy",
    "Ring",
    "RoundRobin",
    "by_client",
    "by_header",
    "by_path",
    "policy_of",
]

POLICIES: dict[str, Callable[[Random], Policy]] = {
    "p2c": lambda random: P2C(random),
    "round-robin": lambda random: RoundRobin(),
    "least-requests": lambda random: LeastRequests(),
    "random": lambda random: Chance(random),
    "consistent-hash": lambda random: Ring(),
}
_ALIASES = {
    "p2c-ewma": "p2c",
    "peak-ewma": "p2c",
    "rr": "round-robin",
    "weighted": "round-robin",
    "weighted-round-robin": "round-robin",
    "smooth-weighted": "round-robin",
    "least": "least-requests",
    "least-conn": "least-requests",
    "leastconn": "least-requests",
    "hash": "consistent-hash",
    "ring": "consistent-hash",
}


def policy_of(policy: Policy | str, random: Random) -> Policy:
    """A policy from itself or from its name; "_" counts as "-". Raises ``ConfigError`` with the nearest name."""
    if not isinstance(policy, str):
        return policy
    name = policy.lower().replace("_", "-")
    make = POLICIES.get(_ALIASES.get(name, name))
    if make is None:
        near = get_close_matches(name, [*POLICIES, *_ALIASES], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"there is no policy {policy!r}{hint} (there are {', '.join(POLICIES)})")
    return make(random)
