"""Trying again and failing over: what repeats that must not be repeated, and what has nowhere to go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from blocks.core.config.complaint import At, Complaint

from .graph import Graph, endpoints
from .view import View

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110 §9.2.2
_WORTH = frozenset(
    {408, 425, 429}
)  # the 4xx that another try may change (RFC 9110 §15.5.9, RFC 8470 §5.2, RFC 6585 §4)


def _count(view: View, at: At) -> tuple[At, int] | None:
    """(place, further tries) of a balancer's retries as they were given."""
    place: At = (*at, "retries")
    found = view.raw(place)
    if isinstance(found, Mapping):
        tries = view.number((*place, "tries"))
        return None if tries is None else ((*place, "tries") if "tries" in found else place, int(tries) - 1)
    number = view.number(place) if view.given(place) else None
    return None if number is None else (place, int(number))


def repeated(graph: Graph) -> Iterator[Complaint]:
    """Methods that are not idempotent, and answers that another try does not change."""
    view = graph.view
    for at, _ in view.tables_of("balancers", "upstreams"):
        for place, method in view.texts((*at, "retries", "methods")):
            if method.upper() not in IDEMPOTENT:
                said = f"{method.upper()} is not idempotent (RFC 9110 §9.2.2): one order may be made twice"
                yield Complaint(place, said, "warning")
        statuses = view.raw((*at, "retries", "statuses"))
        for number, status in enumerate(statuses if isinstance(statuses, list) else ()):
            if isinstance(status, int) and 400 <= status < 500 and status not in _WORTH:
                said = f"{status} is the client's mistake: another try gets the same answer"
                yield Complaint((*at, "retries", "statuses", number), said, "warning")


def alone(graph: Graph) -> Iterator[Complaint]:
    """Retries with one upstream: nothing to fail over to."""
    view = graph.view
    for at, _ in view.tables_of("balancers"):
        count = _count(view, at)
        if count is not None and count[1] > 0 and len(list(endpoints(view, at))) == 1:
            said = "there is one upstream: a retry can only ask the one that failed"
            yield Complaint(count[0], said, "warning")


def twice(graph: Graph) -> Iterator[Complaint]:
    """An upstream that a balancer has two times, and a balancer with none."""
    view = graph.view
    for at, table in view.tables_of("balancers"):
        if table.get("upstreams") == []:
            yield Complaint((*at, "upstreams"), "is empty: a balancer needs at least one upstream")
        seen: set[str] = set()
        for place, text in endpoints(view, at):
            if text in seen:
                said = f"{text!r} is there already; a server gets more requests by a weight, not by a second name"
                yield Complaint(place, said)
            seen.add(text)


def multiplied(graph: Graph) -> Iterator[Complaint]:
    """Balancers inside each other that both try again: their tries multiply."""
    view = graph.view
    for at, _ in view.tables_of("balancers"):
        outer = _count(view, at)
        for other in graph.below(at):
            inner = _count(view, other) if other != at and other[0] == "balancers" else None
            if outer is not None and inner is not None and outer[1] > 0 and inner[1] > 0:
                total = (outer[1] + 1) * (inner[1] + 1)
                said = f"[balancers.{at[1]}] tries again, too: up to {total} tries for one request"
                yield Complaint(inner[0], said, "warning")


def unheard(graph: Graph) -> Iterator[Complaint]:
    """Retries of an upstream that only balancers ask: they try again by their own."""
    view = graph.view
    for at, _ in view.tables_of("upstreams"):
        askers = [asker for asker, uses in graph.uses.items() for use in uses if graph.homes.get(use.name) == at]
        if view.given((*at, "retries")) and askers and all(asker[0] == "balancers" for asker in askers):
            said = f"only [balancers.{askers[0][1]}] asks it, which has its own retries: these are never made"
            yield Complaint((*at, "retries"), said, "warning")


def blind(graph: Graph) -> Iterator[Complaint]:
    """Several upstreams, and nothing that takes a dead one out of rotation."""
    view = graph.view
    for at, _ in view.tables_of("balancers"):
        off = view.raw((*at, "outlier")) is False
        if off and view.absent((*at, "health")) and len(list(endpoints(view, at))) > 1:
            said = "without health checks nothing takes a dead upstream out: give health, or leave outlier on"
            yield Complaint((*at, "outlier"), said, "warning")


def capacity(graph: Graph) -> Iterator[Complaint]:
    """Bounds that the number of clients never lets be reached."""
    view = graph.view
    for at, _ in view.tables_of("balancers"):
        clients = [
            (view.number((*server, "max_connections")), server)
            for server, _ in view.tables_of("servers")
            if at in graph.below(server)
        ]
        if not clients or any(most is None for most, _ in clients):
            continue
        total = int(sum(most or 0 for most, _ in clients))
        count = len(list(endpoints(view, at)))
        who = ", ".join(f"[servers.{server[1]}]" for _, server in clients)
        each = view.number((*at, "max_requests"))
        if each is not None and view.given((*at, "max_requests")) and each * max(count, 1) > total:
            said = f"{count} × {int(each)} requests are never under way: {who} has at most {total} clients (max_connections)"
            yield Complaint((*at, "max_requests"), said, "warning")
        for place in ((*at, "queue"), (*at, "queue", "size")):
            size = view.number(place)
            if size is not None and view.given(place) and size >= total:
                said = f"{int(size)} never wait: {who} has at most {total} clients (max_connections)"
                yield Complaint(place, said, "warning")
