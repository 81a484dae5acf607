"""The tables of a stack's file. A table is a constructor call: names, meanings and defaults are those of the block it makes.

``None`` stands for "as the block has it". What each field means is said at the block; here is what there is.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Duration = Annotated[
    float | str,
    Meta(
        description="seconds, or text like 250ms, 30s, 5m, 1h, 7d",
        extra={"quantity": "duration"},
    ),
]
Size = Annotated[
    int | str,
    Meta(description="bytes, or text like 64KiB, 256MiB, 4GiB", extra={"quantity": "size"}),
]
RateText = Annotated[
    str,
    Meta(description="so many in a time: 100/s, 5000/h", extra={"quantity": "rate"}),
]


class Table(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What all tables are: keyword arguments, and none that is not known."""


class ProcessTable(Table):
    """``[process]``: what holds for the whole process; the flags of ``blocks run`` go before it."""

    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    drain_timeout: Duration = 10.0
    lame_duck: Duration = 0.0
    admin: str | None = None
    admin_token_file: str | None = None
    ports_file: str | None = None


class TlsTable(Table):
    """A certificate chain and its key (PEM files); ``client_ca`` asks clients for a certificate of that authority."""

    cert: str
    key: str
    client_ca: str | None = None


class RequestIdTable(Table):
    """``request_id``: the name that each request gets, ``blocks.http.filters.request_id``."""

    accept: bool | None = None
    echo: bool | None = None
    field: str | None = None


class TraceTable(Table):
    """``trace``: trace context (W3C), ``blocks.http.filters.trace_context``."""

    accept: bool | None = None
    sampled: bool | None = None


class CompressTable(Table):
    """``compress`` of a server: which answers are compressed as they leave, ``blocks.http.filters.compress``."""

    codings: list[Literal["br", "zstd", "gzip"]] | None = None
    minimum: Size | None = None
    types: list[str] | None = None
    levels: dict[str, int] | None = None
    streams: Annotated[int, Meta(ge=1)] | None = None


class ServerTable(Table):
    """``[servers.NAME]``: where to listen, and the handler that answers there (a NAME, or the URL of an upstream).

    ``trusted``, ``request_id``, ``trace``, ``timeout`` and ``compress`` are filters before the handler, in this order; see ``filters``.
    """

    listen: str | list[str]
    handler: str
    tls: TlsTable | list[TlsTable] | None = None
    access_log: str = "off"
    access_log_format: Literal["json", "combined"] = "json"
    head_timeout: Duration | None = None
    body_timeout: Duration | None = None
    idle_timeout: Duration | None = None
    send_timeout: Duration | None = None
    min_rate: RateText | None = None
    max_head: Size | None = None
    max_body: Size | None = None
    max_connections: Annotated[int, Meta(ge=1)] | None = None
    trusted: list[str] = []
    believe: Literal["x-forwarded", "forwarded"] | None = None
    request_id: RequestIdTable | bool = False
    trace: TraceTable | bool = False
    timeout: Duration | None = None
    compress: CompressTable | list[Literal["br", "zstd", "gzip"]] | bool = False


class ClientTlsTable(Table):
    """How an ``https://`` upstream is trusted: ``ca`` instead of the system's authorities, ``cert`` and ``key`` to show it."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None
    verify: bool = True


class AgainTable(Table):
    """``retries`` of an upstream: when a request is sent to it again, ``blocks.http.filters.retry``."""

    tries: Annotated[int, Meta(ge=1)] | None = None
    statuses: list[int] | None = None
    methods: list[str] | None = None
    wait: Duration | None = None
    longest: Duration | None = None
    buffer: Size | None = None
    budget: float | None = None
    reserve: float | None = None


class UpstreamTable(Table):
    """``[upstreams.NAME]``: a server to ask, ``blocks.Upstream``.

    ``forwarded`` (with ``trusted`` proxies) tells it who the client is when it is asked by a server, gateway or edge; as a balancer's
    member it is the balancer that says so, and tries again: ``retries`` are for those who ask it alone.
    """

    url: str
    timeout: Duration | None = None
    connect_timeout: Duration | None = None
    host: str | None = None
    idle: Duration | None = None
    uses: Annotated[int, Meta(ge=1)] | None = None
    age: Duration | None = None
    keep: Annotated[int, Meta(ge=0)] | None = None
    tls: ClientTlsTable | None = None
    forwarded: bool = True
    trusted: list[str] = []
    retries: AgainTable | Annotated[int, Meta(ge=0)] | None = None


class MemberTable(Table):
    """One of a balancer's ``upstreams`` with settings of its own: a ``url``, or the NAME of a handler as ``upstream``."""

    url: str | None = None
    upstream: str | None = None
    name: str | None = None
    weight: float | None = None
    priority: int | None = None
    zone: str | None = None
    max_requests: int | None = None
    metadata: dict[str, Any] | None = None


class HealthTable(Table):
    """``health``: how members are probed, ``blocks.balancer.Health``."""

    path: str | None = None
    method: str | None = None
    mode: Literal["http", "tcp"] | None = None
    interval: Duration | None = None
    timeout: Duration | None = None
    rise: int | None = None
    fall: int | None = None
    jitter: float | None = None
    statuses: list[int] | None = None
    headers: dict[str, str] | None = None
    expect_headers: dict[str, str] | None = None
    expect_body: str | None = None
    max_body: Size | None = None
    parallel: int | None = None


class OutlierTable(Table):
    """``outlier``: when failures of real requests take a member out, ``blocks.balancer.Outlier``."""

    failures: int | None = None
    statuses: list[int] | None = None
    base: Duration | None = None
    cap: Duration | None = None
    max_ejected: float | None = None


class RetriesTable(Table):
    """``retries``: when a request is sent again, ``blocks.balancer.Retries``."""

    tries: int | None = None
    per_try: Duration | None = None
    methods: list[str] | None = None
    failures: bool | None = None
    statuses: list[int] | None = None
    budget: float | None = None
    reserve: float | None = None
    backoff: Duration | None = None


class QueueTable(Table):
    """``queue``: who waits for a member that is full, ``blocks.balancer.Queue``."""

    size: int | None = None
    timeout: Duration | None = None
    retry_after: int | None = None


class BalancerTable(Table):
    """``[balancers.NAME]``: ``blocks.LoadBalancer`` over URLs, NAMEs of handlers, or members with settings of their own.

    ``health`` is a table, a path or an interval; ``outlier = false`` turns passive health off; ``panic = false`` never uses a member
    that is known to be bad. ``hash_by`` (client, path, header:NAME) is what consistent hashing looks at. ``forwarded`` tells members who
    the client is, believing the ``trusted`` proxies before it.
    """

    upstreams: list[str | MemberTable]
    policy: str | None = None
    hash_by: str | None = None
    hash_bound: float | None = None
    health: HealthTable | str | float | None = None
    outlier: OutlierTable | bool | None = None
    retries: RetriesTable | int | None = None
    max_requests: Annotated[int, Meta(ge=1)] | None = None
    queue: QueueTable | int | None = None
    timeout: Duration | None = None
    panic: bool | float | None = None
    slow_start: Duration | None = None
    connect_timeout: Duration | None = None
    upstream_timeout: Duration | None = None
    forwarded: bool = True
    trusted: list[str] = []


class RuleTable(Table):
    """One of an edge's ``rules``: how the paths that match ``path`` are stored, ``blocks.edge.Rule``."""

    path: str
    ttl: Duration | None = None
    default_ttl: Duration | None = None
    negative: dict[str, Duration] | None = None
    grace: Duration | None = None
    cookies: bool | None = None
    authorization: bool | None = None
    store: bool = True


class KeyTable(Table):
    """``key``: what makes a request another resource, ``blocks.edge.KeyRules``."""

    host: bool = True
    scheme: bool = True
    sort: bool = False
    drop: list[str] = []
    allow: list[str] | None = None
    headers: list[str] = []
    cookies: list[str] = []
    device: bool = False


class SignedTable(Table):
    """``signed``: only links that the site's owner made work, ``blocks.edge.signed.SignedUrls``. ``secrets`` are texts by key id."""

    secrets: dict[str, str]
    prefixes: list[str] | None = None


class HotlinkTable(Table):
    """``hotlinks``: on whose pages what is stored may stand, ``blocks.edge.guards.HotlinkGuard``."""

    allow: list[str]
    paths: list[str] | None = None
    empty: bool | None = None


class CountriesTable(Table):
    """``countries``: from where may be asked, ``blocks.edge.guards.GeoGuard``; either ``allow`` or ``deny``.

    ``lookup`` is module:attribute of a function from an address to its ISO 3166 code ("" for one that is not known).
    """

    lookup: str
    allow: list[str] = []
    deny: list[str] = []


class EdgeTable(Table):
    """``[edges.NAME]``: ``blocks.Edge`` before one origin or several (NAMEs of handlers, or URLs).

    ``store`` is a folder for the second tier and for pushed releases; ``compress`` are codings (br, zstd, gzip), ``minify`` kinds (js,
    css, html, json). ``countries``, ``hotlinks`` and ``signed`` are guards before it, in this order.
    """

    origin: str | list[str]
    memory: Size | None = None
    store: str | None = None
    store_size: Size | None = None
    push_size: Size = "10GiB"
    profile: Literal["safe", "rfc"] | None = None
    default_ttl: Duration | None = None
    ttl_jitter: float | str | None = None
    grace: Duration | None = None
    negative: dict[str, Duration] | None = None
    rules: list[RuleTable] = []
    key: KeyTable | None = None
    allow_purge: list[str] | None = None
    max_fills: Annotated[int, Meta(ge=1)] | None = None
    max_variants: Annotated[int, Meta(ge=1)] | None = None
    fill_rate: RateText | None = None
    refresh_ahead: float | None = None
    obey_clients: bool | None = None
    via: str | None = None
    range_fill: Size | None = None
    compress: list[Literal["br", "zstd", "gzip"]] = []
    minify: list[Literal["js", "css", "html", "json"]] = []
    countries: CountriesTable | None = None
    hotlinks: HotlinkTable | None = None
    signed: SignedTable | None = None


class TopicTable(Table):
    """``[brokers.NAME.topics.TOPIC]``: how a topic is kept, ``blocks.broker.TopicOptions``."""

    retain_seconds: Duration | None = None
    retain_bytes: Size | None = None
    retain_messages: int | None = None
    compact: bool | None = None
    keep_last: bool | None = None
    dedup_seconds: Duration | None = None
    schema: dict[str, Any] | str | None = None
    on_invalid: Literal["refuse", "dead-letter"] | None = None
    max_message_bytes: Size | None = None


class BrokerTable(Table):
    """``[brokers.NAME]``: a broker in this process, as ``blocks broker`` runs one.

    ``data`` is its folder, or ``:memory:``. Without ``listen`` only this process reaches it (by the NAME, in a gateway).
    """

    data: str
    listen: str | None = None
    durability: Literal["fsync", "interval", "memory"] = "fsync"
    interval: Duration | None = None
    http: str | None = None
    token_file: str | None = None
    tls: TlsTable | None = None
    webhooks: str | None = None
    segment_bytes: Size | None = None
    cache_bytes: Size | None = None
    topics: dict[str, TopicTable] = {}


class AppTable(Table):
    """``[apps.NAME]``: an ASGI application (its lifespan is run) or a handler of Python, by import path: exactly one of both.

    With ``needs`` the import path is that of a function, which is given those parts of the stack and returns it.
    """

    asgi: str | None = None
    python: str | None = None
    needs: list[str] = []
    lifespan: Literal["auto", "on", "off"] | None = None
    root_path: str | None = None
    grace: Duration | None = None


class StackTable(Table):
    """The whole file. ``gateways`` hold ``file = "gateway.toml"`` or the very tables of such a file."""

    include: list[str] = []
    process: ProcessTable = msgspec.field(default_factory=ProcessTable)
    servers: dict[str, ServerTable] = {}
    upstreams: dict[str, UpstreamTable] = {}
    balancers: dict[str, BalancerTable] = {}
    gateways: dict[str, dict[str, Any]] = {}
    edges: dict[str, EdgeTable] = {}
    brokers: dict[str, BrokerTable] = {}
    apps: dict[str, AppTable] = {}


KINDS: dict[str, Any] = {
    "servers": ServerTable,
    "upstreams": UpstreamTable,
    "balancers": BalancerTable,
    "gateways": dict[str, Any],
    "edges": EdgeTable,
    "brokers": BrokerTable,
    "apps": AppTable,
}
"""What tables of each kind hold."""

HANDLERS = ("upstreams", "balancers", "gateways", "edges", "apps")
"""The kinds whose names are one namespace: what a server, a balancer, a gateway's route or an edge may name."""


def given(table: Table, *names: str) -> dict[str, Any]:
    """The fields of those names (all without names) that were set: what a constructor is called with; the others are left to it."""
    chosen = names or table.__struct_fields__
    return {name: value for name in chosen if (value := getattr(table, name)) is not None}
