"""``[upstreams.NAME]``: a server that is asked."""

from __future__ import annotations

from typing import Any

from blocks.core.errors import ConfigError

from ..bench import Bench
from ..node import Node
from ..tables import ClientTlsTable, UpstreamTable, given

_SETTINGS = ("timeout", "connect_timeout", "host", "idle", "uses", "age", "keep")


def make(name: str, table: UpstreamTable, bench: Bench) -> Node:
    """The upstream, and before it the filter that tells it who the client is."""
    settings = given(table, *_SETTINGS)
    if table.tls is not None:
        settings |= _tls(table.tls, bench)
    upstream = bench.upstream(table.url, name=name, **settings)
    return Node("upstreams", name, upstream, front=bench.told(upstream, table.forwarded, table.trusted))


def _tls(table: ClientTlsTable, bench: Bench) -> dict[str, Any]:
    from blocks.http.tls import client_context

    if (table.cert is None) != (table.key is None):
        raise ConfigError("tls has cert and key together, or neither")
    pair = None
    if table.cert is not None and table.key is not None:
        pair = (bench.path(table.cert), bench.path(table.key))
    context = client_context(
        ca=None if table.ca is None else bench.path(table.ca), certificate=pair, verify=table.verify
    )
    return {"tls": context, **given(table, "server_name")}
