"""Settings that come to nothing, because what they belong to is off or another one stands before them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from blocks.core.config.complaint import At, Complaint

from .graph import Graph

_NEEDS = (  # (kind, key, the key that it needs, why)
    ("edges", "store_size", "store", "there is no second tier without store"),
    ("edges", "push_size", "store", "nothing can be pushed without store"),
    ("servers", "access_log_format", "access_log", "there is no access log without access_log"),
)


def needless(graph: Graph) -> Iterator[Complaint]:
    """A setting of what there is not."""
    view = graph.view
    for kind, key, needed, why in _NEEDS:
        for at, _ in view.tables_of(kind):
            if view.given((*at, key)) and view.absent((*at, needed)):
                yield Complaint((*at, key), f"counts for nothing: {why}", "warning")
    for at, _ in view.tables_of("balancers"):
        health: At = (*at, "health")
        if view.raw((*health, "mode")) == "tcp":
            for key in ("path", "method", "statuses", "headers", "expect_headers", "expect_body"):
                if view.given((*health, key)):
                    said = "counts for nothing: with mode = 'tcp' a probe only connects"
                    yield Complaint((*health, key), said, "warning")


def unverified(graph: Graph) -> Iterator[Complaint]:
    """An upstream whose certificate nobody looks at."""
    for at, _ in graph.view.tables_of("upstreams"):
        if graph.view.raw((*at, "tls", "verify")) is False:
            said = "whoever is in between can answer for this server; ca trusts a certificate of your own"
            yield Complaint((*at, "tls", "verify"), said, "warning")


def bodies(graph: Graph) -> Iterator[Complaint]:
    """A route that accepts larger bodies than any server that leads to it."""
    view = graph.view
    for at, _ in view.tables_of("gateways"):
        servers = [server for server, _ in view.tables_of("servers") if at in graph.below(server)]
        most = [view.size((*server, "max_body")) for server in servers]
        known = [one for one in most if one is not None]
        routes = view.raw((*at, "routes"))
        for place, route in enumerate(
            routes if isinstance(routes, list) and servers and len(known) == len(most) else ()
        ):
            where: At = (*at, "routes", place, "accept", "max_body")
            wanted = view.size(where) if isinstance(route, Mapping) and view.given(where) else None
            if wanted is not None and wanted > max(known):
                who = ", ".join(f"[servers.{server[1]}]" for server in servers)
                yield Complaint(
                    where, f"{wanted} bytes never come: {who} takes at most {max(known)} (max_body)", "warning"
                )
