"""Ending a connection so that the other side can tell it from a proper end."""

from __future__ import annotations

import asyncio
import socket
import struct

_NOW = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 seconds: closing sends RST and drops what is unsent


def reset(transport: asyncio.Transport) -> None:
    """Close with a TCP reset. A transport's ``abort`` alone sends FIN, which ends a body of no stated length properly."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
        except OSError:
            pass  # gone already
    transport.abort()
