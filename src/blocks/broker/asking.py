"""What a client can ask a broker besides messages: topics, groups, lag, and the orders that change them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from .asks import PAGE
from .columns import error_of
from .errors import BrokerError, Closed
from .frames import Ask, Frame


class Asking:
    """The half of a client that asks the broker; each question has a number, and a future until it is answered."""

    __slots__ = ("_answers", "_number", "_over", "loop")

    def __init__(self) -> None:
        self._number = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._over: BrokerError | None = None
        self.loop: asyncio.AbstractEventLoop

    def send(self, frame: Frame) -> bool:
        """Send ``frame`` now; False if there is no connection."""
        raise AssertionError("a client sends")

    def _numbered(self) -> int:
        self._number += 1
        return self._number

    async def ask(self, verb: str, **arguments: Any) -> Any:
        """The broker's answer to ``verb``: topics, groups, lag, stats, configure, delete-topic, bind, redrive, …

        Raises ``BrokerError``; ``Closed`` if the connection is lost before the answer.
        """
        if self._over is not None:
            raise self._over
        number = self._numbered()
        future: asyncio.Future[Any] = self.loop.create_future()
        self._answers[number] = future
        try:
            if not self.send(Ask(number, verb, arguments)):
                raise Closed("there is no connection to the broker now; trying again is safe")
            return await future
        finally:
            self._answers.pop(number, None)

    async def topics(self, pattern: str = ">") -> list[dict[str, Any]]:
        """The topics that ``pattern`` matches and this client may see, with their sizes."""
        return await self._rows("topics", pattern=pattern)

    async def groups(self) -> list[dict[str, Any]]:
        """The groups, with their members and what they wait for."""
        return await self._rows("groups")

    async def lag(self, group: str | None = None) -> list[dict[str, Any]]:
        """How many messages each group (or ``group``) has before it, by topic."""
        return await self._rows("lag", group=group)

    async def _rows(self, verb: str, **arguments: Any) -> list[dict[str, Any]]:
        """All rows of a list, page by page."""
        rows: list[dict[str, Any]] = []
        while True:
            page: list[dict[str, Any]] = await self.ask(verb, **arguments, skip=len(rows))
            rows += page
            if len(page) < PAGE:
                return rows

    async def configure(self, topic: str, **options: Any) -> dict[str, Any]:
        """Set how ``topic`` is kept (``TopicOptions``); gives all options as they are now."""
        answer: dict[str, Any] = await self.ask("configure", topic=topic, **options)
        return answer

    async def redrive(self, group: str, limit: int | None = None) -> int:
        """Send dead letters of ``group`` back to where they came from; gives how many."""
        answer: int = await self.ask("redrive", group=group, limit=limit)
        return answer

    async def bind(
        self, source: str, target: str, *, headers: Mapping[str, str] | None = None, match: str = "all"
    ) -> None:
        """Copy what is published to ``source`` (a pattern) to ``target``, if ``all`` or ``any`` of ``headers`` are as given."""
        await self.ask("bind", source=source, target=target, headers=dict(headers) if headers else None, match=match)

    async def unbind(
        self, source: str, target: str, *, headers: Mapping[str, str] | None = None, match: str = "all"
    ) -> None:
        """Undo ``bind`` with the same arguments. Raises ``NotFound``."""
        await self.ask("unbind", source=source, target=target, headers=dict(headers) if headers else None, match=match)

    def _receive_outcome(self, number: int, value: Any, refusal: tuple[str, str] | None) -> None:
        """The broker has answered, or refused to."""
        future = self._answers.get(number)
        if future is None or future.done():
            return
        if refusal is None:
            future.set_result(value)
        else:
            future.set_exception(error_of(*refusal))

    def _fail_answers(self, error: BrokerError) -> None:
        fail_all(self._answers, error)


def fail_all(futures: dict[int, asyncio.Future[Any]], error: BrokerError) -> None:
    """Raise where any of ``futures`` is awaited that the connection was lost before the answer; forget them."""
    waiting = list(futures.values())
    futures.clear()
    for future in waiting:
        if not future.done():
            future.set_exception(Closed(f"the connection was lost before the broker answered: {error}"))
