"""The engine decides everything a broker does: it takes messages, hands them out, and says what is to be written.

It does no I/O but reading its log, and has no timers: whoever runs it (``Committer``, or a test) calls ``begin`` and ``end``
around each commit and ``tick`` when ``wait`` seconds are over. All of it is for one thread.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from blocks.core.clock import Clock
from blocks.core.status import Status

from .catalog import Catalog
from .deadletters import DeadLetters
from .draft import Draft
from .errors import BrokerError, Closed, DiskFailed, DiskFull
from .intake import Done, Intake
from .log.commit import Commit, Segment
from .log.log import DamagedBatch, Log
from .log.recovery import Recovered, encode_snapshot
from .message import Limits, Publication, Receipts, SubscribeOptions, TopicOptions
from .producers import Producers
from .queue import Lease, Queue, Run
from .replay import Replay, dump
from .timers import Timers
from .topic import Topic

_DAMAGES = 64  # segments with damage that one take passes over
SNAPSHOT_RATIO = 4  # a snapshot is written when the log grew by this many times the last one's size


class Chores(list[tuple[str, bytes]]):
    """Files to put in place when the commit that they belong to is done and synced: (name, content)."""

    @property
    def snapshot(self) -> bool:
        """Whether a snapshot is among them."""
        return any(name.endswith(".snapshot") for name, _ in self)


class Engine(Catalog):
    """See the module. ``wake(urgent)`` is called when there is something to commit, ``arm()`` when ``wait`` got shorter."""

    def __init__(
        self,
        recovered: Recovered,
        clock: Clock,
        random: Random,
        *,
        durability: str = "fsync",
        limits: Limits | None = None,
        topic_options: TopicOptions | None = None,
        wake: Callable[[bool], None] = lambda urgent: None,
        arm: Callable[[], None] = lambda: None,
        report: Callable[[str, str], None] = lambda event, text: None,
    ) -> None:
        super().__init__(topic_options or TopicOptions(), limits or Limits())
        self.log: Log = recovered.log
        self.clock = clock
        self.durability = durability
        self.wake = wake
        self.arm = arm
        self.report = report
        self.producers = Producers(self.limits.producers)
        self.timers = Timers()
        self.intake = Intake(self, self.checks)
        self.deadletters = DeadLetters(self)
        self.draft = Draft()
        self.drafts: list[Draft] = []  # full ones that wait, before ``draft``
        self.committing: list[Draft] = []
        self.waiting_bytes = 0
        self.told: Callable[[str, str], None] | None = (
            None  # (kind, detail) of what becomes of messages, for whoever watches
        )
        self.failure: BrokerError | None = None  # why nothing is taken any more
        self.full: BrokerError | None = None  # why nothing is taken for now
        self.delivered = 0
        self.acked = 0
        self._problems: list[str] = []
        for problem in self.log.damage:
            self.note_problem(problem)
        self._token = random.getrandbits(40) << 20  # so that a lease of an earlier run is never taken for one of this
        self._time = 0.0
        self._snapshot_at = self.log.size
        self._snapshot_size = 1 << 20
        self._snapshot_wanted = False
        self._snapshot: tuple[int, list[tuple[int, int]], Any] | None = None
        self._recover(recovered)

    def _recover(self, recovered: Recovered) -> None:
        replay = Replay(self, self.wall())
        if recovered.state is not None:
            replay.load(recovered.state)
        for batch in recovered.after:
            replay.apply(batch)
        replay.finish()
        self._time = max((segment.index.latest for segment in self.log.segments.values()), default=0.0)

    # -- time ------------------------------------------------------------------------------------------------------

    def wall(self) -> float:
        """Seconds since 1970."""
        return self.clock.wall()

    def deadline(self, seconds: float) -> float:
        """``seconds`` from now, monotonic."""
        return self.clock.monotonic() + seconds

    def wait(self) -> float | None:
        """Seconds until ``tick`` is wanted; None: not before something happens."""
        wait = self.timers.wait(self.clock.monotonic(), self.wall())
        return wait if self.full is None else min(1.0, 1.0 if wait is None else wait)

    def tick(self) -> None:
        """Do what is due: end leases, bring back delayed messages, let scheduled ones go, try a full disk again."""
        now = self.clock.monotonic()
        for lease in self.timers.ended(now):
            lease.subscription.expire(lease, "lease ended")
        for queue, offset in self.timers.returned(now):
            if queue.delayed.pop(offset, None) is not None:
                queue.give_back(offset, queue.attempts.get(offset, 0))
                queue.group.wake(queue)
        self._fire(self.timers.fallen_due(self.wall()))
        if self.full is not None and not self.committing:
            if self.draft.empty:
                self.record("noop")
            self.wake(True)

    def _fire(self, due: Sequence[tuple[Topic, int]]) -> None:
        fired: dict[Topic, list[int]] = {}
        for topic, offset in due:
            scheduled = topic.scheduled
            if not scheduled or offset not in scheduled:
                continue
            if offset >= topic.committed:  # its commit has not ended yet
                self.timers.schedule(self.wall() + 0.05, topic, offset)
                continue
            del scheduled[offset]
            self.intake.scheduled -= 1
            fired.setdefault(topic, []).append(offset)
        for topic, offsets in fired.items():
            if topic.epoch != self.patterns.epoch:
                self.find_queues(topic)
            self.record("fire", topic.name, offsets)
            for queue in topic.queues:
                for offset in offsets:
                    if offset < queue.cursor:
                        queue.give_back(offset, 0)
                queue.group.wake(queue)

    # -- publishing ------------------------------------------------------------------------------------------------

    @property
    def refusal(self) -> BrokerError | None:
        """Why nothing can be published now; None: it can."""
        return self.failure or self.full

    def publish(self, publication: Publication, done: Done) -> None:
        """Take a publisher's frame. ``done`` is called with the receipts when they hold, or at once if all is refused."""
        if self.told is not None:
            self.told("published", f"{publication.topic}: {len(publication.payloads)}")
        self.intake.publish(publication, done)

    def reply(self, done: Done, receipts: Receipts) -> None:
        """Call ``done`` when everything so far is durable; at once if it is already."""
        draft = self.draft
        if draft.empty and not self.committing and not self.drafts:
            done(receipts)
            return
        draft.callbacks.append((done, receipts))
        self.wake(True)

    def when_durable(self, done: Callable[[int], None], stale: int) -> None:
        """Call ``done(stale)`` when everything so far is durable, ``done(-1)`` if it cannot be."""
        if self.draft.empty and not self.committing and not self.drafts:
            done(stale if self.failure is None else -1)
            return
        self.draft.waiters.append(lambda durable: done(stale if durable else -1))
        self.wake(True)

    def next_draft(self) -> Draft:
        """Start another batch."""
        self.drafts.append(self.draft)
        self.draft = Draft()
        return self.draft

    def record(self, *record: Any, before: bool = False, after: bool = False) -> None:
        """Have a state record written; ``before`` and ``after`` put it into another batch than what came or comes."""
        if before and not self.draft.empty:
            self.next_draft()
        self.draft.records.append(list(record))
        if after:
            self.next_draft()
        self.wake(False)

    # -- committing ------------------------------------------------------------------------------------------------

    def begin(self) -> Commit | None:
        """What is to be written now; None: nothing. Followed by ``end`` before the next ``begin``."""
        drafts = [draft for draft in (*self.drafts, self.draft) if not draft.empty]
        if not drafts:
            told = [*self.drafts, self.draft]
            self.drafts, self.draft = [], Draft()
            self._tell(told)  # who is told may publish: that is for the next round
            return None
        self.committing = [*self.drafts, self.draft]
        self.drafts, self.draft = [], Draft()
        self._time = max(self.wall(), self._time)
        number = self.log.next_number
        batches = [draft.seal(number + at, self._time) for at, draft in enumerate(drafts)]
        try:
            commit = self.log.plan(batches, self._time, sync=self.durability == "fsync")
        except Exception as error:  # what cannot be encoded must not leave everybody waiting
            refused = Commit(None, [], [], False)
            refused.error = OSError(errno.EINVAL, repr(error))
            self._failed(self.committing, refused)
            self.committing = []
            return None
        if self._snapshot_wanted:
            self._snapshot = self._capture(number + len(batches) - 1, commit.created)
            self._snapshot_wanted = False
        return commit

    def end(self, commit: Commit) -> Chores:
        """The commit was run: take in what it wrote, tell publishers, wake subscribers. Gives files to put in place."""
        drafts, self.committing = self.committing, []
        if commit.error is not None:
            self._failed(drafts, commit)
            return Chores()
        sealed = self.log.finish(commit)
        if self.full is not None:
            self.full = None
            self.report("disk-has-room", "the disk takes messages again")
        woken: list[Queue] = []
        for draft in drafts:
            for section in draft.sections.values():
                self.waiting_bytes -= section.size
                topic = self.topic_named.get(section.topic)
                if topic is not None:
                    topic.committed = max(topic.committed, section.offsets[-1] + 1)
                    topic.size += section.size
                    topic.touched = self._time
                    woken += topic.queues
        if not self.drafts and not self.draft.sections:
            self.waiting_bytes = 0
        self._tell(drafts)
        for queue in woken:
            try:
                queue.group.wake(queue)
            except Exception as error:  # one member's fault must not keep the others waiting
                self.report("member-failed", repr(error))
        return self._chores(sealed)

    def _tell(self, drafts: Sequence[Draft]) -> None:
        for draft in drafts:
            for done, receipts in draft.callbacks:
                try:
                    done(receipts)
                except Exception as error:  # one publisher's fault must not keep the others waiting
                    self.report("callback-failed", repr(error))
            for waiter in draft.waiters:
                try:
                    waiter(True)
                except Exception as error:
                    self.report("callback-failed", repr(error))

    def _failed(self, drafts: list[Draft], commit: Commit) -> None:
        """Nothing of it is stored: refuse what was to be acknowledged, and take its effects back."""
        was_full = self.full is not None and commit.full
        self._snapshot = None
        self._snapshot_wanted = True  # what could not be written is in the state: the next commit's snapshot has it
        drafts = [*drafts, *self.drafts, self.draft]
        self.drafts, self.draft = [], Draft()
        error: BrokerError
        if commit.full:
            error = self.full = DiskFull(f"the disk is full ({commit.error}): consumers are served, publishers are not")
        else:
            error = self.failure = DiskFailed(f"the disk failed ({commit.error}): the broker takes no more")
            self._problems.append(str(error))
        if not was_full:
            self.report(error.code, str(error))
        for draft in reversed(drafts):
            self.intake.undo(draft)
            self.draft.carry(draft)
        self.waiting_bytes = 0
        for draft in drafts:
            for done, receipts in draft.callbacks:
                count = len(receipts.publication.payloads)
                done(
                    Receipts(
                        receipts.publication, [-1] * count, self.durability, errors=dict.fromkeys(range(count), error)
                    )
                )
        if self.failure is not None:
            waiters, self.draft = self.draft.waiters, Draft()
            for waiter in waiters:
                waiter(False)
        self.arm()

    def fail(self, cause: OSError) -> None:
        """A sync outside a commit failed: what it was to cover may be lost, so nothing more is taken."""
        self.failure = DiskFailed(f"the disk failed ({cause}): the broker takes no more")
        self.note_problem(str(self.failure))

    def _capture(self, number: int, created: list[Segment]) -> tuple[int, list[tuple[int, int]], Any]:
        segments = [(s.header.id, s.header.salt) for s in (*self.log.segments.values(), *created)]
        return number, segments, dump(self)

    def _chores(self, sealed: list[Segment]) -> Chores:
        from .log.recovery import index_name, snapshot_name

        chores = Chores((index_name(s.header), s.index.encode(s.header)) for s in sealed)
        if self._snapshot is not None:
            number, segments, state = self._snapshot
            self._snapshot = None
            content = encode_snapshot(number, segments, state)
            self._snapshot_at, self._snapshot_size = self.log.size, len(content)
            chores.append((snapshot_name(number), content))
        elif sealed and self.log.size - self._snapshot_at >= SNAPSHOT_RATIO * self._snapshot_size:
            self._snapshot_wanted = True
        return chores

    def want_snapshot(self) -> None:
        """Write one with the next commit, so that older segments need not keep their records."""
        self._snapshot_wanted = True
        self.record("noop")

    def last_chores(self) -> Chores:
        """The files of a clean stop; nothing may be waiting."""
        self._snapshot = self._capture(self.log.next_number - 1, [])
        return self._chores([])

    # -- what subscriptions ask for ----------------------------------------------------------------------------------

    def next_token(self) -> int:
        """A token that no other lease has or had."""
        self._token += 1
        return self._token

    def take_run(self, queue: Queue, messages: int, size: int) -> Run | None:
        """The next messages of a queue; a damaged batch is passed over and reported."""
        cursor = queue.cursor
        run = None
        for _ in range(_DAMAGES):
            try:
                run = queue.take(self.log, self.wall(), messages, size, self.limits.blocked_keys)
                break
            except DamagedBatch as error:
                self.note_problem(str(error))
                self.log.step_over(error.segment)
                queue.place = None
            except OSError as error:
                self.note_problem(f"{queue.topic.name} could not be read: {error}")
                break
        if queue.expired:
            self.note_done(queue, queue.expired)
            queue.expired = []
        if queue.group.durable:
            key = (queue.group.name, queue.topic.name)
            if queue.cursor != cursor:
                self.draft.cursors[key] = queue.cursor
                self.wake(False)
            if queue.newly_blocked:
                self.note_attempts(queue, dict.fromkeys(queue.newly_blocked, 0))
        queue.newly_blocked.clear()
        if run is not None:
            self.delivered += len(run.indexes)
            if self.told is not None:
                again = ", some of them again" if run.redelivered else ""
                self.told("delivered", f"{queue.topic.name} to {queue.group.name}: {len(run.indexes)}{again}")
        return run

    def note_done(self, queue: Queue, offsets: Sequence[int]) -> None:
        """Have it written that these are done."""
        self.acked += len(offsets)
        if queue.group.durable:
            self.draft.ack(queue.group.name, queue.topic.name, offsets)
            self.wake(False)

    def note_attempts(self, queue: Queue, attempts: dict[int, int]) -> None:
        """Have it written how often these were delivered."""
        if queue.group.durable:
            self.draft.attempts.setdefault((queue.group.name, queue.topic.name), {}).update(attempts)
            self.wake(False)

    def watch(self, lease: Lease) -> None:
        """End ``lease`` at its deadline."""
        if self.timers.watch(lease):
            self.arm()

    def unwatch(self, lease: Lease) -> None:
        """``lease`` is over."""
        self.timers.unwatch(lease)

    def prolong(self, lease: Lease, seconds: float) -> None:
        """Let ``lease`` end ``seconds`` from now."""
        self.timers.unwatch(lease)
        lease.deadline = self.deadline(seconds)
        self.watch(lease)

    def give_back(
        self, queue: Queue, made: list[tuple[int, int]], delay: float | None, options: SubscribeOptions, reason: str
    ) -> None:
        """These come back after ``made`` deliveries: to be delivered again, or to the dead letters when it is enough."""
        now, wall = self.clock.monotonic(), self.wall()
        if self.told is not None:
            self.told(
                "returned", f"{queue.topic.name} {[offset for offset, _ in made]} of {queue.group.name}: {reason}"
            )
        for offset, count in made:
            if len(queue.history) < self.limits.in_flight:
                queue.history.setdefault(offset, []).append((wall, reason))
            if queue.group.durable and count >= queue.group.max_deliveries:
                self.bury(queue, offset, count, f"delivered {count} times; last: {reason}")
                continue
            pause = delay
            if pause is None:
                pause = min(options.backoff_cap, options.backoff * 2.0 ** min(count - 1, 60))
            if pause > 0:
                queue.attempts[offset] = count
                queue.delayed[offset] = now + pause
                self.timers.delay(now + pause, queue, offset)
            else:
                queue.give_back(offset, count)
        self.note_attempts(queue, dict(made))
        if queue.delayed:
            self.arm()
        if queue.ready:
            queue.group.wake(queue)

    def bury(self, queue: Queue, offset: int, made: int, reason: str) -> None:
        """Put a message into the dead letters of its group."""
        if self.told is not None:
            self.told("dead-letter", f"{queue.topic.name} [{offset}] of {queue.group.name}: {reason}")
        self.deadletters.bury(queue, offset, made, reason)

    # -- the whole -------------------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """CLOSED: nothing is taken; BUSY: the disk is full, or damage was found."""
        if self.failure is not None:
            return Status.CLOSED
        return Status.BUSY if self.full is not None or self._problems else Status.OPEN

    @property
    def damage(self) -> list[str]:
        """What recovery or reading found to be wrong."""
        return list(self._problems)

    def note_problem(self, problem: str) -> None:
        """Remember damage for ``damage``; at most a thousand lines."""
        if len(self._problems) < 1000:
            self._problems.append(problem)
            self.report("damage", problem)

    def stop(self) -> None:
        """End every subscription and take nothing more; what waits is still to be committed."""
        self.failure = self.failure or Closed("the broker is closed")
        for subscription in self.subscriptions:
            subscription.end()
