"""Expensive checks are rationed, for each client and for all together, so that a flood of bad credentials cannot take the CPU.

The generic cell rate algorithm (ITU-T I.371): one number a client, the time at which its debt is paid.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address

from blocks.core.quantities import Rate

MAX_CLIENTS = 10_000  # remembered; the one longest not seen anew is forgotten first, and the cap for all still holds
_ROUNDING = 1e-9  # seconds; below it, a wait is what floats leave over


class Allowance:
    """At most ``client`` units for each client and ``total`` units for all, each with a burst of one period's amount."""

    __slots__ = ("_clients", "_total", "client", "refused", "total")

    def __init__(self, client: Rate | None, total: Rate | None) -> None:
        self.client = client
        self.total = total
        self.refused = 0
        # A plain dict would look for its first entry among all that left before: 2 µs a new client.
        self._clients: OrderedDict[str, float] = OrderedDict()
        self._total = 0.0

    def wait(self, client: str, now: float) -> float:
        """Seconds until ``client`` may spend again; 0.0 when it may now. Nothing is spent."""
        client = subscriber(client)
        wait = 0.0
        if self.client is not None:
            wait = self._clients.get(client, 0.0) + 1 / self.client.per_second - now - self.client.period
        if self.total is not None:
            wait = max(wait, self._total + 1 / self.total.per_second - now - self.total.period)
        if wait > _ROUNDING:
            self.refused += 1
            return wait
        return 0.0

    def spend(self, client: str, now: float, units: float = 1.0) -> None:
        """Charge ``units`` to the client and one to all."""
        client = subscriber(client)
        if self.client is not None:
            due = max(self._clients.pop(client, 0.0), now)
            self._clients[client] = due + units / self.client.per_second
            if len(self._clients) > MAX_CLIENTS:
                self._clients.popitem(last=False)
        if self.total is not None:
            self._total = max(self._total, now) + 1 / self.total.per_second


def subscriber(client: str) -> str:
    """The address, or of an IPv6 address its /64, which is one subscriber's (RFC 6177)."""
    if ":" not in client:
        return client
    try:
        return f"{int(IPv6Address(client)) >> 64:x}::/64"
    except ValueError:
        return client
