"""A worker's side of a change that all workers make together: it does what the parent says, and says how that went."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from blocks.core.errors import ConfigError
from blocks.core.logging import events

from .agreement import Kind, Message
from .channel import Channel


class Together(Protocol):
    """A run that can prepare a version, and then swap or forget it."""

    async def propose(self) -> bytes:
        """Read what is to be in force and prepare it; what the others must be given to prepare the same. Raises ``ConfigError``."""
        ...

    async def prepare(self, proposal: bytes) -> None:
        """Prepare it: all is made, started and listens, and answers nothing yet. Raises ``ConfigError``, and has left nothing then."""
        ...

    async def commit(self) -> Mapping[str, Any]:
        """Let what was prepared answer, and say how it went."""
        ...

    async def abandon(self, error: Exception) -> None:
        """Forget what was prepared, if anything was; ``error`` is why, and has not been told yet."""
        ...

    def reason(self, error: Exception) -> bytes:
        """An error for another worker."""
        ...

    def error(self, reason: bytes) -> Exception:
        """An error of another worker."""
        ...


class Delegate:
    """Speaks for ``run`` over ``channel``; ``number`` is the version that it began with."""

    def __init__(self, channel: Channel, run: Together, number: int) -> None:
        self._channel = channel
        self._run = run
        self._number = number
        self._orders: asyncio.Queue[Message] = asyncio.Queue()
        self._asked: list[asyncio.Future[Message]] = []
        self._making: asyncio.Task[None] | None = None
        self._answer: Mapping[str, Any] = {}
        self._work: asyncio.Task[None] | None = None
        self._writing = False

    async def __aenter__(self) -> Delegate:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel.end.fileno(), self._readable)
        self._work = loop.create_task(self._serve())
        self._send(Message(Kind.HELLO, self._number))
        return self

    async def __aexit__(self, *error: object) -> None:
        self._forget()
        for task in (self._work, self._making):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        for asked in self._asked:
            asked.cancel()
        self._channel.close()

    async def reload(self) -> Mapping[str, Any]:
        """Have all workers change; how it went here. Raises ``ConfigError`` with what any of them had against it."""
        self.want()
        asked: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._asked[-1] = asked
        result = await asked
        if result.data or result.text:
            raise self._error(result)
        return self._answer

    def want(self) -> None:
        """Have all workers change; nobody waits for how it goes."""
        nobody: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._asked.append(nobody)
        self._send(Message(Kind.WANT))

    # -- the channel

    def _send(self, message: Message) -> None:
        self._channel.send(message)
        self._watch()

    def _watch(self) -> None:
        """Be called when there is room for what waits."""
        if self._channel.waiting == self._writing:
            return
        loop = asyncio.get_running_loop()
        self._writing = self._channel.waiting
        if self._writing:
            loop.add_writer(self._channel.end.fileno(), self._writable)
        else:
            loop.remove_writer(self._channel.end.fileno())

    def _writable(self) -> None:
        self._channel.flush()
        self._watch()

    def _readable(self) -> None:
        for message in self._channel.receive():
            if message.kind == Kind.RESULT:
                asked = self._asked.pop(0)  # each WANT gets its own, in order
                if not asked.done():
                    asked.set_result(message)
            else:
                self._orders.put_nowait(message)
        if self._channel.closed:  # the parent is gone: the lifeline says so, too, and this process leaves
            self._forget()

    def _forget(self) -> None:
        loop = asyncio.get_running_loop()
        if self._channel.end.fileno() >= 0:
            loop.remove_reader(self._channel.end.fileno())
            loop.remove_writer(self._channel.end.fileno())

    # -- orders

    async def _serve(self) -> None:
        """One order after the other; a preparation goes on beside, so that it can be given up."""
        while True:
            order = await self._orders.get()
            if order.kind in (Kind.PROPOSE, Kind.PREPARE):
                self._making = asyncio.get_running_loop().create_task(self._make(order))
            elif order.kind == Kind.COMMIT:
                await self._commit(order)
            elif order.kind == Kind.ABANDON:
                await self._abandon(order)

    async def _make(self, order: Message) -> None:
        proposal = b""
        try:
            if order.kind == Kind.PROPOSE:
                proposal = await self._run.propose()
            else:
                await self._run.prepare(order.data)
        except Exception as error:
            self._send(Message(Kind.REFUSED, order.number, self._run.reason(error)))
        else:
            self._send(Message(Kind.READY, order.number, proposal))

    async def _commit(self, order: Message) -> None:
        try:
            self._answer = await self._run.commit()
        except Exception as error:
            events().error("commit-failed", error=str(error))
            self._send(Message(Kind.REFUSED, order.number, self._run.reason(error)))
        else:
            self._send(Message(Kind.DONE, order.number))

    async def _abandon(self, order: Message) -> None:
        if self._making is not None:
            self._making.cancel()
            await asyncio.wait([self._making])
        await self._run.abandon(self._error(order))

    def _error(self, message: Message) -> Exception:
        return self._run.error(message.data) if message.data else ConfigError(message.text)
