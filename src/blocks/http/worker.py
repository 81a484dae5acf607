"""One event loop that serves: what a process is with one worker, and what each worker is when there are several."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from blocks.core.notify import Notifier

from .garbage import kept_short
from .job import Job, Place, Run, ready_line
from .options import Serving

if TYPE_CHECKING:
    from .delegate import Delegate, Together

FINE, FAILURE, USAGE, CONFIGURATION, CANNOT_BIND, DRAIN_TIMED_OUT = range(6)
"""Exit codes."""

LEAVE = signal.SIGUSR1
"""What the admin API tells a parent of several workers: drain. Unlike SIGTERM it does not make the next signal a second one."""

Ready = Callable[[dict[str, Any]], None]


class Worker:
    """A job's life on one loop: set up, say ready, serve until told to stop, drain. ``run`` gives the exit code.

    ``serving`` is the job's, but for the admin API's address of one of several workers.
    """

    def __init__(self, job: Job, ready: Ready, place: Place | None = None, serving: Serving | None = None) -> None:
        self._job = job
        self._serving = serving or job.serving
        self._ready = ready
        self._place = place
        self._notifier = Notifier() if place is None else place.notifier
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._signals = 0
        self._run: Run | None = None
        self._delegate: Delegate | None = None

    async def run(self) -> int:
        """Serve. Raises ``ConfigError`` and ``CannotBind`` before it is ready, nothing of the kind afterwards."""
        async with AsyncExitStack() as stack:
            self._listen_to_signals(stack)
            run = self._job.begin(self._place)
            await run.start()
            stack.push_async_callback(run.stop)
            self._run = run
            await self._take_part(run, stack)
            admin = await self._admin(run, stack)
            stack.enter_context(kept_short())
            # Imported here it would hold up the loop with the first event, 0.2 s in the middle of a failure.
            threading.Thread(target=import_module, args=("structlog",), daemon=True).start()
            line = ready_line(self._job, run.line(), admin)
            self._ready(line)
            self._notifier.ready(f"serving on {', '.join(line['listen'])}")
            stack.callback(self._notifier.watch(asyncio.get_running_loop()).cancel)
            await self._stopping.wait()
            self._notifier.stopping(self._serving.lame_duck + self._serving.drain)
            await self._linger()
            return await self._drain(run)

    def stop(self) -> None:
        """Drain and leave; called again, leave now. (A signal: one that comes after ``leave`` is still the first.)"""
        self._stopping.set()
        self._signals += 1
        if self._signals > 1:
            self._hurry.set()

    def leave(self) -> None:
        """Drain and leave, however often it is called."""
        self._stopping.set()

    async def _linger(self) -> None:
        """Answer on, no longer ready, until whoever sends clients here has noticed, or somebody is in a hurry."""
        if self._serving.lame_duck > 0:
            try:
                await asyncio.wait_for(self._hurry.wait(), self._serving.lame_duck)
            except TimeoutError:
                pass

    def reload(self) -> None:
        """Begin to reload; before there is anything that serves, there is nothing to reload."""
        if self._delegate is not None:
            self._delegate.want()
        elif self._run is not None:
            self._notifier.reloading()
            self._run.hang_up(self._notifier.ready)

    async def _take_part(self, run: Run, stack: AsyncExitStack) -> None:
        """Change with the other workers from now on, where they change together."""
        seat = None if self._place is None else self._place.seat
        if seat is not None:
            from .channel import Channel
            from .delegate import Delegate

            delegate = Delegate(Channel(seat.end), cast("Together", run), seat.number)
            self._delegate = await stack.enter_async_context(delegate)

    def _listen_to_signals(self, stack: AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        acts = {signal.SIGTERM: self.stop, signal.SIGHUP: self.reload}
        if self._place is None:  # Ctrl-C reaches every process of a terminal: a parent says what it means
            acts[signal.SIGINT] = self.stop
        for number, act in acts.items():
            loop.add_signal_handler(number, act)
            stack.callback(loop.remove_signal_handler, number)
        if self._place is not None:
            loop.add_reader(self._place.lifeline, self._orphaned, self._place.lifeline)

    def _orphaned(self, lifeline: int) -> None:
        asyncio.get_running_loop().remove_reader(lifeline)
        self.leave()

    async def _admin(self, run: Run, stack: AsyncExitStack) -> str | None:
        """Where the admin API listens; None without one."""
        if self._serving.admin is None:
            return None
        from .admin import Admin

        subject = run.subject(self.leave)
        subject.draining = self._stopping.is_set
        reload = subject.reload if self._delegate is None else self._delegate.reload

        async def told() -> Any:
            self._notifier.reloading()
            try:
                return await reload()
            finally:
                self._notifier.ready()

        subject.reload = told
        return await stack.enter_async_context(Admin(subject, self._serving, run.extend))

    async def _drain(self, run: Run) -> int:
        """Let requests finish until all are done, the time is up, or somebody is in a hurry."""
        loop = asyncio.get_running_loop()
        drained = loop.create_task(run.drain())
        hurried = loop.create_task(self._hurry.wait())
        try:
            await asyncio.wait({drained, hurried}, return_when=asyncio.FIRST_COMPLETED)
            if not drained.done():
                drained.cancel()
                await run.drain(0)
                return DRAIN_TIMED_OUT
            return FINE if drained.result() else DRAIN_TIMED_OUT
        finally:
            hurried.cancel()
            await asyncio.gather(drained, hurried, return_exceptions=True)
