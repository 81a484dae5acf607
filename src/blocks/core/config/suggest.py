"""A misspelt name gets the nearest right one: ``; did you mean 'limit'?``."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def suggestion(given: str, known: Iterable[str]) -> str:
    """What to add to an error about an unknown name: the nearest known one, or the few that there are, or nothing."""
    names = sorted(str(name) for name in known)
    near = get_close_matches(given, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    if 0 < len(names) <= 8:
        return f"; there is {', '.join(names)}"
    return ""
