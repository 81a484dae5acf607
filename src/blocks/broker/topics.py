"""Topic names are dotted words; in a pattern ``*`` stands for one word and a last ``>`` for one word or more.

The syntax is NATS's. A first word that begins with ``$`` is the broker's own and is matched only by a pattern that
spells that word out (MQTT 5 §4.7.2), so a subscription to ``>`` does not see dead letters or request inboxes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Generic, TypeVar

from .errors import BadTopic

T = TypeVar("T")

MAX_NAME_BYTES = 255  # Kafka allows 249
MAX_WORDS = 32  # bounds the depth of a trie; NATS advises 16

_WORD = re.compile(r"[^\s.*>\x00-\x1f\x7f]+")
_NAME = re.compile(rf"{_WORD.pattern}(?:\.{_WORD.pattern})*")


def check_topic(name: str) -> str:
    """``name``, if it is a topic's name, else ``BadTopic``: dotted words, no blanks, at most 255 bytes, 32 words."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise BadTopic(f"{name!r} is not a topic name: write dotted words without blanks or wildcards, like a.b.c")
    _check_size(name)
    return name


def check_pattern(pattern: str) -> str:
    """``pattern``, if it is a name or has ``*`` for whole words and ``>`` only as the last one; else ``BadTopic``."""
    if not isinstance(pattern, str) or not pattern:
        raise BadTopic(f"{pattern!r} is not a topic pattern: write dotted words, * for one word, > for the rest")
    words = pattern.split(".")
    for position, word in enumerate(words):
        if word == "*" or (word == ">" and position == len(words) - 1):
            continue
        if _WORD.fullmatch(word) is None:
            raise BadTopic(f"{pattern!r} is not a topic pattern: * is one whole word, and > the rest, at the end only")
    _check_size(pattern)
    return pattern


def is_pattern(text: str) -> bool:
    """Whether ``text`` has a wildcard, so that it may stand for more than one topic."""
    return "*" in text or ">" in text


def matches(pattern: str, name: str) -> bool:
    """Whether the topic ``name`` is one that ``pattern`` stands for."""
    if pattern == name:
        return True
    wanted, words = pattern.split("."), name.split(".")
    if words[0].startswith("$") and wanted[0] != words[0]:
        return False
    for position, word in enumerate(wanted):
        if word == ">":
            return len(words) > position
        if position >= len(words) or word not in ("*", words[position]):
            return False
    return len(wanted) == len(words)


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic that the pattern ``narrow`` stands for is one of ``wide``'s."""
    outer, inner = wide.split("."), narrow.split(".")
    if outer[0] != inner[0] and inner[0].startswith("$"):
        return False
    for position, word in enumerate(outer):
        if word == ">":
            return len(inner) > position
        if position >= len(inner):
            return False
        other = inner[position]
        if other == ">" or (word != "*" and word != other):
            return False
    return len(outer) == len(inner)


class Patterns(Generic[T]):
    """Finds the values whose patterns match a topic in time that grows with the topic's words, not with the patterns.

    Answers are cached by topic (at most ``cache`` of them; any change of the patterns empties it), so that a hot topic
    costs one look-up. Values are kept once for a pattern.
    """

    __slots__ = ("_cache", "_cache_size", "_root", "_size", "epoch")

    def __init__(self, cache: int = 65_536) -> None:
        self._root: _Node[T] = _Node()
        self._cache: dict[str, tuple[T, ...]] = {}
        self._cache_size = cache
        self._size = 0
        self.epoch = 0  # grows with every change, for those who keep answers of their own

    def __len__(self) -> int:
        return self._size

    def add(self, pattern: str, value: T) -> None:
        """Let topics that ``pattern`` matches find ``value``. Raises ``BadTopic``."""
        node = self._root
        for word in check_pattern(pattern).split("."):
            node = node.children.setdefault(word, _Node())
        if value not in node.values:
            node.values[value] = None
            self._size += 1
            self.epoch += 1
            self._cache.clear()

    def discard(self, pattern: str, value: T) -> None:
        """Undo ``add``; nothing happens if there was none."""
        path: list[tuple[_Node[T], str]] = []
        node = self._root
        for word in pattern.split("."):
            child = node.children.get(word)
            if child is None:
                return
            path.append((node, word))
            node = child
        if value not in node.values:
            return
        del node.values[value]
        self._size -= 1
        self.epoch += 1
        self._cache.clear()
        for parent, word in reversed(path):
            child = parent.children[word]
            if child.values or child.children:
                break
            del parent.children[word]

    def match(self, name: str) -> tuple[T, ...]:
        """The values whose patterns match the topic ``name``, each once, in no promised order."""
        found = self._cache.get(name)
        if found is None:
            found = self._search(name.split("."))
            if len(self._cache) >= self._cache_size:
                self._cache.clear()
            self._cache[name] = found
        return found

    def _search(self, words: list[str]) -> tuple[T, ...]:
        found: dict[T, None] = {}
        level = [self._root]
        own = words[0].startswith("$")
        for position, word in enumerate(words):
            below: list[_Node[T]] = []
            for node in level:
                children = node.children
                child = children.get(word)
                if child is not None:
                    below.append(child)
                if own and position == 0:
                    continue
                child = children.get("*")
                if child is not None:
                    below.append(child)
                child = children.get(">")
                if child is not None:
                    found.update(child.values)
            level = below
        for node in level:
            found.update(node.values)
        return tuple(found)


class Names:
    """Holds topic names, and lists those that a pattern stands for without looking at the others."""

    __slots__ = ("_names", "_root")

    def __init__(self) -> None:
        self._root: _Node[str] = _Node()
        self._names: set[str] = set()

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def add(self, name: str) -> None:
        """Hold ``name``. Raises ``BadTopic``."""
        if name in self._names:
            return
        node = self._root
        for word in check_topic(name).split("."):
            node = node.children.setdefault(word, _Node())
        node.values[name] = None
        self._names.add(name)

    def discard(self, name: str) -> None:
        """Let go of ``name``; nothing happens if it is not held."""
        if name not in self._names:
            return
        self._names.discard(name)
        path: list[tuple[_Node[str], str]] = []
        node = self._root
        for word in name.split("."):
            path.append((node, word))
            node = node.children[word]
        node.values.clear()
        for parent, word in reversed(path):
            child = parent.children[word]
            if child.values or child.children:
                break
            del parent.children[word]

    def select(self, pattern: str) -> list[str]:
        """The names that ``pattern`` stands for. Raises ``BadTopic``."""
        if not is_pattern(pattern):
            return [pattern] if pattern in self._names else []
        level = [self._root]
        for position, word in enumerate(check_pattern(pattern).split(".")):
            if word == ">":
                return [name for node in level for child in _visible(node, position) for name in child.names()]
            if word == "*":
                level = [child for node in level for child in _visible(node, position)]
            else:
                level = [child for node in level if (child := node.children.get(word)) is not None]
        return [name for node in level for name in node.values]


class _Node(Generic[T]):
    """A word's place in a trie: what ends here, and what goes on."""

    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.values: dict[T, None] = {}

    def names(self) -> Iterator[T]:
        """Every value here and below."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield from node.values
            stack.extend(node.children.values())


def _visible(node: _Node[str], position: int) -> list[_Node[str]]:
    if position:
        return list(node.children.values())
    return [child for word, child in node.children.items() if not word.startswith("$")]


def _check_size(text: str) -> None:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES or text.count(".") >= MAX_WORDS:
        raise BadTopic(f"{text[:40]!r}… is too long: at most {MAX_NAME_BYTES} bytes and {MAX_WORDS} words")
