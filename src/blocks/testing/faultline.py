"""A fault as people write it: ``"next 2: reset"``, ``"every 10 path /pay: delay 200ms"``, ``"chance 1%: cut-body 100"``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from blocks.core.errors import ConfigError

from .faults import Choice, Faults
from .rules import Armed

_WHICH: dict[str, Callable[[Choice, str], Choice]] = {
    "next": lambda choice, word: choice.next(_number(word)),
    "every": lambda choice, word: choice.every(_number(word)),
    "after": lambda choice, word: choice.after(_number(word)),
    "chance": lambda choice, word: choice.chance(_share(word)),
}
# verb: (method of Choice, the least and the most words that follow)
_VERBS: dict[str, tuple[str, int, int]] = {
    "reset": ("reset", 0, 0),
    "close": ("close", 0, 0),
    "hang": ("hang", 0, 0),
    "half-open": ("half_open", 0, 0),
    "delay": ("delay", 1, 1),
    "reorder": ("reorder", 0, 2),
    "trickle": ("trickle", 0, 2),
    "bandwidth": ("bandwidth", 1, 1),
    "cut-head": ("cut_head", 0, 1),
    "cut-body": ("cut_body", 0, 1),
    "corrupt-head": ("corrupt_head", 0, 0),
    "corrupt-body": ("corrupt_body", 0, 0),
    "duplicate": ("duplicate", 0, 0),
    "status": ("status", 1, 1),
}
VERBS = tuple(_VERBS)


def arm(faults: Faults, line: str) -> Armed:
    """Arm what ``line`` says. Raises ``ConfigError`` that names the word it could not read.

    Before the colon: ``next N``, ``every N``, ``after N``, ``chance 1%``, ``method M``, ``path /prefix``, in any order; nothing
    means always. ``connections`` first makes it a rule for connections as they are accepted. After it: a verb and what it needs.
    """
    which, colon, what = line.partition(":")
    if not colon:
        which, what = "", line
    words = which.replace(",", " ").split()
    choice: Choice = faults.always()
    of_connections = bool(words) and words[0] == "connections"
    if of_connections:
        choice = faults.connections.always()
        words = words[1:]
    if len(words) % 2:
        raise ConfigError(f"{line!r}: {words[-1]!r} needs a value; write it like 'next 2 path /pay: reset'")
    matched: dict[str, Any] = {}
    for word, value in zip(words[::2], words[1::2], strict=True):
        if word in ("method", "path") and not of_connections:
            matched[word] = value
        elif word in _WHICH:
            choice = _WHICH[word](choice, value)
        else:
            raise ConfigError(f"{line!r}: {word!r} chooses nothing; there are {', '.join([*_WHICH, 'method', 'path'])}")
    if matched:
        choice = choice.matching(**matched)
    return _do(choice, what.split(), line)


def _do(choice: Choice, words: list[str], line: str) -> Armed:
    verb = words[0] if words else ""
    if verb not in _VERBS:
        raise ConfigError(f"{line!r}: there is no fault {verb!r}; there are {', '.join(VERBS)}")
    method, least, most = _VERBS[verb]
    values: list[Any] = words[1:]
    if not least <= len(values) <= most:
        raise ConfigError(
            f"{line!r}: {verb} takes {least if least == most else f'{least} to {most}'} values, not {len(values)}"
        )
    if verb in ("status", "cut-head"):
        values = [_number(value) for value in values]
    elif verb == "reorder":
        values = [_number(value) for value in values[:1]] + values[1:]
    armed: Armed = getattr(choice, method)(*values)
    return armed


def _number(word: str) -> int:
    if not word.isdigit():
        raise ConfigError(f"{word!r} is not a whole number")
    return int(word)


def _share(word: str) -> float:
    try:
        return float(word[:-1]) / 100 if word.endswith("%") else float(word)
    except ValueError:
        raise ConfigError(f"{word!r} is not a share; write 0.01 or 1%") from None
