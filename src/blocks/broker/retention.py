"""What is not kept any longer goes: by age, bytes or count of a topic, and all but the last value of a key.

Trimming moves a topic's first offset, which costs one record in the log. The room on disk comes back when the cleaner
rewrites or removes segments of which enough is gone.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from .aside import Aside
from .errors import BrokerError
from .log.batch import BadBatch
from .log.cleaner import Keep, Rewritten, drop_markers, last_values, remove, rewrite
from .log.commit import Segment
from .log.disk import Disk, MemoryDisk
from .log.recovery import our_files
from .message import TopicOptions

if TYPE_CHECKING:
    from .engine import Engine
    from .topic import Topic

INTERVAL = (
    5.0  # seconds between looks (Kafka's log.retention.check.interval.ms is 5 min; a look here costs microseconds)
)
DIRTY = 0.5  # a segment is rewritten when this part of it is gone (Kafka's min.cleanable.dirty.ratio)
_SPANS = 100_000  # topics' parts of segments that one look weighs: 10 ms
_STEPS = 1000  # batches that one look at one topic reads


class Retention:
    """Trims topics and cleans segments of one broker, every ``INTERVAL`` seconds or when told."""

    def __init__(self, engine: Engine, disk: Disk, random: Random) -> None:
        self._engine = engine
        self._disk = disk
        self._random = random
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[int] | None = None
        self._compacted = 0  # the newest segment that compaction has seen
        self._looked = 0  # the newest segment that this round of looks has seen
        self._whole = True  # whether this round is in one look
        self._settled: tuple[int, int] | None = None  # removals and newest segment when a round found nothing to do

    def start(self) -> None:
        """Look every ``INTERVAL`` seconds from now on."""
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._look)

    async def stop(self) -> None:
        """End; a segment that is being rewritten is finished first."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _look(self) -> None:
        if self._task is None or self._task.done():
            self.trim()
            state = (self._engine.removals, max(self._engine.log.segments, default=0))
            if state != self._settled:  # else nothing went and nothing was sealed since a look found no work
                found, whole = self.candidates(_SPANS)
                if found:
                    self._task = asyncio.get_running_loop().create_task(self._clean(found))
                elif whole:
                    self._settled = state
        self.start()

    # -- trimming --------------------------------------------------------------------------------------------------

    def trim(self) -> int:
        """Move the first offset of each topic that holds more than its options allow; gives how many messages went."""
        gone = 0
        default = self._engine.topic_options
        skip = default if not _limits(default) else None
        for topic in list(self._engine.topic_named.values()):
            if topic.options is skip or not _limits(topic.options):
                continue
            before = topic.first
            try:
                self._trim(topic)
            except (BrokerError, OSError) as error:
                self._engine.note_problem(f"retention of {topic.name}: {error}")
            gone += topic.first - before
        return gone

    def _trim(self, topic: Topic) -> None:
        options = topic.options
        limit = topic.committed - (1 if options.keep_last else 0)
        if topic.scheduled:
            limit = min(limit, min(topic.scheduled))
        first, freed = topic.first, 0
        if options.retain_messages is not None and topic.committed - first > options.retain_messages:
            total = topic.committed - first
            first = min(limit, topic.committed - options.retain_messages)
            freed = topic.size * (first - topic.first) // total
        oldest = self._engine.wall() - options.retain_seconds if options.retain_seconds is not None else None
        for _ in range(_STEPS):
            found = self._engine.log.read(topic.name, first) if first < limit else None
            if found is None:
                break
            batch, section = found
            was = first
            for at, offset in enumerate(section.offsets):
                if offset < first:
                    continue
                time = batch.time if section.times is None else section.times[at]
                too_old = oldest is not None and time < oldest
                too_big = options.retain_bytes is not None and topic.size - freed > options.retain_bytes
                if offset >= limit or not (too_old or too_big):
                    break
                first = offset + 1
                freed += len(section.payloads[at])
            if first == was or first <= section.offsets[-1]:
                break
        if first > topic.first:
            self._engine.trim(topic, first, freed)

    # -- cleaning --------------------------------------------------------------------------------------------------

    def candidates(self, spans: float = math.inf) -> tuple[list[Segment], bool]:
        """Sealed segments of which enough is gone, or that compaction has not seen; and whether all were looked at.

        A look ends after about ``spans`` topics' parts of segments, and the next one goes on behind it.
        """
        engine = self._engine
        compacted = {name for name, topic in engine.topic_named.items() if topic.options.compact}
        found: list[Segment] = []
        for number, segment in engine.log.segments.items():
            if segment is engine.log.active or number <= self._looked:
                continue
            if spans <= 0:
                self._whole = False
                return found, False
            spans -= len(segment.index.spans)
            self._looked = number
            fresh = number > self._compacted and not compacted.isdisjoint(segment.index.spans)
            if fresh or self.live(segment) <= (1 - DIRTY):
                found.append(segment)
        whole = self._whole
        self._looked, self._whole = 0, True
        return found, whole

    def live(self, segment: Segment) -> float:
        """Which part of the segment's payload bytes is still kept, roughly."""
        total = kept = 0.0
        for name, span in segment.index.spans.items():
            total += span.size + span.count
            topic = self._engine.topic_named.get(name)
            if topic is not None and topic.first < span.end:
                part = 1.0 if topic.first <= span.first else (span.end - topic.first) / (span.end - span.first)
                kept += (span.size + span.count) * part
        return kept / total if total else 0.0

    async def clean(self) -> int:
        """Rewrite or remove what ``candidates`` names and a kept snapshot covers; gives how many messages went."""
        self._looked = 0
        return await self._clean(self.candidates()[0])

    async def _clean(self, candidates: list[Segment]) -> int:
        engine, disk = self._engine, self._disk
        covered = self._covered()
        ready = [segment for segment in candidates if segment.index.end - 1 <= covered]
        if len(ready) < len(candidates):
            engine.want_snapshot()
        if not ready:
            return 0
        topics = engine.topic_named
        firsts = {name: topic.first for name, topic in topics.items()}
        compacted = {name for name, topic in topics.items() if topic.options.compact}
        known = [(s.header, s.length) for s in engine.log.segments.values()] if compacted else []
        newest = max(segment.header.id for segment in ready)
        now, gone = engine.wall(), 0
        try:
            latest = await self._off_loop(lambda: last_values(disk, known, compacted))
        except (BadBatch, OSError) as error:
            engine.note_problem(f"compaction could not read the log: {error}")
            return 0
        keep = Keep(firsts, latest, now)
        for segment in ready:
            engine.log.hold(segment)
            try:
                new: Rewritten = await self._off_loop(
                    lambda s=segment: rewrite(disk, s.header, s.index.end, keep, self._random)  # type: ignore[misc]
                )
            except (BadBatch, OSError) as error:
                engine.note_problem(f"{segment.header.name} was not cleaned: {error}")
                continue
            if not new.changed:
                continue
            gone += new.gone
            engine.log.replace(segment, new.segment)
            if new.segment is None:
                number = engine.log.next_number + len(engine.committing) + 1  # no later snapshot knows the segment
                try:
                    await self._off_loop(lambda s=segment, n=number: remove(disk, s.header, n))  # type: ignore[misc]
                except OSError as error:
                    engine.note_problem(f"{segment.header.name} was not removed: {error}")
        self._compacted = max(self._compacted, newest)
        drop_markers(disk, covered)
        return gone

    def _covered(self) -> int:
        """The last batch that the oldest kept snapshot covers."""
        numbers = [int(name.partition(".")[0]) for name in our_files(self._disk, ".snapshot")]
        return min(numbers, default=0)

    async def _off_loop(self, work: Callable[[], Any]) -> Any:
        """Run ``work`` in a thread of its own (it reads and writes whole segments); in memory, at once."""
        if isinstance(self._disk, MemoryDisk):
            return work()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def run() -> None:
            try:
                result, error = work(), None
            except Exception as failure:
                result, error = None, failure
            loop.call_soon_threadsafe(_settle, future, result, error)

        thread = threading.Thread(target=run, name="blocks-broker-clean", daemon=True)
        aside = Aside(loop)
        aside.begin()
        thread.start()
        try:
            return await asyncio.shield(future)
        finally:
            thread.join()
            aside.end()


def _limits(options: TopicOptions) -> bool:
    return bool(options.retain_messages or options.retain_bytes or options.retain_seconds)


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
