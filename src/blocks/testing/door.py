"""A listener whose connections pass a gate each: it can refuse, crash and come back on the same port."""

from __future__ import annotations

import asyncio
import socket
from typing import TypeVar

from blocks.core.errors import ConfigError

from .faults import Faults
from .gate import Gate
from .timeline import Timeline

BACKLOG = 2048  # as Server's
Self = TypeVar("Self", bound="Door")


class Door:
    """Listens on ``url`` and serves each connection with what ``inner`` gives, behind a ``Gate``.

    ``refuse`` makes connecting fail with ECONNREFUSED, ``crash`` resets what is connected too, ``recover`` ends both.
    """

    def __init__(self, name: str, faults: Faults, timeline: Timeline | None = None) -> None:
        self.name = name
        self.fault = faults
        self.timeline = timeline
        self._gates: dict[tuple[str, int], Gate] = {}
        self._listener: asyncio.AbstractServer | None = None
        self._placeholder: socket.socket | None = None
        self._host, self._port = "127.0.0.1", 0

    def inner(self) -> asyncio.Protocol:
        """The protocol that serves one connection."""
        raise AssertionError("a door says who serves behind it")

    async def start(self: Self, address: str = "127.0.0.1:0") -> Self:
        """Listen on ``address``. When it returns, a connection is accepted."""
        host, _, port = address.rpartition(":")
        if not port.isdigit():
            raise ConfigError(f"{address!r} is not an address; write 127.0.0.1:9000")
        self._host, self._port = host.strip("[]") or "127.0.0.1", int(port)
        await self._listen()
        return self

    async def stop(self) -> None:
        """Listen no more and cut what is connected."""
        self._close_listener()
        if self._placeholder is not None:
            self._placeholder.close()
            self._placeholder = None
        for gate in list(self._gates.values()):
            gate.transport.abort()

    async def __aenter__(self: Self) -> Self:
        return self if self._port else await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _listen(self) -> None:
        if self._placeholder is not None:
            self._placeholder.close()
            self._placeholder = None
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _Numbered(self), self._host, self._port, backlog=BACKLOG)
        self._port = self._listener.sockets[0].getsockname()[1]

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    # -- faults of the whole

    def refuse(self) -> None:
        """Refuse new connections (ECONNREFUSED), and keep the port; what is connected goes on."""
        if self._listener is None:
            return
        self._close_listener()
        holder = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(
            (self._host, self._port)
        )  # bound but not listening: the kernel refuses, and nobody else gets the port
        self._placeholder = holder
        self.note("refuses connections")

    def crash(self) -> None:
        """As a killed process: refuse new connections and reset every one that there is."""
        self.refuse()
        for gate in list(self._gates.values()):
            gate.reset()
        self.note("crashed")

    async def recover(self) -> None:
        """Listen again, on the same port."""
        if self._listener is None:
            await self._listen()
            self.note("listens again")

    # -- what is seen

    @property
    def url(self) -> str:
        """Where it listens, ``http://127.0.0.1:PORT``."""
        host, port = self.address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def address(self) -> tuple[str, int]:
        """(host, port). Raises ``ConfigError`` before it was started."""
        if not self._port:
            raise ConfigError(f"{self.name} has not been started")
        return self._host, self._port

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._gates)

    def gate(self, client: tuple[str, int]) -> Gate | None:
        """The gate of the connection from ``client``, while it is open."""
        return self._gates.get(client)

    def note(self, what: object) -> None:
        """Write it to the timeline."""
        if self.timeline is not None:
            self.timeline.note(self.name, what)


class _Numbered(Gate):
    """A gate that its door finds by the client's address, which is the connection's name while it is open."""

    def __init__(self, door: Door) -> None:
        super().__init__(door.inner(), door.fault, self._gone)
        self._door = door
        self._name: tuple[str, int] = ("", 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        name = transport.get_extra_info("peername")
        self._name = (name[0], name[1])
        self._door._gates[self._name] = self
        super().connection_made(transport)

    def _gone(self, _: Gate) -> None:
        if self._door._gates.get(self._name) is self:
            del self._door._gates[self._name]
