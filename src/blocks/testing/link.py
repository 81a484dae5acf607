"""A link: bytes between a client and any TCP server, through a gate: faults for a broker or a database without knowing its protocol."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Literal, cast

from blocks.core.quantities import seconds

from .door import Door
from .faults import Faults
from .lag import Lag
from .timeline import Timeline

Direction = Literal["to-client", "to-server"]
BOTH: tuple[Direction, ...] = ("to-client", "to-server")
EARLY = 1024 * 1024  # bytes that a client may send before the other side is connected


class Link(Door):
    """Listens and passes on to (``host``, ``port``). Faults strike connections: ``link.fault.next(1).reset()``.

    ``cut_body(n)`` closes a connection after ``n`` bytes from the server, ``stall`` holds all bytes of every connection until ``flow``,
    ``slow`` gives each direction a latency of its own.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        name: str = "link",
        random: Random | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        super().__init__(name, Faults(random, requests=False), timeline)
        self.target = (host, port)
        self.latency = {"to-server": 0.0, "to-client": 0.0}  # seconds
        self._stalled: set[Direction] = set()
        self._pipes: set[_Near] = set()

    def inner(self) -> asyncio.Protocol:
        """A protocol that pipes to the target."""
        return _Near(self)

    def stall(self, *directions: Direction) -> None:
        """Pass nothing on, ``"to-client"`` or ``"to-server"`` or both, as a network that drops everything; new connections hang, too."""
        self._stalled = set(directions or BOTH)
        for pipe in self._pipes:
            pipe.hold()
        self.note(f"stalled {' and '.join(sorted(self._stalled))}")

    def flow(self) -> None:
        """Pass on again, from where it stopped."""
        self._stalled.clear()
        for pipe in self._pipes:
            pipe.hold()
        self.note("flows")

    def stalled(self, direction: Direction) -> bool:
        """Whether nothing passes in that direction."""
        return direction in self._stalled

    def slow(self, *, to_client: float | str = 0.0, to_server: float | str = 0.0) -> None:
        """Let bytes arrive so much later from now on, in their order; 0 for as they come."""
        self.latency = {"to-client": seconds(to_client), "to-server": seconds(to_server)}
        self.note(
            f"latency {self.latency['to-server']:g} s to the server, {self.latency['to-client']:g} s to the client"
        )

    async def stop(self) -> None:
        """Listen no more, and cut both sides."""
        await super().stop()
        tasks = [pipe.task for pipe in self._pipes if pipe.task is not None]
        for pipe in list(self._pipes):
            pipe.end()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Near(asyncio.Protocol):
    """The client's side of a pipe."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set when the connection is made
        self.far: _Far | None = None
        self.task: asyncio.Task[None] | None = None
        self.down = Lag(self._to_client)
        self.up = Lag(self._to_server)
        self._early = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._link._pipes.add(self)
        self.task = asyncio.get_running_loop().create_task(self._connect())
        self.hold()

    async def _connect(self) -> None:
        try:
            _, far = await asyncio.get_running_loop().create_connection(lambda: _Far(self), *self._link.target)
        except OSError:
            self.transport.abort()
            return
        if self.transport.is_closing():
            far.transport.abort()
            return
        self.far = far
        self.hold()
        early, self._early = bytes(self._early), bytearray()
        if early:
            self.up.put(early, self._link.latency["to-server"])

    def data_received(self, data: bytes) -> None:
        """Bytes, for the server."""
        if self.far is not None:
            self.up.put(data, self._link.latency["to-server"])
        elif len(self._early) + len(data) <= EARLY:
            self._early += data
        else:
            self.transport.abort()

    def eof_received(self) -> bool:
        """The end of this direction."""
        if self.far is not None:
            self.up.put(self._end_of_client, self._link.latency["to-server"])
        return True

    def _to_server(self, data: bytes) -> None:
        if self.far is not None and not self.far.transport.is_closing():
            self.far.transport.write(data)

    def _to_client(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def _end_of_client(self) -> None:
        if self.far is not None and not self.far.transport.is_closing():
            self.far.transport.write_eof()

    def end_of_server(self) -> None:
        """Nothing more comes from the server."""
        if not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()

    def pause_writing(self) -> None:
        """This side does not keep up: the other is not read."""
        if self.far is not None:
            self.far.transport.pause_reading()

    def resume_writing(self) -> None:
        """This side has caught up."""
        if self.far is not None and not self._link.stalled("to-client") and not self.far.transport.is_closing():
            self.far.transport.resume_reading()

    def hold(self) -> None:
        """Read no more of what must not pass, and again of what may."""
        sides: list[tuple[asyncio.Transport | None, Direction]] = [
            (self.transport, "to-server"),
            (self.far.transport if self.far is not None else None, "to-client"),
        ]
        for transport, direction in sides:
            if transport is not None and not transport.is_closing():
                if self._link.stalled(direction):
                    transport.pause_reading()
                else:
                    transport.resume_reading()

    def end(self) -> None:
        """Cut both sides."""
        self._link._pipes.discard(self)
        self.up.stop()
        self.down.stop()
        if self.task is not None:
            self.task.cancel()
        for side in (self, self.far):
            if side is not None and not side.transport.is_closing():
                side.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """This side is gone, and so the other, once what was on its way there has arrived."""
        self._link._pipes.discard(self)
        self.down.stop()
        if self.far is None:
            if self.task is not None:
                self.task.cancel()
        elif exc is None:
            self.up.put(self.far.transport.close, self._link.latency["to-server"])
        else:
            self.up.stop()
            self.far.transport.abort()


class _Far(asyncio.Protocol):
    """The server's side of a pipe."""

    def __init__(self, near: _Near) -> None:
        self._near = near
        self._link = near._link
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set when the connection is made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Bytes, for the client."""
        self._near.down.put(data, self._link.latency["to-client"])

    def eof_received(self) -> bool:
        """The end of this direction."""
        self._near.down.put(self._near.end_of_server, self._link.latency["to-client"])
        return self._near.transport.can_write_eof()

    def pause_writing(self) -> None:
        """This side does not keep up: the other is not read."""
        if not self._near.transport.is_closing():
            self._near.transport.pause_reading()

    def resume_writing(self) -> None:
        """This side has caught up."""
        if not self._link.stalled("to-server") and not self._near.transport.is_closing():
            self._near.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """This side is gone, and so the other, once what was on its way there has arrived."""
        self._near.up.stop()
        if exc is None:
            self._near.down.put(self._near.transport.close, self._link.latency["to-client"])
        else:
            self._near.down.stop()
            self._near.transport.abort()
