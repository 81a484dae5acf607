"""One thread does all that changes the disk, in the order asked for, a batch at a time; the loop is told when each is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

Done = Callable[[], None]
Operation = Callable[[], Done | None]  # runs in the writing thread; what it returns runs on the loop afterwards


class Writing:
    """The queue before the writing thread. ``settle`` ends each batch there; ``failed`` is told of operations that raise ``OSError``.

    While a batch runs, what is asked for gathers for the next one: the busier the disk, the larger the batches.
    """

    def __init__(self, settle: Callable[[], None], failed: Callable[[OSError], None]) -> None:
        self._thread = ThreadPoolExecutor(1, "edge-disk-write")
        self._settle = settle
        self._failed = failed
        self._waiting: list[Operation] = []
        self._running: asyncio.Future[list[Done]] | None = None

    def submit(self, operation: Operation) -> None:
        """Have ``operation`` run after all that was submitted before."""
        self._waiting.append(operation)
        if self._running is None and len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._go)

    async def run(self, function: Callable[[], None]) -> None:
        """Run ``function`` in the thread at once; for the beginning and the end."""
        await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def sync(self) -> None:
        """Return when everything submitted so far is done."""
        while self._waiting or self._running is not None:
            if self._running is None:
                await asyncio.sleep(0)
            else:
                await asyncio.wait([self._running])

    def shutdown(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _go(self) -> None:
        if self._running is None and self._waiting:
            batch, self._waiting = self._waiting, []
            self._running = asyncio.get_running_loop().run_in_executor(self._thread, self._run, batch)
            self._running.add_done_callback(self._ran)

    def _run(self, batch: list[Operation]) -> list[Done]:
        done: list[Done] = []
        for operation in batch:
            try:
                then = operation()
            except OSError as error:
                self._failed(error)
                continue
            if then is not None:
                done.append(then)
        self._settle()
        return done

    def _ran(self, future: asyncio.Future[list[Done]]) -> None:
        self._running = None
        if not future.cancelled():
            for done in future.result():
                try:
                    done()
                except Exception as error:  # whatever a reader does with it: the others are told all the same
                    future.get_loop().call_exception_handler(
                        {"message": "telling of a write failed", "exception": error}
                    )
        self._go()
