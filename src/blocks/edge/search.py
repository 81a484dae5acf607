"""No-Vary-Search: a response that says which query parameters do not matter answers for all URLs that differ in nothing else.

Source: draft-ietf-httpbis-no-vary-search. A field that is no such dictionary counts as absent: every parameter matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote_plus

from .structured import Inner, Item, NotStructured, parse_dictionary


@dataclass(frozen=True, slots=True)
class SearchVariance:
    """Which parameters do not matter: those in ``ignored``, or all but those in ``heeded``; with ``any_order`` nor does their order."""

    ignored: frozenset[str] = frozenset()
    heeded: frozenset[str] | None = None
    any_order: bool = False

    def canonical(self, query: str) -> str:
        """One form for every query that means the same to this response."""
        kept: list[tuple[str, str]] = []
        for part in query.split("&"):
            if not part:
                continue
            name, _, value = part.partition("=")
            plain = unquote_plus(name)
            if plain not in self.ignored if self.heeded is None else plain in self.heeded:
                kept.append((plain, unquote_plus(value)))
        if self.any_order:
            kept.sort(key=lambda pair: pair[0])
        return "&".join(f"{name!r}={value!r}" for name, value in kept)


def parse_no_vary_search(value: bytes) -> SearchVariance | None:
    """The variance that a No-Vary-Search field states, or None when it states none (or is malformed)."""
    try:
        members = parse_dictionary(value)
    except NotStructured:
        return None
    order, params, excepted = members.get("key-order"), members.get("params"), members.get("except")
    any_order = isinstance(order, Item) and order.value is True
    if order is not None and not (isinstance(order, Item) and isinstance(order.value, bool)):
        return None
    if isinstance(params, Inner):
        ignored = _strings(params)
        if excepted is not None or ignored is None:
            return None
        found = SearchVariance(ignored, None, any_order)
    elif isinstance(params, Item) and params.value is True:
        heeded = frozenset[str]() if excepted is None else _strings(excepted) if isinstance(excepted, Inner) else None
        if heeded is None:
            return None
        found = SearchVariance(frozenset(), heeded, any_order)
    elif excepted is not None or not (params is None or (isinstance(params, Item) and params.value is False)):
        return None
    else:
        found = SearchVariance(any_order=any_order)
    return None if found == SearchVariance() else found


def _strings(inner: Inner) -> frozenset[str] | None:
    values = [item.value for item in inner.items]
    return (
        frozenset(unquote_plus(str(value)) for value in values) if all(type(value) is str for value in values) else None
    )
