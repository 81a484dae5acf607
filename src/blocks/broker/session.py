"""A session is one client's half of the protocol at the broker: frames come in, the engine is called, frames go out.

No socket and no loop: bytes leave through an ``Outlet``, which also calls ``flush`` once for all that a tick brought. One
``Receipts`` frame answers all publishes of a commit; deliveries are taken only while the outlet is not full, so that a
slow consumer holds its own messages and nobody else's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from blocks.core.clock import Clock

from . import wire
from .admission import join, refusal, refusals, without
from .asks import answer
from .columns import entry_of, halves, portions, publication_of, run_of, said
from .errors import BadRequest, BrokerError, Closed, Denied, QuotaExceeded
from .feed import Feed, frames_of, options_of, settle
from .frames import (
    ACK,
    Answer,
    Ask,
    Closing,
    Credit,
    Deliver,
    Ended,
    Frame,
    Hello,
    Ping,
    Pong,
    Publish,
    Receipts,
    Refused,
    Settle,
    Settled,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Welcome,
)
from .inboxes import Inboxes, is_inbox
from .message import Deliveries, SubscribeOptions
from .message import Receipts as Outcome
from .security import Anyone, Guard, Identity

if TYPE_CHECKING:
    from .engine import Engine
    from .group import Subscription

SUBSCRIPTIONS = 1_000  # of one connection
UNANSWERED_FRAMES = 1_024  # publishes of one connection that wait for the disk; then it is not read
UNANSWERED_BYTES = 16 * 1024 * 1024
PASS_BYTES = 1024 * 1024  # delivered in one go before others have their turn
MAX_RANGE = 65_536  # offsets in one range of a settlement: no run is longer


class Outlet(Protocol):
    """Where a session's bytes go."""

    full: bool

    def write(self, data: bytes) -> None:
        """Send ``data``."""
        ...

    def wake(self) -> None:
        """Call the session's ``flush`` soon, once."""
        ...

    def hold(self, held: bool) -> None:
        """Stop reading from the peer, or go on."""
        ...

    def hold_for(self, seconds: float) -> None:
        """Stop reading from the peer for so long."""
        ...

    def finish(self) -> None:
        """Send what was written, then close."""
        ...

    def login(self, options: dict[str, Any], done: Callable[[Identity | BrokerError], None]) -> None:
        """Check a password away from the loop and say who it is."""
        ...


class Session:
    """Serves one client; ``receive`` takes its frames, ``flush`` sends what has gathered, ``lost`` ends it."""

    __slots__ = (
        "_clock",
        "_encoder",
        "_engine",
        "_entries",
        "_feeds",
        "_guard",
        "_inbox",
        "_inboxes",
        "_limits",
        "_outlet",
        "_ready",
        "_unanswered",
        "_unanswered_bytes",
        "_waiting",
        "closed",
        "draining",
        "identity",
        "name",
    )

    def __init__(
        self,
        engine: Engine,
        outlet: Outlet,
        encoder: wire.Encoder,
        inboxes: Inboxes,
        clock: Clock,
        guard: Guard | None = None,
        limits: dict[str, Any] | None = None,
    ) -> None:
        self._engine = engine
        self._outlet = outlet
        self._encoder = encoder
        self._inboxes = inboxes
        self._clock = clock
        self._guard = guard
        self._limits = limits or {}
        self.identity: Identity | None = None
        self.name = ""
        self.closed = False
        self.draining = False
        self._feeds: dict[int, Feed] = {}
        self._ready: deque[Feed] = deque()
        self._entries: list[list[Any]] = []
        self._inbox: str | None = None
        self._unanswered = 0
        self._unanswered_bytes = 0
        self._waiting: list[Frame] | None = None  # frames that came before the password was checked

    @property
    def feeds(self) -> int:
        """Open subscriptions."""
        return len(self._feeds)

    @property
    def busy(self) -> bool:
        """Whether a publish is unanswered or a delivered message unsettled."""
        return bool(self._unanswered or self._entries) or any(
            feed.source is not None and feed.source.in_flight for feed in self._feeds.values()
        )

    def receive(self, frame: Frame) -> None:
        """Act on a frame of the client. Raises ``ProtocolError`` if it may not come now; then the connection must end."""
        if self.closed:
            return
        if self.identity is None:
            self._receive_stranger(frame)
            return
        act = _ACTS.get(type(frame))
        if act is None:
            raise wire.ProtocolError(f"a client does not send {type(frame).__name__} frames")
        act(self, frame)

    def _receive_stranger(self, frame: Frame) -> None:
        if self._waiting is not None:
            if len(self._waiting) >= 16:
                raise wire.ProtocolError("too much was sent before the login was answered")
            self._waiting.append(frame)
            return
        if type(frame) is not Hello:
            raise wire.ProtocolError("the first frame must be a Hello")
        if frame.version < 1:
            raise wire.ProtocolError(f"version {frame.version} of the protocol is not known here")
        self.name = str(frame.options.get("name", ""))[:64]
        if self._guard is None:
            self._admit(Anyone())
            return
        try:
            identity = self._guard.quick(frame.options)
        except Denied as error:
            self._admit(error)
            return
        if identity is not None:
            self._admit(identity)
        else:
            self._waiting = []
            self._outlet.login(frame.options, self._admit)

    def _admit(self, outcome: Identity | BrokerError) -> None:
        if self.closed:
            return
        if isinstance(outcome, BrokerError):
            self.close(outcome.code, str(outcome))
            return
        self.identity = outcome
        self._write(Welcome(wire.VERSION, {**self._limits, "user": outcome.name}))
        waiting, self._waiting = self._waiting or [], None
        for frame in waiting:
            self.receive(frame)

    # publishing

    def _publish(self, frame: Publish) -> None:
        identity = self.identity
        assert identity is not None
        if self.draining:
            self._answer(refusal(frame, Closed("the broker is stopping and takes nothing new")))
            return
        refused = refusals(frame, identity)
        kept: list[int] | None = None
        if refused:
            if len(refused) == len(frame.payloads):
                self._answer(join([frame.number, [], [], []], [], refused))
                return
            frame, kept = without(frame, refused)
        now = self._clock.wall()
        publication = publication_of(frame, now)
        if is_inbox(publication.topic):
            self._answer(entry_of(frame.number, self._inboxes.route(publication, now)))
            return
        number, size = frame.number, sum(map(len, frame.payloads))
        self._unanswered += 1
        self._unanswered_bytes += size

        def done(outcome: Outcome) -> None:
            self._unanswered -= 1
            self._unanswered_bytes -= size
            if not self.closed:
                entry = entry_of(number, outcome)
                self._answer(entry if kept is None else join(entry, kept, refused))
                self._go_on_reading()

        self._engine.publish(publication, done)
        self._hold_back(identity, len(frame.payloads), size)

    def _hold_back(self, identity: Identity, messages: int, size: int) -> None:
        """Read no more for now from a client that is over its rate, or has too much before the disk."""
        throttle = identity.throttle
        if throttle is not None:
            wait = throttle.spend(messages, size, self._clock.monotonic())
            if wait > 0:
                self._outlet.hold_for(wait)
        if (
            self._unanswered >= UNANSWERED_FRAMES
            or self._unanswered_bytes >= UNANSWERED_BYTES
            or (self._unanswered and self._engine.waiting_bytes >= UNANSWERED_BYTES)
        ):
            self._outlet.hold(True)

    def _go_on_reading(self) -> None:
        if self._unanswered < UNANSWERED_FRAMES // 2 and self._unanswered_bytes < UNANSWERED_BYTES // 2:
            self._outlet.hold(False)

    def _answer(self, entry: list[Any]) -> None:
        if not self._entries:
            self._outlet.wake()
        self._entries.append(entry)

    # subscribing

    def _subscribe(self, frame: Subscribe) -> None:
        try:
            options = self._subscribe_options(frame)
            feed = Feed(self, frame.number, options)
            self._feeds[frame.number] = feed
            try:
                feed.source = self._engine.subscribe(options, feed)
            except BaseException:
                del self._feeds[frame.number]
                raise
        except BrokerError as error:
            self._write(Refused(frame.number, error.code, said(error)))
            return
        self._write(Subscribed(frame.number, {"time": self._clock.wall()}))
        self.has_ready(feed)

    def _subscribe_options(self, frame: Subscribe) -> SubscribeOptions:
        identity = self.identity
        assert identity is not None
        if self.draining:
            raise Closed("the broker is stopping and takes nothing new")
        if frame.number in self._feeds:
            raise BadRequest(f"the subscription {frame.number} is open already")
        if len(self._feeds) >= SUBSCRIPTIONS:
            raise QuotaExceeded(f"a connection has at most {SUBSCRIPTIONS} subscriptions")
        options = options_of(frame)
        identity.require("subscribe", options.pattern)
        if options.group is not None:
            identity.require_group(options.group)
        if options.dead_letter is not None:
            identity.require("publish", options.dead_letter)
        return options

    def _unsubscribe(self, frame: Unsubscribe) -> None:
        feed = self._feeds.pop(frame.number, None)
        if feed is not None and feed.source is not None:
            source, feed.source = feed.source, None
            source.close()
        self._write(Ended(frame.number, "", ""))

    def has_ready(self, feed: Feed) -> None:
        """``feed`` has something to take: it has its turn at the next flush."""
        if self.draining or feed.queued:
            return
        feed.queued = True
        self._ready.append(feed)
        self._outlet.wake()

    def has_ended(self, feed: Feed, error: BrokerError) -> None:
        """The engine ended ``feed``: the client is told, so that it is never silently dead."""
        feed.source = None
        if self._feeds.pop(feed.number, None) is not None and not self.closed:
            self._write(Ended(feed.number, error.code, said(error)))

    # settling

    def _settle(self, frame: Settle) -> None:
        feed = self._feeds.get(frame.number)
        source = feed.source if feed is not None else None
        spans = [
            (topic, range(ranges[i], ranges[i + 1] + 1), token)
            for topic, token, ranges in frame.runs
            for i in range(0, len(ranges), 2)
        ]
        if any(len(span) > MAX_RANGE for _, span, _ in spans):
            raise wire.ProtocolError(f"a settlement has a range of more than {MAX_RANGE} messages")
        if source is None:
            if frame.answer:
                self._write(Settled(frame.answer, sum(len(span) for _, span, _ in spans)))
        elif frame.verb == ACK:
            self._ack(source, spans, frame.answer)
        else:
            stale = settle(source, frame.verb, spans, frame.argument)
            if frame.answer:
                self._write(Settled(frame.answer, stale))

    def _ack(self, source: Subscription, spans: list[tuple[str, range, int]], answer: int) -> None:
        if not answer:
            for topic, span, token in spans:
                source.ack(topic, span, token)
            return
        left, stale = len(spans), 0

        def done(count: int) -> None:
            nonlocal left, stale
            left -= 1
            stale += count
            if left <= 0 and not self.closed:
                self._write(Settled(answer, stale))

        if not spans:
            done(0)
        for topic, span, token in spans:
            source.ack(topic, span, token, done)

    def _credit(self, frame: Credit) -> None:
        feed = self._feeds.get(frame.number)
        if feed is not None and feed.credit is not None:
            feed.credit = min(feed.credit + frame.messages, wire.MAX_COUNT)
            feed.room = min(feed.room + frame.size, wire.MAX_FRAME)
            if feed.source is not None:
                feed.source.resume()
            self.has_ready(feed)

    # the rest

    def _ask(self, frame: Ask) -> None:
        identity = self.identity
        assert identity is not None
        if frame.verb == "inbox":
            self._open_inbox(frame)
            return

        def done(outcome: Any) -> None:
            if self.closed:
                return
            if isinstance(outcome, BrokerError):
                self._write(Refused(frame.number, outcome.code, said(outcome)))
            else:
                self._write(Answer(frame.number, outcome))

        answer(self._engine, identity, frame.verb, frame.arguments, done)

    def _open_inbox(self, frame: Ask) -> None:
        name = str(frame.arguments.get("name", ""))
        try:
            self._inboxes.open(name, self._receive_inbox)
        except BrokerError as error:
            self._write(Refused(frame.number, error.code, said(error)))
            return
        if self._inbox is not None and self._inbox != name:
            self._inboxes.close(self._inbox, self._receive_inbox)
        self._inbox = name
        self._write(Answer(frame.number, name))

    def _receive_inbox(self, deliveries: Deliveries) -> None:
        if (
            not self.closed and not self._outlet.full
        ):  # an answer to one who does not read is dropped: its asker times out
            self._write(Deliver(0, [run_of(deliveries)]))

    def _ping(self, frame: Ping) -> None:
        self._write(Pong(frame.token))

    def _pong(self, frame: Pong) -> None:
        """The peer is alive; that it sent something was noted already."""

    def _leave(self, frame: Closing) -> None:
        self._end()
        self._outlet.finish()

    def flush(self) -> None:
        """Send the receipts that have gathered, then messages, as far as the outlet takes them."""
        if self.closed:
            return
        if self._entries:
            entries, self._entries = self._entries, []
            for part in portions(entries):
                self._write(Receipts(self._limits.get("durability", ""), part))
        self._deliver()

    def _deliver(self) -> None:
        room = PASS_BYTES
        ready = self._ready
        while ready and not self._outlet.full and not self.closed:
            feed = ready[0]
            runs = feed.take()
            if not runs:
                feed.queued = False
                ready.popleft()
                continue
            for part in frames_of(runs):
                room -= self._send_runs(feed.number, part)
            if len(ready) > 1:
                ready.rotate(-1)
            if room <= 0:
                self._outlet.wake()
                return

    def _send_runs(self, number: int, runs: list[list[Any]]) -> int:
        """Send the runs in one frame, or in more if one would be too long (its headers may be larger than its payloads)."""
        data = self._encoder.encode(Deliver(number, runs))
        if len(data) > wire.MAX_FRAME:
            return sum(self._send_runs(number, part) for part in halves(runs))
        self._outlet.write(data)
        return len(data)

    def pause(self) -> None:
        """The outlet is full: let the groups' other members have what comes."""
        for feed in self._feeds.values():
            if feed.source is not None:
                feed.source.pause()

    def resume(self) -> None:
        """The outlet has room again."""
        for feed in self._feeds.values():
            if feed.source is not None and (feed.credit is None or feed.credit > 0):
                feed.source.resume()
        self._outlet.wake()

    def drain(self) -> None:
        """Take nothing new and deliver nothing more; ``busy`` says when what is under way is done."""
        self.draining = True
        self._ready.clear()
        if self.identity is not None:
            self._write(Closing("draining", "the broker is stopping"))

    def close(self, code: str, message: str) -> None:
        """Say why, and end the connection."""
        if self.closed:
            return
        self._write(Closing(code, message))
        self._end()
        self._outlet.finish()

    def lost(self) -> None:
        """The connection is gone: what was not settled goes to others at once."""
        self._end()

    def _end(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._ready.clear()
        feeds, self._feeds = self._feeds, {}
        for feed in feeds.values():
            source, feed.source = feed.source, None
            if source is not None:
                source.close()
        if self._inbox is not None:
            self._inboxes.close(self._inbox, self._receive_inbox)
            self._inbox = None

    def _write(self, frame: Frame) -> None:
        self._outlet.write(self._encoder.encode(frame))


_ACTS: dict[type[Any], Callable[[Session, Any], None]] = {
    Publish: Session._publish,
    Subscribe: Session._subscribe,
    Settle: Session._settle,
    Credit: Session._credit,
    Unsubscribe: Session._unsubscribe,
    Ask: Session._ask,
    Ping: Session._ping,
    Pong: Session._pong,
    Closing: Session._leave,
}
