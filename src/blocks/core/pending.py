"""A coroutine that waits for one answer costs no task and no future when a protocol drives it.

A request is served by a coroutine. Starting a task for it costs 3 µs and waiting on a future another 3 µs, a tenth of
what proxying a small request costs altogether. So a protocol may *drive* the coroutine itself: ``Driver.start`` runs it
until it waits. If it waits on a ``Pending`` (an upstream's answer, a place in a queue), the driver is noted there, and whoever
resolves the ``Pending`` runs the coroutine on, in the same tick. If it waits on anything else (a future, a sleep), the
driver moves it, as it is, into an ordinary task, and asyncio takes over.

The price: until then there is no current task, which ``asyncio.timeout`` and others need. So only handlers that
say ``direct = True`` are driven; everybody else's get a task from the start. A ``Pending`` awaited inside a task is a plain future.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# From 3.12 on a task may be started inside another callback, and so inside a driven coroutine: it is not the driven one.
_EAGER_TASKS = sys.version_info >= (3, 12)


class Pending(Generic[T]):
    """One answer, given once by ``resolve`` or ``fail`` and awaited by one coroutine.

    ``abandoned`` is called if the waiting coroutine is cancelled, so that the one who works on the answer can stop.
    """

    __slots__ = ("_driver", "_error", "_future", "_value", "done")

    def __init__(self) -> None:
        self._driver: Driver | None = None
        self._future: asyncio.Future[None] | None = None
        self._value: T | None = None
        self._error: BaseException | None = None
        self.done = False

    def resolve(self, value: T) -> None:
        """Give the answer. The waiting coroutine, when driven, runs before this returns."""
        if self.done:
            return
        self.done = True
        self._value = value
        driver = self._driver
        if driver is not None:
            driver._send(None)
        elif self._future is not None and not self._future.done():
            self._future.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Give a failure instead of the answer; it is raised where the answer is awaited."""
        if self.done:
            return
        self.done = True
        self._error = error
        driver = self._driver
        if driver is not None:
            driver._send(None)
        elif self._future is not None and not self._future.done():
            self._future.set_result(None)

    def abandoned(self) -> None:
        """The waiting coroutine was cancelled, perhaps after ``resolve``; a subclass releases what it holds."""

    def __await__(self) -> Generator[Any, None, T]:
        if not self.done:
            try:
                if _driving is not None and not (_EAGER_TASKS and asyncio.current_task(_driving._loop)):
                    yield self
                else:
                    future = self._future = asyncio.get_running_loop().create_future()
                    yield from future
            except BaseException:
                self.done = True
                self.abandoned()
                raise
            finally:
                self._driver = self._future = None
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None
        return self._value  # type: ignore[return-value]  # resolved: the value is a T


_driving: Driver | None = None  # the driver whose coroutine is running right now in this thread's loop


class Driver:
    """Runs one coroutine to its end, in the callbacks of whoever resolves what it waits for.

    A subclass says what to do with the outcome: ``returned(value)`` or ``raised(error)``; exactly one is called, once.
    """

    __slots__ = ("_busy", "_cancelled", "_coroutine", "_loop", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._busy = False
        self._cancelled = False

    def returned(self, value: Any) -> None:
        """The coroutine returned ``value``."""
        raise AssertionError("a driver says what becomes of the outcome")

    def raised(self, error: BaseException) -> None:
        """The coroutine raised ``error``."""
        raise AssertionError("a driver says what becomes of the outcome")

    @property
    def running(self) -> bool:
        """Whether the coroutine has not ended yet."""
        return self._coroutine is not None or self._task is not None

    def start(self, coroutine: Coroutine[Any, Any, Any], *, direct: bool) -> None:
        """Run ``coroutine``: at once and without a task when ``direct``, else in a task of its own."""
        self._cancelled = False
        if direct:
            self._coroutine = coroutine
            self._send(None)
        else:
            self._task = self._loop.create_task(self._outcome(coroutine))

    def interrupt(self) -> None:
        """Raise ``CancelledError`` where the coroutine waits. The outcome still arrives, as ``raised``."""
        if self._task is not None:
            self._task.cancel()
        elif self._busy:
            self._cancelled = True  # it is running, further down this very stack: raised where it waits next
        elif self._coroutine is not None:
            self._send(asyncio.CancelledError())

    def _send(self, error: BaseException | None) -> None:
        global _driving
        coroutine = self._coroutine
        if coroutine is None:
            return
        outer, _driving = _driving, self
        self._busy = True
        try:
            waiting = coroutine.send(None) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            _driving = outer
            self._busy = False
            self._coroutine = None
            self.returned(stop.value)
        except BaseException as failure:
            _driving = outer
            self._busy = False
            self._coroutine = None
            self.raised(failure)
            if isinstance(failure, KeyboardInterrupt | SystemExit):
                raise
        else:
            _driving = outer
            self._busy = False
            if isinstance(waiting, Pending):
                waiting._driver = self
            else:
                self._coroutine = None
                self._task = self._loop.create_task(self._outcome(_Rest(coroutine, waiting)))
            if self._cancelled:
                self._cancelled = False
                self.interrupt()

    async def _outcome(self, work: Any) -> None:
        try:
            value = await work
        except BaseException as error:
            self._task = None
            self.raised(error)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
        else:
            self._task = None
            self.returned(value)


class _Rest:
    """What is left of a coroutine that was driven and then waited on a future: awaited by the task that takes over."""

    __slots__ = ("_coroutine", "_waiting")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waiting: Any) -> None:
        self._coroutine = coroutine
        self._waiting = waiting

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, waiting = self._coroutine, self._waiting
        while True:
            try:
                sent = yield waiting
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                step: Any = coroutine.throw
                argument: Any = error
            else:
                step = coroutine.send
                argument = sent
            try:
                waiting = step(argument)
            except StopIteration as stop:
                return stop.value
