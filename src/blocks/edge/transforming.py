"""Coded twins of an entry: made once, kept beside it, chosen by what the client accepts (RFC 9110 §12.5.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from blocks.http.message import Pair, Section

from .entry import TRANSFORM, Entry, wire_of

if TYPE_CHECKING:
    from .edge import Edge
    from .visit import Visit

_AT_ONCE = (
    32 * 1024
)  # bytes; below it coding takes less than a millisecond, above it goes to a thread and the original is served meanwhile
_MINIFIED = 1024 * 1024  # bytes; what is larger is no source text that a person wrote
_MOST_BEHIND = 64  # bodies that may be in work in threads at a time; the original is served meanwhile, and the next request tries again
_CODINGS = ("br", "zstd", "gzip")


class Transform(Protocol):
    """Makes another form of a body. ``blocks.edge.transform`` has those for compression and minification."""

    def variants(self, section: Section, status: int) -> bool:
        """Whether a response with those fields may be transformed at all."""
        ...

    def choose(self, accept_encoding: bytes | None, section: Section) -> str:
        """The coding for a client: "" for none, else gzip, br or zstd."""
        ...

    def apply(self, coding: str, pairs: list[Pair], body: bytes) -> tuple[list[Pair], bytes] | None:
        """The fields (Content-Encoding, ETag, Vary made right) and body in that coding, or None to leave the original. Pure."""
        ...


class Coder:
    """Finds or makes the twin of an entry, and makes bodies small on their way into the store."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._under_way: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def applies(self, section: Section, status: int) -> bool:
        """Whether a response with those fields may have coded twins."""
        return any(transform.variants(section, status) for transform in self._edge.transforms)

    def plain(self, pairs: list[Pair]) -> list[Pair]:
        """The fields of the form that is not coded: they name Accept-Encoding in Vary as its twins do (RFC 9110 §12.5.5)."""
        for transform in self._edge.transforms:
            vary = getattr(transform, "vary", None)
            if vary is not None:
                pairs = vary(pairs)
        return pairs

    def prepare(self, entry: Entry) -> None:
        """Minify a body that is about to be stored: at once when it is small, else behind, and then in its place."""
        body = entry.body
        if not isinstance(body, bytes) or entry.status != 200:
            return
        for transform in self._edge.transforms:
            minify = getattr(transform, "minify", None)
            if minify is None:
                continue
            if len(body) <= _AT_ONCE:
                _replace(entry, minify(entry.section.pairs, body))
            elif len(body) <= _MINIFIED and len(self._tasks) < _MOST_BEHIND:
                self._behind(self._minify(minify, entry, body))

    async def _minify(
        self, minify: Callable[[list[Pair], bytes], tuple[list[Pair], bytes] | None], entry: Entry, body: bytes
    ) -> None:
        made = await asyncio.to_thread(minify, entry.section.pairs, body)
        if made is not None and self._edge.memory.entries.get(entry.key) is entry and entry.body is body:
            _replace(entry, made)
            self.drop(entry)
            self._edge.memory.reweigh(entry)
            if self._edge.store is not None:
                self._edge.store.save(entry)

    def _behind(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def twin(self, visit: Visit, entry: Entry) -> Entry:
        """The entry in the best coding for the client; itself while that is being made, or when there is none."""
        if not isinstance(entry.body, bytes):
            return entry
        section = entry.section
        accepted = visit.section.index.get(b"accept-encoding")
        for transform in self._edge.transforms:
            if not transform.variants(section, entry.status):
                continue
            coding = transform.choose(b",".join(accepted) if accepted else None, section)
            if not coding:
                continue
            key = _twin_key(entry, coding)
            twin = self._edge.memory.get(key)
            if twin is not None and twin.born == entry.born:
                return twin if twin.status else entry
            if len(entry.body) <= _AT_ONCE:
                return self._keep(key, entry, transform.apply(coding, section.pairs, entry.body))
            if key not in self._under_way and len(self._tasks) < _MOST_BEHIND:
                self._under_way.add(key)
                self._behind(self._code(transform, coding, key, entry, entry.body))
        return entry

    async def _code(self, transform: Transform, coding: str, key: str, entry: Entry, body: bytes) -> None:
        try:
            made = await asyncio.to_thread(transform.apply, coding, entry.section.pairs, body)
            self._keep(key, entry, made)
        finally:
            self._under_way.discard(key)

    def _keep(self, key: str, entry: Entry, made: tuple[list[Pair], bytes] | None) -> Entry:
        """Keep the twin; an empty one (status 0) says that there is nothing to be made of it."""
        pairs, body = made if made is not None else ([], b"")
        twin = Entry(
            key, entry.status if made is not None else 0, wire_of(pairs), body,
            born=entry.born, lifetime=entry.lifetime, revalidate=entry.revalidate, on_error=entry.on_error, tags=entry.tags,
        )  # fmt: skip
        if self._edge.memory.entries.get(entry.key) is entry:
            self._edge.library.put(twin)
        return twin if made is not None else entry

    def drop(self, entry: Entry) -> None:
        """The entry left: its twins are of no use any more."""
        if not entry.flags & TRANSFORM:
            return
        for coding in _CODINGS:
            self._edge.memory.remove(_twin_key(entry, coding))

    async def close(self) -> None:
        """Stop what is under way."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


def _replace(entry: Entry, made: tuple[list[Pair], bytes] | None) -> None:
    if made is not None:
        entry.wire = wire_of(made[0])
        entry.body = made[1]
        entry.rendered, entry.second = None, -1


def _twin_key(entry: Entry, coding: str) -> str:
    return f"{entry.key}\0coding={coding}"
