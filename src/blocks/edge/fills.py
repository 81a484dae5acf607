"""Entries whose bodies are still coming, and who waits for their ends."""

from __future__ import annotations

from collections.abc import Callable

from .entry import Entry


class Fills:
    """What is filling now; its length is how many bodies that are."""

    def __init__(self) -> None:
        self._calls: dict[int, list[Callable[[], None]]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, entry: Entry) -> bool:
        return id(entry) in self._calls

    def begin(self, entry: Entry) -> None:
        """The entry's body begins to come."""
        self._calls[id(entry)] = []

    def end(self, entry: Entry) -> None:
        """It is through, or broke off."""
        for call in self._calls.pop(id(entry), ()):
            call()

    def when_over(self, entry: Entry, call: Callable[[], None]) -> None:
        """Call ``call`` when the body of an entry that is filling is through."""
        self._calls[id(entry)].append(call)
