"""The engine against a simple model: at least once, in order within a key, nothing lost, nothing done coming back; crashes included."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from blocks.broker.log.disk import MemoryDisk
from blocks.broker.message import TopicOptions
from blocks.core.clock import FakeClock
from broker.recording import RecordingDisk, image
from broker.rig import Rig

pytestmark = pytest.mark.exhaustive  # runs with the integration tests

TOPICS = ("a", "b")
KEYS = (None, b"x", b"y")


class BrokerModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.disk = RecordingDisk()
        self.sent: dict[tuple[str, int], tuple[bytes, bytes | None, float | None]] = {}  # by topic and offset
        self.confirmed: set[tuple[str, int]] = set()
        self.ids: dict[str, tuple[str, int]] = {}
        self.done: set[tuple[str, int]] = set()  # acked
        self.durable: set[tuple[str, int]] = set()  # acked, and told that it is durable
        self.maybe: set[tuple[str, int]] = set()  # acked before a crash that may have lost it
        self.held: list[tuple[Any, Any, list[int]]] = []
        self.attempts: dict[tuple[str, int], int] = {}
        self.serial = 0
        self.open()

    def open(self) -> None:
        self.rig = Rig(
            self.disk, self.clock, self.serial + 1, segment_bytes=4096, topic_options=TopicOptions(dedup_seconds=1e9)
        )
        self.rig.engine._snapshot_size = 256
        assert self.rig.problems == []
        self.members = [self.join(), self.join()]
        self.held = []

    def join(self) -> Any:
        return self.rig.subscribe("*", "g", prefetch=6, lease=10.0, max_deliveries=1_000_000)

    # -- what happens ----------------------------------------------------------------------------------------------

    @rule(
        messages=st.lists(st.tuples(st.sampled_from(TOPICS), st.sampled_from(KEYS)), min_size=1, max_size=6),
        known=st.booleans(),
        ttl=st.sampled_from((None, None, None, 25.0)),
        commits=st.integers(0, 2),
    )
    def publish(self, messages: list[tuple[str, bytes | None]], known: bool, ttl: float | None, commits: int) -> None:
        for topic, key in messages:
            self.publish_one(topic, key, known, ttl)
        if commits:
            self.rig.commit(chores=commits == 1)

    def publish_one(self, topic: str, key: bytes | None, known: bool, ttl: float | None) -> None:
        self.serial += 1
        payload = b"%d" % self.serial
        id = f"i{self.serial}" if known else None
        existing = self.rig.engine.topic_named.get(topic)
        offset = existing.next if existing is not None else 0
        expires = None if ttl is None else self.clock.wall() + ttl
        self.sent[topic, offset] = (payload, key, expires)

        def done(receipts: Any) -> None:
            assert not receipts.errors
            assert receipts.offsets[0] == offset
            self.confirmed.add((topic, offset))
            if id is not None:
                self.ids[id] = (topic, offset)

        self.rig.send(topic, payload, keys=[key], ids=[id], ttls=[ttl], done=done)

    @rule(data=st.data())
    def publish_again(self, data: Any) -> None:
        if self.ids:
            id = data.draw(st.sampled_from(sorted(self.ids)))
            topic, offset = self.ids[id]

            def done(receipts: Any) -> None:
                assert (receipts.offsets[0], receipts.duplicates) == (offset, {0})

            self.rig.send(topic, b"again", ids=[id], done=done)

    @rule(chores=st.booleans())
    def commit(self, chores: bool) -> None:
        self.rig.commit(chores)

    @rule(
        which=st.integers(0, 1), count=st.integers(1, 6), answers=st.randoms(use_true_random=False), waits=st.booleans()
    )
    def take(self, which: int, count: int, answers: Random, waits: bool) -> None:
        for run in self.members[which].take(count):
            left = list(run.offsets)
            self.held.append((self.members[which], run, left))
            for at, offset in enumerate(run.offsets):
                self.delivered(run, at, offset)
            for offset in run.offsets:
                if answers.random() < 0.6:
                    self.ack_one(self.members[which], run, left, offset, waits)
        if waits and count > 3:
            self.rig.commit()
        self.held = self.held[-8:]

    def delivered(self, run: Any, at: int, offset: int) -> None:
        place = (run.topic, offset)
        payload, key, expires = self.sent[place]
        assert run.payloads[at] == payload
        assert place in self.confirmed or place in self.survivors, "only what is durable is delivered"
        assert place not in self.done, "what was done does not come back"
        assert expires is None or expires > self.clock.wall()
        attempt = run.attempts[at] if run.attempts else 1
        assert attempt >= 1
        self.maybe.discard(place)
        if key is None:
            return
        for (topic, earlier), (_, other, ends) in self.sent.items():
            if topic == run.topic and earlier < offset and other == key and (topic, earlier) in self.known:
                over = ends is not None and ends <= self.clock.wall()
                assert over or (topic, earlier) in self.done | self.maybe, "an earlier message of the key is not done"

    @property
    def known(self) -> set[tuple[str, int]]:
        return self.confirmed | self.survivors

    survivors: set[tuple[str, int]] = set()

    @rule(which=st.randoms(use_true_random=False), count=st.integers(1, 6), waits=st.booleans(), commits=st.booleans())
    def ack(self, which: Random, count: int, waits: bool, commits: bool) -> None:
        for _ in range(count):
            if self.held:
                member, run, left = which.choice(self.held)
                self.ack_one(member, run, left, which.choice(left), waits)
        if commits:
            self.rig.commit()

    def ack_one(self, member: Any, run: Any, left: list[int], offset: int, waits: bool) -> None:
        place = (run.topic, offset)

        def done(stale: int) -> None:
            if stale == 0:
                self.durable.add(place)

        if member.ack(run.topic, [offset], run.token, done if waits else None) == 0:
            self.done.add(place)
        self.let_go(left, offset)

    @rule(data=st.data(), delay=st.sampled_from((0.0, 3.0)))
    def nack(self, data: Any, delay: float) -> None:
        if self.held:
            member, run, left = data.draw(st.sampled_from(self.held))
            offset = data.draw(st.sampled_from(left))
            member.nack(run.topic, [offset], run.token, delay)
            self.let_go(left, offset)

    def let_go(self, left: list[int], offset: int) -> None:
        left.remove(offset)
        self.held = [entry for entry in self.held if entry[2]]

    @rule(seconds=st.sampled_from((0.1, 4.0, 11.0)))
    def time_passes(self, seconds: float) -> None:
        self.rig.advance(seconds)

    @rule(which=st.integers(0, 1))
    def member_leaves(self, which: int) -> None:
        self.members[which].close()
        self.members[which] = self.join()

    @rule(seed=st.integers(0, 1 << 30), kind=st.sampled_from(("nothing", "nothing", "crash", "crash", "stop")))
    def end(self, seed: int, kind: str) -> None:
        if kind == "crash":
            self.crash(seed)
        elif kind == "stop":
            self.restart()

    def crash(self, seed: int) -> None:
        """The power goes now; of what was not synced, anything may be left."""
        left = image(self.disk.ops, Random(seed))
        self.maybe |= self.done - self.durable
        self.done = set(self.durable)
        self.disk = recorded(left)
        self.open()
        self.survivors = {(name, o) for name in self.rig.engine.topic_named for o in self.rig.read(name)}
        assert self.survivors >= self.confirmed, "what was acknowledged is there"
        for place in self.sent.keys() - self.survivors:
            del self.sent[place]

    def restart(self) -> None:
        self.rig.stop()
        self.durable |= self.done
        self.confirmed |= {(name, o) for name in self.rig.engine.topic_named for o in self.rig.read(name)}
        self.open()

    @invariant()
    def offsets_are_dense(self) -> None:
        for topic in self.rig.engine.topic_named.values():
            assert topic.first <= topic.committed <= topic.next

    def teardown(self) -> None:
        """In the end everything that was stored and not done is delivered."""
        self.rig.commit()
        for member in self.members:
            member.close()
        last = self.join()
        for _ in range(10_000):
            runs = last.take(6)
            for run in runs:
                for at, offset in enumerate(run.offsets):
                    self.delivered(run, at, offset)
                    self.done.add((run.topic, offset))
                last.ack(run.topic, run.offsets, run.token)
            if not runs:
                if not any(queue.delayed for queue in self.rig.engine.group_named["g"].queues.values()):
                    break
                self.rig.advance(3.1)
        stored = {(name, o) for name in self.rig.engine.topic_named for o in self.rig.read(name)}
        over = {place for place in stored if (ends := self.sent[place][2]) is not None and ends <= self.clock.wall()}
        assert stored - self.done - over - self.maybe == set(), "nothing is lost"


def recorded(disk: MemoryDisk) -> RecordingDisk:
    """A disk to go on with: what is there is synced."""
    fresh = RecordingDisk()
    for name, file in disk.files.items():
        opened = fresh.open(name, create=True)
        opened.write(0, [bytes(file.data)])
        opened.sync()
    fresh.sync_directory()
    return fresh


TestBrokerModel = BrokerModel.TestCase
TestBrokerModel.settings = settings(
    max_examples=3000 if os.environ.get("BLOCKS_FULL") else 100,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
