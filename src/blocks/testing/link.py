"""A link: bytes between a client and any TCP server, through a gate: faults for a broker or a database without knowing its protocol."""

from __future__ import annotations

import asyncio
from random import Random

from .door import Door
from .faults import Faults
from .timeline import Timeline

EARLY = 1024 * 1024  # bytes that a client may send before the other side is connected


class Link(Door):
    """Listens and passes on to (``host``, ``port``). Faults strike connections: ``link.fault.connections.next(1).reset()``.

    ``cut_body(n)`` closes a connection after ``n`` bytes from the server, ``stall`` holds all bytes of every connection until ``flow``.
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
        super().__init__(name, Faults(random), timeline)
        self.target = (host, port)
        self.stalled = False
        self._pipes: set[_Near] = set()

    def inner(self) -> asyncio.Protocol:
        """A protocol that pipes to the target."""
        return _Near(self)

    def stall(self) -> None:
        """Pass nothing on in either direction, as a network that drops everything does; new connections are accepted and hang."""
        self.stalled = True
        for pipe in self._pipes:
            pipe.hold()
        self.note("stalled")

    def flow(self) -> None:
        """Pass on again, from where it stopped."""
        self.stalled = False
        for pipe in self._pipes:
            pipe.let()
        self.note("flows")

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
        self._early = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._link._pipes.add(self)
        self.task = asyncio.get_running_loop().create_task(self._connect())
        if self._link.stalled:
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
        if self._link.stalled:
            self.hold()
        far.transport.write(bytes(self._early))
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        """Bytes, for the other side."""
        if self.far is not None:
            self.far.transport.write(data)
        elif len(self._early) + len(data) <= EARLY:
            self._early += data
        else:
            self.transport.abort()

    def eof_received(self) -> bool:
        """The end of this direction."""
        if self.far is not None and not self.far.transport.is_closing():
            self.far.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        """This side does not keep up: the other is not read."""
        if self.far is not None:
            self.far.transport.pause_reading()

    def resume_writing(self) -> None:
        """This side has caught up."""
        if self.far is not None and not self._link.stalled and not self.far.transport.is_closing():
            self.far.transport.resume_reading()

    def hold(self) -> None:
        """Read from neither side."""
        for transport in self._both():
            transport.pause_reading()

    def let(self) -> None:
        """Read from both again."""
        for transport in self._both():
            transport.resume_reading()

    def _both(self) -> list[asyncio.Transport]:
        both = [self.transport] + ([self.far.transport] if self.far is not None else [])
        return [transport for transport in both if not transport.is_closing()]

    def end(self) -> None:
        """Cut both sides."""
        self._link._pipes.discard(self)
        if self.task is not None:
            self.task.cancel()
        for transport in self._both():
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """This side is gone, and so the other."""
        self._link._pipes.discard(self)
        if self.far is None:
            if self.task is not None:
                self.task.cancel()
        elif exc is None:
            self.far.transport.close()
        else:
            self.far.transport.abort()


class _Far(asyncio.Protocol):
    """The server's side of a pipe."""

    def __init__(self, near: _Near) -> None:
        self._near = near
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set when the connection is made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes, for the other side."""
        self._near.transport.write(data)

    def eof_received(self) -> bool:
        """The end of this direction."""
        if self._near.transport.can_write_eof():
            self._near.transport.write_eof()
            return True
        return False

    def pause_writing(self) -> None:
        """This side does not keep up: the other is not read."""
        if not self._near.transport.is_closing():
            self._near.transport.pause_reading()

    def resume_writing(self) -> None:
        """This side has caught up."""
        if not self._near._link.stalled and not self._near.transport.is_closing():
            self._near.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """This side is gone, and so the other."""
        if exc is None:
            self._near.transport.close()
        else:
            self._near.transport.abort()
