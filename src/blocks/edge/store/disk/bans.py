"""A purge is a ban with a generation: what was fetched before it and matches it is not served. O(1) each. Sans-IO.

Varnish's bans are tested against every object in turn; here the object, when it is asked for, looks its own names up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from threading import Lock
from typing import NamedTuple
from zlib import crc32

from blocks.core.errors import ConfigError

KINDS = ("url", "prefix", "host", "tag")
LIMIT = 200_000  # bans kept, 40 MB; beyond it the older half becomes one ban on all that is as old: it purges more, never less


class Scopes(NamedTuple):
    """The names by which an entry can be purged."""

    url: str  # the cache key without its variant
    host: str = ""
    tags: tuple[str, ...] = ()

    @classmethod
    def of(cls, key: str, tags: Iterable[str]) -> Scopes:
        """The names of the entry with that cache key and those tags."""
        url = key.partition("\0")[0]
        return cls(url, url.partition("://")[2].partition("/")[0], tuple(tags))


class Verdict(NamedTuple):
    """What the bans say of an entry."""

    hard: bool
    soft: bool


CLEAR = Verdict(False, False)


class Bans:
    """The bans in force, and the generation that new entries are stamped with. ``verdict`` may be asked from any thread at any time."""

    __slots__ = ("_hard", "_lengths", "_lock", "_soft", "generation", "limit")

    def __init__(self, limit: int = LIMIT) -> None:
        self.generation = 1
        self.limit = limit
        self._hard: dict[tuple[str, str], int] = {}
        self._soft: dict[tuple[str, str], int] = {}
        self._lengths: tuple[int, ...] = ()  # of the prefixes that are banned
        self._lock = Lock()  # one thread purges, another one tidies up

    def __len__(self) -> int:
        return len(self._hard) + len(self._soft)

    def add(self, kind: str, value: str, *, soft: bool = False) -> bytes:
        """Ban everything older that matches; returns the journal's line. Raises ``ConfigError`` for an unknown kind."""
        if kind not in KINDS:
            raise ConfigError(f"{kind!r} is not a kind of purge; use one of {', '.join(KINDS)}")
        with self._lock:
            self.generation += 1
            self._set(kind, value, self.generation, soft)
            if len(self) > self.limit:
                self._collapse()
            return _line([self.generation, kind, value, int(soft)])

    def verdict(self, scopes: Scopes, generation: int) -> Verdict:
        """Whether an entry of ``generation`` is banned; a few dict look-ups, none when no ban is younger."""
        if generation >= self.generation or not (self._hard or self._soft):
            return CLEAR
        names = list(self.names(scopes))
        hard = bool(self._hard) and any(self._hard.get(name, 0) > generation for name in names)
        soft = bool(self._soft) and any(self._soft.get(name, 0) > generation for name in names)
        return Verdict(hard, soft)

    def forget(self, oldest: int) -> None:
        """Drop the bans that are not younger than ``oldest``, the generation of the oldest entry left."""
        with self._lock:
            self._forget(oldest)

    def snapshot(self) -> bytes:
        """A journal that says the same, as short as it can be."""
        with self._lock:
            lines = [_line([self.generation, "", "", 0])]
            for soft, table in enumerate((self._hard, self._soft)):
                lines += [_line([generation, kind, value, soft]) for (kind, value), generation in table.items()]
        return b"".join(lines)

    def replay(self, journal: bytes) -> int:
        """Take a journal's lines in; returns how many were damaged (a torn last line is the normal end of a kill)."""
        damaged = 0
        for line in journal.split(b"\n"):
            if not line:
                continue
            try:
                generation, kind, value, soft = _parse(line)
            except ValueError:
                damaged += 1
                continue
            self.generation = max(self.generation, generation)
            if kind:
                self._set(kind, value, generation, bool(soft))
        return damaged

    def _set(self, kind: str, value: str, generation: int, soft: bool) -> None:
        table = self._soft if soft else self._hard
        name = (kind, value)
        if kind == "prefix" and len(value) not in self._lengths:
            self._lengths = (*self._lengths, len(value))
        table[name] = max(generation, table.get(name, 0))

    def names(self, scopes: Scopes) -> Iterable[tuple[str, str]]:
        """Every (kind, value) that an entry can be purged by; URLs and prefixes with or without scheme and host."""
        path = scopes.url[scopes.url.find("/", scopes.url.find("://") + 3) :]
        yield "all", ""
        yield "url", scopes.url
        yield "url", path
        yield "host", scopes.host
        for tag in scopes.tags:
            yield "tag", tag
        for length in self._lengths:
            yield "prefix", scopes.url[:length]
            yield "prefix", path[:length]

    def _collapse(self) -> None:
        ages = sorted([*self._hard.values(), *self._soft.values()])
        line = ages[len(ages) // 2]
        hard_was_dropped = any(generation <= line for generation in self._hard.values())
        table = self._hard if hard_was_dropped else self._soft
        table["all", ""] = max(line + 1, table.get(("all", ""), 0))
        self._forget(line)

    def _forget(self, oldest: int) -> None:
        for table in (self._hard, self._soft):
            for name in [name for name, generation in table.items() if generation <= oldest]:
                del table[name]
        names = [*self._hard, *self._soft]
        self._lengths = tuple({len(value) for kind, value in names if kind == "prefix"})


def _line(values: list[object]) -> bytes:
    text = json.dumps(values, separators=(",", ":")).encode()
    return b"%08x %b\n" % (crc32(text), text)


def _parse(line: bytes) -> tuple[int, str, str, int]:
    crc, _, text = line.partition(b" ")
    if int(crc, 16) != crc32(text):
        raise ValueError("the line does not match its checksum")
    generation, kind, value, soft = json.loads(text)
    return generation, kind, value, soft
