"""What a key comes to when it is left out: the default of the constructor that its table is a call of."""

from __future__ import annotations

import inspect
from functools import lru_cache
from importlib import import_module
from typing import Any

import msgspec

from .. import tables

_CALLS: dict[type[msgspec.Struct], str] = {
    tables.UpstreamTable: "blocks.http.upstream:Upstream",
    tables.RequestIdTable: "blocks.http.filters.request_id:request_id",
    tables.TraceTable: "blocks.http.filters.trace_context:trace_context",
    tables.CompressTable: "blocks.http.filters.compress:Compress",
    tables.AgainTable: "blocks.http.filters.retry:Retry",
    tables.HotlinkTable: "blocks.edge.guards:HotlinkGuard",
    tables.BalancerTable: "blocks.balancer.balancer:LoadBalancer",
    tables.MemberTable: "blocks.balancer.endpoint:Endpoint",
    tables.HealthTable: "blocks.balancer.health:Health",
    tables.OutlierTable: "blocks.balancer.outlier:Outlier",
    tables.RetriesTable: "blocks.balancer.retries:Retries",
    tables.QueueTable: "blocks.balancer.queue:Queue",
    tables.EdgeTable: "blocks.edge.edge:Edge",
    tables.RuleTable: "blocks.edge.rules:Rule",
    tables.TopicTable: "blocks.broker.topic:TopicOptions",
}
_MORE: dict[tuple[type[msgspec.Struct], str], str] = {
    (tables.ServerTable, "head_timeout"): "blocks.http.timeouts:Timeouts.head",
    (tables.ServerTable, "body_timeout"): "blocks.http.timeouts:Timeouts.body",
    (tables.ServerTable, "idle_timeout"): "blocks.http.timeouts:Timeouts.idle",
    (tables.ServerTable, "send_timeout"): "blocks.http.timeouts:Timeouts.send",
    (tables.ServerTable, "believe"): "blocks.http.filters.real_client:RealClient.believe",
    (tables.AgainTable, "budget"): "blocks.http.filters.budget:Budget.ratio",
    (tables.AgainTable, "reserve"): "blocks.http.filters.budget:Budget.minimum",
    (tables.BalancerTable, "connect_timeout"): "blocks.http.upstream:Upstream.connect_timeout",
    (tables.BalancerTable, "upstream_timeout"): "blocks.http.upstream:Upstream.timeout",
    (tables.EdgeTable, "connect_timeout"): "blocks.http.upstream:Upstream.connect_timeout",
    (tables.EdgeTable, "upstream_timeout"): "blocks.http.upstream:Upstream.timeout",
}
_PLAIN = (bool, int, float, str)


def default_of(kind: type[msgspec.Struct], key: str) -> Any:
    """The default of ``key`` in a table of that type, when it is a plain value; else None."""
    field = fields_of(kind).get(key)
    if field is not None and isinstance(field.default, _PLAIN):
        return field.default
    words = _MORE.get((kind, key))
    home, _, name = words.rpartition(".") if words else (_CALLS.get(kind, ""), "", key)
    found = _signature(home).get(name) if home else None
    return found if isinstance(found, _PLAIN) else None


@lru_cache(256)
def fields_of(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields of a struct by the names that they have in files."""
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


@lru_cache(32)
def _signature(words: str) -> dict[str, Any]:
    module, _, name = words.partition(":")
    found = inspect.signature(getattr(import_module(module), name)).parameters
    return {parameter.name: parameter.default for parameter in found.values()}
