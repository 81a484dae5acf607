"""``[upstreams.NAME]``: a server that is asked."""

from __future__ import annotations

from typing import Any

from blocks.core.errors import ConfigError
from blocks.http.handler import chain

from ..bench import Bench
from ..filters import again
from ..node import Node
from ..tables import ClientTlsTable, UpstreamTable, given

_SETTINGS = ("timeout", "connect_timeout", "host", "idle", "uses", "age", "keep")


def make(name: str, table: UpstreamTable, bench: Bench) -> Node:
    """The upstream; before it the filter that tells it who the client is, and before that the one that asks again.

    A try that is repeated begins with the fields that the client sent: they are stated anew each time.
    """
    settings = given(table, *_SETTINGS)
    if table.tls is not None:
        settings |= _tls(table.tls, bench)
    upstream = bench.upstream(table.url, name=name, **settings)
    front = bench.told(upstream, table.forwarded, table.trusted)
    filter = None if table.retries is None else again(table.retries, bench)
    return Node("upstreams", name, upstream, front=front if filter is None else chain(filter, to=front))


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
