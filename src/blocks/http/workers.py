"""Several processes on one port: a parent that serves nothing starts workers, replaces those that die, and passes signals on.

Each worker listens with SO_REUSEPORT, so that the kernel spreads connections and a worker that is busy holds nobody else up. The
parent holds the addresses (bound, not listening), which resolves port 0 once and keeps the ports while a worker is replaced. It has
no event loop and no thread, so that it can fork at any time.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from blocks.core.activation import inherited, is_inherited
from blocks.core.backoff import Backoff
from blocks.core.logging import events
from blocks.core.notify import Notifier

from .job import Job, Place, Spot, ready_line
from .process import announce, run_loop
from .pulse import Pulse
from .server import BACKLOG, CannotBind, name_of, parse_address
from .worker import FAILURE, FINE, LEAVE, Worker

if TYPE_CHECKING:
    from .council import Council, Seat

_READY_WITHIN = 30.0  # seconds for a worker to become ready
_STEADY = 10.0  # seconds after which a worker that dies is replaced at once again


def supervise(job: Job) -> int:
    """Run ``job.serving.workers`` workers until told to stop; the exit code is the worst of theirs."""
    return _Supervisor(job).run()


class _Supervisor:
    """The parent. Child ``number`` is a worker; the one after the last is the admin API, which asks them all."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._serving = serving = job.serving
        self._bound: list[socket.socket] = []  # not listening: they keep the ports
        self._where: dict[Spot, list[str]] = {}
        self._held: dict[Spot, list[socket.socket]] = {}
        self._children: dict[int, tuple[int, float]] = {}  # pid: (number, started at)
        self._backoffs = [Backoff(0.1, 10.0) for _ in range(serving.workers + 1)]
        self._lifeline = os.pipe()  # its end is how a child learns that the parent was killed
        self._due: list[tuple[float, int]] = []  # (when, number) of children to start again
        self._folder = tempfile.mkdtemp(prefix="blocks-")
        self._code = FINE
        self._stopping = False
        self._signals = 0
        self._notifier = Notifier()
        self._pulse = Pulse(self._notifier)
        self._council: Council | None = None
        if job.together:
            from .council import Council

            self._council = Council()

    def run(self) -> int:
        """The parent's life."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        try:
            for spot in self._job.spots:
                self._hold(spot)
            signal.set_wakeup_fd(writing)
            for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, LEAVE):
                signal.signal(name, lambda number, frame: None)
            self._start()
            self._watch(reading)
            return self._code
        finally:
            signal.set_wakeup_fd(-1)
            for end in (reading, writing, *self._lifeline):
                os.close(end)
            for sock in (*self._bound, *(sock for held in self._held.values() for sock in held)):
                sock.close()
            self._pulse.close()
            if self._council is not None:
                self._council.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        """All workers, then the admin API, then the ready line; or none of them."""
        workers = self._serving.workers
        lines = [self._spawn(number) for number in range(workers)]
        said = [_heard(line) for line in lines]
        admin = None
        if all(said) and self._serving.admin is not None:
            admin = _heard(self._spawn(workers))
            said.append(admin)
        if not all(said):
            self._code = FAILURE
            self._stop()
            return
        found = self._where | {spot: [name_of(sock) for sock in held] for spot, held in self._held.items()}
        line = ready_line(self._job, self._job.line({spot: found[spot] for spot in self._job.spots}), admin)
        announce(line, self._serving.ports_file)
        self._notifier.ready(f"{workers} workers serving on {', '.join(line['listen'])}")

    def _watch(self, reading: int) -> None:
        """Wait for signals and for the time to start somebody again."""
        while self._children or (self._due and not self._stopping):
            heard, told = self._ends()
            heard += [reading, self._pulse.reading]
            ready, _, _ = select.select(heard, told, [], self._wait())
            self._pulse.receive()
            for number in os.read(reading, 64) if reading in ready else b"":
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._signals += 1
                    if not self._stopping or self._signals > 1:
                        self._stop()
                elif number == LEAVE and not self._stopping:
                    self._stop()
                elif number == signal.SIGHUP:
                    self._hang_up()
            self._reap()
            now = time.monotonic()
            self._agree(ready, now)
            if not self._stopping:
                self._respawn(now)
            self._pulse.beat(now, self._serving_now(now))

    def _wait(self) -> float | None:
        """Seconds that nothing is to be done unless somebody says something; None for as long as that takes."""
        now = time.monotonic()
        dates = [self._pulse.wait(now), max(0.0, min(self._due)[0] - now) if self._due and not self._stopping else None]
        if self._council is not None and self._council.due is not None and not self._stopping:
            dates.append(max(0.0, self._council.due - now))
        return min((date for date in dates if date is not None), default=None)

    # -- reload

    def _hang_up(self) -> None:
        """Reload: all workers as one where they can, else each by itself."""
        self._notifier.reloading()
        if self._council is not None:
            self._council.want(time.monotonic())
            return
        self._forward(signal.SIGHUP)
        self._notifier.ready()  # each worker says in its log how its reload went

    def _ends(self) -> tuple[list[Any], list[Any]]:
        """The ends of the workers' channels that may be read, and those that something waits for."""
        if self._council is None or self._stopping:
            return [], []
        council = self._council
        return [channel.end for channel in council.reading()], [channel.end for channel in council.writing()]

    def _agree(self, ready: Collection[object], now: float) -> None:
        """Take the workers' change a step on. Who missed it begins anew, with what is in force."""
        if self._council is None or self._stopping:
            return
        before = self._council.changes
        for stale in self._council.turn(ready, now):
            events().warning("worker-replaced", worker=stale, reason="it does not have the version in force")
            for pid, (number, _) in self._children.items():
                if number == stale:
                    os.kill(pid, signal.SIGTERM)
        if self._council.changes != before:
            self._notifier.ready()

    def _serving_now(self, now: float) -> list[int]:
        """The workers whose loops should turn: those that are not just starting."""
        steady = self._pulse.interval or 0.0
        workers = self._serving.workers
        return [number for number, since in self._children.values() if number < workers and now - since > 2 * steady]

    def _hold(self, spot: Spot) -> None:
        address = spot[1]
        if is_inherited(address):
            self._held.setdefault(spot, []).extend(inherited(address))
            return
        parsed = parse_address(address)
        if isinstance(parsed, str):
            with suppress(FileNotFoundError):
                if stat.S_ISSOCK(os.stat(parsed).st_mode):
                    os.unlink(parsed)
            shared = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._bind(shared, parsed, address)
            shared.listen(BACKLOG)
            shared.setblocking(False)
            self._held.setdefault(spot, []).append(shared)
            return
        host, port = parsed
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        if port:
            with socket.socket(
                family, socket.SOCK_STREAM
            ) as probe:  # SO_REUSEPORT alone would share it with another server
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self._bind(probe, (host, port), address)
        held = socket.socket(family, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._bind(held, (host, port), address)
        self._bound.append(held)
        self._where.setdefault(spot, []).append(name_of(held))

    def _bind(self, sock: socket.socket, name: tuple[str, int] | str, address: str) -> None:
        try:
            sock.bind(name)
        except OSError as error:
            raise CannotBind(error.errno, f"cannot listen on {address}: {os.strerror(error.errno or 0)}") from error

    def _admin_path(self, number: int) -> str:
        return f"{self._folder}/admin-{number}.sock"

    def _spawn(self, number: int) -> int:
        """Fork child ``number``; the descriptor that says when it is ready, and closes when it is not to be."""
        reading, writing = os.pipe()
        seat = None if self._council is None or number == self._serving.workers else self._council.seat(number)
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            self._child(number, writing, seat)
        os.close(writing)
        if seat is not None:
            seat.end.close()
        self._children[pid] = (number, time.monotonic())
        return reading

    def _child(self, number: int, writing: int, seat: Seat | None) -> NoReturn:
        """A child's whole life."""
        code = FAILURE
        try:
            signal.set_wakeup_fd(-1)
            for name in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(name, signal.SIG_DFL)
            signal.signal(LEAVE, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches everybody: the parent says what it means
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it serves there is nothing to reload
            os.close(self._lifeline[1])
            if self._council is not None:
                self._council.close()

            def ready(line: dict[str, Any]) -> None:
                with suppress(BrokenPipeError):  # nobody listens to a worker that replaces another
                    os.write(writing, str(line.get("admin", "ready")).encode())
                os.close(writing)

            if number == self._serving.workers:
                from .fanout import fan_out

                paths = [self._admin_path(n) for n in range(number)]
                code = run_loop(fan_out(self._serving, paths, ready, self._lifeline[0], together=self._job.together))
            else:
                code = run_loop(self._work(number, ready, seat))
        except BaseException as error:
            os.write(2, f"blocks: worker {number}: {error!r}\n".encode())
        finally:
            os._exit(code)

    def _work(self, number: int, ready: Callable[[dict[str, Any]], None], seat: Seat | None) -> Any:
        for bound in self._bound:
            bound.close()
        serving = self._serving
        if serving.admin is not None:
            serving = replace(serving, admin=f"unix:{self._admin_path(number)}", admin_token_file=None)
        place = Place(self._where, self._held, self._lifeline[0], self._pulse.of(number), seat)
        return Worker(self._job, ready, place, serving).run()

    def _reap(self) -> None:
        """Note who has died; a child that was not told to is replaced, ever more slowly if it keeps dying."""
        for pid, (number, started) in list(self._children.items()):
            gone, status = os.waitpid(pid, os.WNOHANG)
            if not gone:
                continue
            del self._children[pid]
            code = os.waitstatus_to_exitcode(status)
            if self._stopping:
                if code != -signal.SIGTERM:  # told to stop before it had begun to serve
                    self._code = max(self._code, code if code >= 0 else FAILURE)
                continue
            now = time.monotonic()
            if self._council is not None:
                self._council.left(number, now)
            if now - started > _STEADY:
                self._backoffs[number].reset()
            wait = self._backoffs[number].next()
            events().error("worker-died", worker=number, pid=pid, exit=code, again_in=round(wait, 3))
            self._due.append((now + wait, number))
        if self._stopping and all(number == self._serving.workers for number, _ in self._children.values()):
            self._forward(signal.SIGTERM)

    def _respawn(self, now: float) -> None:
        for entry in [entry for entry in self._due if entry[0] <= now]:
            self._due.remove(entry)
            os.close(self._spawn(entry[1]))

    def _stop(self) -> None:
        if not self._stopping:
            self._notifier.stopping(self._serving.lame_duck + self._serving.drain)
        self._stopping = True
        self._forward(signal.SIGTERM)

    def _forward(self, number: signal.Signals) -> None:
        """To the workers; the admin API answers until the last of them has gone."""
        workers = [pid for pid, (child, _) in self._children.items() if child < self._serving.workers]
        told = workers or (list(self._children) if number == signal.SIGTERM else [])
        for pid in told:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _heard(line: int) -> str:
    """What a child says when it is ready; "" when it died first, or takes for ever."""
    try:
        ready, _, _ = select.select([line], [], [], _READY_WITHIN)
        return os.read(line, 512).decode() if ready else ""
    finally:
        os.close(line)
