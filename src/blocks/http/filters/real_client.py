"""Behind proxies that are trusted the client is whom they name, for everything inside: limits, guards, logs, what upstreams are told.

nginx's realip module does so, for the address alone.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any

from blocks.core.errors import ConfigError

from ..handler import Handler
from ..message import Peer, Request, Response, Section
from .addresses import Networks
from .forwarded import Family, client_of
from .told import told_by_forwarded, told_by_x


class RealClient:
    """A filter that puts the client, and the scheme that it used, in the place of a trusted proxy: as ``request.peer``.

    ``trusted`` are networks or addresses of the proxies before this one, or ``loopback``, ``private``, ``unix``; ``believe`` is the
    family of fields that they set. A request of anybody else, or of a proxy that names nobody, is left as it is. The port of a client
    that a proxy names is not known: it is 0. What TLS gave is the proxy's, and stays.
    """

    direct = True
    name = "real_client"

    def __init__(self, trusted: Iterable[str], *, believe: Family = "x-forwarded") -> None:
        if believe not in ("x-forwarded", "forwarded"):
            raise ConfigError(f"{believe!r} is no family of fields; it is x-forwarded or forwarded")
        self._networks = Networks(trusted)
        self._told = told_by_x if believe == "x-forwarded" else told_by_forwarded

    def __call__(self, request: Request, next: Handler) -> Coroutine[Any, Any, Response]:
        """Go on with the client as the peer; a header block that repeats on a connection is read once."""
        section, peer = request.headers.section, request.peer
        known = section.derived.get(self)
        if known is None or known[0] is not peer:
            known = section.derived[self] = (peer, self._named(section, peer))
        request.peer = known[1]
        return next(request)

    def _named(self, section: Section, peer: Peer) -> Peer:
        if not self._networks.trusts(peer.client[0]):
            return peer
        told = self._told(section)
        client = client_of(told.chain, peer, self._networks)
        scheme = told.scheme or peer.scheme
        if not told.chain and scheme == peer.scheme:
            return peer
        named = (client, 0) if told.chain else peer.client
        return Peer(named, peer.server, scheme, peer.tls, peer.certificate)
