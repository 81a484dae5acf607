"""The tables of a gateway's file. Each field's meaning, default and example are in docs/reference/gateway.md."""

from __future__ import annotations

from typing import Any

import msgspec

from blocks.core.config.kinds import Duration

from ..limits.rule import Limit
from ..redis import RedisTable
from ..versions import Versions


class GatewayTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``[gateway]``: what holds for all routes."""

    auth: Any = None
    trusted: list[str] = []
    forwarded_by: str = "x-forwarded-for"
    trust_unix: bool = False
    ipv6_prefix: int = 64
    ipv4_prefix: int = 32
    country_field: str = ""
    encoded_slash: bool = False
    semicolon: bool = False
    defaults: dict[str, Any] = {}


class RespondTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A fixed answer."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = {}


class ServiceTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``[services.NAME]``: one of ``url``, ``python`` and ``respond``."""

    url: str = ""
    python: str = ""
    respond: RespondTable | None = None
    timeout: Duration = 60.0
    connect_timeout: Duration = 5.0
    host: str = ""
    idle: Duration = 60.0
    keep: int = 1024
    forwarded: bool = True
    trace: bool = True


class CacheTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``[caches.NAME]``: ``python``, a function from a handler to a handler, called with ``settings``."""

    python: str
    settings: dict[str, Any] = {}


class ChangeTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``[change]``: how a new configuration is tried out."""

    share: float = 0.1
    watch: Duration = "30s"
    requests: int = 100
    errors: float = 0.02
    slower: float = 2.0
    history: int = 5


class AlertTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``[[alerts]]``: one rule."""

    name: str
    when: str
    above: float | str
    clear: float | str | None = None
    over: Duration = "60s"
    route: str = ""
    webhook: str = ""
    minimum: int = 20


class RouteTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``[[routes]]``: what is the route's own; the other keys are its steps."""

    path: str
    service: str = ""
    name: str | None = None
    methods: list[str] | str | None = None
    host: list[str] | str | None = None
    headers: dict[str, Any] | None = None
    query: dict[str, Any] | None = None
    weight: float | None = None
    version: str | None = None
    exact: bool = False
    timeout: Duration | None = None
    description: str = ""
    tags: list[str] = []
    respond: RespondTable | None = None


class FileTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    gateway: GatewayTable = msgspec.field(default_factory=GatewayTable)
    versions: Versions | None = None
    redis: RedisTable | None = None
    services: dict[str, ServiceTable] = {}
    auth: dict[str, dict[str, Any]] = {}
    limits: dict[str, Limit] = {}
    consumers: dict[str, Any] = {}
    brokers: dict[str, dict[str, Any]] = {}
    caches: dict[str, CacheTable] = {}
    change: ChangeTable = msgspec.field(default_factory=ChangeTable)
    alerts: list[AlertTable] = []
    routes: list[dict[str, Any]] = []
