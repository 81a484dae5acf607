"""Request and reply: a request names the asker's inbox, and the answer comes back under the request's correlation."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .errors import BrokerError
from .inboxes import CORRELATION, PREFIX
from .message import Message
from .subscription import Run


class Requests:
    """The requests of one client that wait for their answers, and the inbox at which these arrive."""

    __slots__ = ("_inbox", "_open", "_opened", "_waiting")

    def __init__(self, open_inbox: Callable[[str], Awaitable[object]]) -> None:
        self._inbox = PREFIX + uuid.uuid4().hex
        self._open = open_inbox
        self._opened: asyncio.Future[None] | None = None
        self._waiting: dict[str, asyncio.Future[Message]] = {}

    @property
    def inbox(self) -> str | None:
        """The inbox that must be open now, if there is one."""
        return self._inbox if self._waiting else None

    async def ask(
        self,
        publish: Callable[[dict[str, str], str], Awaitable[object]],
        headers: Mapping[str, str] | None,
        limit: float,
    ) -> Message:
        """Have ``publish`` send the request with these headers and the inbox, and return the answer. Raises ``TimeoutError``."""
        correlation = uuid.uuid4().hex
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[correlation] = future
        try:
            async with asyncio.timeout(limit):
                await self._ensure_open()
                await publish({**(headers or {}), CORRELATION: correlation}, self._inbox)
                return await future
        finally:
            del self._waiting[correlation]

    async def _ensure_open(self) -> None:
        """Return when the inbox is open; one task opens it, the others wait."""
        while True:
            opened = self._opened
            if opened is None:
                self._opened = opened = asyncio.get_running_loop().create_future()
                try:
                    await self._open(self._inbox)
                except BaseException:
                    opened.cancel()
                    if self._opened is opened:
                        self._opened = None
                    raise
                opened.set_result(None)
                return
            if opened.done() and not opened.cancelled():
                return
            await asyncio.wait([opened])

    def interrupted(self) -> None:
        """The connection was lost, and with it the inbox until it is opened again."""
        if self._opened is not None and self._opened.done():
            self._opened = None

    def receive(self, runs: list[list[Any]]) -> None:
        """Answers have arrived; one that nobody waits for is dropped."""
        for fields in runs:
            run = Run(fields, 0, 0.0)
            for index in range(len(run)):
                message = Message(run, index, _NOTHING)
                future = self._waiting.get(message.headers.get(CORRELATION, ""))
                if future is not None and not future.done():
                    future.set_result(message)

    def fail(self, error: BrokerError) -> None:
        """There will be no answers any more."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)


class _Nothing:
    """Stands where a message has no lease: an answer needs no ack."""

    def ack(self, *_: Any) -> int:
        return 0

    nack = reject = extend = ack


_NOTHING = _Nothing()
