"""What is written as text and must be read: durations, sizes, rates, addresses, URLs."""

from __future__ import annotations

import ipaddress
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import msgspec

from blocks.core.config.complaint import At, Complaint
from blocks.core.errors import ConfigError
from blocks.core.quantities import rate, seconds, size

from .graph import Graph, urls
from .view import below

READERS: dict[str, Callable[[Any], object]] = {"duration": seconds, "size": size, "rate": rate}


def quantity(kind: Any) -> str:
    """``duration``, ``size`` or ``rate`` for a type that is marked as one (also as a member of a union), else ""."""
    if typing.get_origin(kind) is Annotated:
        for mark in typing.get_args(kind)[1:]:
            if isinstance(mark, msgspec.Meta) and mark.extra and "quantity" in mark.extra:
                return str(mark.extra["quantity"])
    for part in typing.get_args(kind):
        found = quantity(part)
        if found and typing.get_origin(kind) not in (list, tuple, dict):
            return found
    return ""


def quantities(graph: Graph) -> Iterator[Complaint]:
    """Durations, sizes and rates that cannot be read."""
    yield from _quantities(graph.view.root, graph.view.tables, ())


def _quantities(kind: Any, value: Any, at: At) -> Iterator[Complaint]:
    word = quantity(kind)
    if word and isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            READERS[word](value)
        except ConfigError as error:
            yield Complaint(at, str(error))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            inner = below(kind, str(key))
            if inner is not None:
                yield from _quantities(inner, item, (*at, str(key)))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            inner = below(kind, place)
            if inner is not None:
                yield from _quantities(inner, item, (*at, place))


def addresses(graph: Graph) -> Iterator[Complaint]:
    """Where to listen."""
    from blocks.broker.address import Address
    from blocks.core.activation import is_inherited
    from blocks.http.server import parse_address

    view = graph.view
    for at, key, reader in (
        *((at, "listen", parse_address) for at, _ in view.tables_of("servers")),
        *((at, key, Address.parse) for at, _ in view.tables_of("brokers") for key in ("listen", "http")),
        (("process",), "admin", parse_address),
    ):
        for place, text in view.texts((*at, key)):
            try:
                if not is_inherited(text):
                    reader(text)
            except ConfigError as error:
                yield Complaint(place, str(error))
    for at, table in view.tables_of("servers"):
        if table.get("listen") == []:
            yield Complaint((*at, "listen"), "is empty: a server listens somewhere")


def places(graph: Graph) -> Iterator[Complaint]:
    """URLs of what is asked."""
    from blocks.http.upstream import Upstream

    for at in (*graph.homes.values(), *(at for at, _ in graph.view.tables_of("servers"))):
        if at[0] == "gateways":
            continue  # its own loader says it
        for place, url in urls(graph.view, at):
            try:
                Upstream(url)
            except ConfigError as error:
                yield Complaint(place, str(error))


def networks(graph: Graph) -> Iterator[Complaint]:
    """Who is trusted, and who may purge."""
    view = graph.view
    for at, _ in view.tables_of("servers", "upstreams", "balancers", "edges"):
        for key, words in (("trusted", ("loopback", "private", "unix")), ("allow_purge", ())):
            for place, text in view.texts((*at, key)):
                try:
                    if text not in words:
                        ipaddress.ip_network(text, strict=False)
                except ValueError:
                    said = f"{text!r} is no address or network; write 127.0.0.1 or 10.0.0.0/8"
                    yield Complaint(place, said)
