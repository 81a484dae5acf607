"""Where each key of a JSON or YAML text stands.

As the scanner of TOML they run only on text that was accepted, so they need not find errors, only places.
"""

from __future__ import annotations

import re
from typing import Any

from .complaint import At
from .places import Place

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SCALAR = re.compile(r"[^,\]}\s]+")
_STEEP = 200  # how deep tables may be inside each other; what is deeper has no places of its own
_MANY = 100_000  # keys of a YAML file that get places


class JsonScanner:
    """Fills ``places``: the place of every key and array element of a JSON text, by its path."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places: dict[At, Place] = {}
        self.twice: list[Place] = []  # of keys that were in the same object before
        self._starts = [0, *[match.end() for match in re.finditer("\n", text)]]

    def run(self) -> dict[At, Place]:
        """The places of the whole text."""
        self._value(())
        return self.places

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            self.at += 1  # cannot be in accepted text; never stand still
            return ""
        self.at = match.end()
        return match.group()

    def _mark(self, path: At, begin: int) -> None:
        import bisect

        line = bisect.bisect_right(self._starts, begin)
        width = len(self.text[begin : self.at].partition("\n")[0].rstrip())
        place = Place(line, begin - self._starts[line - 1] + 1, max(width, 1))
        if path in self.places:
            self.twice.append(place)
        self.places[path] = place

    def _value(self, path: At) -> None:
        self._skip(_SPACE)
        letter = self.text[self.at : self.at + 1]
        if letter == '"':
            self._skip(_STRING)
        elif letter in ("{", "[") and len(path) < _STEEP:
            self._members(path, "}" if letter == "{" else "]")
        else:
            self._skip(_SCALAR)

    def _members(self, path: At, end: str) -> None:
        """The keys of an object, or the elements of an array."""
        self.at += 1
        number = 0
        while self.at < len(self.text):
            self._skip(_SPACE)
            if self.text.startswith(end, self.at):
                self.at += 1
                return
            begin = self.at
            if end == "}":
                import json

                inside = (*path, str(json.loads(self._skip(_STRING) or '""')))
                self._mark(inside, begin)
                self._skip(_SPACE)
                self.at += 1  # the ":"
                self._value(inside)
            else:
                self._value((*path, number))
                self._mark((*path, number), begin)
                number += 1
            self._skip(_SPACE)
            if self.text.startswith(",", self.at):
                self.at += 1


def json_places(text: str) -> dict[At, Place]:
    """The place of every key of a JSON text that is known to be right."""
    return JsonScanner(text).run()


def json_twice(text: str) -> Place:
    """The place of the first key of a JSON text that is in its object a second time."""
    scanner = JsonScanner(text)
    scanner.run()
    return scanner.twice[0] if scanner.twice else Place(1, 1, 1)  # deeper than keys have places


def yaml_places(text: str) -> dict[At, Place]:
    """The place of every key of a YAML text that is known to be right."""
    import yaml

    places: dict[At, Place] = {}
    root = yaml.compose(text, Loader=yaml.SafeLoader)

    def mark(path: At, node: Any) -> None:
        start, end = node.start_mark, node.end_mark
        width = end.column - start.column if end.line == start.line else 1
        places.setdefault(path, Place(start.line + 1, start.column + 1, max(width, 1)))

    def visit(node: Any, path: At) -> None:
        if len(path) >= _STEEP or len(places) >= _MANY:
            return  # anchors that repeat each other
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                mark((*path, str(key.value)), key)
                visit(value, (*path, str(key.value)))
        elif isinstance(node, yaml.SequenceNode):
            for place, item in enumerate(node.value):
                mark((*path, place), item)
                visit(item, (*path, place))

    visit(root, ())
    return places
