"""A trie of segments: the narrower branch is asked first, and a branch that has no taker is left again.

Precedence at every segment: the literal, then ``int``, ``uuid``, ``str``, then what takes everything below. Each node stands for
one prefix of templates and is visited at most once a match, so a path cannot make the search grow beyond the table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from .template import CONVERTERS, RANKS, Converter, Template

L = TypeVar("L")
R = TypeVar("R")


class Node(Generic[L]):
    """What stands at one place of the templates. The four leaves: ``exact`` (the path ends here), ``slash`` (it ends here with
    "/"), ``below`` (here and everything below), ``below_slash`` (the same, but not without the slash)."""  # fmt: skip

    __slots__ = ("below", "below_slash", "exact", "literals", "parameters", "slash")

    def __init__(self) -> None:
        self.literals: dict[str, Node[L]] = {}
        self.parameters: tuple[tuple[str, Converter, Node[L]], ...] = ()
        self.exact: L | None = None
        self.slash: L | None = None
        self.below: L | None = None
        self.below_slash: L | None = None

    def child(self, part: Any) -> Node[L]:
        """The node below for a literal (str) or a ``Parameter``, made when there is none."""
        if isinstance(part, str):
            node = self.literals.get(part)
            if node is None:
                node = self.literals[part] = Node()
            return node
        for kind, _, node in self.parameters:
            if kind == part.kind:
                return node
        node = Node()
        entries = [*self.parameters, (part.kind, CONVERTERS[part.kind], node)]
        self.parameters = tuple(sorted(entries, key=lambda entry: RANKS[entry[0]]))
        return node


def leaf_of(root: Node[L], template: Template, make: Callable[[], L]) -> L:
    """The leaf of a template, made when there is none."""
    node = root
    for part in template.segments:
        node = node.child(part)
    if template.rest is not None:
        place = "below"
    elif template.prefix:
        place = "below_slash" if template.trailing else "below"
    else:
        place = "slash" if template.trailing else "exact"
    leaf: L | None = getattr(node, place)
    if leaf is None:
        leaf = make()
        setattr(node, place, leaf)
    return leaf


Ask = Callable[[L, tuple[Any, ...], str], R | None]


def search(node: Node[L], segments: list[str], place: int, values: tuple[Any, ...], ask: Ask[L, R]) -> R | None:
    """What ``ask(leaf, values, rest)`` answers for the first leaf, in order of precedence, for which it is not None.

    ``segments`` end with "" when the path ends with a slash; ``rest`` is the part that a leaf below takes.
    """
    if place == len(segments):
        return _first(ask, values, (node.exact, node.below), "")
    segment = segments[place]
    if segment == "":
        return _first(ask, values, (node.slash, node.below_slash, node.below), "")
    child = node.literals.get(segment)
    if child is not None:
        found = search(child, segments, place + 1, values, ask)
        if found is not None:
            return found
    for _, convert, child in node.parameters:
        value = convert(segment)
        if value is not None:
            found = search(child, segments, place + 1, (*values, value), ask)
            if found is not None:
                return found
    if node.below is None and node.below_slash is None:
        return None
    return _first(ask, values, (node.below_slash, node.below), "/".join(segments[place:]))


def _first(ask: Ask[L, R], values: tuple[Any, ...], leaves: tuple[L | None, ...], rest: str) -> R | None:
    for leaf in leaves:
        if leaf is not None:
            found = ask(leaf, values, rest)
            if found is not None:
                return found
    return None
