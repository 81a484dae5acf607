"""``[gateways.NAME]``: a gateway from a file of its own, or from the very tables of such a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.core.config.complaint import At, Complaint, ConfigErrors
from blocks.core.config.read import Source as File
from blocks.http.handler import walk

from ..bench import Bench
from ..node import Node
from ..slot import Slot


def make(name: str, table: Mapping[str, Any], bench: Bench) -> Node:
    """The gateway; limits, key sets, figures and open connections of the one before go on."""
    from blocks.gateway.config.load import Objects, build
    from blocks.gateway.front import Front

    file = _file(table, bench)
    before = bench.before.get(("gateways", name))
    kept = None if before is None else before.block.gateway.kept
    services = {name: place.front for name, place in bench.places.items()}
    brokers = {
        **dict.fromkeys(bench.source.tables.get("brokers", ())),
        **bench.brokers,
    }  # one that is wrong is still a name
    objects = Objects(services, brokers, brokers)
    try:
        loaded = build(file, objects=objects, kept=kept, clock=bench.clock, random=bench.draw())
        front = Front(file.path, objects=objects, clock=bench.clock, loaded=loaded)
    except ConfigErrors as error:
        error.source = None
        raise
    front.name = name
    _note_needs(front, file.tables, bench)
    bench.complaints.extend(one._replace(at=(*bench.at, *one.at)) for one in loaded.warnings)
    node = Node("gateways", name, front)
    node.members["file"] = table.get("file")
    if before is not None:
        node.joins = lambda: _go_on(front.gateway, before.block.gateway)
    return node


def _file(table: Mapping[str, Any], bench: Bench) -> File:
    """The gateway's own file, or its tables inside the stack's."""
    name = table.get("file")
    if name is None:
        found = bench.source.find(bench.at)
        path = found[0].path if found is not None else bench.source.base / "stack"
        return File(path, "", dict(table), {})
    if not isinstance(name, str):
        raise ConfigErrors([Complaint(("file",), "file is the path of a gateway's file")])
    others = [key for key in table if key != "file"]
    if others:
        raise ConfigErrors([Complaint((others[0],), "a gateway has a file, or tables of its own, not both")])
    path = bench.path(name)
    home = bench.source.find(bench.at)
    if home is not None:
        bench.source.own(
            (*bench.at, "file"), home[0]
        )  # the key stays where it stands; all else is in the gateway's file
    try:
        file = bench.source.read(path, bench.environment)
    except ConfigErrors as error:
        if error.source is None:
            said = [one._replace(at=("file",), message=f"{path} {one.message}") for one in error.complaints]
            raise ConfigErrors(said) from error
        if not error.source.tables:
            bench.source.own_broken(bench.at, path, error)
            raise ConfigErrors(error.complaints) from error
        for one in error.complaints:
            bench.complain(one.at, one.message)
        file = error.source
    bench.source.own(bench.at, file, len(bench.at))
    return file


def _go_on(gateway: Any, before: Any) -> None:
    """Figures that belong to no route."""
    gateway.unrouted, gateway.top, gateway.consumers = before.unrouted, before.top, before.consumers


def _note_needs(front: Any, tables: Mapping[str, Any], bench: Bench) -> None:
    """The handlers of the stack that stand somewhere in the gateway; of most it is known which route says so."""
    said: dict[str, At] = {}
    routes = tables.get("routes", ())
    for place, route in enumerate(routes if isinstance(routes, list) else ()):
        if isinstance(route, Mapping) and isinstance(route.get("service"), str):
            said.setdefault(route["service"], ("routes", place, "service"))
    for part in walk(front):
        if isinstance(part, Slot):
            bench.needs.setdefault(part.name, (*bench.at, *said.get(part.name, ())))
