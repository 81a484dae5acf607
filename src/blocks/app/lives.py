"""What stands in a stack is entered once, however many nodes and versions of the stack hold it, and left when the last one lets go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from blocks.core.errors import BlocksError
from blocks.http.handler import walk

from .node import Node


class CannotStart(BlocksError):
    """A node of a stack failed while it was started; the message names it, ``__cause__`` is why, ``at`` its table."""

    def __init__(self, node: Node, error: BaseException) -> None:
        why = str(error) if isinstance(error, BlocksError) else f"{type(error).__name__}: {error}"
        super().__init__(f"[{node.kind}.{node.name}] cannot start: {why}")
        self.at = (node.kind, node.name)


class Life:
    """What one node has entered; the inner first."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: list[Any] = []


class Lives:
    """Counts the holders of every part that is an async context manager. A slot's handler is no part: it has its own node."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[Any, int]] = {}

    async def enter(self, node: Node) -> Life:
        """Enter what of it is not entered yet, and hold all of it.

        When one fails, what was entered here is left again, and ``CannotStart`` is raised, or ``OSError`` of ours (an address is taken).
        """
        life = Life()
        try:
            for part in _alive(node.roots):
                held, count = self._held.get(id(part), (part, 0))
                if count == 0:
                    await held.__aenter__()
                self._held[id(part)] = (held, count + 1)
                life.parts.append(held)
        except BaseException as error:
            await self.leave(life)
            if not isinstance(error, Exception) or (isinstance(error, OSError) and isinstance(error, BlocksError)):
                raise
            raise CannotStart(node, error) from error
        return life

    async def leave(self, life: Life) -> None:
        """Let go of it: the outer first, each left when nobody else holds it. One that fails to leave does not keep the others."""
        parts, life.parts = life.parts, []
        failed: BaseException | None = None
        for part in reversed(parts):
            held, count = self._held[id(part)]
            if count > 1:
                self._held[id(part)] = (held, count - 1)
                continue
            del self._held[id(part)]
            try:
                await held.__aexit__(None, None, None)
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed


def _alive(roots: Iterable[object]) -> list[Any]:
    found: dict[int, Any] = {}
    for root in roots:
        for node in walk(root):
            if hasattr(node, "__aenter__") and not isinstance(node, type):
                found.setdefault(id(node), node)
    return list(found.values())
