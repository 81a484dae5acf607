"""Whatever a power loss leaves of the disk, what was acknowledged is there, once, at its offset, and what was done stays done."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import pytest

from blocks.broker.log.disk import MemoryDisk
from blocks.core.clock import FakeClock
from broker.recording import RecordingDisk, image
from broker.rig import Rig, payloads

pytestmark = pytest.mark.exhaustive  # runs with the integration tests

FULL = bool(os.environ.get("BLOCKS_FULL"))
SEEDS = 40 if FULL else 5
IMAGES = 300 if FULL else 200


class Story:
    """A broker at work on a recording disk, and what it had promised when."""

    durability = "fsync"

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.disk = RecordingDisk()
        self.clock = FakeClock()
        self.rig = Rig(
            self.disk, self.clock, seed, segment_bytes=random.choice((4096, 16384, 1 << 20)), durability=self.durability
        )
        self.rig.engine._snapshot_size = 1024  # so that snapshots come often
        self.sent: dict[tuple[str, int], bytes] = {}  # every message that was ever given an offset
        self.stored: list[
            tuple[int, str, int, bytes, str | None]
        ] = []  # after how many ops: topic, offset, payload, id
        self.done: list[tuple[int, str, int]] = []  # after how many ops a message was durably done for the group
        self.serial = 0
        self.member = self.rig.subscribe("t.*", "workers", prefetch=50)
        for _ in range(random.randint(10, 40)):
            self.step()

    def step(self) -> None:
        random = self.random
        for _ in range(random.randint(1, 4)):
            self.publish()
        if random.random() < 0.5:
            self.consume()
        self.clock.advance(random.random())
        self.rig.commit(chores=random.random() < 0.7)
        if random.random() < 0.05:
            self.rig.stop()
            self.rig = Rig(
                self.disk, self.clock, random.getrandbits(32), segment_bytes=8192, durability=self.durability
            )
            assert self.rig.problems == []
            self.member = self.rig.subscribe("t.*", "workers", prefetch=50)

    def publish(self) -> None:
        random = self.random
        count = random.choice((1, 1, 3, 20))
        topic = f"t.{random.randrange(3)}"
        data = []
        ids: list[str | None] | None = [] if random.random() < 0.3 else None
        for _ in range(count):
            self.serial += 1
            data.append(b"%d:" % self.serial + random.randbytes(random.choice((0, 10, 100, 3000))))
            if ids is not None:
                ids.append(f"id-{self.serial}")

        def done(receipts: Any) -> None:
            at = len(self.disk.ops)
            assert not receipts.errors
            for i, offset in enumerate(receipts.offsets):
                self.stored.append((at, topic, offset, data[i], ids[i] if ids else None))

        first = self.rig.engine.topic_named[topic].next if topic in self.rig.engine.topic_named else 0
        self.sent.update({(topic, first + i): payload for i, payload in enumerate(data)})
        self.rig.send(topic, *data, ids=ids, done=done)

    def consume(self) -> None:
        for run in self.member.take(self.random.randint(1, 50)):
            kept = [o for o in run.offsets if self.random.random() < 0.8]

            def done(stale: int, topic: str = run.topic, kept: list[int] = kept) -> None:
                assert stale == 0
                self.done += [(len(self.disk.ops), topic, offset) for offset in kept]

            if kept:
                self.member.ack(run.topic, kept, run.token, done)


class BigStory(Story):
    """Commits that go over the end of a segment."""

    def publish(self) -> None:
        super().publish()
        for _ in range(self.random.randrange(3)):
            self.rig.engine.next_draft()
            super().publish()


def check(story: Story, disk: MemoryDisk, after: int, seed: int) -> None:
    rig = Rig(disk, story.clock, seed)
    assert rig.problems == [], "a power loss is not damage"
    state = {name: rig.read(name) for name in rig.engine.topic_named}
    for name, messages in state.items():
        assert sorted(messages) == list(range(rig.engine.topic_named[name].committed)), "offsets are dense"
        for offset, payload in messages.items():
            assert story.sent[name, offset] == payload, "nothing is there that was not sent"
    for at, topic, offset, payload, _ in story.stored:
        if at <= after:
            assert state[topic][offset] == payload, "what was acknowledged is there"
    gone = {(topic, offset) for at, topic, offset in story.done if at <= after}
    member = rig.subscribe("t.*", "workers", prefetch=1_000_000)
    back: list[tuple[str, int]] = []
    while runs := member.take(100_000, 1 << 30):
        back += [(run.topic, offset) for run in runs for offset in run.offsets]
    assert len(back) == len(set(back)), "nothing is delivered twice to one holder"
    assert not gone & set(back), "what was done does not come back"
    if any(at <= after for at, *_ in story.stored):
        missing = {(t, o) for at, t, o, _, _ in story.stored if at <= after} - gone - set(back)
        assert missing <= {(t, o) for _, t, o in story.done}, "what was not done comes again"
    if seed % 2:
        rig.publish("t.9", b"after the crash")
        state["t.9"] = {0: b"after the crash"}
    again = Rig(disk, story.clock, seed + 1)
    assert again.problems == []
    assert {name: again.read(name) for name in state} == state, "recovery changes nothing the second time"
    republish(story, again, after)


def republish(story: Story, rig: Rig, after: int) -> None:
    known = [(t, o, p, id) for at, t, o, p, id in story.stored if id is not None and at <= after]
    for topic, offset, payload, id in known[-5:]:
        receipts = rig.publish(topic, payload, ids=[id])
        assert (receipts.offsets[0], receipts.duplicates) == (offset, {0}), "an id within the window is known"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_power_loss_at_any_moment(seed: int) -> None:
    story = Story(seed)
    random = Random(seed)
    ops = story.disk.ops
    for number in range(IMAGES):
        after = random.randint(0, len(ops))
        check(story, image(ops[:after], random), after, number)


def test_power_loss_in_commits_over_several_segments() -> None:
    story = BigStory(7)
    random = Random(7)
    ops = story.disk.ops
    for number in range(IMAGES // 3):
        after = random.randint(0, len(ops))
        check(story, image(ops[:after], random), after, number)


class LazyStory(Story):
    """The mode ``interval``: nothing is synced but sealed segments and, now and then, the active one."""

    durability = "interval"

    def step(self) -> None:
        super().step()
        if self.random.random() < 0.1:
            log = self.rig.engine.log
            for segment, length in log.unsynced():
                assert segment.file is not None
                segment.file.sync()
                segment.synced = length


def test_power_loss_with_unsynced_commits_leaves_a_whole_beginning() -> None:
    for seed in range(4):
        story = LazyStory(seed)
        random = Random(seed)
        for number in range(IMAGES // 4):
            disk = image(story.disk.ops[: random.randint(0, len(story.disk.ops))], random)
            rig = Rig(disk, story.clock, number)
            assert rig.problems == [], "what was never synced is not damage when it is gone"
            state = {name: rig.read(name) for name in rig.engine.topic_named}
            for name, messages in state.items():
                assert sorted(messages) == list(range(rig.engine.topic_named[name].committed))
                assert all(story.sent[name, offset] == payload for offset, payload in messages.items())
            again = Rig(disk, story.clock)
            assert {name: again.read(name) for name in again.engine.topic_named} == state


def test_an_atomic_batch_is_there_whole_or_not_at_all() -> None:
    disk, random = RecordingDisk(), Random(11)
    rig = Rig(disk, segment_bytes=1 << 20)
    for number in range(12):
        rig.send("filler", random.randbytes(random.choice((10, 700_000))))
        topics = ["a", "b", "c"]
        rig.send(
            "",
            *[b"%d" % number + random.randbytes(random.choice((10, 300_000))) for _ in topics],
            topics=topics,
            atomic=True,
        )
        if random.random() < 0.5:
            rig.commit()
    rig.commit()
    for number in range(80):
        left = Rig(image(disk.ops[: random.randint(0, len(disk.ops))], random), rig.clock, number)
        counts = {name: len(left.read(name)) if name in left.engine.topic_named else 0 for name in "abc"}
        assert len(set(counts.values())) == 1, counts


def test_stories_deliver_what_they_should_without_a_crash() -> None:
    story = Story(99)
    story.rig.commit()
    assert payloads(story.member.take(1)) or story.member.in_flight
