"""What nodes are made on: clocks, folders, the handlers and brokers that they may name, and a list of what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from blocks.core.clock import Clock
from blocks.core.config.complaint import At, Complaint
from blocks.core.config.suggest import suggestion
from blocks.core.errors import ConfigError
from blocks.http.handler import Handler, chain
from blocks.http.message import Request, Response

from .node import Node
from .slot import Slot
from .source import Source
from .tables import HANDLERS, StackTable, Table

_KINDS = frozenset(StackTable.__struct_fields__)


class Places:
    """Where the handler of a name stands: ``front`` as servers, gateways and edges call it, ``member`` as balancers do."""

    __slots__ = ("front", "member")

    def __init__(self, name: str) -> None:
        self.front = Slot(name)
        self.member = Slot(name)

    def put(self, node: Node) -> None:
        """Let ``node`` answer from the next request on."""
        self.front.put(node.front)
        self.member.put(node.member)


class Bench:
    """Given to every ``make(name, table, bench)``. ``before`` are the nodes that run now, when a stack is made anew."""

    def __init__(
        self,
        source: Source,
        settings: StackTable,
        *,
        clock: Clock,
        random: Random,
        shards: int,
        environment: Mapping[str, str],
        places: Mapping[str, Places],
        before: Mapping[tuple[str, str], Node],
    ) -> None:
        self.source = source
        self.settings = settings
        self.clock = clock
        self.random = random
        self.shards = shards
        self.environment = environment
        self.before = before
        self.complaints: list[Complaint] = []
        self.brokers: dict[str, Any] = {}
        self.at: At = ()
        self.needs: dict[str, At] = {}
        tables = source.tables
        names = [
            name
            for kind in tables
            if kind in HANDLERS or kind not in _KINDS  # a name is a name, even in a misspelt kind of table
            if isinstance(tables[kind], Mapping)
            for name in tables[kind]
        ]
        self.places: dict[str, Places] = {name: places.get(name) or Places(name) for name in names}

    def begin(self, at: At) -> None:
        """What is made from now on is the node of the table at ``at``."""
        self.at = at
        self.needs = {}

    def complain(self, at: At, message: str, level: str = "error") -> None:
        """Note what is wrong; ``at`` is below the table of the node."""
        self.complaints.append(Complaint((*self.at, *at), message, level))

    def draw(self) -> Random:
        """A generator of its own for one node, from the stack's seed."""
        return Random(self.random.random())

    def path(self, text: str) -> Path:
        """A path that the table names: relative to the folder of its file."""
        return self.source.folder(self.at) / text

    # -- references

    def front(self, reference: str, *at: str | int) -> Handler:
        """The handler of a NAME, or an upstream for a URL, as servers, gateways and edges call it. What is wrong is noted."""
        if is_url(reference):
            try:
                return self.told(self.upstream(reference), True, ())
            except ConfigError as error:
                self.complain(at, str(error))
                return nobody
        place = self.place(reference, *at)
        return nobody if place is None else place.front

    def member(self, reference: str, *at: str | int) -> Handler:
        """The handler of a NAME as a balancer calls it."""
        place = self.place(reference, *at)
        return nobody if place is None else place.member

    def place(self, name: str, *at: str | int) -> Places | None:
        """Where the handler of that name stands; None, and noted, when there is none."""
        self.needs.setdefault(name, (*self.at, *at))
        place = self.places.get(name)
        if place is None:
            self.complain(at, f"there is no handler {name!r}{meant(name, self.places)}")
        return place

    def part(self, name: str, *at: str | int) -> Any:
        """The broker or handler of that name, for code that is given it; None, and noted, when there is none, or one of each."""
        if name not in self.source.tables.get("brokers", ()):
            if name in self.places:
                return self.front(name, *at)
            known = [*self.places, *self.source.tables.get("brokers", ())]
            self.complain(at, f"there is no handler and no broker {name!r}{suggestion(name, known)}")
        elif name in self.places:
            self.complain(at, f"{name!r} is a handler and a broker: which one is needed?")
        return self.brokers.get(name)

    def upstream(self, url: str, **settings: Any) -> Any:
        """An upstream of ours. Raises ``ConfigError``."""
        from blocks.http.upstream import Upstream

        return Upstream(url, **settings)

    def told(self, handler: Handler, forwarded: bool, trusted: Iterable[str]) -> Handler:
        """``handler`` behind the filter that tells it who the client is. Raises ``ConfigError``."""
        if not forwarded:
            return handler
        from blocks.http.filters.forwarded import Forwarded

        return chain(Forwarded(trusted), to=handler)


def placed(complaint: Complaint, at: At, table: Any) -> Complaint:
    """A constructor's error at the key that it speaks of, where that can be told from its words."""
    for key in complaint.at[len(at) :]:
        table = getattr(table, str(key), None)
    at = complaint.at
    if not isinstance(table, Table):
        return complaint
    words = complaint.message.replace("=", " ").replace(":", " ").replace(",", " ").split()
    keys = [key for key in table.__struct_fields__ if getattr(table, key) is not None]
    for word in words:
        if word in keys:
            return complaint._replace(at=(*at, word))
    for key in keys:
        if isinstance(getattr(table, key), str) and repr(getattr(table, key)) in complaint.message:
            return complaint._replace(at=(*at, key))
    return complaint


def meant(name: str, known: Iterable[str]) -> str:
    """What to add to an error about a name that there is not: the nearest one, or the URL of an address."""
    host, colon, port = name.rpartition(":")
    return f"; did you mean 'http://{name}'?" if host and colon and port.isdigit() else suggestion(name, known)


def is_url(reference: str) -> bool:
    """Whether it is a URL or the path of a Unix socket, and no name."""
    return "://" in reference or reference.startswith("unix:")


async def nobody(request: Request) -> Response:
    """Stands for a handler that there is none of, while what is wrong is looked for."""
    return Response(503)
