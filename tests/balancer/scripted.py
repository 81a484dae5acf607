"""Endpoints that do what a test tells them, and note what they were asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from blocks.core.errors import Again, UpstreamFault, UpstreamTimeout
from blocks.http import Request, Response

Outcome = BaseException | Response | int | Callable[[Request], Awaitable[Response]]


def refused() -> UpstreamFault:
    return UpstreamFault("refused", reason="connect-refused", again=Again.UNSENT)


def stale() -> UpstreamFault:
    return UpstreamFault("closed", reason="reused-closed", again=Again.REUSED)


def reset() -> UpstreamFault:
    return UpstreamFault("reset", reason="reset", again=Again.NEVER)


def late() -> UpstreamTimeout:
    return UpstreamTimeout("late", reason="upstream-timeout", again=Again.NEVER)


class Scripted:
    """Answers with the outcomes in ``script``, then with ``always``; an int is a status, an exception is raised."""

    direct = True

    def __init__(self, name: str = "", *script: Outcome, always: Outcome = 200) -> None:
        self.name = name
        self.script = list(script)
        self.always = always
        self.asked: list[tuple[str, str]] = []
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, request: Request) -> Response:
        self.asked.append((request.method, request.target))
        self.seen.append({"body": request.body, "headers": request.headers.items(), "deadline": request.deadline})
        outcome = self.script.pop(0) if self.script else self.always
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, int):
            return Response(outcome, None, self.name.encode())
        if isinstance(outcome, Response):
            return outcome
        return await outcome(request)


class Gate:
    """An endpoint whose requests stay under way until they are let go."""

    direct = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.inside = 0
        self.order: list[str] = []
        self._doors: list[asyncio.Future[None]] = []

    async def __call__(self, request: Request) -> Response:
        self.inside += 1
        self.order.append(request.target)
        door = asyncio.get_running_loop().create_future()
        self._doors.append(door)
        try:
            await door
        finally:
            self.inside -= 1
            if door in self._doors:
                self._doors.remove(door)
        return Response(200, None, self.name.encode())

    def let(self, number: int = 1) -> None:
        for door in self._doors[:number]:
            self._doors.remove(door)
            door.set_result(None)


async def settle() -> None:
    """Let everything that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)
