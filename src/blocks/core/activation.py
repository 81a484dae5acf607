"""Sockets that whoever started this process has opened for it: systemd's socket activation (sd_listen_fds(3)), or any parent.

``fd:web`` is every socket that ``LISTEN_FDNAMES`` names ``web``; ``fd:3`` is the descriptor 3, named or not. Since the manager keeps the
socket, a restart refuses no connection: those that come in between wait in the kernel.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Mapping

from .errors import ConfigError

FIRST = 3  # SD_LISTEN_FDS_START
_ADDRESS = re.compile(r"fd:([A-Za-z0-9][A-Za-z0-9_.@\-]*)")


def is_inherited(address: str) -> bool:
    """Whether ``address`` names a socket that the process was started with. Raises ``ConfigError`` when it begins so and goes on badly."""
    if not address.startswith("fd:"):
        return False
    if _ADDRESS.fullmatch(address) is None:
        raise ConfigError(
            f"{address!r} names no inherited socket; write fd:NAME (FileDescriptorName= of the unit) or fd:3"
        )
    return True


def names(environ: Mapping[str, str] | None = None) -> list[tuple[str, int]]:
    """(name, descriptor) of every socket that was handed to this process; those without a name are called ``unknown``, as in systemd."""
    environ = os.environ if environ is None else environ
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isascii() or not count.isdigit():
        return []
    given = environ.get("LISTEN_FDNAMES", "").split(":")
    return [
        (given[at] if at < len(given) and given[at] else "unknown", FIRST + at) for at in range(min(int(count), 1000))
    ]


def inherited(address: str, environ: Mapping[str, str] | None = None) -> list[socket.socket]:
    """The listening sockets that ``fd:NAME`` or ``fd:3`` means, ready for a loop, each a duplicate that is the caller's to close.

    A duplicate, so that closing it, as a drain does, leaves the descriptor for who asks next (a reload, another worker).
    Raises ``ConfigError`` when there is none, or when it is no listening stream socket.
    """
    is_inherited(address)
    wanted = address[3:]
    if wanted.isdigit():
        return [_socket(int(wanted), address)]
    handed = names(environ)
    found = [number for name, number in handed if name == wanted]
    if not found:
        known = ", ".join(sorted({f"fd:{name}" for name, _ in handed})) or "none at all"
        raise ConfigError(f"{address}: no socket of that name was handed to this process (there is {known})")
    return [_socket(number, address) for number in found]


def _socket(number: int, address: str) -> socket.socket:
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            raise ConfigError(f"{address}: descriptor {number} is not a socket")
        os.set_inheritable(number, False)
        found = socket.socket(fileno=os.dup(number))
    except OSError as error:
        raise ConfigError(f"{address}: descriptor {number} is not open ({error.strerror})") from None
    listening = found.getsockopt(socket.SOL_SOCKET, getattr(socket, "SO_ACCEPTCONN", 30))
    if found.type != socket.SOCK_STREAM or not listening:
        found.close()
        raise ConfigError(f"{address}: descriptor {number} is not a listening stream socket")
    found.setblocking(False)
    return found
