"""One request on its way through the steps."""

from __future__ import annotations

from blocks.http.message import Pair, Request, Section

from .directives import Directives
from .entry import Entry
from .freshness import Asked
from .rules import Route


class Facts:
    """What a request's header section says to this edge; computed once for each section, so once for a connection that repeats it.

    ``base`` begins every key (``scheme://host``), ``extra`` ends it. ``plain``: nothing in it asks for more than a stored response as
    it is. ``forward`` is what goes to the origin in place of the section.
    """

    __slots__ = ("authorized", "base", "cookies", "directives", "extra", "forward", "parts", "plain", "section", "url")

    def __init__(self, section: Section, base: str, url: str, extra: str, plain: bool, directives: Directives) -> None:
        self.section = section
        self.base = base
        self.url = url  # scheme://host as the client sees it, for resolving references
        self.extra = extra
        self.plain = plain
        self.directives = directives
        self.authorized = section.has(b"authorization")
        self.cookies = section.has(b"cookie")
        self.forward: list[Pair] | None = None
        self.parts: dict[tuple[bytes, ...], str] = {}  # by selecting fields: what this section adds to a variant's key


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
        "target",
    )

    def __init__(
        self, request: Request, facts: Facts, target: str, key: str, route: Route, asked: Asked, now: float
    ) -> None:
        self.request = request
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
    def section(self) -> Section:
        """The request's fields."""
        return self.facts.section

    @property
    def path(self) -> str:
        """The path, undecoded."""
        return self.target.partition("?")[0]
