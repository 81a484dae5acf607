"""An engine over a disk without a loop: commits happen when the test says so."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from blocks.broker.engine import Engine
from blocks.broker.log.disk import Disk, MemoryDisk, replace_whole
from blocks.broker.log.recovery import Recovery, write_clean
from blocks.broker.message import Deliveries, Publication, Receipts, SubscribeOptions
from blocks.core.clock import FakeClock


class Taker:
    """A member that notes that it was called."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None

    def ready(self, subscription: Any) -> None:
        self.calls += 1

    def ended(self, subscription: Any, error: Exception) -> None:
        self.error = error


class Rig:
    def __init__(
        self,
        disk: Disk | None = None,
        clock: FakeClock | None = None,
        seed: int = 1,
        segment_bytes: int = 1 << 20,
        **engine: Any,
    ) -> None:
        self.disk = disk if disk is not None else MemoryDisk()
        self.clock = clock or FakeClock()
        self.random = Random(seed)
        self.recovery = Recovery(self.disk, self.random, segment_bytes=segment_bytes)
        self.recovered = self.recovery.run()
        self.faults: list[str] = []
        engine.setdefault("report", lambda event, text: self.faults.append(f"{event}: {text}"))
        self.engine = Engine(self.recovered, self.clock, self.random, **engine)
        self.chores: list[tuple[str, bytes]] = []

    @property
    def problems(self) -> list[str]:
        return self.recovery.problems

    def commit(self, chores: bool = True) -> None:
        while True:
            commit = self.engine.begin()
            if commit is None:
                break
            commit.run(self.disk)
            self.chores += self.engine.end(commit)
            if commit.error is not None:
                break
        failed = [fault for fault in self.faults if "-failed: " in fault and not fault.startswith("disk")]
        assert not failed, failed
        if chores:
            self.do_chores()

    def do_chores(self) -> None:
        waiting, self.chores = self.chores, []
        if waiting:
            for segment, length in self.engine.log.unsynced():
                segment.file.sync()
                segment.synced = length
        for name, content in waiting:
            replace_whole(self.disk, name, content)

    def send(
        self, topic: str, *payloads: bytes, done: Callable[[Receipts], None] | None = None, **columns: Any
    ) -> list[Receipts]:
        answers: list[Receipts] = []
        self.engine.publish(Publication(topic, list(payloads), **columns), done or answers.append)
        return answers

    def publish(self, topic: str, *payloads: bytes, **columns: Any) -> Receipts:
        answers = self.send(topic, *payloads, **columns)
        self.commit()
        return answers[0]

    def subscribe(self, pattern: str, group: str | None = "g", start: Any = "earliest", **options: Any) -> Any:
        return self.engine.subscribe(SubscribeOptions(pattern, group, start, **options), Taker())

    def read(self, topic: str) -> dict[int, bytes]:
        """Every stored message of a topic, from the log."""
        found: dict[int, bytes] = {}
        offset = self.engine.topic_named[topic].first
        while (hit := self.engine.log.read(topic, offset)) is not None:
            section = hit[1]
            found.update(zip(section.offsets, section.payloads, strict=True))
            offset = section.offsets[-1] + 1
        return found

    def stop(self) -> None:
        """A clean stop."""
        self.engine.stop()
        self.commit()
        self.chores += self.engine.last_chores()
        self.do_chores()
        write_clean(self.disk, self.engine.log)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.engine.tick()


def payloads(runs: list[Deliveries]) -> list[bytes]:
    return [payload for run in runs for payload in run.payloads]


def offsets(runs: list[Deliveries]) -> list[int]:
    return [offset for run in runs for offset in run.offsets]


def ack(subscription: Any, runs: list[Deliveries]) -> None:
    for run in runs:
        subscription.ack(run.topic, run.offsets, run.token)
