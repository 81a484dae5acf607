"""A scripted origin: a real HTTP server on a real socket that answers as told, keeps a journal, and fails on command."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from blocks.core.clock import Clock
from blocks.http.body import Stream
from blocks.http.h1 import DEFAULT as LIMITS
from blocks.http.handler import Handler, running
from blocks.http.inbound import Inbound
from blocks.http.message import Request, Response
from blocks.http.service import Service
from blocks.http.timeouts import Timeouts

from .door import Door
from .faults import Faults
from .gate import Gate
from .journal import BODY, Journal
from .rules import Effect
from .timeline import Timeline

LARGEST = 16 * 1024 * 1024  # bytes of a request's body that an origin takes to memory
Answer = Handler | Callable[[Request], object] | Response | str | bytes | dict[str, Any] | list[Any] | int


@dataclass(eq=False, slots=True)
class _Behind:
    """The answer to a request is to be overtaken by ``left`` others."""

    number: int
    left: int
    free: asyncio.Future[None]


class Origin(Door):
    """Answers on ``url`` with ``answer``: a handler, a ``Response``, text, bytes, a status, or what becomes JSON; by default its name.

    ``fault`` arms faults, ``journal`` holds what was asked. ``on`` gives a path its own answer, ``answers`` a row of answers for the
    next requests. ``refuse``, ``crash`` and ``recover`` are the whole origin's (see ``Door``).
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
        super().__init__(name, Faults(random), timeline)
        self.answer: Answer = name if answer is None else answer
        self.journal = Journal()
        self.clock = clock
        self._timeouts = timeouts
        self._keep_bodies = keep_bodies
        self._paths: dict[str, Answer] = {}
        self._row: deque[Answer] = deque()
        self._behind: list[_Behind] = []
        self._service: Service | None = None
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
        """Listen on ``address``; a handler that is a context manager is entered first."""
        loop = asyncio.get_running_loop()
        self._service = Service(loop, self._handle, LIMITS, self._timeouts, clock=self.clock)
        if callable(self.answer):
            self._entered = running(self.answer)
            await self._entered.__aenter__()
        return await super().start(address)

    def inner(self) -> asyncio.Protocol:
        """An HTTP server's connection."""
        assert self._service is not None
        return Inbound(self._service)

    async def stop(self) -> None:
        """Listen no more and cut what is connected."""
        await super().stop()
        if self._service is not None:
            await self._service.drain(0)
        entered, self._entered = self._entered, None
        if entered is not None:
            await entered.__aexit__(None, None, None)

    def __repr__(self) -> str:
        return f"<Origin {self.name} {self._host}:{self._port} {self.journal.total} requests>"

    # -- serving

    async def _handle(self, request: Request) -> Response:
        entry = self.journal.write(request, self.clock.monotonic())
        effect = self.fault.decide(request)
        if effect is not None:
            entry.fault = str(effect)
        self.note(entry)
        gate = self.gate(request.peer.client)
        if gate is not None:
            gate.spoil(effect)
        given = self._row.popleft() if self._row else self._paths.get(request.path, self.answer)
        if effect is not None:
            await self._strike(effect, gate, entry.number)
            if effect.answer is not None:
                given = effect.answer
        if self._keep_bodies and isinstance(request.body, Stream | bytes):
            entry.body = (await request.read(LARGEST))[:BODY]
        response = await _answered(given, request)
        if effect is not None and effect.kind == "duplicate":
            await response.read(LARGEST)
        entry.status = response.status
        if self._behind:
            self._pass_by(entry.number)
        return response

    async def _overtaken(self, number: int, by: int, within: float) -> None:
        """Return when so many requests that came after ``number`` were answered."""
        waiting = _Behind(number, by, asyncio.get_running_loop().create_future())
        self._behind.append(waiting)
        try:
            async with asyncio.timeout(within):
                await waiting.free
        except TimeoutError:
            pass
        finally:
            self._behind.remove(waiting)

    def _pass_by(self, number: int) -> None:
        for waiting in self._behind:
            if number > waiting.number:
                waiting.left -= 1
                if waiting.left <= 0 and not waiting.free.done():
                    waiting.free.set_result(None)

    async def _strike(self, effect: Effect, gate: Gate | None, number: int) -> None:
        """Do what happens before the answer. After the kinds that give no answer this never returns: the connection's end cancels it."""
        kind = effect.kind
        if kind == "delay":
            await asyncio.sleep(effect.delay)
        elif kind == "reorder":
            await self._overtaken(number, effect.size or 1, effect.delay)
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
        return await result if inspect.isawaitable(result) else await _answered(result, request)  # type: ignore[arg-type]
    return Response.json(given)
