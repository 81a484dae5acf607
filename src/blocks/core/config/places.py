"""Where each key of a TOML text stands: a scanner that follows the text as ``tomllib`` does and keeps lines and columns.

It runs only on text that ``tomllib`` has accepted, so it need not find errors, only places.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .complaint import At

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"(?:[^"\\]|\\.)*"')
_LITERAL = re.compile(r"'[^']*'")
_LONG = {'"""': re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}', re.S), "'''": re.compile(r"'''.*?'{3,5}", re.S)}
_SCALAR = re.compile(r"[^,\]}\n#]+")


class Place(NamedTuple):
    """Where something begins: line and column from 1, and how many characters it has."""

    line: int
    column: int
    width: int


class Scanner:
    """Fills ``places``: the place of every key, table header and array element, by its path."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places: dict[At, Place] = {}
        self._starts = [0, *[match.end() for match in re.finditer("\n", text)]]
        self._lengths: dict[At, int] = {}  # of arrays of tables

    def run(self) -> dict[At, Place]:
        """The places of the whole text."""
        table: At = ()
        self._skip(_SPACE)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_SPACE)
        return self.places

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            self.at += 1  # cannot be in accepted text; never stand still
            return ""
        self.at = match.end()
        return match.group()

    def _mark(self, path: At, begin: int, end: int) -> None:
        if path not in self.places:
            import bisect

            line = bisect.bisect_right(self._starts, begin)
            self.places[path] = Place(line, begin - self._starts[line - 1] + 1, max(end - begin, 1))

    def _header(self) -> At:
        begin = self.at
        several = self.text.startswith("[[", self.at)
        self.at += 2 if several else 1
        words = self._words()
        self.at += 2 if several else 1
        path = self._resolve(words[:-1])
        path = (*path, words[-1])
        if several:
            number = self._lengths.get(path, 0)
            self._lengths[path] = number + 1
            self._mark(path, begin, self.at)
            path = (*path, number)
        elif path in self._lengths:
            path = (*path, self._lengths[path] - 1)
        self._mark(path, begin, self.at)
        return path

    def _resolve(self, words: list[str]) -> At:
        """The path of a header's words: a word that names an array of tables means its last table."""
        path: At = ()
        for word in words:
            path = (*path, word)
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
        return path

    def _words(self) -> list[str]:
        """A dotted key."""
        words: list[str] = []
        while True:
            self._skip(_BLANK)
            words.append(self._word())
            self._skip(_BLANK)
            if not self.text.startswith(".", self.at):
                return words
            self.at += 1

    def _word(self) -> str:
        letter = self.text[self.at : self.at + 1]
        if letter == '"':
            return _unquote(self._skip(_BASIC))
        if letter == "'":
            return self._skip(_LITERAL)[1:-1]
        return self._skip(_BARE)

    def _pair(self, table: At) -> None:
        begin = self.at
        words = self._words()
        end = begin + len(self.text[begin : self.at].rstrip())
        path = table
        for word in words:
            path = (*path, word)
            self._mark(path, begin, end)
        self.at += 1  # the "="
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: At) -> None:
        text = self.text
        letter = text[self.at : self.at + 1]
        if letter in ('"', "'"):
            long = _LONG.get(text[self.at : self.at + 3])
            self._skip(long if long is not None else _BASIC if letter == '"' else _LITERAL)
        elif letter == "[":
            self._array(path)
        elif letter == "{":
            self._inline(path)
        else:
            self._skip(_SCALAR)

    def _array(self, path: At) -> None:
        self.at += 1
        number = 0
        while True:
            self._skip(_SPACE)
            if self.text.startswith("]", self.at) or self.at >= len(self.text):
                self.at += 1
                return
            begin = self.at
            self._value((*path, number))
            self._mark((*path, number), begin, begin + len(self.text[begin : self.at].partition("\n")[0].rstrip()))
            number += 1
            self._skip(_SPACE)
            if self.text.startswith(",", self.at):
                self.at += 1

    def _inline(self, path: At) -> None:
        self.at += 1
        while True:
            self._skip(_SPACE)
            if self.text.startswith("}", self.at) or self.at >= len(self.text):
                self.at += 1
                return
            self._pair(path)
            self._skip(_SPACE)
            if self.text.startswith(",", self.at):
                self.at += 1


def _unquote(text: str) -> str:
    import tomllib

    return str(tomllib.loads(f"x = {text}")["x"])


def places_of(text: str) -> dict[At, Place]:
    """The place of every key of a TOML text that is known to be right."""
    return Scanner(text).run()


def nearest(places: dict[At, Place], at: At) -> Place | None:
    """The place of ``at``, or of the first thing below it (``[a.b]`` for ``a``), or of what encloses it."""
    while at:
        if at in places:
            return places[at]
        below = next((place for path, place in places.items() if path[: len(at)] == at), None)
        if below is not None:
            return below
        at = at[:-1]
    return places.get(())
