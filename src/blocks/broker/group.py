"""A group has a place in every topic that it reads; its members' subscriptions share what comes from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from .errors import BrokerError, Closed
from .log.batch import Section
from .message import Deliveries, Member, SubscribeOptions
from .queue import Lease, Queue, Run
from .topics import matches

if TYPE_CHECKING:
    from .engine import Engine


_LOOKED_AT = 64  # queues whose backlog is counted for a fair share: more would cost more than fairness is worth


class Group:
    """Competing members and their queues, by topic. A group that is not ``durable`` leaves no trace in the log."""

    __slots__ = (
        "active", "called", "dead_letter", "durable", "max_deliveries", "members", "name", "patterns", "queues", "waiting",
    )  # fmt: skip

    def __init__(self, name: str, durable: bool) -> None:
        self.name = name
        self.durable = durable
        self.patterns: dict[str, str | int | float] = {}  # pattern -> where it starts
        self.queues: dict[str, Queue] = {}
        self.active: dict[Queue, None] = {}  # those that may have something, in turn
        self.members: list[Subscription] = []
        self.waiting: dict[Subscription, None] = {}  # those that took nothing last time
        self.called: set[Subscription] = set()  # those that were told that there is something, and did not take yet
        self.max_deliveries = 16
        self.dead_letter = f"$dead.{name}"

    def wake(self, queue: Queue) -> None:
        """``queue`` may have something: tell members that wait, as many as it has messages."""
        self.active[queue] = None
        if self.waiting:
            self.call(queue.backlog)

    def call(self, count: int) -> None:
        """Tell up to ``count`` waiting members, in the order in which they began to wait."""
        for subscription in list(self.waiting):
            if count <= 0 or not self.active:
                return
            if (
                subscription.has_credit
                and not subscription.paused
                and self.may_take(subscription)
                and not subscription.shunned
            ):
                self.waiting.pop(subscription, None)
                self.called.add(subscription)
                count -= 1
                subscription.member.ready(subscription)

    def may_take(self, subscription: Subscription) -> bool:
        """False for those that stand by behind a single active member."""
        return not subscription.options.single_active or self.members[0] is subscription

    def dump(self) -> list[Any]:
        """For a snapshot."""
        queues = []
        for name, queue in self.queues.items():
            unacked = sorted(queue.unacked())
            attempts = {offset: made for offset in unacked if (made := queue.made(offset)) != 1}
            queues.append((name, queue.cursor, unacked, attempts))
        return [self.name, self.patterns, self.max_deliveries, self.dead_letter, queues]


class Subscription:
    """One member's share of a group. See ``Engine.subscribe``; all methods are for the loop's thread."""

    __slots__ = (
        "closed", "engine", "group", "id", "in_flight", "in_flight_bytes", "leases", "member", "options", "paused",
        "prefetch", "prefetch_bytes", "suspect",
    )  # fmt: skip

    def __init__(self, id: int, engine: Engine, group: Group, options: SubscribeOptions, member: Member) -> None:
        self.id = id
        self.engine = engine
        self.group = group
        self.options = options
        self.member = member
        self.prefetch = options.prefetch
        self.prefetch_bytes = options.prefetch_bytes
        self.in_flight = 0
        self.in_flight_bytes = 0.0
        self.leases: set[Lease] = set()
        self.paused = False
        self.closed = False
        self.suspect = False  # a lease of its ran out, and it has said nothing since

    # -- credit ----------------------------------------------------------------------------------------------------

    @property
    def has_credit(self) -> bool:
        """Whether it may hold more than it does."""
        return self.in_flight < self.prefetch and (self.in_flight == 0 or self.in_flight_bytes < self.prefetch_bytes)

    @property
    def shunned(self) -> bool:
        """Whether it seems to hang, and others do not: it would only let the next lease run out too."""
        return self.suspect and any(not member.suspect for member in self.group.members)

    @property
    def queued(self) -> int:
        """Messages that wait for the group in the topics of its queues."""
        return sum(queue.backlog for queue in self.group.queues.values())

    def flow(self, prefetch: int | None = None, prefetch_bytes: int | None = None) -> None:
        """Change how much may be in flight."""
        self.prefetch = self.prefetch if prefetch is None else prefetch
        self.prefetch_bytes = self.prefetch_bytes if prefetch_bytes is None else prefetch_bytes
        self._call()

    def pause(self) -> None:
        """``ready`` is not called until ``resume``; others of the group are served instead."""
        self.paused = True
        self.group.called.discard(self)
        if not self.closed:
            self.group.waiting[self] = None
            self.group.call(len(self.group.waiting))

    def resume(self) -> None:
        """End a ``pause``; ``ready`` is called if there is something."""
        self.paused = False
        self._call()

    def _call(self) -> None:
        if self in self.group.waiting:
            self.group.call(1)

    # -- taking ----------------------------------------------------------------------------------------------------

    def take(self, messages: int = 1000, size: int = 1 << 20) -> list[Deliveries]:
        """Up to ``messages`` and about ``size`` bytes, leased to this member; [] when there is nothing or no credit."""
        group = self.group
        runs: list[Deliveries] = []
        if not self.closed and not self.paused and group.active and group.may_take(self) and not self.shunned:
            messages = self._share(min(messages, self.prefetch - self.in_flight))
            size = min(size, int(self.prefetch_bytes - self.in_flight_bytes))
            alone = self.in_flight == 0  # one message may always leave, however big it is
            while messages > 0 and (size > 0 or alone) and group.active:
                run = self._next(messages, max(size, 0))
                if run is None:
                    break
                alone = False
                runs.append(run)
                messages -= len(run)
                size -= run.size
        if not runs and not self.closed:
            group.waiting[self] = None
        elif group.active and group.waiting:
            group.call(len(group.waiting))
        return runs

    def _share(self, messages: int) -> int:
        """Where others of the group wait too, take no more than a fair part of what there is."""
        waiting, called = self.group.waiting, self.group.called
        called.discard(self)
        others = len(waiting) - (self in waiting) + len(called)
        if not others:
            return messages
        backlog = sum(queue.backlog for queue in islice(self.group.active, _LOOKED_AT))
        return min(messages, max(1, -(-backlog // (others + 1))))

    def _next(self, messages: int, size: int) -> Deliveries | None:
        group = self.group
        mixed = len(group.patterns) > 1
        while group.active:
            queue = next(filter(self._serves, group.active), None) if mixed else next(iter(group.active))
            if queue is None:
                return None
            run = self._from(queue, messages, size)
            if run is not None:
                return run
        return None

    def _serves(self, queue: Queue) -> bool:
        return matches(self.options.pattern, queue.topic.name)

    def _from(self, queue: Queue, messages: int, size: int) -> Deliveries | None:
        active = self.group.active
        run = self.engine.take_run(queue, messages, size)
        if run is None or len(active) > 1:  # with more than one, the topics take turns
            active.pop(queue, None)
        if run is None:
            return None
        active[queue] = None
        return self._lease(queue, run)

    def _lease(self, queue: Queue, run: Run) -> Deliveries:
        deliveries = gather(run.section, run.indexes, run.batch.time, queue.topic.name)
        offsets = deliveries.offsets
        if self.options.mode == "browse" or not self.options.ack:
            self.engine.note_done(queue, offsets)
            for offset in offsets if queue.key_of or queue.attempts else ():
                queue.done(offset)
            return deliveries
        engine = self.engine
        lease = Lease(engine.next_token(), queue, self, offsets, deliveries.size, engine.deadline(self.options.lease))
        lease.since -= self.options.lease
        deliveries.token = lease.token
        if run.redelivered:
            self._count(queue, lease, deliveries)
        queue.leased.update(dict.fromkeys(offsets, lease))
        self.leases.add(lease)
        self.in_flight += lease.left
        self.in_flight_bytes += deliveries.size
        engine.watch(lease)
        return deliveries

    def _count(self, queue: Queue, lease: Lease, deliveries: Deliveries) -> None:
        """Some were delivered before: number the attempts, and have the numbers stored."""
        counts = [queue.attempts.pop(offset, 0) + 1 for offset in deliveries.offsets]
        if max(counts) > 1:
            lease.attempts = dict(zip(deliveries.offsets, counts, strict=True))
            deliveries.attempts = counts
        self.engine.note_attempts(queue, dict(zip(deliveries.offsets, counts, strict=True)))

    # -- answering -------------------------------------------------------------------------------------------------

    def ack(self, topic: str, offsets: Iterable[int], token: int, done: Callable[[int], None] | None = None) -> int:
        """These are done; gives how many were stale. ``done(stale)`` is called when that is durable (-1: it cannot be)."""
        self.suspect = False
        queue = self.group.queues.get(topic)
        settled, stale = self._settle(queue, offsets, token)
        if queue is not None and settled:
            if queue.key_of or queue.attempts:
                for offset in settled:
                    queue.done(offset)
            self.engine.note_done(queue, settled)
            if queue.ready:
                self.group.wake(queue)
        if done is not None:
            self.engine.when_durable(done, stale)
        self._call()
        return stale

    def _settle(self, queue: Queue | None, offsets: Iterable[int], token: int) -> tuple[Sequence[int], int]:
        """End the leases of ``offsets`` that ``token`` still holds: those offsets, and how many were not its."""
        if queue is None:
            return (), sum(1 for _ in offsets)
        leased = queue.leased
        settled: list[int] = []
        stale = 0
        lease: Lease | None = None
        for offset in offsets:
            found = leased.get(offset)
            if found is None or found.token != token or found.subscription is not self:
                stale += 1
                continue
            del leased[offset]
            settled.append(offset)
            lease = found
        if lease is not None:
            lease.subscription.release(lease, len(settled))
            if not stale and isinstance(offsets, range) and offsets.step == 1:
                return offsets, 0
        return settled, stale

    def release(self, lease: Lease, count: int) -> None:
        """``count`` messages of ``lease`` are not held any more: give their credit back."""
        self.in_flight -= count
        self.in_flight_bytes = self.in_flight_bytes - lease.unit * count if self.in_flight else 0.0
        lease.left -= count
        if lease.left <= 0:
            self.leases.discard(lease)
            self.engine.unwatch(lease)

    def nack(self, topic: str, offsets: Iterable[int], token: int, delay: float | None = None) -> int:
        """Deliver these again after ``delay`` seconds (None: the member's back-off); gives how many were stale."""
        self.suspect = False
        queue = self.group.queues.get(topic)
        made = self._made(queue, offsets := list(offsets))
        settled, stale = self._settle(queue, offsets, token)
        if queue is not None and settled:
            self.engine.give_back(queue, [(offset, made[offset]) for offset in settled], delay, self.options, "nack")
        self._call()
        return stale

    def reject(self, topic: str, offsets: Iterable[int], token: int, reason: str = "") -> int:
        """These can never be processed: to the dead letters; gives how many were stale."""
        self.suspect = False
        queue = self.group.queues.get(topic)
        made = self._made(queue, offsets := list(offsets))
        settled, stale = self._settle(queue, offsets, token)
        if queue is not None:
            for offset in settled:
                self.engine.bury(queue, offset, made[offset], reason or "rejected")
        self._call()
        return stale

    def decline(self, topic: str, offsets: Iterable[int], token: int) -> int:
        """These were not looked at: they go to others at once, and the attempt does not count; gives how many were stale."""
        queue = self.group.queues.get(topic)
        made = self._made(queue, offsets := list(offsets))
        settled, stale = self._settle(queue, offsets, token)
        if queue is not None and settled:
            for offset in settled:
                queue.give_back(offset, made[offset] - 1)
            self.engine.note_attempts(queue, {offset: made[offset] - 1 for offset in settled})
            self.group.wake(queue)
        return stale

    @staticmethod
    def _made(queue: Queue | None, offsets: list[int]) -> dict[int, int]:
        return {offset: queue.made(offset) for offset in offsets} if queue is not None else {}

    def extend(self, topic: str, offsets: Iterable[int], token: int, seconds: float) -> int:
        """The lease of the run that has these ends ``seconds`` from now; gives how many were stale."""
        if self.suspect:
            self.suspect = False
            self._call()
        queue = self.group.queues.get(topic)
        if queue is None:
            return sum(1 for _ in offsets)
        stale = 0
        lease: Lease | None = None
        for offset in offsets:
            found = queue.leased.get(offset)
            if found is None or found.token != token or found.subscription is not self:
                stale += 1
            else:
                lease = found
        if lease is not None:
            self.engine.prolong(lease, seconds)
        return stale

    def expire(self, lease: Lease, reason: str) -> None:
        """The lease ended without an answer: its messages go back, and the attempt counts."""
        queue = lease.queue
        held = lease.held()
        if not held:
            return
        made = [(offset, lease.attempt(offset)) for offset in held]
        for offset in held:
            del queue.leased[offset]
        self.release(lease, len(held))
        self.suspect = True
        self.engine.give_back(queue, made, 0.0, self.options, reason)

    def close(self) -> None:
        """Leave the group: what was in flight goes to others at once; twice is once."""
        if self.closed:
            return
        self.closed = True
        self.group.members.remove(self)
        self.group.waiting.pop(self, None)
        self.group.called.discard(self)
        for lease in sorted(self.leases, key=lambda lease: lease.token):
            self.expire(lease, "member left")
        self.engine.left(self)

    def end(self, error: BrokerError | None = None) -> None:
        """The broker ends it."""
        if not self.closed:
            self.close()
            self.member.ended(self, error or Closed("the broker is closing"))


def gather(section: Section, indexes: Sequence[int], time: float, topic: str) -> Deliveries:
    """The deliveries for those entries of a section; a column that is taken whole is not copied."""
    whole = len(indexes) == len(section.payloads)

    def pick(column: Any) -> Any:
        if column is None or whole:
            return column
        if isinstance(indexes, range):
            return column[indexes.start : indexes.stop]
        return [column[i] for i in indexes]

    payloads = pick(section.payloads)
    return Deliveries(
        topic,
        0,
        pick(section.offsets),
        payloads,
        time if section.times is None else pick(section.times),
        section.size if whole else sum(map(len, payloads)),
        keys=pick(section.keys),
        headers=pick(section.headers),
        ids=pick(section.ids),
        reply_tos=pick(section.reply_tos),
    )
