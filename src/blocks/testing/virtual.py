"""A loop whose clock jumps to the next timer when nothing is ready: an hour of health checks passes in milliseconds.

Real sockets, real bytes, one process. The clock stands while callbacks run and moves only when the loop would sleep. Before each
jump a byte is sent over a loopback connection of the loop's own and awaited: the kernel delivers loopback packets in order, so what was
sent before has then arrived, and no timeout fires because of an answer that was merely on its way. The other end of every connection
must therefore live on the same loop; against another process a jump would overtake it.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START = 1_000.0  # what loop.time() begins with; zero would pass for "never" in code that tests a time's truth
STRANGER_GRACE = 0.002  # real seconds that threads of whose work we know nothing get before each jump, to answer
STRANGER_MOST = 0.2  # the same while they are seen to run, or to wait for a processor
# threads whose work the loop is told of, by run_in_executor or by ``working``: idle ones cost nothing
_REPORTING = ("asyncio_", "edge-disk-", "edge-push", "blocks-broker-", "broker-login", "blocks-records")


class _Sounding:
    """A loopback connection to oneself: a byte that arrives proves that what was sent before it has arrived."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
            self._near = socket.create_connection(listener.getsockname())
            self._far, _ = listener.accept()
        self._near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._far.settimeout(1.0)

    def take(self) -> None:
        """Returns once the kernel has delivered everything sent before on this machine's loopback (about 10 µs)."""
        self._near.send(b".")
        self._far.recv(1)

    def close(self) -> None:
        self._near.close()
        self._far.close()


def _ran(thread: threading.Thread) -> tuple[bytes, bytes]:
    """(its state, R for running or about to, how long and how often it ran) as Linux tells it; nothing elsewhere."""
    folder = f"/proc/self/task/{thread.native_id}"
    try:
        with open(f"{folder}/stat", "rb") as stat, open(f"{folder}/schedstat", "rb") as times:
            return stat.read().rpartition(b") ")[2][:1], times.read()
    except OSError:  # another system, or it has ended
        return b"", b""


class _Warp(selectors.BaseSelector):
    """A selector that turns the clock instead of waiting."""

    def __init__(self) -> None:
        self.now = START
        self.jumps = 0
        self.jobs = 0  # calls under way in executors
        self.patience: tuple[float, Callable[[], None]] | None = None  # until when in real time, and whom to call then
        self._real = selectors.DefaultSelector()
        self._sounding = _Sounding()
        self._known = frozenset(threading.enumerate())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Events that are there; when there are none, the clock moves by ``timeout``."""
        events = self._real.select(0)
        if events or (timeout is not None and timeout <= 0) or self._impatient():
            return events
        if self.jobs or timeout is None:
            return self._at_real_pace(timeout)
        self._sounding.take()
        events = self._after_strangers()
        if not events:
            self.now = round(self.now + timeout, 9)
            self.jumps += 1
        return events

    def _at_real_pace(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """A thread is at work for us, or nothing is planned: time passes as it does outside."""
        began = time.monotonic()
        if timeout is None and self.patience is not None:
            return self._real.select(max(0.0, self.patience[0] - began))
        events = self._real.select(timeout)
        passed = time.monotonic() - began
        if timeout is not None:
            self.now = round(self.now + (min(passed, timeout) if events else timeout), 9)
        return events

    def _impatient(self) -> bool:
        """Whether patience has come to its end just now; then it was told."""
        if self.patience is None or time.monotonic() < self.patience[0]:
            return False
        over, self.patience = self.patience[1], None
        over()
        return True

    def _strangers(self) -> list[threading.Thread]:
        """Threads that have started since, of whose work we know nothing."""
        if threading.active_count() == 1:
            return []
        return [
            thread
            for thread in threading.enumerate()
            if thread not in self._known and not thread.name.startswith(_REPORTING)
        ]

    def _after_strangers(self) -> list[tuple[selectors.SelectorKey, int]]:
        """What there is once other threads have had their time: a little when they sleep, more while they run."""
        strangers = self._strangers()
        if not strangers:
            return self._real.select(0)
        before = [_ran(thread) for thread in strangers]
        until = time.monotonic() + STRANGER_MOST
        while True:
            events = self._real.select(STRANGER_GRACE)
            after = [_ran(thread) for thread in strangers]
            waits = any(state == b"R" for state, _ in after)
            if events or (after == before and not waits) or time.monotonic() > until:
                return events
            before = after

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a socket."""
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Watch it no more."""
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch it for other events."""
        return self._real.modify(fileobj, events, data)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """How a socket is watched."""
        return self._real.get_key(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Every socket that is watched."""
        return self._real.get_map()

    def close(self) -> None:
        """Close the selector and the sounding."""
        self._sounding.close()
        self._real.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time. ``time()`` begins at 1,000 s and moves only in jumps, when nothing is ready.

    >>> with asyncio.Runner(loop_factory=VirtualLoop) as runner:
    ...     runner.run(asyncio.sleep(3600))        # returns at once

    While a call of ``run_in_executor`` is under way, or ``working`` was told of a thread, time passes at its real pace. A callback
    that waits for ``time()`` to move without awaiting a timer waits for ever.
    """

    def __init__(self) -> None:
        self._warp = _Warp()
        super().__init__(self._warp)

    def time(self) -> float:
        """Virtual seconds."""
        return self._warp.now

    @property
    def jumps(self) -> int:
        """How often the clock has jumped."""
        return self._warp.jumps

    def patience(self, limit: float | None, over: Callable[[], None] | None = None) -> None:
        """Call ``over`` once when ``limit`` seconds of *real* time have passed and the loop is idle; None takes it back."""
        self._warp.patience = None if limit is None or over is None else (time.monotonic() + limit, over)

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """As asyncio's; the clock keeps real time until the call has returned."""
        future = super().run_in_executor(executor, func, *args)
        self._warp.jobs += 1
        future.add_done_callback(self._job_done)
        return future

    def _job_done(self, _: object) -> None:
        self._warp.jobs -= 1

    async def shutdown_default_executor(self, *args: Any) -> None:
        """As asyncio's; the thread in which it waits for the others is waited for at real pace, too."""
        self.working(1)
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self.working(-1)

    def working(self, count: int) -> None:
        """So many more (or fewer) threads are at work that will answer through ``call_soon_threadsafe``: real time passes until then."""
        self._warp.jobs += count
