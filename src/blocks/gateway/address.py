"""A client's address is the peer's; a field is believed only when the peer, and each hop it names, is trusted.

The list in X-Forwarded-For or Forwarded (RFC 7239) is read from the right: the last entry was written by our own peer, so the
first one that is not trusted is the client. What stands to the left of it was written by that client and opens no new bucket.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeVar

from blocks.core.errors import ConfigError
from blocks.http.message import Request, field_name

T = TypeVar("T")
MAX_HOPS = 32  # entries of a forwarding field that are looked at
MAX_REMEMBERED = 65_536  # addresses whose prefix is remembered; beyond it the memory starts again
_FOR = re.compile(rb'(?:^|;)\s*for\s*=\s*("[^"]*"|[^;,\s]*)', re.I)


_parsed = lru_cache(4096)(ip_address)  # 10 µs for IPv6, and one request asks for the same address several times


def plain(text: str) -> str:
    """An address in its one spelling, an IPv4 one in IPv6 clothes as IPv4; "" when it is none."""
    try:
        address = _parsed(text)
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        return str(mapped)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return str(IPv6Address(int(address)))
    return str(address)


def bare(entry: bytes) -> str:
    """The address of one entry of a forwarding field: ``1.2.3.4``, ``1.2.3.4:80``, ``[::1]:80``, ``"[::1]"``; "" when it is none."""
    text = entry.strip().strip(b'"').decode("latin-1")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return plain(text)


class Addresses:
    """Finds the client's address, and the prefix that stands for one client (a whole /64 of IPv6: one subscriber, RFC 6177).

    ``trusted`` are networks of our own proxies (``10.0.0.0/8``); ``field`` is what they write: ``x-forwarded-for``, ``forwarded``
    or a field with one address (``x-real-ip``). ``unix`` trusts peers on a Unix socket.
    """

    def __init__(
        self,
        trusted: Iterable[str] = (),
        field: str = "x-forwarded-for",
        ipv6_prefix: int = 64,
        ipv4_prefix: int = 32,
        unix: bool = False,
    ) -> None:
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in trusted:
            try:
                self._networks.append(ip_network(text, strict=False))
            except ValueError as error:
                raise ConfigError(f"trusted: {text!r} is not a network; write it like 10.0.0.0/8") from error
        if not 1 <= ipv6_prefix <= 128 or not 1 <= ipv4_prefix <= 32:
            raise ConfigError("a prefix is 1–128 bits for IPv6 and 1–32 for IPv4")
        self.trusts = bool(self._networks) or unix
        self._unix = unix
        self._field = field_name(field)
        self._ipv6 = ipv6_prefix
        self._ipv4 = ipv4_prefix
        self._plain: dict[str, str] = {}
        self._prefixes: dict[str, str] = {}
        self._trust: dict[str, bool] = {}

    def client(self, request: Request) -> str:
        """The believed address as text; "unix" for a peer on a Unix socket."""
        host = request.peer.client[0]
        known = self._plain.get(host)
        if known is None:
            known = self._remember(
                self._plain, host, plain(host) or ("unix" if host.startswith("/") or not host else host)
            )
        if not self.trusts or not self._trusted(known):
            return known
        derived = request.headers.section.derived
        memo = derived.get(self)
        if memo is None or memo[0] != known:
            memo = derived[self] = (known, self._walk(known, request))
        return str(memo[1])

    def believes(self, request: Request) -> bool:
        """Whether the peer is one of ours, so that fields which it sets may be believed."""
        host = request.peer.client[0]
        return self.trusts and self._trusted(plain(host) or ("unix" if host.startswith("/") or not host else host))

    def _walk(self, known: str, request: Request) -> str:
        """The first address from the right that is not trusted; the last trusted one when what it wrote is no address."""
        value = request.headers.find(self._field)
        if value is None:
            return known
        if self._field == b"forwarded":
            found = [_FOR.search(element) for element in value.split(b",")]
            entries = [b"" if match is None else match.group(1) for match in found]
        else:
            entries = value.split(b",")
        for entry in reversed(entries[-MAX_HOPS:]):
            address = bare(entry)
            if not address:
                return known
            known = address
            if not self._trusted(address):
                return known
        return known

    def _trusted(self, text: str) -> bool:
        found = self._trust.get(text)
        return found if found is not None else self._remember(self._trust, text, self._is_ours(text))

    def _is_ours(self, text: str) -> bool:
        if text == "unix":
            return self._unix
        try:
            address = _parsed(text)
        except ValueError:
            return False
        return any(address in network for network in self._networks if network.version == address.version)

    def bucket(self, client: str) -> str:
        """The prefix that one client is counted by: the address itself, or its network (``2001:db8::/64``)."""
        found = self._prefixes.get(client)
        return found if found is not None else self._remember(self._prefixes, client, self._prefix(client))

    def _prefix(self, client: str) -> str:
        try:
            address = _parsed(client)
        except ValueError:
            return client
        bits = self._ipv6 if address.version == 6 else self._ipv4
        rest = address.max_prefixlen - bits
        return f"{type(address)(int(address) >> rest << rest)}/{bits}" if rest else client

    @staticmethod
    def _remember(memory: dict[str, T], key: str, value: T) -> T:
        if len(memory) >= MAX_REMEMBERED:
            memory.clear()
        memory[key] = value
        return value
