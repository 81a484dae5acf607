"""What an origin was asked, in order of arrival."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from blocks.http.message import Headers, Request

KEPT = 100_000  # entries: a load of ten thousand a second keeps ten seconds
BODY = 65_536  # bytes of each body that are kept


@dataclass(slots=True)
class Entry:
    """One request as it arrived. ``at`` is on the loop's clock; ``status`` is 0 until it was answered, ``fault`` says what struck it."""

    number: int
    method: str
    target: str
    headers: Headers
    at: float
    connection: tuple[str, int]
    body: bytes = b""
    status: int = 0
    fault: str = ""

    @property
    def path(self) -> str:
        """The target up to the "?"."""
        return self.target.partition("?")[0]

    def __str__(self) -> str:
        fault = f" [{self.fault}]" if self.fault else ""
        return f"{self.method} {self.target} -> {self.status or '…'}{fault}"


class Journal:
    """The last entries, oldest first; ``total`` counts those that were dropped too."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self.total = 0

    def write(self, request: Request, at: float) -> Entry:
        """The entry of a request that has just arrived."""
        self.total += 1
        entry = Entry(self.total, request.method, request.target, request.headers, at, request.peer.client)
        self._entries.append(entry)
        return entry

    def matching(self, *, method: str | None = None, path: str | None = None, status: int | None = None) -> list[Entry]:
        """The entries for which all that is given holds; ``path`` is whole."""
        return [
            entry
            for entry in self._entries
            if (method is None or entry.method == method)
            and (path is None or entry.path == path)
            and (status is None or entry.status == status)
        ]

    @property
    def last(self) -> Entry:
        """The newest entry. Raises ``IndexError`` when nothing was asked."""
        return self._entries[-1]

    @property
    def paths(self) -> list[str]:
        """The path of every entry."""
        return [entry.path for entry in self._entries]

    def clear(self) -> None:
        """Forget what was asked so far."""
        self._entries.clear()
        self.total = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __getitem__(self, index: int) -> Entry:
        return self._entries[index]

    def __repr__(self) -> str:
        return f"<Journal of {self.total} requests>"
