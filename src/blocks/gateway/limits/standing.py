"""The two fields of a client's standing are put behind a response's own fields without writing those anew.

A service's head repeats: what does not depend on the request (its fields' wire form, the policies) is kept with it, and only the
RateLimit line is made anew, when it says something new.
"""

from __future__ import annotations

from blocks.http.message import Pair, Response, Section

OURS = frozenset((b"ratelimit-policy", b"ratelimit"))
_NOTHING = Section([])


class Standing(Section):
    """A service's fields, RateLimit-Policy and RateLimit. The pairs as a list are made only when somebody asks for them."""

    __slots__ = ("_before", "_pairs", "value")

    def __init__(self, before: list[Pair], wire: bytes, value: bytes, *, dated: bool) -> None:
        self.value = value
        self._before = before
        self._pairs: list[Pair] | None = None
        self.derived = {}
        self._index = None
        self._wire = b"%bRatelimit: %b\r\n" % (wire, value)
        self._dated = dated
        self.sent = None

    @property
    def pairs(self) -> list[Pair]:  # type: ignore[override]  # read only here: a section never changes
        """(lower-case name, value) in order."""
        pairs = self._pairs
        if pairs is None:
            pairs = self._pairs = [*self._before, (b"ratelimit", self.value)]
        return pairs


class Known:
    """What a service's head and the policies come to, and the last answer made of them: a client far below its limits
    stands where it stood, so that the head is often the very same. It does not name the section it is kept with: a cycle."""  # fmt: skip

    __slots__ = ("_dated", "_pairs", "_wire", "last", "numbers", "policy")

    def __init__(self, section: Section, policy: bytes) -> None:
        self.policy = policy
        pairs = section.pairs
        if section.has(b"ratelimit") or section.has(b"ratelimit-policy"):
            section = Section([pair for pair in pairs if pair[0] not in OURS])
        self._pairs = [*section.pairs, (b"ratelimit-policy", policy)]
        self._wire = b"%bRatelimit-Policy: %b\r\n" % (section.wire, policy)
        self._dated = section.has_date
        self.last = _NOTHING
        self.numbers: list[float] | None = None  # what ``last`` was formatted from, None when nobody can tell by them

    def say(self, value: bytes, numbers: list[float] | None = None) -> Section:
        """The head with this RateLimit."""
        self.numbers = numbers
        last = self.last
        if type(last) is not Standing or last.value != value:
            last = self.last = Standing(self._pairs, self._wire, value, dated=self._dated)
        return last


def known_of(section: Section, policy: bytes) -> Known:
    """What is known of a service's head; what it said of its own limits is replaced. One is kept with a head: the last policy's."""
    known: Known | None = section.derived.get(OURS)
    if known is None or known.policy != policy:
        known = section.derived[OURS] = Known(section, policy)
    return known


def tell(response: Response, policy: bytes, value: bytes) -> None:
    """Put both fields on an answer."""
    headers = response.headers
    headers.section = known_of(headers.section, policy).say(value)
