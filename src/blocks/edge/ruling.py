"""What the fields of a response come to on a route, worked out once for a section: origins repeat theirs byte for byte within a second."""

from __future__ import annotations

from blocks.core.clock import Clock
from blocks.http.message import Section

from . import cache_status
from .dates import parse_date
from .freshness import Asked, Verdict, judge, parse_age
from .rules import Route
from .tags import GROUPS
from .validators import NEVER_STORED
from .vary import vary_names

_CHANGED = NEVER_STORED | {b"age"}  # without these a section is stored as its field lines are
_TAGGED = frozenset((b"surrogate-key", b"cache-tag", GROUPS))


class Ruling:
    """The verdict on a response, without jitter, and, when it may be stored, what else its fields say.

    ``names`` are the selecting fields (None for ``*``). ``made`` is its Date as a wall time, ``age`` its Age. ``tagged``: it has fields
    with tags. ``as_it_is``: its field lines are stored as they came.
    """

    __slots__ = ("_passed", "_reason", "age", "as_it_is", "asked", "made", "names", "status", "tagged", "verdict")

    def __init__(self, asked: Asked, status: int, verdict: Verdict, section: Section, wall: float) -> None:
        self.asked = asked
        self.status = status
        self.verdict = verdict
        self._passed: Section | None = None
        self._reason = ""
        self.names: tuple[bytes, ...] | None = None
        self.made: int | None = None
        self.age = 0
        self.tagged = self.as_it_is = False
        if verdict.refused:
            return
        index = section.index
        self.names = vary_names(section)
        date = index.get(b"date")
        self.made = parse_date(date[0], wall) if date else None
        self.age = parse_age(index.get(b"age"))
        self.tagged = not _TAGGED.isdisjoint(index)
        self.as_it_is = date is not None and not verdict.omit and _CHANGED.isdisjoint(index)

    def passed(self, section: Section, name: str, reason: str) -> Section:
        """The fields that the one who asked gets when the response was refused: ``section`` and Cache-Status."""
        passed = self._passed
        if passed is None or self._reason != reason:
            status = cache_status.forwarded(name, reason, self.status, detail=self.verdict.refused)
            passed = self._passed = Section([*section.pairs, (b"cache-status", status.encode("latin-1"))])
            self._reason = reason
        return passed


def ruling_of(asked: Asked, status: int, section: Section, route: Route, clock: Clock) -> Ruling:
    """The ruling on a response with those fields (RFC 9111 §3); dates are read by the ``clock``'s wall time.

    It is kept with the section unless it depends on when it was made: lifetimes of a response without Date are counted from now.
    """
    found: Ruling | None = section.derived.get(route)
    if found is not None and found.status == status and found.asked == asked:
        return found
    wall = clock.wall()
    verdict = judge(asked, status, section, route.policy, wall)
    ruling = Ruling(asked, status, verdict, section, wall)
    if verdict.refused or ruling.made is not None:
        section.derived[route] = ruling
    return ruling
