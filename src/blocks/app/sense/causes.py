"""A misspelt key is one mistake: that the right key is missing, or that a name below it is not found, is not said, too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from blocks.core.config.complaint import At, Complaint

_UNKNOWN = re.compile(r"unknown (?:key|table) '[^']*'; did you mean '([^']*)'\?")


class _Misspelt(NamedTuple):
    """``at`` is the table in which ``key`` stands for ``meant``, which may be ``given``, too; ``names`` are the keys of what it holds."""

    at: At
    key: str
    meant: str
    given: bool
    names: tuple[str, ...]


def first_causes(complaints: Iterable[Complaint], tables: Mapping[str, Any]) -> list[Complaint]:
    """The complaints without those that a misspelt key has brought with it, each once."""
    found = list(dict.fromkeys(complaints))
    misspelt = [one for complaint in found if (one := _misspelt(complaint, tables)) is not None]
    if not misspelt:
        return found
    return [one for one in found if not any(_brings(cause, one) for cause in misspelt)]


def _misspelt(complaint: Complaint, tables: Mapping[str, Any]) -> _Misspelt | None:
    match = _UNKNOWN.fullmatch(complaint.message)
    if match is None or not complaint.at:
        return None
    table: Any = tables
    for key in complaint.at[:-1]:
        try:
            table = table[key]
        except (KeyError, IndexError, TypeError):
            return None
    value = table.get(complaint.at[-1]) if isinstance(table, Mapping) else None
    names = tuple(str(name) for name in value) if isinstance(value, Mapping) else ()
    given = isinstance(table, Mapping) and match.group(1) in table
    return _Misspelt(complaint.at[:-1], str(complaint.at[-1]), match.group(1), given, names)


def _brings(cause: _Misspelt, complaint: Complaint) -> bool:
    at, depth = complaint.at, len(cause.at)
    if at[:depth] != cause.at or at == (*cause.at, cause.key):
        return False
    if len(at) == depth and not cause.given:  # the key that was meant is missing
        return re.search(rf"\b{re.escape(cause.meant)}\b", complaint.message) is not None
    if len(at) > depth and at[depth] == cause.meant and not cause.given:  # what stands there when nothing is given
        return True
    return "there is no" in complaint.message and any(repr(name) in complaint.message for name in cause.names)
