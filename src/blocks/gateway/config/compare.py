"""What differs between two files: tables and routes that were added, removed or changed, with the keys that differ; no secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from blocks.core.config.complaint import dotted
from blocks.core.masking import MASK, is_secret, masked


class Difference(NamedTuple):
    """``how`` is ``+``, ``-`` or ``~``; ``where`` a path; ``before`` and ``after`` the values, None where there is none."""

    how: str
    where: str
    before: Any
    after: Any

    def line(self) -> str:
        """For people."""
        if self.how == "~":
            return f"~ {self.where}: {self.before!r} -> {self.after!r}"
        return f"{self.how} {self.where} = {(self.after if self.how == '+' else self.before)!r}"


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """The differences of two files' tables. Routes are paired by name, or by what they take: their order is no difference."""
    found: list[Difference] = []
    one, other = dict(before), dict(after)
    _tables(_by_name(one.pop("routes", [])), _by_name(other.pop("routes", [])), ("routes",), found)
    _tables(one, other, (), found)
    return found


def _by_name(routes: Any) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for table in routes if isinstance(routes, list) else ():
        parts = [
            str(table.get(key)) for key in ("methods", "host", "path", "version", "headers", "query") if table.get(key)
        ]
        name = str(table.get("name") or " ".join(parts))
        while name in named:
            name += "'"
        named[name] = table
    return named


def _tables(one: Mapping[str, Any], other: Mapping[str, Any], at: tuple[str, ...], found: list[Difference]) -> None:
    for key in sorted({*one, *other}):
        where = (*at, key)
        if key not in one:
            found.append(Difference("+", dotted(where), None, _shown(where, other[key])))
        elif key not in other:
            found.append(Difference("-", dotted(where), _shown(where, one[key]), None))
        elif isinstance(one[key], dict) and isinstance(other[key], dict):
            _tables(one[key], other[key], where, found)
        elif one[key] != other[key]:
            found.append(Difference("~", dotted(where), _shown(where, one[key]), _shown(where, other[key])))


def _shown(where: tuple[str, ...], value: Any) -> Any:
    return MASK if is_secret(where[-1]) and not isinstance(value, dict) else masked(value)
