"""What a process is there for: a ``Job`` says where it listens and begins a ``Run`` on a loop, one in each worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from blocks.core.notify import Notifier

from .options import Serving

if TYPE_CHECKING:
    import socket

    from aiohttp import web

    from .admin import Subject
    from .council import Seat

Spot = tuple[str, str]
"""A listener's name and one of its addresses, as they were written; the name is "" where there is only one."""

Extend = Callable[["web.Application", Any], None]  # with the composition whose block the routes are about


class Place(NamedTuple):
    """Where one of several workers listens.

    ``where`` are addresses with ports resolved, shared by SO_REUSEPORT; ``held`` are sockets of the parent's. When ``lifeline``, a pipe
    that the parent holds the other end of, comes to its end, the parent is gone and the worker leaves, too. ``notifier`` lets the parent
    know that the loop turns. With a ``seat`` it changes together with the other workers.
    """

    where: Mapping[Spot, Sequence[str]]
    held: Mapping[Spot, Sequence[socket.socket]]
    lifeline: int
    notifier: Notifier
    seat: Seat | None = None


class Run(Protocol):
    """A job at work on one loop."""

    extend: Extend | None

    async def start(self) -> None:
        """Serve. Raises ``ConfigError`` and ``CannotBind``; then nothing is left running."""
        ...

    async def drain(self, timeout: float | None = None) -> bool:
        """Accept no more and let requests finish; whether none had to be cut."""
        ...

    async def stop(self) -> None:
        """Close everything."""
        ...

    def hang_up(self, done: Callable[[], None]) -> None:
        """Begin to reload (SIGHUP); what is wrong is an event. ``done`` is called when it is over, however it went."""
        ...

    def subject(self, drain: Callable[[], None]) -> Subject:
        """What the admin API is about; ``drain`` begins to leave."""
        ...

    def line(self) -> dict[str, Any]:
        """The ready line's own part: where it listens."""
        ...


class Job(Protocol):
    """What a process is there for."""

    @property
    def block(self) -> str:
        """Its name in the ready line."""
        ...

    @property
    def serving(self) -> Serving:
        """How many workers, the admin API, the ports file, how long a drain takes."""
        ...

    @property
    def spots(self) -> Sequence[Spot]:
        """Where it listens."""
        ...

    @property
    def together(self) -> bool:
        """Whether several workers reload as one: its runs are ``delegate.Together``."""
        ...

    def begin(self, place: Place | None) -> Run:
        """Make what is to run, on the running loop. Raises ``ConfigError``."""
        ...

    def line(self, where: Mapping[Spot, Sequence[str]]) -> dict[str, Any]:
        """The ready line's own part, said by a parent that knows where its workers listen."""
        ...


def ready_line(job: Job, own: dict[str, Any], admin: str | None) -> dict[str, Any]:
    """What a process says when it is ready."""
    line = {"event": "ready", "block": job.block, "pid": os.getpid(), "workers": job.serving.workers, **own}
    if admin is not None:
        line["admin"] = admin if admin.startswith("unix:") else f"http://{admin}"
    return line


def places_line(addresses: Sequence[str], tls: bool) -> dict[str, Any]:
    """``listen``, and of what is no Unix socket the first ``url`` and ``port``."""
    scheme = "https" if tls else "http"
    line: dict[str, Any] = {"listen": list(addresses)}
    found = next((address for address in addresses if not address.startswith("unix:")), None)
    if found is not None:
        line |= {"url": f"{scheme}://{found}", "port": int(found.rpartition(":")[2])}
    return line
