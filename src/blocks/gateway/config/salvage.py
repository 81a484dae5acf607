"""What is right in a wrong file is looked at all the same: one run finds everything, and says nothing because of what it took out."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from itertools import takewhile
from typing import Any

from blocks.core.config.complaint import At

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)")


def without(tables: dict[str, Any], places: Iterable[At]) -> dict[str, Any]:
    """A copy of the tables without what stands at the places; a list with something wrong in it goes as a whole, and so does a service."""
    left = copy.deepcopy(tables)
    for at in places:
        way = tuple(takewhile(lambda key: isinstance(key, str), at))
        way = way[:2] if way[:1] == ("services",) else way
        holder: Any = left
        for key in way[:-1]:
            holder = holder.get(key) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and way:
            holder.pop(way[-1], None)
    return left


def stand_in(path: Any) -> str:
    """A right template with the parameters of a wrong one, so that steps which name them are not wrong, too."""
    names = dict.fromkeys(_PARAMETER.findall(path)) if isinstance(path, str) else {}
    return "/" + "/".join(f"{{{name}}}" for name in names)
