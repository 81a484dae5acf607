"""What a service manager is told: ready, reloading, stopping, and alive (sd_notify(3)). Without one, nothing happens.

systemd names a datagram socket in ``NOTIFY_SOCKET`` and, with ``WatchdogSec=``, how often it wants to hear in ``WATCHDOG_USEC``.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping

from .clock import SYSTEM, Clock

_SLACK = 5.0  # seconds that leaving takes beyond the drain itself


class Notifier:
    """Tells the service manager of this process what it does. A manager that does not listen is no trouble: every call returns at once.

    ``environ`` is where the socket is named; ``interval`` is how often ``alive`` is to be called, half of what the manager allows, or
    None when it does not watch (``WATCHDOG_PID`` of another process counts as not).
    """

    def __init__(self, environ: Mapping[str, str] | None = None, *, clock: Clock = SYSTEM) -> None:
        environ = os.environ if environ is None else environ
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._clock = clock
        self.interval = _watchdog(environ) if path else None

    def ready(self, status: str = "") -> None:
        """It serves; after ``reloading``: it serves again."""
        self._tell("READY=1", _status(status))

    def reloading(self) -> None:
        """It reads its configuration again; ``ready`` ends that (``Type=notify-reload`` waits for both)."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={int(self._clock.monotonic() * 1e6)}")

    def stopping(self, drain: float) -> None:
        """It leaves, and may take ``drain`` seconds: the manager is asked not to kill it before."""
        usec = int((drain + _SLACK) * 1e6)
        self._tell("STOPPING=1", _status("draining"), f"EXTEND_TIMEOUT_USEC={usec}")

    def say(self, status: str) -> None:
        """One line for ``systemctl status``."""
        self._tell(_status(status))

    def alive(self) -> None:
        """The loop turns."""
        self._tell("WATCHDOG=1")

    def watch(self, loop: asyncio.AbstractEventLoop) -> Watchdog:
        """Call ``alive`` from ``loop`` every ``interval`` until the result is cancelled: a loop that hangs is silent, and is restarted."""
        return Watchdog(self, loop)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        text = "\n".join(line for line in lines if line)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0)) as notifier:
            notifier.setblocking(False)
            try:
                notifier.sendto(text.encode(), self._address)
            except OSError:
                pass  # it is only told


class Watchdog:
    """Says that a loop is alive, every ``interval`` seconds, from that loop."""

    def __init__(self, notifier: Notifier, loop: asyncio.AbstractEventLoop) -> None:
        self._notifier = notifier
        self._loop = loop
        self._next: asyncio.TimerHandle | None = None
        self._beat()

    def _beat(self) -> None:
        interval = self._notifier.interval
        if interval is not None:
            self._notifier.alive()
            self._next = self._loop.call_later(interval, self._beat)

    def cancel(self) -> None:
        """Say no more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None


def _watchdog(environ: Mapping[str, str]) -> float | None:
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not usec.isascii() or not usec.isdigit() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2e6


def _status(text: str) -> str:
    return "STATUS=" + text.replace("\n", " ") if text else ""
