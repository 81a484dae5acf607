"""Compressed forms of pushed files: made once for each file and coding, beside the release, gone with it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from blocks.edge.transform.compression import Compression
from blocks.http.message import Pair, Request, Section

from .table import Pushed

AT_ONCE = (
    32 * 1024
)  # bytes; coding them takes less than a millisecond. Above, a thread does it, and the plain form is sent meanwhile


class Twins:
    """Finds or makes the form of a pushed entry that a client takes best."""

    def __init__(self, compression: Compression, executor: Executor) -> None:
        self._compression = compression
        self._executor = executor
        self._made: dict[tuple[str, str], Pushed | None] = {}  # None: there is nothing to be made of it, or not yet

    def fields(self, pairs: list[Pair]) -> list[Pair]:
        """The fields of the plain form: with Vary if there may be others."""
        return self._compression.vary(pairs) if self._compression.variants(Section(pairs), 200) else pairs

    def choose(self, request: Request, entry: Pushed) -> Pushed:
        """``entry`` in the best coding for the client; itself when there is none, or none yet."""
        body = entry.body
        if not isinstance(body, bytes):
            return entry
        coding = self._coding(request.headers.section)
        if not coding:
            return entry
        name = (entry.key, coding)
        if name not in self._made:
            if len(body) <= AT_ONCE:
                self._made[name] = self._make(entry, coding, body)
            else:
                self._made[name] = None
                loop = asyncio.get_running_loop()
                made = loop.run_in_executor(self._executor, self._make, entry, coding, body)
                made.add_done_callback(lambda future: self._arrived(name, future))
        return self._made[name] or entry

    def keep(self, keys: set[str]) -> None:
        """Forget the twins of all but the entries with those keys."""
        self._made = {name: twin for name, twin in self._made.items() if name[0] in keys}

    def _coding(self, section: Section) -> str:
        coding: str | None = section.derived.get(self)
        if coding is None:
            lines = section.index.get(b"accept-encoding")
            coding = section.derived[self] = self._compression.choose(b",".join(lines)) if lines else ""
        return coding

    def _make(self, entry: Pushed, coding: str, body: bytes) -> Pushed | None:
        if not self._compression.variants(entry.section, entry.status):
            return None
        pairs = [pair for pair in entry.section.pairs if pair[0] != b"date"]
        made = self._compression.apply(coding, pairs, body)
        return None if made is None else Pushed(f"{entry.key}:{coding}", *made)

    def _arrived(self, name: tuple[str, str], future: asyncio.Future[Pushed | None]) -> None:
        if name in self._made and not future.cancelled() and future.exception() is None:
            self._made[name] = future.result()
