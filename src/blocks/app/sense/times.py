"""Times that do not fit into each other: the one inside is longer than the one around it, so it never counts."""

from __future__ import annotations

from collections.abc import Iterator

from blocks.core.config.complaint import At, Complaint

from .graph import Graph
from .view import View

SYSTEMD = 90.0  # seconds: systemd's DefaultTimeoutStopSec, after which a service that stops is killed


def told(value: float) -> str:
    """``90`` as ``90s``, ``0.25`` as ``250ms``, ``300`` as ``5m``."""
    for unit, length in (("h", 3600), ("m", 60)):
        if value >= 2 * length and value % length == 0:
            return f"{value / length:g}{unit}"
    return f"{value:g}s" if value >= 1 or not value else f"{value * 1000:g}ms"


def _around(
    view: View, outer: At, inner: At, words: str, *, explicit: bool = True, equal: bool = False
) -> Iterator[Complaint]:
    """A warning at ``inner`` when its time is longer than that at ``outer`` (or as long); of defaults only with ``explicit=False``."""
    if explicit and not (view.given(outer) and view.given(inner)):
        return
    around, inside = view.seconds(outer), view.seconds(inner)
    if around is None or inside is None or not around:
        return
    if inside > around or (equal and inside == around):
        yield Complaint(inner, words.format(inside=told(inside), around=told(around)), "warning")


def probes(graph: Graph) -> Iterator[Complaint]:
    """A probe that may take longer than the pause until the next one."""
    view = graph.view
    for at, _ in view.tables_of("balancers"):
        health: At = (*at, "health")
        if view.given(health):
            words = "a probe may take {inside}, but the next one is due after {around} (interval)"
            where = (*health, "timeout") if view.given((*health, "timeout")) else (*health, "interval")
            for one in _around(view, (*health, "interval"), (*health, "timeout"), words, explicit=False, equal=True):
                yield one._replace(at=where)


def connecting(graph: Graph) -> Iterator[Complaint]:
    """A connect timeout over the timeout for the whole answer."""
    view = graph.view
    words = "connecting may take {inside}, longer than the answer may (timeout = {around})"
    for at, _ in view.tables_of("upstreams"):
        yield from _connecting(view, at, "timeout", words)
    for at, _ in view.tables_of("balancers"):
        yield from _connecting(view, at, "upstream_timeout", words.replace("timeout =", "upstream_timeout ="))
    for at, _ in view.tables_of("gateways"):
        services = view.raw((*at, "services"))
        for name in services if isinstance(services, dict) else ():
            yield from _connecting(view, (*at, "services", name), "timeout", words)


def _connecting(view: View, at: At, key: str, words: str) -> Iterator[Complaint]:
    inner, outer = (*at, "connect_timeout"), (*at, key)
    if view.given(inner):
        yield from _around(view, outer, inner, words, explicit=False)


def tries(graph: Graph) -> Iterator[Complaint]:
    """A balancer's tries and its queue against its timeout for all of them."""
    view = graph.view
    for at, _ in view.tables_of("balancers"):
        outer: At = (*at, "timeout")
        words = "one try may take {inside}, but all of them together get {around} (timeout)"
        yield from _around(view, outer, (*at, "retries", "per_try"), words)
        words = "a request may wait {inside} for a free upstream, but gets only {around} altogether (timeout)"
        yield from _around(view, outer, (*at, "queue", "timeout"), words, equal=True)
        around, per_try = view.seconds(outer), view.seconds((*at, "retries", "per_try"))
        count = view.number((*at, "retries", "tries"))
        if (
            around
            and per_try
            and count
            and per_try <= around < per_try * count
            and view.given((*at, "retries", "tries"))
        ):
            said = f"{int(count)} tries of {told(per_try)} take {told(per_try * count)}, but all of them get {told(around)} (timeout)"
            yield Complaint((*at, "retries", "tries"), said, "warning")


def inside(graph: Graph) -> Iterator[Complaint]:
    """A timeout of what is asked that is longer than the timeout of who asks: the balancer's, or a route's."""
    view = graph.view
    for at, _ in view.tables_of("servers", "balancers"):
        words = "{inside} never counts: [" + f"{at[0]}.{at[1]}" + "] gives up after {around} (timeout)"
        for inner in _timeouts(graph, at):
            yield from _around(view, (*at, "timeout"), inner, words)
    for at, _ in view.tables_of("gateways"):
        yield from _of_routes(graph, at)


def _of_routes(graph: Graph, at: At) -> Iterator[Complaint]:
    view = graph.view
    routes = view.raw((*at, "routes"))
    for place, route in enumerate(routes if isinstance(routes, list) else ()):
        where: At = (*at, "routes", place)
        name = route.get("service") if isinstance(route, dict) else None
        if not isinstance(name, str) or not view.given((*where, "timeout")):
            continue
        own: At = (*at, "services", name, "timeout")
        inner = (
            [own] if view.given(own) else _timeouts(graph, graph.homes[name], whole=True) if name in graph.homes else []
        )
        around = view.seconds((*where, "timeout"))
        longer = [one for one in inner if (view.seconds(one) or 0.0) > (around or float("inf"))]
        for one in longer[:1]:
            asked = ".".join(str(key) for key in one[:-1])
            inner_words = f"the {told(view.seconds(one) or 0.0)} of [{asked}] never count"
            said = f"the route gives up after {told(around or 0.0)}: {inner_words}"
            yield Complaint((*where, "timeout"), said, "warning")


def _timeouts(graph: Graph, at: At, *, whole: bool = False) -> list[At]:
    """The places of the timeouts, as they were given, that bound a request through ``at`` (of ``whole``: its own, too).

    What is inside a balancer with a timeout is bounded by that.
    """
    found: list[At] = []
    seen = {at}
    waiting = [(at, whole)]
    while waiting:
        one, counts = waiting.pop()
        own = [(*one, key) for key in ("timeout", "upstream_timeout") if graph.view.given((*one, key))]
        if counts and own and (one[0] == "upstreams" or own[0][-1] == "timeout"):
            found.append(own[0])
            continue
        found += [place for place in own if place[-1] == "upstream_timeout"]
        homes = [graph.homes[use.name] for use in graph.uses.get(one, ()) if use.name in graph.homes]
        waiting += [(home, True) for home in homes if home not in seen]
        seen.update(homes)
    return found


def leaving(graph: Graph) -> Iterator[Complaint]:
    """A drain that whoever stops the process will not wait for."""
    at: At = ("process", "drain_timeout")
    found = graph.view.seconds(at)
    before = graph.view.seconds(("process", "lame_duck")) or 0.0
    if found is not None and found + before > SYSTEMD:
        both = f"{told(before)} (lame_duck) and {told(found)}" if before else told(found)
        said = f"{both} is longer than systemd waits (TimeoutStopSec, {told(SYSTEMD)}) before it kills"
        yield Complaint(at, said, "warning")
