"""A node is one table of a stack made into an object: a handler or a broker, with what has to be entered for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from blocks.core.config.complaint import At
from blocks.http.handler import Handler


class Node:
    """``block`` is the object of ``[kind.NAME]``, ``front`` the handler that servers, gateways and edges call.

    ``member`` is what a balancer calls, which tells its members who the client is by itself. ``roots`` are entered for it, and what is
    inside them; ``needs`` are the names that it refers to, with where it says so. ``members`` is what the handlers of a balancer's rows
    were made of, by name; ``spelling`` is the table as text, by which a later one is compared.
    ``joins``, if there is one, is called when the node takes the place of an earlier one: it takes over what that has learnt.
    """

    __slots__ = ("block", "front", "joins", "kind", "member", "members", "name", "needs", "roots", "spelling", "table")

    def __init__(
        self,
        kind: str,
        name: str,
        block: Any,
        *,
        front: Handler | None = None,
        member: Handler | None = None,
        roots: tuple[object, ...] | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.block = block
        self.front: Handler = block if front is None else front
        self.member: Handler = block if member is None else member
        self.roots = (self.front,) if roots is None else roots
        self.needs: dict[str, At] = {}
        self.joins: Callable[[], None] | None = None
        self.members: dict[str, Any] = {}
        self.spelling = ""
        self.table: Any = None

    def __repr__(self) -> str:
        return f"<Node {self.kind}.{self.name}>"
