"""The session by itself: no socket, an outlet that keeps what it was given, over a broker in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from blocks.broker import Broker
from blocks.broker.errors import Denied
from blocks.broker.frames import (
    Answer,
    Ask,
    Closing,
    Credit,
    Deliver,
    Frame,
    Hello,
    Publish,
    Receipts,
    Subscribe,
    Subscribed,
    Welcome,
)
from blocks.broker.security import EVERYTHING, Guard, Identity
from blocks.broker.session import UNANSWERED_FRAMES, Session
from blocks.broker.wire import Encoder, Framer, ProtocolError, decode


class Kept:
    """An outlet: what the session writes, and what it asks for."""

    def __init__(self) -> None:
        self.framer = Framer()
        self.frames: list[Frame] = []
        self.full = False
        self.held: list[bool] = []
        self.finished = False
        self.logins: list[Any] = []
        self.session: Session

    def write(self, data: bytes) -> None:
        self.frames += [decode(body) for body in self.framer.receive(data)]

    def wake(self) -> None:
        asyncio.get_running_loop().call_soon(self.session.flush)

    def hold(self, held: bool) -> None:
        self.held.append(held)

    def hold_for(self, seconds: float) -> None:
        self.held.append(True)

    def finish(self) -> None:
        self.finished = True

    def login(self, options: dict[str, Any], done: Any) -> None:
        self.logins.append((options, done))

    async def settle(self) -> list[Frame]:
        """What was written, once all ticks that it takes are over."""
        for _ in range(20):
            await asyncio.sleep(0)
        frames, self.frames = self.frames, []
        return frames


@pytest.fixture
async def broker() -> AsyncIterator[Any]:
    async with Broker(":memory:") as broker:
        yield broker


def opened(broker: Any, guard: Guard | None = None) -> tuple[Session, Kept]:
    kept = Kept()
    session = Session(broker.engine, kept, Encoder(), broker.inboxes, broker.clock, guard, {"durability": "memory"})
    kept.session = session
    session.receive(Hello(1, {"name": "test", "user": "alice", "password": "x"}))
    return session, kept


async def test_one_frame_answers_all_publishes_of_a_commit(broker: Any) -> None:
    session, kept = opened(broker)
    assert [type(frame) for frame in await kept.settle()] == [Welcome]
    for number in range(1, 6):
        session.receive(Publish(number, "t", [b"x"], {}, False))
    (receipts,) = await kept.settle()
    assert receipts == Receipts("memory", [[number, number - 1, [], []] for number in range(1, 6)])


async def test_a_full_outlet_is_given_nothing_until_it_has_room(broker: Any) -> None:
    await broker.publish_many("t", [b"x"] * 10)
    session, kept = opened(broker)
    kept.full = True
    session.pause()
    session.receive(Subscribe(1, "t", {"group": "g", "start": "earliest"}))
    assert not any(type(frame) is Deliver for frame in await kept.settle())
    kept.full = False
    session.resume()
    (deliver,) = await kept.settle()
    assert type(deliver) is Deliver
    assert len(deliver.runs[0][3]) == 10


async def test_a_browser_gets_as_much_as_it_has_credit_for(broker: Any) -> None:
    await broker.publish_many("t", [b"x"] * 30)
    session, kept = opened(broker)
    session.receive(Subscribe(1, "t", {"mode": "browse", "start": "earliest", "prefetch": 10}))

    async def got() -> int:
        return sum(len(run[3]) for frame in await kept.settle() if type(frame) is Deliver for run in frame.runs)

    assert await got() == 10
    session.receive(Credit(1, 4, 100))
    assert await got() == 4
    session.receive(Credit(1, 100, 10_000))
    assert await got() == 16


async def test_a_client_with_too_much_before_the_disk_is_not_read(broker: Any) -> None:
    session, kept = opened(broker)
    for number in range(UNANSWERED_FRAMES):
        session.receive(Publish(number, "t", [b"x"], {}, False))
    assert kept.held == [True]
    await kept.settle()
    assert kept.held[-1] is False


async def test_what_comes_before_the_password_is_checked_waits(broker: Any) -> None:
    guard = Guard()
    session, kept = opened(broker, guard)
    session.receive(Ask(1, "topics", {}))
    assert await kept.settle() == []
    ((options, done),) = kept.logins
    assert options["user"] == "alice"
    done(Identity("alice", EVERYTHING))
    assert [type(frame) for frame in await kept.settle()] == [Welcome, Answer]
    session, kept = opened(broker, guard)
    kept.logins[0][1](Denied("no"))
    assert await kept.settle() == [Closing("denied", "no")]
    assert kept.finished
    session, kept = opened(broker, guard)
    for number in range(16):
        session.receive(Ask(number, "topics", {}))
    with pytest.raises(ProtocolError, match="too much"):
        session.receive(Ask(99, "topics", {}))


async def test_a_lost_session_gives_its_messages_to_others_at_once(broker: Any) -> None:
    await broker.publish("t", b"x")
    first, kept = opened(broker)
    first.receive(Subscribe(1, "t", {"group": "g", "start": "earliest"}))
    await kept.settle()
    assert first.busy
    second, other = opened(broker)
    second.receive(Subscribe(1, "t", {"group": "g"}))
    assert [type(frame) for frame in await other.settle()] == [Welcome, Subscribed]
    first.lost()
    (deliver,) = await other.settle()
    assert type(deliver) is Deliver
    assert deliver.runs[0][4]["attempt"] == [2]
    second.lost()
    assert broker.engine.groups()[0]["members"] == 0


async def test_a_frame_that_only_a_broker_sends_ends_the_session(broker: Any) -> None:
    session, _ = opened(broker)
    with pytest.raises(ProtocolError, match="does not send"):
        session.receive(Receipts("memory", []))


async def test_draining_refuses_what_is_new_and_keeps_it_for_the_next_broker(broker: Any) -> None:
    session, kept = opened(broker)
    await kept.settle()
    session.drain()
    session.receive(Publish(1, "t", [b"x"], {}, False))
    closing, receipts = await kept.settle()
    assert type(closing) is Closing
    assert type(receipts) is Receipts
    assert receipts.entries[0][3][0][1] == "closed"
    assert not session.busy
