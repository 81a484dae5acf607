"""JSON whose meaning no two parsers can disagree about: duplicate members, NaN and Infinity are refused.

Source: RFC 8259 §4 (names should be unique), RFC 7515 §4 (header names must be), RFC 8725 §2.4 (why it matters).
"""

from __future__ import annotations

import json
from typing import Any


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a JSON object names a member twice")
    return members


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_constant)


def loads(data: bytes) -> Any:
    """The value of a JSON text in UTF-8. Raises ``ValueError`` for anything else, deep nesting included."""
    try:
        return _decoder.decode(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


def loads_object(data: bytes) -> dict[str, Any]:
    """The members of a JSON object in UTF-8. Raises ``ValueError`` for anything else."""
    value = loads(data)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value
