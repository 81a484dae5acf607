"""What a request would meet in every block of a stack, from the listener on. Nothing is started, asked or counted."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click

from blocks.core.errors import ConfigError
from blocks.core.masking import masked
from blocks.core.quantities import seconds, size
from blocks.http.handler import Filter
from blocks.http.message import Headers, Peer, Request
from blocks.http.server import parse_address

from .bench import is_url
from .check import FILE, opened
from .explain_filters import told_of_filters, told_of_guards, tries_of
from .node import Node
from .sense.defaults import default_of
from .sense.listeners import is_loopback
from .tables import BalancerTable, ServerTable, StackTable, UpstreamTable

Nodes = Mapping[tuple[str, str], Node]


class Stop(NamedTuple):
    """A block on the way: ``says`` is what there is to say of it there, ``next`` where the request may go from it."""

    block: str
    says: dict[str, Any]
    next: list[Stop]

    def masked(self, filled: Collection[str]) -> Stop:
        """The same with secrets as ``***``; ``filled`` are texts that are secret wherever they stand."""
        block, says = masked((self.block, self.says), filled)
        return Stop(block, says, [one.masked(filled) for one in self.next])

    def as_table(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"block": self.block, **self.says, "next": [one.as_table() for one in self.next]}


class Asked(NamedTuple):
    """A request as it was asked about: ``host`` and ``port`` are "" and 0 for a URL that is only a path."""

    request: Request
    host: str
    port: int


def asked(method: str, url: str, headers: Iterable[tuple[str, str]] = (), *, client: str = "127.0.0.1") -> Asked:
    """The request of a command line. Raises ``ValueError`` for what is no request."""
    parts = urlsplit(url)
    if parts.scheme not in ("", "http", "https") or (parts.scheme and not parts.hostname):
        raise ValueError(f"{url!r} is no URL: write http://HOST/PATH, or /PATH")
    if not parts.scheme and not url.startswith("/"):
        raise ValueError(f"{url!r} is no URL; did you mean http://{url}?")
    fields = list(headers)
    if parts.netloc and not any(name.lower() == "host" for name, _ in fields):
        fields.insert(0, ("host", parts.netloc))
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    upgrade = next((value.lower() for name, value in fields if name.lower() == "upgrade"), "")
    peer = Peer((client, 0), scheme=parts.scheme or "http")
    request = Request(method.upper(), target, Headers(fields), peer=peer, upgrade=upgrade)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return Asked(request, parts.hostname or "", port)


class Explainer:
    """Explains requests to a stack that was built and not started: its ``settings``, the ``nodes`` of its handlers, servers' ``filters``.

    ``consumer`` and its ``tier`` are who asks, as if authenticated by a gateway.
    """

    def __init__(
        self,
        settings: StackTable,
        nodes: Nodes,
        filters: Mapping[str, Sequence[Filter]] = MappingProxyType({}),
        *,
        consumer: str = "",
        tier: str = "",
    ) -> None:
        self._settings = settings
        self._filters = filters
        self._who = (consumer, tier)
        self._nodes = nodes
        self._homes = {name: (kind, name) for kind, name in nodes if kind != "brokers"}

    def explain(self, asked: Asked, server: str = "") -> Stop:
        """The way of a request. ``server`` names the server when the URL does not say which. Raises ``ConfigError``."""
        name, why = self._server(asked, server)
        table = self._settings.servers[name]
        says = {"taken": why, **_bounds(table, asked.request)}
        secure = table.tls is not None
        if asked.port and secure != (asked.request.peer.scheme == "https"):
            says["note"] = (
                f"it speaks {'https' if secure else 'http'} only, and the URL says {asked.request.peer.scheme}"
            )
        asked.request.peer.scheme = "https" if secure else "http"
        if says.get("status"):
            return Stop(f"servers.{name}", says, [])
        says |= told_of_filters(table, self._filters.get(name, ()), asked.request)
        return Stop(f"servers.{name}", says, [self._reference(table.handler, asked.request, "", None)])

    def _server(self, asked: Asked, wanted: str) -> tuple[str, str]:
        servers = self._settings.servers
        if wanted:
            if wanted not in servers:
                raise ConfigError(f"there is no server {wanted!r}; there is {', '.join(servers)}")
            return wanted, "as you asked"
        if not servers:
            raise ConfigError("there is no [servers.NAME]: no request comes in")
        for name, table in servers.items():
            for address in [table.listen] if isinstance(table.listen, str) else table.listen:
                if _takes(address, asked.host, asked.port):
                    return name, f"it listens on {address}"
        first = next(iter(servers))
        why = "the URL names no port" if not asked.port else f"no server listens on {asked.host}:{asked.port}"
        return first, f"{why}; taken as if it came to this one" + (
            "" if len(servers) == 1 else " (--server says which)"
        )

    # -- the blocks

    def _reference(self, reference: str, request: Request, via: str, timeouts: Any) -> Stop:
        if is_url(reference):
            timeout, connect = timeouts or _default_timeouts()
            return _upstream(reference, reference, request, timeout, connect, via)
        kind, name = self._homes[reference]
        node = self._nodes[(kind, name)]
        stop: Stop = getattr(self, f"_{kind}")(name, node, request)
        return stop._replace(says={**({"when": via} if via else {}), **stop.says})

    def _upstreams(self, name: str, node: Node, request: Request) -> Stop:
        table = self._settings.upstreams[name]
        timeout, connect = _timeouts(table)
        stop = _upstream(f"upstreams.{name}", table.url, request, timeout, connect, "", table.host)
        return stop if table.retries is None else stop._replace(says={**stop.says, "tries": tries_of(table.retries)})

    def _apps(self, name: str, node: Node, request: Request) -> Stop:
        table = self._settings.apps[name]
        words = {"asgi": table.asgi} if table.asgi else {"python": table.python}
        return Stop(f"apps.{name}", {**words, "target": f"{request.method} {request.target}"}, [])

    def _balancers(self, name: str, node: Node, request: Request) -> Stop:
        from blocks.balancer.explain import explain

        table = self._settings.balancers[name]
        timeouts = (
            seconds(table.upstream_timeout or _plain(BalancerTable, "upstream_timeout")),
            seconds(table.connect_timeout or _plain(BalancerTable, "connect_timeout")),
        )
        members = [one if isinstance(one, str) else (one.url or one.upstream or "") for one in table.upstreams]
        below = [self._reference(one, request.copy(), "", timeouts) for one in members]
        return Stop(f"balancers.{name}", explain(node.block, request), below)

    def _edges(self, name: str, node: Node, request: Request) -> Stop:
        from blocks.edge.explain import explain

        table = self._settings.edges[name]
        guards, refusal = told_of_guards(node.members["guards"], request)
        if refusal:
            return Stop(f"edges.{name}", {"step": "refuse", "why": refusal}, [])
        says = {**explain(node.block, request), **guards}
        if says["step"] in ("purge", "refuse"):
            return Stop(f"edges.{name}", says, [])
        request.target = says["target"]
        origins = [table.origin] if isinstance(table.origin, str) else table.origin
        when = "" if says["step"] == "pass" else "when nothing stored answers"
        below = [
            self._reference(
                origin, request.copy(), ", ".join(word for word in (when, "fail-over" if place else "") if word), None
            )
            for place, origin in enumerate(origins)
        ]
        return Stop(f"edges.{name}", says, below)

    def _gateways(self, name: str, node: Node, request: Request) -> Stop:
        from .explain_gateway import explain

        says, asks = explain(node.block, request, *self._who)
        below = [
            self._reference(ask.reference, ask.request(request), ask.when, ask.timeouts)
            if is_url(ask.reference) or ask.reference in self._homes
            else Stop(ask.reference, {"when": ask.when} if ask.when else {}, [])
            for ask in asks
        ]
        return Stop(f"gateways.{name}", says, below)


def _bounds(table: ServerTable, request: Request) -> dict[str, Any]:
    says: dict[str, Any] = {}
    if table.max_connections is not None:
        says["max_connections"] = table.max_connections
    if table.max_body is not None:
        length = request.headers.get("content-length") or ""
        says["max_body"] = size(table.max_body)
        if length.isdigit() and int(length) > size(table.max_body):
            says |= {"status": 413, "why": f"a body of {length} bytes is over max_body"}
    certificates = table.tls if isinstance(table.tls, list) else [table.tls] if table.tls else []
    if any(one.client_ca for one in certificates):
        says["tls"] = "asks the client for a certificate"
    return says


def _takes(listen: str, host: str, port: int) -> bool:
    """Whether a request to that host and port comes to a listener (a name that is not an address is taken to lead here)."""
    try:
        address = parse_address(listen)
    except ConfigError:
        return False
    if isinstance(address, str) or not port or address[1] != port:
        return False
    return address[0] in ("0.0.0.0", "::", host) or (is_loopback(address[0]) and is_loopback(host))


def _plain(kind: Any, key: str) -> Any:
    return default_of(kind, key)


def _default_timeouts() -> tuple[float, float]:
    return float(_plain(UpstreamTable, "timeout")), float(_plain(UpstreamTable, "connect_timeout"))


def _timeouts(table: UpstreamTable) -> tuple[float, float]:
    timeout, connect = _default_timeouts()
    return (
        timeout if table.timeout is None else seconds(table.timeout),
        connect if table.connect_timeout is None else seconds(table.connect_timeout),
    )


def _upstream(
    block: str, url: str, request: Request, timeout: float, connect: float, when: str, host: str | None = None
) -> Stop:
    """A server that is asked; where the request ends, as far as the stack knows."""
    parts = urlsplit(url)
    base = url.rstrip("/") if not url.startswith("unix:") else url
    path = parts.path.rstrip("/") if not url.startswith("unix:") else ""
    asks = f"{request.method} {base.removesuffix(path)}{path}{request.target}"
    if url.startswith("unix:"):
        asks = f"{request.method} {request.target} on {url}"
    says: dict[str, Any] = {"when": when} if when else {}
    sent = host or request.headers.get("host")
    says |= {"asks": asks, **({"host": sent} if sent else {}), "timeout": timeout, "connect_timeout": connect}
    return Stop(block, says, [])


# -- for people

_MOST = 8  # ways on from a block that are told as text; the others are much the same


def told(stop: Stop, depth: int = 0) -> list[str]:
    """Lines of text: each block, what there is to say of it, and below it where the request goes."""
    indent = "  " * depth
    lines = [f"{indent}{stop.block}"]
    for key, value in stop.says.items():
        lines += _lines(key.replace("_", " "), value, indent + "    ")
    for one in stop.next[:_MOST]:
        lines += told(one, depth + 1)
    if len(stop.next) > _MOST:
        lines.append(f"{indent}  … and {len(stop.next) - _MOST} more (--json has all)")
    return lines


def _lines(key: str, value: Any, indent: str) -> list[str]:
    if isinstance(value, list):
        rows = [_item(number, item) for number, item in enumerate(value, 1)]
        return [f"{indent}{key}:", *(f"{indent}  {row}" for parts in rows for row in parts)] if rows else []
    if isinstance(value, dict):
        words = ", ".join(f"{name}={item}" for name, item in value.items())
        return [f"{indent}{key}: {words}"] if words else []
    if isinstance(value, float):
        return [f"{indent}{key}: {value:g} s"]
    return [f"{indent}{key}: {value}"]


def _item(number: int, item: Any) -> list[str]:
    if not isinstance(item, dict):
        return [f"{number}. {item}"]
    rows = [f"{number}. {item['step']}: {item['reason']}"]
    for limit in item.get("limits", ()):
        note = f" ({limit['note']})" if "note" in limit else ""
        who = limit["key"] or "everybody"
        rows.append(f"   {limit['name']}: {limit['rate']} per {limit['per']}, counted for {who}{note}")
    return rows


@click.command("explain")
@click.argument("file", type=FILE)
@click.argument("method")
@click.argument("url")
@click.option(
    "-H", "--header", "headers", multiple=True, metavar="NAME:VALUE", help="A field of the request; may be repeated."
)
@click.option("--client", default="127.0.0.1", show_default=True, help="The address that it comes from.")
@click.option("--server", default="", metavar="NAME", help="The server that takes it, when the URL does not say which.")
@click.option("--consumer", default="", help="Whose it is, as if authenticated by a gateway.")
@click.option("--tier", default="", help="That consumer's tier.")
@click.option("--json", "as_json", is_flag=True, help="Plain JSON instead of text.")
def explain(
    file: Path,
    method: str,
    url: str,
    headers: tuple[str, ...],
    client: str,
    server: str,
    consumer: str,
    tier: str,
    as_json: bool,
) -> None:
    """Say what METHOD URL would meet in every block of a stack's FILE, from the listener on. Nothing is asked or counted."""
    pairs: list[tuple[str, str]] = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon:
            raise click.BadParameter(f"{header!r} is not NAME:VALUE")
        pairs.append((name.strip(), value.strip()))
    examined = opened(file)
    version = examined.version
    assert version is not None  # the file is right
    try:
        request = asked(method, url, pairs, client=client)
        explainer = Explainer(version.settings, version.nodes, version.filters, consumer=consumer, tier=tier)
        stop = explainer.explain(request, server)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    stop = stop.masked(examined.source.secrets)
    if as_json:
        click.echo(json.dumps(stop.as_table(), indent=2, ensure_ascii=False, default=str))
        return
    click.echo(f"{request.request.method} {url} from {client}")
    click.echo("\n".join(told(stop)))
