"""One request on its way through the steps."""

from __future__ import annotations

from blocks.http.message import Request, Section

from .directives import Directives
from .entry import Entry
from .freshness import Asked
from .rules import Route
from .vary import variant_part

_MOST_PARTS = 64  # sets of selecting fields whose part of the key is kept with a section


class Facts:
    """What a request's header section says to this edge; computed once for each section, so once for a connection that repeats it.

    ``base`` begins every key (``scheme://host``), ``extra`` ends it. ``plain``: nothing in it asks for more than a stored response as
    it is. ``loops``: the request has been here before. ``forward`` is what goes to the origin in place of the section, made for
    ``forward_version``. It does not hold the section that holds it: a cycle for each header block would be left to the collector.
    """

    __slots__ = (
        "asked", "authorized", "base", "cookies", "directives", "extra", "forward", "forward_version", "loops", "parts", "plain", "url",
    )  # fmt: skip

    def __init__(
        self, section: Section, base: str, url: str, extra: str, plain: bool, loops: bool, directives: Directives
    ) -> None:
        self.base = base
        self.url = url  # scheme://host as the client sees it, for resolving references
        self.extra = extra
        self.plain = plain
        self.loops = loops
        self.directives = directives
        self.authorized = section.has(b"authorization")
        self.cookies = section.has(b"cookie")
        self.asked = Asked("GET", self.authorized, self.cookies)  # what a plain GET comes to, on a path that is plain
        self.forward: Section | None = None
        self.forward_version = 0
        self.parts: dict[tuple[bytes, ...], str] = {}  # by selecting fields: what this section adds to a variant's key

    def part(self, names: tuple[bytes, ...], section: Section) -> str:
        """What ``section``, whose facts these are, adds to the key of a variant that is selected by ``names``."""
        part = self.parts.get(names)
        if part is None:
            if len(self.parts) > _MOST_PARTS:
                self.parts.clear()
            part = self.parts[names] = variant_part(names, section)
        return part


class Visit:
    """The state of one request between steps."""

    __slots__ = (
        "asked",
        "behind",
        "collapse",
        "detail",
        "entry",
        "facts",
        "fetched_status",
        "key",
        "marker",
        "now",
        "reason",
        "request",
        "route",
        "section",
        "target",
    )

    def __init__(
        self, request: Request, facts: Facts, target: str, key: str, route: Route, asked: Asked, now: float
    ) -> None:
        self.request = request
        self.section = request.headers.section
        self.facts = facts
        self.target = target  # as it is forwarded: the rules of the key may have changed it
        self.key = key
        self.route = route
        self.asked = asked
        self.now = now  # monotonic
        self.entry: Entry | None = None  # what was found, fresh or not
        self.marker: Entry | None = None  # the MARKER that led to it
        self.collapse = True
        self.behind = False  # no client waits for it
        self.reason = ""  # why it goes to the origin (RFC 9211 §2.2)
        self.detail = ""
        self.fetched_status = 0

    @property
    def directives(self) -> Directives:
        """The request's Cache-Control."""
        return self.facts.directives

    @property
    def path(self) -> str:
        """The path, undecoded."""
        return self.target.partition("?")[0]
