"""Who listens where: two on one port, and what must not be reached from other machines."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from blocks.core.config.complaint import At, Complaint
from blocks.core.errors import ConfigError
from blocks.http.server import parse_address

from .graph import Graph, urls
from .view import View

_V4, _V6 = frozenset((4,)), frozenset((6,))


class Listener(NamedTuple):
    """``address`` is as it was written; ``host`` is "" for a Unix socket, whose path is ``path``."""

    at: At
    address: str
    host: str
    port: int
    path: str

    @property
    def owner(self) -> str:
        """``[servers.public]``."""
        return f"[{'.'.join(str(key) for key in self.at[:2])}]" if self.at[0] != "process" else "process.admin"


def listeners(view: View) -> list[Listener]:
    """Every address that the stack listens on and that can be read, in the order in which it will listen."""
    found: list[Listener] = []
    for at, _ in view.tables_of("servers"):
        for place, text in view.texts((*at, "listen")):
            _add(found, place, text)
    for at, _ in view.tables_of("brokers"):
        for key in ("listen", "http", "admin"):
            for place, text in view.texts((*at, key)):
                _add(found, place, text)
    for place, text in view.texts(("process", "admin")):
        _add(found, place, text)
    return found


def _add(found: list[Listener], at: At, text: str) -> None:
    try:
        address = parse_address(text)
    except ConfigError:
        return
    if isinstance(address, str):
        found.append(Listener(at, text, "", 0, address))
    else:
        host = "127.0.0.1" if at[0] == "brokers" and text.startswith(":") else address[0]
        found.append(Listener(at, text, host, address[1], ""))


def overlap(one: Listener, other: Listener) -> bool:
    """Whether both cannot be bound at the same time."""
    if one.path or other.path:
        return one.path == other.path
    if one.port != other.port or not one.port:
        return False
    same = one.host == other.host or _any(one.host) or _any(other.host) or {one.host, other.host} <= _LOOP
    return same and bool(_families(one.host) & _families(other.host))


_LOOP = frozenset(("localhost", "127.0.0.1", "::1"))


def _any(host: str) -> bool:
    return host in ("0.0.0.0", "::")


def _families(host: str) -> frozenset[int]:
    """asyncio binds an IPv6 address for IPv6 alone, so ``0.0.0.0`` and ``[::]`` may stand side by side."""
    try:
        return _V4 if ipaddress.ip_address(host).version == 4 else _V6
    except ValueError:
        return _of_this_machine() if host == "localhost" else _V4 | _V6


@lru_cache(1)
def _of_this_machine() -> frozenset[int]:
    """What ``localhost`` stands for here: machines without IPv6 in their hosts file mean 127.0.0.1 alone."""
    try:
        found = {family for family, *_ in socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)}
    except OSError:
        return _V4 | _V6
    return frozenset(version for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)) if family in found)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it ("" is a Unix socket)."""
    try:
        return host in ("", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def taken_twice(graph: Graph) -> Iterator[Complaint]:
    """Two listeners that cannot both have their port."""
    seen: list[Listener] = []
    for one in listeners(graph.view):
        for other in seen:
            if overlap(one, other):
                same = "" if one.address == other.address else f" as {other.address}"
                yield Complaint(one.at, f"{one.address} is taken already{same} by {other.owner}")
                break
        else:
            seen.append(one)


def exposed(graph: Graph) -> Iterator[Complaint]:
    """The admin API or a broker that other machines can reach without a token."""
    view = graph.view
    for one in listeners(view):
        if is_loopback(one.host):
            continue
        if one.at == ("process", "admin"):
            if view.absent(("process", "admin_token_file")):
                said = "can be reached from other machines: give admin_token_file, or listen on 127.0.0.1"
                yield Complaint(one.at, f"the admin API on {one.address} {said}")
        elif one.at[0] == "brokers" and one.at[-1] == "listen" and view.absent((*one.at[:2], "token_file")):
            said = "lets everybody who can reach it read and write every topic: give token_file, or listen on 127.0.0.1"
            yield Complaint(one.at, f"a broker on {one.address} {said}")


def believed(graph: Graph) -> Iterator[Complaint]:
    """Networks so wide that everybody may say who the client is, or purge."""
    view = graph.view
    for at, _ in view.tables_of("balancers", "gateways", "edges", "servers"):
        for key, harm in (
            ("trusted", "everybody may say which client it is"),
            ("allow_purge", "everybody may purge"),
        ):
            for place in ((*at, key), (*at, "gateway", key), (*at, "forwarded", key)):
                for where, text in view.texts(place):
                    if text in ("0.0.0.0/0", "::/0"):
                        yield Complaint(where, f"{text} is every address: {harm}", "warning")


def own_tail(graph: Graph) -> Iterator[Complaint]:
    """An upstream's URL that leads to a server that asks it: each request would ask itself."""
    view = graph.view
    for server, _ in view.tables_of("servers"):
        heard = [one for one in listeners(view) if one.at[:2] == server and (one.port or one.path)]
        for at in graph.below(server):
            for place, url in urls(view, at):
                if any(_leads(url, one.host, one.port, one.path) for one in heard):
                    said = f"{url} is [servers.{server[1]}] itself, which asks it: a request would go round in a circle"
                    yield Complaint(place, said)


def _leads(url: str, host: str, port: int, path: str) -> bool:
    if path or url.startswith("unix:"):
        return bool(path) and url[5:].removeprefix("//") == path
    try:
        parts = urlsplit(url)
        asked = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        return False
    name = parts.hostname or ""
    return asked == port and (name == host or (is_loopback(name) and (host in ("0.0.0.0", "::") or is_loopback(host))))
