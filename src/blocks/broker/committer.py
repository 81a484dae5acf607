"""Group commit: whatever arrived while the last sync ran is written and synced next, by a thread of its own.

There is no linger timer for publishers. Records that nobody waits for (acks, cursors) are gathered for ``LINGER`` seconds,
unless a publish takes them along. The loop is never stopped by a slow sync.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from queue import SimpleQueue

from .aside import Aside
from .engine import Chores, Engine
from .log.commit import Commit, Segment
from .log.disk import Disk, replace_whole
from .log.recovery import KEPT_SNAPSHOTS, our_files

LINGER = 0.02  # seconds; a crash in between brings back at most what was acked in them


class Job:
    """One round: files to put in place, a commit, and (in the mode ``interval``, and at the end) segments to sync."""

    __slots__ = ("chores", "commit", "error", "syncs")

    def __init__(self, commit: Commit | None, chores: Chores, syncs: list[tuple[Segment, int]]) -> None:
        self.commit = commit
        self.chores = chores
        self.syncs = syncs
        self.error: OSError | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return self.commit is None and not self.chores and not self.syncs

    def run(self, disk: Disk) -> None:
        """Do it (in the commit thread)."""
        try:
            for segment, _ in self.syncs:
                if segment.file is not None:
                    segment.file.sync()
        except OSError as error:
            self.fail(error)
            return
        self._put(disk)
        if self.commit is not None:
            self.commit.run(disk)

    def fail(self, error: OSError) -> None:
        """Nothing of it may be relied on."""
        self.error = error
        if self.commit is not None:
            self.commit.error = error

    def _put(self, disk: Disk) -> None:
        try:
            for name, content in self.chores:
                replace_whole(disk, name, content)
            if self.chores.snapshot:
                for name in our_files(disk, ".snapshot")[:-KEPT_SNAPSHOTS]:
                    disk.unlink(name)
        except OSError:
            pass  # indexes and snapshots can be rebuilt from the log: a full disk must not stop anything for them


class Committer:
    """Runs an engine's commits: in a thread, or at the end of the tick where the disk is memory (``inline``).

    ``interval``: seconds between syncs of what was written unsynced; None: it is synced with each commit, or never.
    """

    def __init__(self, engine: Engine, disk: Disk, *, inline: bool, interval: float | None = None) -> None:
        self._engine = engine
        self._disk = disk
        self._inline = inline
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._aside = Aside(self._loop)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._soon: asyncio.Handle | None = None
        self._later: asyncio.TimerHandle | None = None
        self._sync_timer: asyncio.TimerHandle | None = None
        self._sync_due = False
        self._busy = False
        self._idle: asyncio.Future[None] | None = None
        self._chores = Chores()
        self._closed = False

    def wake(self, urgent: bool) -> None:
        """There is something to commit; ``urgent`` if someone waits for it."""
        if self._busy or self._soon is not None or self._closed:
            return
        if urgent:
            self._soon = self._loop.call_soon(self._start)
        elif self._later is None:
            self._later = self._loop.call_later(LINGER, self._start)

    def _start(self) -> None:
        self._cancel_timers()
        if self._busy:
            return
        commit = self._engine.begin()
        must_sync = self._sync_due or self._chores.snapshot  # a snapshot never covers more than the medium has
        job = Job(commit, self._chores, self._engine.log.unsynced() if must_sync else [])
        self._chores = Chores()
        self._sync_due = False
        if job.empty:
            self._rest()
            return
        self._busy = True
        if self._inline:
            job.run(self._disk)
            self._finish(job)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="blocks-broker-commit", daemon=True)
            self._thread.start()
        self._aside.begin()
        self._jobs.put(job)

    def _cancel_timers(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
        if self._later is not None:
            self._later.cancel()
        self._soon = self._later = None

    def _run(self) -> None:
        """The commit thread."""
        while (job := self._jobs.get()) is not None:
            try:
                job.run(self._disk)
            except Exception as error:  # a fault of ours is no better than one of the disk: stop, and say so
                job.fail(OSError(errno.EIO, repr(error)))
            try:
                self._loop.call_soon_threadsafe(self._finish_aside, job)
            except RuntimeError:
                return  # the loop is closed: nobody is left to be told

    def _finish_aside(self, job: Job) -> None:
        self._aside.end()
        self._finish(job)

    def _finish(self, job: Job) -> None:
        self._busy = False
        engine, commit = self._engine, job.commit
        if job.error is not None:
            engine.fail(job.error)
        else:
            for segment, length in job.syncs:
                segment.synced = length
        failed = commit is not None and commit.error is not None
        if commit is not None:
            self._chores += engine.end(commit)
        if not failed:
            self._go_on()
        if not self._busy:
            self._rest()

    def _go_on(self) -> None:
        engine = self._engine
        if self._interval is not None and self._sync_timer is None and engine.log.unsynced():
            self._sync_timer = self._loop.call_later(self._interval, self._sync)
        if engine.draft.callbacks or engine.draft.waiters or engine.drafts or self._chores or self._idle is not None:
            if self._inline:
                self.wake(True)  # in the next tick: who is told may publish again and again
            else:
                self._start()
        elif not engine.draft.empty:
            self.wake(False)

    def _sync(self) -> None:
        self._sync_timer = None
        self._sync_due = True
        self.wake(True)

    def _rest(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def drain(self) -> None:
        """Return when everything so far was committed, or could not be."""
        engine = self._engine
        while self._busy or not engine.draft.empty or engine.drafts or self._chores or self._sync_due:
            if engine.full is not None and not self._busy:
                return
            self._idle = self._loop.create_future()
            if not self._busy:
                self._start()
            try:
                await self._idle
            finally:
                self._idle = None

    async def close(self, chores: Chores) -> None:
        """Put ``chores`` in place, sync what is not synced, and end the thread; ``drain`` comes before."""
        self._chores += chores
        self._sync_due = not self._inline
        await self.drain()
        self._closed = True
        self._cancel_timers()
        if self._sync_timer is not None:
            self._sync_timer.cancel()
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()  # it has nothing left to do: this does not wait for the disk
            self._thread = None
