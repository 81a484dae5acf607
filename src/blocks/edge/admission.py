"""Who may cause a request to the origin: bounds on all, on one client, and against going in circles (RFC 8586)."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from random import Random

from blocks.core.errors import ClientFault, ConfigError, Unavailable
from blocks.core.quantities import Rate
from blocks.http.message import Pair, Section

MOST_CLIENTS = 10_000  # clients whose rate is remembered; the one unseen for longest goes
MOST_HOPS = 16  # edges that a request may pass before it counts as going in circles
_PSEUDONYM = re.compile(
    r"[0-9A-Za-z._-]+"
)  # of what a token may hold (RFC 9110 §7.6.3), what no log or filter stumbles over
_LOOP, _VIA = b"cdn-loop", b"via"


class LoopDetected(ClientFault):
    """The request has been here before (508, RFC 5842 §7.2)."""

    status = 508
    reason = "loop"


class TooManyFills(ClientFault):
    """One client causes more requests to the origin than it may (429, RFC 6585 §4)."""

    status = 429
    reason = "fill-rate"


class Admission:
    """Counts requests to the origin; ``limit`` at a time, ``per_client`` for each client (a bucket that holds one period's worth).

    ``under_way`` goes up with ``enter`` and is to be counted down by whoever entered. ``bounded``: clients have rates. ``via`` is the name
    in Via, None for no Via.
    """

    def __init__(self, name: str, limit: int, per_client: Rate | None, random: Random, via: str | None) -> None:
        self.limit = limit
        self.under_way = 0
        self.bounded = per_client is not None
        self._rate = per_client
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client: (tokens, at)
        if via is not None and not _PSEUDONYM.fullmatch(via):
            raise ConfigError(f"via={via!r} cannot stand in Via: letters, digits, dot, dash and underscore only")
        self._via = via.encode("ascii") if via is not None else None
        self._id = f"{name}-{random.getrandbits(32):08x}".encode("latin-1")

    def enter(self, client: str, now: Callable[[], float], behind: bool) -> None:
        """One more. Raises ``Unavailable`` over the limit, ``TooManyFills`` over the client's rate. ``behind``: no client waits."""
        if self.under_way >= self.limit:
            raise Unavailable("too many requests to the origin at a time", reason="too-many-fills")
        if self._rate is not None and not behind:
            self._take(client, now(), self._rate)
        self.under_way += 1

    def _take(self, client: str, now: float, allowed: Rate) -> None:
        tokens, at = self._buckets.pop(client, (allowed.amount, now))
        tokens = min(allowed.amount, tokens + (now - at) * allowed.per_second)
        enough = tokens >= 1
        self._buckets[client] = (tokens - 1 if enough else tokens, now)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if not enough:
            raise TooManyFills("this client asks for too much that is not stored")

    def is_loop(self, section: Section) -> bool:
        """Whether the request has passed this edge, or too many."""
        lines = section.index.get(_LOOP)
        if lines is None:
            return False
        hops = [hop.strip().partition(b";")[0] for hop in b",".join(lines).split(b",")]
        return self._id in hops or len(hops) >= MOST_HOPS

    def marked(self, pairs: list[Pair], version: int) -> list[Pair]:
        """The fields with this edge among those that the request passed: CDN-Loop (RFC 8586), and Via (RFC 9110 §7.6.3).

        ``version`` is that of the request that came, 10 or 11.
        """
        hops = [value for name, value in pairs if name == _LOOP]
        out = [pair for pair in pairs if pair[0] != _LOOP]
        if self._via is not None:
            before = [value for name, value in pairs if name == _VIA]
            out = [pair for pair in out if pair[0] != _VIA] if before else out
            out.append((_VIA, b", ".join([*before, (b"1.0 " if version == 10 else b"1.1 ") + self._via])))
        out.append((_LOOP, b", ".join([*hops, self._id])))
        return out
