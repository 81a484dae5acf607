"""HTTP as values and as a wire: messages, handlers, the server that listens and the upstream that asks."""

from .body import Body, Sink, Source, Stream, TooLarge, Tunnel
from .h1 import Limits
from .handler import Filter, Handler, bind, chain, direct, is_direct, running, status_of, topology, walk
from .message import Headers, Peer, Request, Response, Section
from .server import CannotBind, Server, serve
from .timeouts import Timeouts
from .upstream import IDEMPOTENT, Upstream

__all__ = [
    "IDEMPOTENT",
    "Body",
    "CannotBind",
    "Filter",
    "Handler",
    "Headers",
    "Limits",
    "Peer",
    "Request",
    "Response",
    "Section",
    "Server",
    "Sink",
    "Source",
    "Stream",
    "Timeouts",
    "TooLarge",
    "Tunnel",
    "Upstream",
    "bind",
    "chain",
    "direct",
    "is_direct",
    "running",
    "serve",
    "status_of",
    "topology",
    "walk",
]
