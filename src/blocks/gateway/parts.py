"""What snapshots stand on is started once and stopped when the last snapshot that needs it is gone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from blocks.http.handler import walk


class Parts:
    """Counts, for each part that has a life, the snapshots that need it."""

    def __init__(self) -> None:
        self._held: dict[int, list[Any]] = {}  # id: [part, snapshots]
        self._owned: dict[int, object] = {}  # entered by somebody else, who will leave them

    def own(self, parts: Iterable[object]) -> None:
        """These run already, and somebody else stops them."""
        for part in _alive(parts):
            self._owned[id(part)] = part

    async def enter(self, parts: Iterable[object]) -> None:
        """Start those that do not run, the inner first. When one fails, those that were started here are stopped again."""
        taken: list[object] = []
        try:
            for part in _alive(parts):
                if id(part) in self._owned:
                    continue
                entry = self._held.get(id(part))
                if entry is None:
                    await part.__aenter__()
                    entry = self._held[id(part)] = [part, 0]
                entry[1] += 1
                taken.append(part)
        except BaseException:
            await self._leave(taken)
            raise

    async def leave(self, parts: Iterable[object]) -> None:
        """One snapshot less needs these."""
        await self._leave([part for part in _alive(parts) if id(part) in self._held])

    async def _leave(self, parts: list[Any]) -> None:
        for part in reversed(parts):
            entry = self._held[id(part)]
            entry[1] -= 1
            if entry[1] == 0:
                del self._held[id(part)]
                await part.__aexit__(None, None, None)

    async def close(self) -> None:
        """Stop everything that was started here."""
        held, self._held = list(self._held.values()), {}
        self._owned.clear()
        for part, _ in reversed(held):
            await part.__aexit__(None, None, None)


def _alive(parts: Iterable[object]) -> list[Any]:
    """The parts, and what is inside them, that have a life; the inner first, each once."""
    found: dict[int, Any] = {}
    for root in parts:
        for node in walk(root):
            if hasattr(node, "__aenter__") and not isinstance(node, type):
                found.setdefault(id(node), node)
    return list(found.values())
