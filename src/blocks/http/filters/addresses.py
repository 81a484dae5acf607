"""Addresses as proxies write them, and the networks that are trusted: sans-IO rules for ``forwarded``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from blocks.core.errors import ConfigError

from ..message import Peer

_NAMED = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    # RFC 1918, RFC 4193, RFC 6598 (carrier-grade NAT is somebody else's network: not in it)
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
}
_MEMO = 4096  # addresses whose answer is kept
_PAIR = re.compile(
    r'[ \t]*([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([!#$%&\'*+\-.^_`|~0-9A-Za-z]+))[ \t]*(;|,|$)'
)
_QUOTABLE = re.compile(r"[^\x00-\x1f\"\\\x7f]{1,260}")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Networks:
    """The proxies that are believed. ``unix`` among ``names`` trusts every peer on a Unix socket."""

    def __init__(self, names: Iterable[str]) -> None:
        self.unix = False
        self._networks = []
        for name in names:
            if name == "unix":
                self.unix = True
                continue
            for text in _NAMED.get(name, (name,)):
                try:
                    self._networks.append(ip_network(text, strict=False))
                except ValueError as error:
                    raise ConfigError(f"{name!r} is no network, nor loopback, private or unix: {error}") from None
        self._known: dict[str, bool] = {}

    def trusts(self, host: str) -> bool:
        """Whether ``host`` (an address, or a Unix socket's path, or "") is one of them."""
        if host == "" or host.startswith("/"):
            return self.unix
        known = self._known.get(host)
        if known is None:
            known = self._look(host)
            if len(self._known) >= _MEMO:
                self._known.clear()
            self._known[host] = known
        return known

    def _look(self, host: str) -> bool:
        address = _parsed(host)
        if address is None:
            return False
        return any(
            address in network
            for network in self._networks
            if isinstance(network, IPv6Network) == (address.version == 6)
        )


def _parsed(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=_MEMO)
def address_of(entry: str) -> str | None:
    """The plain address in an entry of a chain: without port, brackets, zone; None if there is none (``unknown``, ``_hidden``)."""
    entry = entry.strip()
    if len(entry) > 64:
        return None
    if entry.startswith("["):
        entry = entry[1:].partition("]")[0]
    elif entry.count(":") == 1:
        entry = entry.partition(":")[0]
    address = _parsed(entry)
    return None if address is None else str(address)


def node_of(peer: Peer) -> str:
    """The peer as an entry of a chain; ``unknown`` when it has no address (RFC 7239 §6.2)."""
    return address_of(peer.client[0]) or "unknown"


def quoted_node(node: str) -> str:
    """A node as it stands in Forwarded: IPv6 in brackets and quotes (RFC 7239 §6)."""
    if ":" in node and not node.startswith("["):
        return f'"[{node}]"'
    if _TOKEN.fullmatch(node):
        return node
    if '"' in node or "\\" in node or not node.isprintable():
        raise ConfigError(f"{node!r} cannot stand in Forwarded")
    return f'"{node}"'


@lru_cache(maxsize=_MEMO)
def element(node: str, host: str, scheme: str, *more: str) -> bytes:
    """An element of Forwarded; ``host`` and ``scheme`` may be "" (RFC 7239 §4)."""
    parts = ["for=" + quoted_node(node), *more]
    if _TOKEN.fullmatch(host):
        parts.append("host=" + host)
    elif host and _QUOTABLE.fullmatch(host):
        parts.append(f'host="{host}"')
    if scheme:
        parts.append("proto=" + scheme)
    return ";".join(parts).encode("latin-1")


def parse_forwarded(lines: Iterable[bytes]) -> list[dict[str, str]]:
    """The elements of Forwarded, names in lower case (RFC 7239 §4). A malformed line empties the whole: nothing of it can be believed."""
    text = ",".join(line.decode("latin-1") for line in lines)
    elements: list[dict[str, str]] = [{}]
    at = 0
    while at < len(text):
        match = _PAIR.match(text, at)
        if match is None:
            return []
        name = match[1].lower()
        if name in elements[-1]:
            return []
        quoted = match[2]
        elements[-1][name] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else match[3]
        if match[4] == ",":
            elements.append({})
        at = match.end()
    return [element for element in elements if element]
