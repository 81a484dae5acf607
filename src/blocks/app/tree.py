"""``blocks tree``: who asks whom, from the listeners to the upstreams, as text, JSON or a Mermaid diagram. Nothing is started."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from blocks.core.config.complaint import At
from blocks.core.masking import masked

from .bench import is_url
from .check import FILE, opened
from .sense.graph import NAMING, Graph, urls
from .sense.view import View
from .tables import HANDLERS, StackTable

_ROUTES = 4  # routes that are named on one line of the text


class Block(NamedTuple):
    """One box: ``id`` is ``balancers.users`` or a URL; ``about`` is what is worth saying of it, in order."""

    id: str
    kind: str
    name: str
    about: dict[str, str]


class Link(NamedTuple):
    """``source`` asks ``target``; ``words`` say when (a gateway's routes)."""

    source: str
    target: str
    words: tuple[str, ...] = ()


class Topology(NamedTuple):
    """``roots`` are the ids that nobody asks: servers, brokers, and what is left over."""

    blocks: dict[str, Block]
    links: list[Link]
    roots: list[str]


def topology(tables: Mapping[str, Any]) -> Topology:
    """The topology of a stack's tables (those of gateways' files in their places)."""
    graph = Graph(View(tables, StackTable))
    blocks: dict[str, Block] = {}
    links: dict[tuple[str, str], list[str]] = {}
    for at, _ in graph.view.tables_of("servers", *HANDLERS, "brokers"):
        _add(blocks, Block(".".join(map(str, at)), str(at[0]), str(at[1]), dict(_about(graph.view, at))))
    for at, _ in graph.view.tables_of("servers", *HANDLERS):
        for target, words in _asks(graph, at, blocks):
            said = links.setdefault((".".join(map(str, at)), target), [])
            said += [words] if words and words not in said else []
    found = [Link(source, target, tuple(words)) for (source, target), words in links.items()]
    asked = {link.target for link in found}
    first = [one.id for one in blocks.values() if one.kind == "servers"]
    last = [
        one.id for one in blocks.values() if one.kind != "servers" and (one.id not in asked or one.kind == "brokers")
    ]
    return Topology(blocks, found, [*first, *last])


def _add(blocks: dict[str, Block], block: Block) -> str:
    blocks.setdefault(block.id, block)
    return block.id


def _asks(graph: Graph, at: At, blocks: dict[str, Block]) -> Iterator[tuple[str, str]]:
    """(id, words) of everything that the block at ``at`` asks."""
    if at[0] == "gateways":
        yield from _routed(graph, at, blocks)
        return
    if at[0] == "apps":
        yield from (
            (f"brokers.{name}", "")
            for _, name in graph.view.texts((*at, "needs"))
            if name in graph.view.names("brokers")
        )
    for use in graph.uses.get(at, ()):
        if use.name in graph.homes:
            yield ".".join(map(str, graph.homes[use.name])), ""
    if at[0] != "upstreams":
        for _, url in urls(graph.view, at):
            yield _add(blocks, Block(url, "url", url, {})), ""


def _routed(graph: Graph, at: At, blocks: dict[str, Block]) -> Iterator[tuple[str, str]]:
    table = graph.view.raw(at)
    routes = table.get("routes") if isinstance(table, Mapping) else None
    for route in routes if isinstance(routes, list) else ():
        if isinstance(route, Mapping):
            words = route_words(route)
            for target in _ends(graph, at, route, blocks):
                yield target, words


def route_words(route: Mapping[str, Any]) -> str:
    """``GET /orders/{id}``."""
    methods = route.get("methods") or ""
    host = route.get("host") or ""
    said = [
        "|".join(methods) if isinstance(methods, list) else str(methods),
        f"{','.join(host) if isinstance(host, list) else host}{route.get('path', '')}",
    ]
    return " ".join(word for word in said if word)


def _ends(graph: Graph, at: At, value: Any, blocks: dict[str, Block]) -> Iterator[str]:
    """The ids of the services and brokers that are named anywhere in a route."""
    own = graph.view.raw((*at, "services"))
    for key, item in (
        value.items() if isinstance(value, Mapping) else enumerate(value if isinstance(value, list) else ())
    ):
        if isinstance(item, Mapping | list):
            if key in ("publish", "subscribe") and isinstance(item, Mapping):
                yield from _broker(graph, item, blocks)
            yield from _ends(graph, at, item, blocks)
        elif key in NAMING and isinstance(item, str):
            if isinstance(own, Mapping) and item in own:
                yield _own(at, item, own[item], blocks)
            elif item in graph.homes:
                yield ".".join(map(str, graph.homes[item]))


def _own(at: At, name: str, table: Any, blocks: dict[str, Block]) -> str:
    """A service of the gateway's own."""
    given = table if isinstance(table, Mapping) else {}
    url = given.get("url")
    if isinstance(url, str) and url:
        return _add(blocks, Block(url, "url", url, {}))
    python = given.get("python")
    about = {"python": python} if isinstance(python, str) else {"answers": "a fixed text"} if "respond" in given else {}
    return _add(blocks, Block(f"{at[0]}.{at[1]}.services.{name}", "service", name, about))


def _broker(graph: Graph, table: Mapping[str, Any], blocks: dict[str, Block]) -> Iterator[str]:
    name = table.get("to") or table.get("source")
    if isinstance(name, str):
        if name in graph.view.names("brokers"):
            yield f"brokers.{name}"
        elif is_url(name):
            yield _add(blocks, Block(name, "url", name, {}))


_ABOUT = {
    "servers": ("listen", "tls", "max_connections", "trusted", "request_id", "trace", "timeout", "compress"),
    "upstreams": ("url", "timeout", "retries"),
    "balancers": ("policy", "health", "retries", "timeout", "max_requests"),
    "gateways": ("file",),
    "edges": ("memory", "store", "default_ttl", "countries", "hotlinks", "signed"),
    "brokers": ("listen", "http", "data", "durability"),
    "apps": ("asgi", "python"),
}


_SWITCHES = (
    "request_id",
    "trace",
    "compress",
    "countries",
    "hotlinks",
    "signed",
)  # what is in them is too much for a box
_ALWAYS = ("policy", "memory", "durability")  # worth saying when they are left out, too


def _about(view: View, at: At) -> Iterator[tuple[str, str]]:
    for key in _ABOUT[str(at[0])]:
        value = view.value((*at, key)) if key in _ALWAYS else view.raw((*at, key))
        if key == "health" and isinstance(value, Mapping):
            path, every = value.get("path", "/"), view.value((*at, "health", "interval"))
            yield key, f"{path} every {every}" if isinstance(every, str) else f"{path} every {every}s"
        elif key == "tls" or isinstance(value, bool) or (key in _SWITCHES and isinstance(value, Mapping)):
            if value:
                yield key, "yes"
        elif key == "retries" and isinstance(value, Mapping):
            yield key, f"{value.get('tries', 3)} tries"
        elif isinstance(value, list):
            yield key, ", ".join(str(item) for item in value)
        elif value is not None and not isinstance(value, Mapping):
            yield key, str(value)
    if at[0] == "gateways":
        routes = view.raw((*at, "routes"))
        yield "routes", str(len(routes) if isinstance(routes, list) else 0)


# -- as text


def drawn(found: Topology, title: str) -> str:
    """A tree with box characters; what was drawn already is only named the second time."""
    lines = [title]
    seen: set[str] = set()
    _branches(found, [Link("", root) for root in found.roots], "", seen, lines)
    return "\n".join(lines)


def _branches(found: Topology, links: list[Link], indent: str, seen: set[str], lines: list[str]) -> None:
    for place, link in enumerate(links):
        last = place == len(links) - 1
        block = found.blocks[link.target]
        lines.append(f"{indent}{'└─ ' if last else '├─ '}{_line(block, link, again=block.id in seen)}")
        if block.id not in seen:
            seen.add(block.id)
            below = [one for one in found.links if one.source == block.id]
            _branches(found, below, indent + ("   " if last else "│  "), seen, lines)


def _line(block: Block, link: Link, *, again: bool) -> str:
    words = ", ".join(link.words[:_ROUTES]) + (
        f" and {len(link.words) - _ROUTES} more" if len(link.words) > _ROUTES else ""
    )
    about = "  ".join(f"{key}={value}" for key, value in block.about.items())
    said = [f"{words} →" if words else "", block.id, "(see above)" if again and block.kind != "url" else about]
    return "  ".join(word for word in said if word).replace("→  ", "→ ")


# -- for programs


def as_tables(found: Topology) -> dict[str, Any]:
    """Plain tables: ``blocks`` with id, kind, name and about; ``links`` with from, to and words; ``roots``."""
    return {
        "blocks": [one._asdict() for one in found.blocks.values()],
        "links": [{"from": one.source, "to": one.target, "words": list(one.words)} for one in found.links],
        "roots": found.roots,
    }


_SHAPES = {"servers": ('(["', '"])'), "brokers": ('[("', '")]'), "url": ('["', '"]'), "upstreams": ('["', '"]')}


def mermaid(found: Topology) -> str:
    """A Mermaid flowchart, left to right; GitHub and GitLab draw it in Markdown."""
    names = {ident: f"n{place}" for place, ident in enumerate(found.blocks)}
    lines = ["flowchart LR"]
    for block in found.blocks.values():
        left, right = _SHAPES.get(block.kind, ('("', '")'))
        about = next(iter(block.about.values()), "") if block.kind in ("servers", "upstreams", "brokers") else ""
        text = "<br>".join(_escaped(word) for word in (block.id, about) if word)
        lines.append(f"    {names[block.id]}{left}{text}{right}")
    for link in found.links:
        words = ", ".join(link.words[:_ROUTES]) + (", …" if len(link.words) > _ROUTES else "")
        label = f'|"{_escaped(words)}"|' if words else ""
        lines.append(f"    {names[link.source]} -->{label} {names[link.target]}")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    for letter, code in (("&", "#amp;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("|", "#124;")):
        text = text.replace(letter, code)
    return text


@click.command("tree")
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Blocks and links as JSON.")
@click.option("--mermaid", "as_mermaid", is_flag=True, help="A Mermaid flowchart, for Markdown.")
def tree(file: Path, as_json: bool, as_mermaid: bool) -> None:
    """Draw who asks whom in a stack's FILE, from the listeners to the upstreams. Nothing is started."""
    from .sense.inlined import inlined

    examined = opened(file)
    found = topology(masked(inlined(examined.source, os.environ), examined.source.secrets))
    if as_json:
        click.echo(json.dumps(as_tables(found), indent=2, ensure_ascii=False))
    else:
        click.echo(mermaid(found) if as_mermaid else drawn(found, str(file)))
