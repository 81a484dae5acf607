"""What a client is told of its limits: RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10), Retry-After, a problem.

Both are structured fields (RFC 9651): ``RateLimit-Policy: "default";q=100;w=60`` and ``RateLimit: "default";r=50;t=30``. ``t`` is
when all of the quota is there again; on a refusal it is when this request would pass, only the limits that refuse are
listed, and Retry-After is the latest of their ``t``: never earlier than any.
"""

from __future__ import annotations

import json
from math import ceil, inf
from typing import Any

from blocks.http.message import Headers, Pair, Response, Section

from ..problem import PROBLEM_TYPE
from .concurrency import Concurrency

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
_MOST_MADE = 256  # refusals remembered for a route
_MOST = 999_999_999_999_999  # the largest Integer of a structured field (RFC 9651 §3.3.1)


def label_of(name: str) -> bytes:
    """A limit's name as a structured String; what such a string cannot hold becomes "?"."""
    text = "".join(letter if " " <= letter <= "~" else "?" for letter in name)
    return b'"%s"' % text.replace("\\", "\\\\").replace('"', '\\"').encode()


def policy_of(label: bytes, own: Any) -> bytes:
    """One item of RateLimit-Policy for an algorithm: the quota and its window in whole seconds."""
    if isinstance(own, Concurrency):
        return b'%s;q=%d;qu="concurrent-requests"' % (label, own.amount)
    amount, period = own.amount, own.period
    if period < 1:
        amount, period = amount / period, 1.0
    return b"%s;q=%d;w=%d" % (label, min(amount, _MOST), ceil(period))


def standing_of(label: bytes, own: Any, key: str, now: float) -> bytes:
    """One item of RateLimit: what is left for the key, and the seconds until all of it is there."""
    left, reset = own.standing(key, now)
    if left > own.amount:
        left = own.amount
    if reset > 0:
        return b"%s;r=%d;t=%d" % (label, left, ceil(reset))
    return b"%s;r=%d" % (label, left)


def item(label: bytes, left: float, reset: float) -> bytes:
    """``"name";r=LEFT;t=RESET``; without ``t`` when there is nothing to wait for."""
    seconds = ceil(reset)
    return b"%s;r=%d;t=%d" % (label, left, seconds) if seconds > 0 else b"%s;r=%d" % (label, left)


class Refusals:
    """Makes the 429 answers of one route. One that repeats, to the second of its wait, is put together once, wire form and all."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], tuple[Section, bytes]] = {}

    def refuse(self, refused: list[tuple[str, bytes, bytes, float]]) -> Response:
        """The answer when these refused: (name, label, policy or b"" when clients are not told, wait in seconds)."""
        if len(refused) == 1:
            name, _, policy, wait = refused[0]
            key: tuple[object, ...] = (name, policy, wait if wait == inf else ceil(wait))
        else:
            key = tuple([(name, policy, wait if wait == inf else ceil(wait)) for name, _, policy, wait in refused])
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= _MOST_MADE:
                self._made.clear()
            made = self._made[key] = (_refusal(refused), _body([name for name, _, _, _ in refused]))
        return Response(429, Headers.of(made[0]), made[1])


def _refusal(refused: list[tuple[str, bytes, bytes, float]]) -> Section:
    pairs: list[Pair] = [(b"content-type", PROBLEM_TYPE), (b"cache-control", b"no-store")]
    longest = max(wait for _, _, _, wait in refused)
    if longest < inf:
        pairs.append((b"retry-after", b"%d" % max(ceil(longest), 1)))
    told = [entry for entry in refused if entry[2]]
    if told:
        pairs.append((b"ratelimit-policy", b", ".join([policy for _, _, policy, _ in told])))
        items = [b"%s;r=0" % label if wait == inf else item(label, 0, wait) for _, label, _, wait in told]
        pairs.append((b"ratelimit", b", ".join(items)))
    return Section(pairs)


def _body(names: list[str]) -> bytes:
    title = "Request cannot be satisfied as assigned quota has been exceeded"
    return json.dumps({"type": QUOTA_EXCEEDED, "title": title, "status": 429, "violated-policies": names}).encode()
