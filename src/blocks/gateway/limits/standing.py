"""The two fields of a client's standing are put behind a response's own fields without writing those anew.

A service's head repeats: what does not depend on the request (its fields' wire form, the policies) is kept with it, and only the
RateLimit line is made for each answer.
"""

from __future__ import annotations

from typing import NamedTuple

from blocks.http.message import Pair, Response, Section

OURS = frozenset((b"ratelimit-policy", b"ratelimit"))


class _Known(NamedTuple):
    """What a service's head and the policies come to. It does not name the section it is kept with: that would be a cycle."""

    pairs: list[Pair]
    wire: bytes
    dated: bool


class Standing(Section):
    """A service's fields, RateLimit-Policy and RateLimit. The pairs as a list are made only when somebody asks for them."""

    __slots__ = ("_known", "_pairs", "_value")

    def __init__(self, known: _Known, value: bytes) -> None:
        self._known = known
        self._value = value
        self._pairs: list[Pair] | None = None
        self.derived = {}
        self._index = None
        self._wire = b"%bRatelimit: %b\r\n" % (known.wire, value)
        self._dated = known.dated
        self.sent = None

    @property
    def pairs(self) -> list[Pair]:  # type: ignore[override]  # read only here: a section never changes
        """(lower-case name, value) in order."""
        pairs = self._pairs
        if pairs is None:
            pairs = self._pairs = [*self._known.pairs, (b"ratelimit", self._value)]
        return pairs


def tell(response: Response, policy: bytes, value: bytes) -> None:
    """Put both fields on an answer; what a service behind said of its own limits is replaced."""
    headers = response.headers
    derived = headers.section.derived
    known: _Known | None = derived.get((OURS, policy))
    if known is None:
        known = derived[(OURS, policy)] = _work_out(headers.section, policy)
    headers.section = Standing(known, value)


def _work_out(section: Section, policy: bytes) -> _Known:
    pairs = section.pairs
    if any(pair[0] in OURS for pair in pairs):
        section = Section([pair for pair in pairs if pair[0] not in OURS])
    told = (b"ratelimit-policy", policy)
    return _Known([*section.pairs, told], b"%bRatelimit-Policy: %b\r\n" % (section.wire, policy), section.has_date)
