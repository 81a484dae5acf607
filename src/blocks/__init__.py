"""Networking blocks for Python teams: a load balancer, an API gateway, a caching edge and a durable broker.

Names are imported on first use, so that ``import blocks`` costs nothing and a process pays only for the blocks it runs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from blocks.app.stack import Stack as Stack
    from blocks.balancer import LoadBalancer as LoadBalancer
    from blocks.broker import Broker as Broker
    from blocks.broker import connect as connect
    from blocks.edge import Edge as Edge
    from blocks.gateway import Gateway as Gateway
    from blocks.gateway import route as route
    from blocks.http import Headers as Headers
    from blocks.http import Request as Request
    from blocks.http import Response as Response
    from blocks.http import Stream as Stream
    from blocks.http import Upstream as Upstream
    from blocks.http import chain as chain
    from blocks.http import running as running
    from blocks.http import serve as serve
    from blocks.http.adapters import from_asgi as from_asgi
    from blocks.http.adapters import to_aiohttp as to_aiohttp
    from blocks.http.adapters import to_asgi as to_asgi

_HOMES = {
    "Stack": "blocks.app.stack",
    "LoadBalancer": "blocks.balancer",
    "Broker": "blocks.broker",
    "connect": "blocks.broker",
    "Edge": "blocks.edge",
    "Gateway": "blocks.gateway",
    "route": "blocks.gateway",
    "Upstream": "blocks.http",
    "Headers": "blocks.http",
    "Request": "blocks.http",
    "Response": "blocks.http",
    "Stream": "blocks.http",
    "chain": "blocks.http",
    "running": "blocks.http",
    "serve": "blocks.http",
    "from_asgi": "blocks.http.adapters",
    "to_asgi": "blocks.http.adapters",
    "to_aiohttp": "blocks.http.adapters",
}

__all__ = ["__version__", *_HOMES]  # the names are those of the table above


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'blocks' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
