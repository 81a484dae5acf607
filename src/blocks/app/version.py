"""A version of a stack is its tables made into nodes: all of them right, nothing of them running."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from random import Random
from typing import Any

from blocks.core.clock import Clock
from blocks.core.config.complaint import Complaint, complaints_of
from blocks.core.errors import BlocksError, ConfigError
from blocks.http.handler import Filter, Handler

from .bench import Bench, is_url, placed
from .filters import before_server
from .listeners import check_server
from .node import Node
from .sense.causes import first_causes
from .sense.inlined import inlined
from .sense.rules import said_already, sense
from .settings import settings_of
from .source import Source, StackErrors, canonical
from .tables import StackTable

_ORDER = ("brokers", "upstreams", "apps", "balancers", "gateways", "edges")
_ANEW = ("gateways",)  # files beside it (keys, schemas, routes) may have changed when its table has not


class Version:
    """``nodes`` by (kind, name), ``places`` where handlers stand; ``warnings`` do not keep it from running."""

    def __init__(self, source: Source, settings: StackTable, bench: Bench) -> None:
        self.source = source
        self.settings = settings
        self.digest = source.digest
        self.places = bench.places
        self.brokers = bench.brokers
        self.nodes: dict[tuple[str, str], Node] = {}
        self.asked: dict[str, Handler] = {}  # the handler of each server
        self.filters: dict[str, list[Filter]] = {}  # what stands before it
        self.warnings: list[Complaint] = []

    def handlers(self) -> dict[str, Node]:
        """The nodes that answer requests, by name."""
        return {node.name: node for node in self.nodes.values() if node.kind != "brokers"}

    def in_order(self) -> Iterator[Node]:
        """Brokers first, then every node after those that it needs: as they are entered."""
        handlers = self.handlers()
        begun: set[str] = set()
        yield from (node for node in self.nodes.values() if node.kind == "brokers")
        for first in handlers.values():
            way = [] if first.name in begun else [(first, iter(first.needs))]
            begun.add(first.name)
            while way:
                needs = way[-1][1]
                needed = next((name for name in needs if name in handlers and name not in begun), None)
                if needed is None:
                    yield way.pop()[0]
                else:
                    begun.add(needed)
                    way.append((handlers[needed], iter(handlers[needed].needs)))


def make_version(
    source: Source,
    *,
    clock: Clock,
    random: Random,
    environment: Mapping[str, str],
    workers: int | None = None,
    before: Version | None = None,
) -> Version:
    """Make all nodes; those of ``before`` whose tables are the same stay. Raises ``StackErrors`` with everything that is wrong."""
    version, complaints = assemble(
        source, clock=clock, random=random, environment=environment, workers=workers, before=before
    )
    errors = [one for one in complaints if one.level == "error"]
    if errors:
        raise StackErrors(errors, source)
    return version


def assemble(
    source: Source,
    told: Iterable[Complaint] = (),
    *,
    clock: Clock,
    random: Random,
    environment: Mapping[str, str],
    workers: int | None = None,
    before: Version | None = None,
) -> tuple[Version, list[Complaint]]:
    """Make what can be made, and find everything that is wrong or doubtful; a version with errors must not run.

    ``told`` is wrong already (a file that could not be read whole): it is the first of the complaints, and not said again.
    """
    complaints: list[Complaint] = []
    settings, _ = settings_of(source.tables, complaints)
    bench = Bench(
        source, settings, clock=clock, random=random, shards=workers or settings.process.workers, environment=environment,
        places={} if before is None else before.places, before={} if before is None else before.nodes,
    )  # fmt: skip
    version = Version(source, settings, bench)
    bench.complaints = complaints
    for kind in _ORDER:
        for name, table in getattr(settings, kind).items():
            _make(kind, name, table, bench, version)
    _resolve_servers(version, bench, before)
    found = [*told, *(one for one in complaints if not said_already(one, told))]
    found += sense(source, environment, found)
    found = first_causes(found, inlined(source, environment))
    version.warnings = [one for one in found if one.level != "error"]
    return version, found


def _make(kind: str, name: str, table: Any, bench: Bench, version: Version) -> None:
    at = (kind, name)
    bench.begin(at)
    spelling = canonical(bench.source.tables[kind][name])
    before = bench.before.get(at)
    if before is not None and before.spelling == spelling and kind not in _ANEW:
        node = before
        if kind == "brokers":
            bench.brokers[name] = node.block
        for needed, where in node.needs.items():
            if needed not in bench.places:
                bench.at = ()
                bench.place(needed, *where)
    else:
        home: Any = import_module(f"blocks.app.kinds.{kind}")
        try:
            node = home.make(name, table, bench)
        except (BlocksError, ValueError) as error:  # MissingExtra is no ConfigError
            said = error if isinstance(error, ConfigError) else ConfigError(str(error))
            bench.complaints.extend(placed(one, at, table) for one in complaints_of(said, at))
            return
        node.spelling = spelling
        node.needs = bench.needs
        node.table = table
    version.nodes[at] = node


def _resolve_servers(version: Version, bench: Bench, before: Version | None) -> None:
    for name, table in version.settings.servers.items():
        bench.begin(("servers", name))
        version.asked[name] = check_server(table, bench)
        version.filters[name] = before_server(table, bench)
        if before is not None and is_url(table.handler) and before.settings.servers.get(name) == table:
            version.asked[name] = before.asked[name]
