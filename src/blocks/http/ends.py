"""Both ends of a connection, as its transport tells them."""

from __future__ import annotations

import asyncio
from typing import Any

from .message import Peer


def peer_of(transport: asyncio.Transport) -> Peer:
    """Both ends, as the transport tells them."""
    tls = transport.get_extra_info("ssl_object")
    return Peer(
        _address(transport.get_extra_info("peername")),
        _address(transport.get_extra_info("sockname")),
        "http" if tls is None else "https",
        tls,
        None if tls is None else tls.getpeercert(),
    )


def _address(name: Any) -> tuple[str, int]:
    if isinstance(name, tuple) and len(name) >= 2:
        return name[0], name[1]
    return (name if isinstance(name, str) else ""), 0
