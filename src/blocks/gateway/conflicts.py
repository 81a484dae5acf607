"""Routes that no request reaches, because another takes every one of theirs first. Conflicts are errors of the table itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .route import Route


def unreachable(routes: Sequence[Route]) -> Iterable[tuple[int, str]]:
    """(place, why) for every route that can never be taken, or only by the order of the file."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, route in enumerate(routes):
        if route.weight == 0:
            yield place, "its weight is 0, so it is never taken"
        for host in route.hosts or ("",):
            groups.setdefault((host, route.version, *route.template.shape), []).append(place)
    told: set[int] = set()
    for group in groups.values():
        for place in group:
            for other in group:
                if other != place and place not in told and _hides(routes[other], routes[place], other < place):
                    told.add(place)
                    yield place, f"route {routes[other].name!r} takes every request of it first"
    yield from _shadowed_by_order(routes, groups)


def _hides(first: Route, second: Route, earlier: bool) -> bool:
    """Whether ``first`` is tried before ``second`` on the same path and takes all that ``second`` would."""
    asks = len(first.headers) + len(first.query), len(second.headers) + len(second.query)
    if first.methods is not None and (second.methods is None or not second.methods <= first.methods):
        return False
    same = (
        dict(first.headers).items() <= dict(second.headers).items()
        and dict(first.query).items() <= dict(second.query).items()
    )
    if not same or asks[0] < asks[1]:
        return False  # the one that asks for more is tried first
    sizes = [1000 if route.methods is None else len(route.methods) for route in (first, second)]
    return sizes[0] < sizes[1] or (sizes[0] == sizes[1] and earlier and first.weight is None)


def _shadowed_by_order(
    routes: Sequence[Route], groups: dict[tuple[object, ...], list[int]]
) -> Iterable[tuple[int, str]]:
    """Routes of one path whose methods meet and that ask for as much: only their order decides."""
    for group in groups.values():
        for position, place in enumerate(group):
            for other in group[:position]:
                one, two = routes[other], routes[place]
                meet = one.methods is None or two.methods is None or bool((one.methods & two.methods) - {"HEAD"})
                alike = len(one.headers) + len(one.query) == len(two.headers) + len(two.query)
                asked = (one.headers or one.query) and (dict(one.headers), dict(one.query)) != (
                    dict(two.headers),
                    dict(two.query),
                )
                narrower = (one.methods is None) == (two.methods is None) and (
                    one.methods is None or two.methods is None or len(one.methods) == len(two.methods)
                )
                if meet and alike and asked and narrower:
                    yield place, f"it and route {one.name!r} may both take a request; the order of the file decides"
