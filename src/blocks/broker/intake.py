"""What publishers hand in: checked, counted against the limits, given offsets, and put into the draft of the next commit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .checks import Checks, Routed
from .draft import FULL, Draft
from .errors import Aborted, BadRequest, BrokerError, NotFound, Overloaded, QuotaExceeded, TooLarge
from .message import Publication, Receipts
from .producers import packed
from .topic import Topic
from .topics import check_topic

if TYPE_CHECKING:
    from .engine import Engine

Done = Callable[[Receipts], None]
_COLUMNS = ("keys", "headers", "ids", "expires", "dues", "reply_tos")


class Intake:
    """The publishing half of the engine."""

    def __init__(self, engine: Engine, checks: Checks) -> None:
        self._engine = engine
        self._checks = checks
        self._limits = engine.limits
        self._recent: deque[tuple[float, Topic, str]] = deque()  # ids in the order in which they came
        self.scheduled = 0
        self.published = 0
        self.duplicates = 0
        self.refused = 0

    # -- the frame -------------------------------------------------------------------------------------------------

    def publish(self, publication: Publication, done: Done) -> None:
        """See ``Engine.publish``."""
        engine = self._engine
        error = engine.refusal
        if error is None and engine.waiting_bytes > self._limits.waiting_bytes:
            error = Overloaded(f"{engine.waiting_bytes} bytes wait for the disk")
        if error is None and publication.producer is not None:
            known = engine.producers.check(publication.producer, publication.epoch, publication.sequence)
            if isinstance(known, BrokerError):
                error = known
            elif known is not None:
                self._again(publication, known, done)
                return
        if error is not None:
            self._refuse(publication, error, done)
            return
        try:
            receipts = self._take(publication)
        except BrokerError as refusal:  # of the frame as a whole: nothing of it was taken
            self._refuse(publication, refusal, done)
            return
        if publication.producer is not None:
            frame = [publication.producer, publication.epoch, publication.sequence, packed(receipts.offsets)]
            engine.producers.store(publication.producer, publication.epoch, publication.sequence, receipts.offsets)
            engine.draft.frames.append(frame)
        engine.reply(done, receipts)

    def _again(self, publication: Publication, offsets: Sequence[int], done: Done) -> None:
        self.duplicates += len(offsets)
        errors = {at: BadRequest("it was refused when it was first sent") for at, o in enumerate(offsets) if o < 0}
        duplicates = frozenset(range(len(offsets)))
        self._engine.reply(done, Receipts(publication, offsets, self._engine.durability, duplicates, errors))

    def _refuse(self, publication: Publication, error: BrokerError, done: Done) -> None:
        count = len(publication.payloads)
        self.refused += count
        errors = dict.fromkeys(range(count), error)
        done(Receipts(publication, [-1] * count, self._engine.durability, errors=errors))

    def _take(self, publication: Publication) -> Receipts:
        payloads = publication.payloads
        if not payloads:
            raise BadRequest("there is no message in it")
        if self._engine.draft.size >= FULL:  # here, and not on the way: what one frame brings goes into one batch
            self._engine.next_draft()
        if (size := sum(map(len, payloads))) > self._limits.frame_bytes:
            raise TooLarge(f"{size} bytes in one call, the limit is {self._limits.frame_bytes}: publish them in parts")
        if publication.dues is not None and self.scheduled + len(payloads) > self._limits.scheduled:
            raise QuotaExceeded(f"{self.scheduled} messages are scheduled, the limit is {self._limits.scheduled}")
        if publication.topics is None:
            topic = self.topic(publication.topic)
            if topic.plain and publication.ids is None and self._fits(publication):
                first = topic.next
                self.append(topic, payloads, size, self._columns(publication))
                return Receipts(publication, range(first, first + len(payloads)), self._engine.durability)
        return self._sort(publication)

    def _fits(self, publication: Publication) -> bool:
        """Whether no single message needs a closer look."""
        if max(map(len, publication.payloads)) > self._limits.message_bytes:
            return False
        if publication.keys is not None and max(len(k or b"") for k in publication.keys) > self._limits.key_bytes:
            return False
        if publication.headers is not None:
            return max(_header_bytes(h) for h in publication.headers) <= self._limits.header_bytes
        return True

    def _columns(self, publication: Publication) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {}
        if publication.keys is not None:
            columns["keys"] = publication.keys
        if publication.headers is not None:
            columns["headers"] = publication.headers
        if publication.ids is not None:
            columns["ids"] = publication.ids
        if publication.ttls is not None:
            now = self._engine.wall()
            columns["expires"] = [None if ttl is None else now + ttl for ttl in publication.ttls]
        if publication.dues is not None:
            columns["dues"] = publication.dues
        if publication.reply_tos is not None:
            columns["reply_tos"] = publication.reply_tos
        return columns

    # -- message by message ----------------------------------------------------------------------------------------

    def _sort(self, publication: Publication) -> Receipts:
        """Look at each message: refuse, find duplicates, route; then append by topic."""
        columns = self._columns(publication)
        count = len(publication.payloads)
        errors: dict[int, BrokerError] = {}
        routed: list[Routed | None] = []
        for at in range(count):
            try:
                routed.append(self._look(publication, columns, at))
            except BrokerError as error:
                errors[at] = error
                routed.append(None)
        self.refused += len(errors)
        offsets = [-1] * count
        if errors and publication.atomic:
            whole = {at: errors.get(at) or Aborted("another message of the batch was refused") for at in range(count)}
            return Receipts(publication, offsets, self._engine.durability, errors=whole)
        duplicates = self._append_routed(routed, columns, offsets)
        self.duplicates += len(duplicates)
        return Receipts(publication, offsets, self._engine.durability, frozenset(duplicates), errors)

    def _look(self, publication: Publication, columns: dict[str, list[Any]], at: int) -> Routed:
        name = publication.topic if publication.topics is None else publication.topics[at]
        topic = self.topic(name)
        payload = publication.payloads[at]
        limit = topic.options.max_message_bytes or self._limits.message_bytes
        if len(payload) > limit:
            raise TooLarge(f"the message has {len(payload)} bytes, {topic.name} takes {limit}")
        key = columns["keys"][at] if "keys" in columns else None
        if key is not None and len(key) > self._limits.key_bytes:
            raise TooLarge(f"the key has {len(key)} bytes, the limit is {self._limits.key_bytes}")
        headers = columns["headers"][at] if "headers" in columns else None
        if headers and (len(headers) > self._limits.headers or _header_bytes(headers) > self._limits.header_bytes):
            raise TooLarge(f"the headers are over {self._limits.headers} or {self._limits.header_bytes} bytes")
        if publication.ids is not None and len(publication.ids[at] or "") > self._limits.id_chars:
            raise TooLarge(f"the id is longer than {self._limits.id_chars} characters")
        if topic.plain:
            return Routed(topic, payload, headers, ())
        return self._checks.look(topic, payload, headers, self.topic)

    def _append_routed(
        self, routed: list[Routed | None], columns: dict[str, list[Any]], offsets: list[int]
    ) -> set[int]:
        """Give offsets; gives the indexes of those that were there already."""
        now = self._engine.wall()
        ids = columns.get("ids")
        duplicates: set[int] = set()
        lists: dict[Topic, tuple[list[int], list[bytes], list[Any]]] = {}
        for at, one in enumerate(routed):
            if one is None:
                continue
            mine = lists.get(one.topic) or lists.setdefault(one.topic, ([], [], []))
            id = ids[at] if ids is not None else None
            if id is not None:
                first = self._seen(one.topic, id, one.topic.next + len(mine[0]), now)
                if first is not None:
                    offsets[at] = first
                    duplicates.add(at)
                    continue
            for target in (one.topic, *one.targets):
                found = mine if target is one.topic else lists.get(target) or lists.setdefault(target, ([], [], []))
                if target is one.topic:
                    offsets[at] = target.next + len(found[0])
                found[0].append(at)
                found[1].append(one.payload)
                found[2].append(one.headers)
        for topic, (indexes, payloads, headers) in lists.items():
            if indexes:
                picked = {name: [column[i] for i in indexes] for name, column in columns.items() if name != "headers"}
                if any(headers):
                    picked["headers"] = headers
                self.append(topic, payloads, sum(map(len, payloads)), picked)
        return duplicates

    def _seen(self, topic: Topic, id: str, offset: int, now: float) -> int | None:
        """The offset at which ``id`` was published within the topic's window; else remember it at ``offset``."""
        ids = topic.ids
        if ids is None:
            ids = topic.ids = {}
        known = ids.get(id)
        if known is not None and now - known[1] <= topic.options.dedup_seconds:
            return known[0]
        self.remember(topic, id, offset, now)
        return None

    def remember(self, topic: Topic, id: str, offset: int, when: float) -> None:
        """Put ``id`` into the window; the oldest ids make room."""
        if topic.ids is None:
            topic.ids = {}
        topic.ids[id] = (offset, when)
        recent = self._recent
        recent.append((when, topic, id))
        while recent and (
            len(recent) > self._limits.dedup_ids or when - recent[0][0] > recent[0][1].options.dedup_seconds
        ):
            then, old, gone = recent.popleft()
            if old.ids is not None and (known := old.ids.get(gone)) is not None and known[1] <= then:
                del old.ids[gone]

    # -- storing ---------------------------------------------------------------------------------------------------

    def topic(self, name: str) -> Topic:
        """The topic of that name, made if there is none; raises ``BadTopic``, ``QuotaExceeded``."""
        topic = self._engine.topic_named.get(name)
        if topic is None:
            check_topic(name)
            if len(self._engine.topic_named) >= self._limits.topics:
                raise QuotaExceeded(f"there are {self._limits.topics} topics, which is the limit")
            topic = self._engine.make_topic(name)
        return topic

    def append(self, topic: Topic, payloads: list[bytes], size: int, columns: dict[str, list[Any]]) -> None:
        """Give the messages the next offsets of ``topic`` and put them into the draft."""
        engine = self._engine
        if topic.epoch != engine.patterns.epoch:
            engine.find_queues(topic)
        dues = columns.get("dues")
        if dues is not None:
            self._schedule(topic, dues)
        engine.draft.add(topic.name, topic.next, payloads, size, columns)
        topic.next += len(payloads)
        engine.waiting_bytes += size + 64
        self.published += len(payloads)

    def _schedule(self, topic: Topic, dues: list[float | None]) -> None:
        now = self._engine.wall()
        later = [(at, due) for at, due in enumerate(dues) if due is not None and due > now]
        if not later:
            return
        if topic.scheduled is None:
            topic.scheduled = {}
        for at, due in later:
            topic.scheduled[topic.next + at] = due
            self._engine.timers.schedule(due, topic, topic.next + at)
        self.scheduled += len(later)
        self._engine.arm()

    def undo(self, draft: Draft) -> None:
        """A draft could not be written: its messages were never there."""
        for section in draft.sections.values():
            topic = self._engine.topic_named.get(section.topic)
            if topic is None:
                continue
            topic.next = min(topic.next, section.offsets[0])
            for id in section.ids or ():
                if id is not None and topic.ids is not None and topic.ids.get(id, (-1, 0.0))[0] >= topic.next:
                    del topic.ids[id]
            for offset in section.offsets if topic.scheduled else ():
                if topic.scheduled is not None and topic.scheduled.pop(offset, None) is not None:
                    self.scheduled -= 1
            self.published -= len(section.offsets)
        for producer, _, sequence, _ in reversed(draft.frames):
            self._engine.producers.forget(producer, sequence)

    def require(self, name: str) -> Topic:
        """An existing topic; raises ``NotFound``."""
        topic = self._engine.topic_named.get(name)
        if topic is None:
            raise NotFound(f"there is no topic {name!r}")
        return topic


def _header_bytes(headers: Any) -> int:
    return sum(map(len, headers.values())) + sum(map(len, headers)) if headers else 0
