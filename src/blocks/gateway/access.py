"""An address is let in or kept out by network: ``deny`` goes first, and where ``allow`` is said nobody else comes in.

The address is the believed one (``context.client``): the peer's, or what a trusted hop says.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any

import msgspec

from blocks.core.errors import ConfigError
from blocks.http.message import Request, Response

from .context import Context
from .problem import problem

if TYPE_CHECKING:
    from .site import Site

MAX_REMEMBERED = 16_384  # addresses whose verdict is remembered; beyond it the memory starts again
Network = IPv4Network | IPv6Network


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``allow`` and ``deny``: addresses and networks (``"10.0.0.0/8"``, ``"2001:db8::/32"``); ``unix``: peers on a Unix socket come in."""

    allow: list[str] = []
    deny: list[str] = []
    unix: bool = True


class Access:
    """The step that answers 403 to addresses that may not come in."""

    name = "access"

    def __init__(self, allow: list[str], deny: list[str], *, unix: bool = True) -> None:
        self._allow = [_network(text, "allow", place) for place, text in enumerate(allow)]
        self._deny = [_network(text, "deny", place) for place, text in enumerate(deny)]
        self._unix = unix
        self._verdicts: dict[str, bool] = {}
        self.refused = 0

    def check(self, request: Request, context: Context) -> Response | None:
        """None, or 403."""
        allowed = self._verdicts.get(context.client)
        if allowed is None:
            allowed = self.allows(context.client)
            if len(self._verdicts) >= MAX_REMEMBERED:
                self._verdicts.clear()
            self._verdicts[context.client] = allowed
        if allowed:
            return None
        self.refused += 1
        return problem(403, "Forbidden", "this address may not come in", reason="address")

    def allows(self, client: str) -> bool:
        """Whether an address may come in; what is no address comes in only from a Unix socket."""
        try:
            address = ip_address(client)
        except ValueError:
            return self._unix if client in ("unix", "") else False
        address = getattr(address, "ipv4_mapped", None) or address
        if any(address in network for network in self._deny):
            return False
        return not self._allow or any(address in network for network in self._allow)

    def figures(self) -> dict[str, int]:
        """Counters for the metrics."""
        return {"refused": self.refused}


def _network(text: str, key: str, place: int) -> Network:
    try:
        return ip_network(text, strict=True)
    except ValueError as problem:
        error = ConfigError(f"{text!r} is not a network: {problem}; write it like 10.0.0.0/8 or 2001:db8::/32")
        error.at = (key, place)  # type: ignore[attr-defined]  # where in the table
        raise error from None


def step(settings: Any, site: Site) -> Access:
    """The step of a route's ``access``. Raises ``ConfigError``."""
    if not isinstance(settings, Settings) or not (settings.allow or settings.deny):
        raise ConfigError('access is a table with allow = ["10.0.0.0/8"], deny = […] or both')
    return Access(settings.allow, settings.deny, unix=settings.unix)
