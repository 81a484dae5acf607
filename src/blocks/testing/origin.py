"""A scripted origin: a real HTTP server on a real socket that answers as told, keeps a journal, and fails on command."""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from blocks.core.clock import Clock
from blocks.core.errors import ConfigError
from blocks.http.body import Stream
from blocks.http.h1 import DEFAULT as LIMITS
from blocks.http.handler import Handler, running
from blocks.http.inbound import Inbound
from blocks.http.message import Request, Response
from blocks.http.service import Service
from blocks.http.timeouts import Timeouts

from .faults import Effect, Faults
from .gate import Gate
from .journal import BODY, Journal
from .timeline import Timeline

BACKLOG = 2048  # as Server's
LARGEST = 16 * 1024 * 1024  # bytes of a request's body that an origin takes to memory
Answer = Handler | Response | str | bytes | dict[str, Any] | list[Any] | int


class Origin:
    """Answers on ``url`` with ``answer``: a handler, a ``Response``, text, bytes, a status, or what becomes JSON; by default its name.

    ``fault`` arms faults, ``journal`` holds what was asked. ``on`` gives a path its own answer, ``answers`` a row of answers for the
    next requests. ``refuse`` makes connecting fail with ECONNREFUSED, ``crash`` cuts what is connected too, ``recover`` ends both.
    """

    def __init__(
        self,
        answer: Answer | None = None,
        *,
        name: str = "origin",
        clock: Clock,
        random: Random | None = None,
        timeline: Timeline | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008  # frozen
        keep_bodies: bool = True,
    ) -> None:
        self.name = name
        self.answer: Answer = name if answer is None else answer
        self.journal = Journal()
        self.clock = clock
        self.timeline = timeline
        self._random = random or Random(0)
        self.fault = Faults(self._random)
        self._timeouts = timeouts
        self._keep_bodies = keep_bodies
        self._paths: dict[str, Answer] = {}
        self._row: deque[Answer] = deque()
        self._gates: dict[tuple[str, int], Gate] = {}
        self._service: Service | None = None
        self._listener: asyncio.AbstractServer | None = None
        self._placeholder: socket.socket | None = None
        self._port = 0
        self._host = "127.0.0.1"
        self._entered: Any = None

    # -- scripting

    def on(self, path: str, answer: Answer) -> Origin:
        """Answer ``path`` (whole, without the query) with ``answer``."""
        self._paths[path] = answer
        return self

    def answers(self, *row: Answer) -> Origin:
        """Answer the next requests with these, one each, in order."""
        self._row.extend(row)
        return self

    # -- life

    async def start(self, address: str = "127.0.0.1:0") -> Origin:
        """Listen on ``address``; a handler that is a context manager is entered."""
        loop = asyncio.get_running_loop()
        host, _, port = address.rpartition(":")
        self._host, self._port = host or "127.0.0.1", int(port)
        self._service = Service(loop, self._handle, LIMITS, self._timeouts, clock=self.clock)
        if callable(self.answer):
            self._entered = running(self.answer)
            await self._entered.__aenter__()
        await self._listen()
        return self

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        if self._placeholder is not None:
            self._placeholder.close()
            self._placeholder = None
        self._listener = await loop.create_server(self._accept, self._host, self._port, backlog=BACKLOG)
        self._port = self._listener.sockets[0].getsockname()[1]

    def _accept(self) -> Gate:
        assert self._service is not None
        return _Numbered(self, Inbound(self._service))

    async def stop(self) -> None:
        """Cut what is connected and listen no more."""
        self._close_listener()
        if self._placeholder is not None:
            self._placeholder.close()
            self._placeholder = None
        if self._service is not None:
            await self._service.drain(0)
        for gate in list(self._gates.values()):
            gate.transport.abort()
        entered, self._entered = self._entered, None
        if entered is not None:
            await entered.__aexit__(None, None, None)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def __aenter__(self) -> Origin:
        return self if self._service is not None else await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # -- the listener's faults

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
        self._note("refuses connections")

    def crash(self) -> None:
        """As a killed process: refuse new connections and reset every one that there is."""
        self.refuse()
        for gate in list(self._gates.values()):
            gate.reset()
        self._note("crashed")

    async def recover(self) -> None:
        """Listen again, on the same port."""
        if self._listener is None:
            await self._listen()
            self._note("listens again")

    # -- what is seen

    @property
    def url(self) -> str:
        """Where it listens, ``http://127.0.0.1:PORT``."""
        if not self._port:
            raise ConfigError(f"{self.name} has not been started")
        return f"http://{self._host}:{self._port}"

    @property
    def address(self) -> tuple[str, int]:
        """(host, port)."""
        return self._host, self._port

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._gates)

    def __repr__(self) -> str:
        return f"<Origin {self.name} {self._host}:{self._port} {self.journal.total} requests>"

    def _note(self, what: object) -> None:
        if self.timeline is not None:
            self.timeline.note(self.name, what)

    # -- serving

    async def _handle(self, request: Request) -> Response:
        entry = self.journal.write(request, self.clock.monotonic())
        effect = self.fault.decide(request)
        if effect is not None:
            entry.fault = str(effect)
        self._note(entry)
        gate = self._gates.get(request.peer.client)
        if gate is not None:
            gate.spoil(effect)
        given = self._row.popleft() if self._row else self._paths.get(request.path, self.answer)
        if effect is not None:
            await self._strike(effect, gate)
            if effect.answer is not None:
                given = effect.answer
        if self._keep_bodies and isinstance(request.body, Stream | bytes):
            entry.body = (await request.read(LARGEST))[:BODY]
        response = await _answered(given, request)
        if effect is not None and effect.kind == "duplicate":
            await response.read(LARGEST)
        entry.status = response.status
        return response

    async def _strike(self, effect: Effect, gate: Gate | None) -> None:
        """Do what happens before the answer. After the kinds that give no answer this never returns: the connection's end cancels it."""
        kind = effect.kind
        if kind == "delay":
            await asyncio.sleep(effect.delay)
        elif kind in _SILENT:
            if gate is not None:
                _SILENT[kind](gate)
            await asyncio.get_running_loop().create_future()


_SILENT: dict[str, Callable[[Gate], None]] = {
    "reset": Gate.reset,
    "close": Gate.close,
    "half-open": Gate.go_deaf,
    "hang": lambda gate: None,
}


async def _answered(given: Answer, request: Request) -> Response:
    """The response that an answer stands for."""
    if isinstance(given, Response):
        return Response(given.status, given.headers.copy(), given.body)
    if isinstance(given, bool):
        return Response.json(given)
    if isinstance(given, int):
        return Response(given)
    if isinstance(given, str):
        return Response.text(given)
    if isinstance(given, bytes):
        return Response(200, {"content-type": "application/octet-stream"}, given)
    if callable(given):
        result = given(request)
        return await result if inspect.isawaitable(result) else await _answered(result, request)
    return Response.json(given)


class _Numbered(Gate):
    """A gate that its origin finds by the client's address, which is the connection's name while it is open."""

    def __init__(self, origin: Origin, inner: Inbound) -> None:
        super().__init__(inner, origin.fault, self._gone)
        self._origin = origin
        self._name: tuple[str, int] = ("", 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        name = transport.get_extra_info("peername")
        self._name = (name[0], name[1])
        self._origin._gates[self._name] = self
        super().connection_made(transport)

    def _gone(self, _: Gate) -> None:
        if self._origin._gates.get(self._name) is self:
            del self._origin._gates[self._name]
