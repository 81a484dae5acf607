"""Several workers change to a version together or not at all: the parent's decisions as a conversation, and the channel they go over."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.core.errors import ConfigError
from blocks.http.agreement import Agreement, Kind, Message, Phase
from blocks.http.channel import Channel
from blocks.http.council import Council
from blocks.http.delegate import Delegate


def told(agreement: Agreement) -> list[tuple[int, str]]:
    orders, agreement.orders = agreement.orders, []
    return [(worker, Kind(message.kind).name) for worker, message in orders]


def agreed(workers: int = 3) -> Agreement:
    agreement = Agreement(within=45, settle=30)
    for worker in range(workers):
        agreement.receive(worker, Message(Kind.HELLO, 0), 0.0)
    return agreement


def say(agreement: Agreement, worker: int, kind: Kind, data: bytes = b"", now: float = 1.0) -> None:
    agreement.receive(worker, Message(kind, agreement._last, data), now)


def test_one_reads_all_prepare_the_very_same_and_then_all_swap():
    agreement = agreed()
    agreement.receive(2, Message(Kind.WANT), 1.0)
    assert told(agreement) == [(0, "PROPOSE")]
    say(agreement, 0, Kind.READY, b"the file")
    assert [message.data for _, message in agreement.orders] == [b"the file", b"the file"]
    assert told(agreement) == [(1, "PREPARE"), (2, "PREPARE")]
    say(agreement, 2, Kind.READY)
    assert told(agreement) == []
    assert agreement.proposal is None
    say(agreement, 1, Kind.READY)
    assert told(agreement) == [(0, "COMMIT"), (1, "COMMIT"), (2, "COMMIT")]
    assert agreement.proposal == b"the file"
    for worker in range(3):
        say(agreement, worker, Kind.DONE)
    assert told(agreement) == [(2, "RESULT")]
    assert (agreement.phase, agreement.due) == (Phase.IDLE, None)


def test_one_that_refuses_refuses_for_all_and_whoever_asked_hears_why():
    agreement = agreed()
    agreement.receive(0, Message(Kind.WANT), 1.0)
    say(agreement, 0, Kind.READY, b"the file")
    say(agreement, 1, Kind.READY)
    told(agreement)
    say(agreement, 2, Kind.REFUSED, b"no")
    assert {message.data for _, message in agreement.orders} == {b"no"}
    assert told(agreement) == [(0, "ABANDON"), (1, "ABANDON"), (0, "RESULT")]
    assert (agreement.number, agreement.proposal, agreement.phase) == (0, None, Phase.IDLE)
    say(agreement, 1, Kind.READY)  # too late: nothing
    assert told(agreement) == []


def test_a_worker_that_dies_while_it_prepares_refuses_and_one_that_dies_after_it_does_not():
    agreement = agreed(2)
    agreement.want(None, 1.0)
    say(agreement, 0, Kind.READY, b"x")
    told(agreement)
    agreement.left(1, 2.0)
    assert "worker 1 died" in agreement.orders[0][1].text
    assert told(agreement) == [(0, "ABANDON")]
    agreement.joined(1, 0, 3.0)
    agreement.want(None, 4.0)
    say(agreement, 0, Kind.READY, b"y")
    agreement.left(0, 5.0)
    told(agreement)
    say(agreement, 1, Kind.READY)
    assert told(agreement) == [(1, "COMMIT")]
    agreement.left(1, 6.0)
    assert (agreement.phase, agreement.proposal) == (Phase.IDLE, b"y")  # who comes begins with it
    agreement.joined(0, 0, 7.0)
    assert agreement.stale == [0]
    agreement.joined(0, agreement.number, 8.0)
    assert agreement.stale == [0]


def test_who_joins_while_others_prepare_prepares_too():
    agreement = agreed(2)
    agreement.want(None, 1.0)
    say(agreement, 0, Kind.READY, b"x")
    told(agreement)
    agreement.joined(2, 0, 1.5)
    assert told(agreement) == [(2, "PREPARE")]
    say(agreement, 1, Kind.READY)
    assert told(agreement) == []
    say(agreement, 2, Kind.READY)
    assert len(told(agreement)) == 3


def test_time_that_is_up_refuses_before_the_swap_and_replaces_after_it():
    agreement = agreed(2)
    agreement.want(None, 0.0)
    say(agreement, 0, Kind.READY, b"x")
    told(agreement)
    assert agreement.due == 45.0
    agreement.tick(45.0)
    assert "worker 1 had not prepared" in agreement.orders[0][1].text
    assert told(agreement) == [(0, "ABANDON"), (1, "ABANDON")]
    agreement.want(None, 50.0)
    say(agreement, 0, Kind.READY, b"x", 50.0)
    say(agreement, 1, Kind.READY, b"", 50.0)
    say(agreement, 0, Kind.DONE, b"", 50.0)
    agreement.tick(80.0)
    assert (agreement.stale, agreement.phase, agreement.number) == ([1], Phase.IDLE, 2)


def test_what_is_wanted_during_a_change_comes_after_it_and_once():
    agreement = agreed(1)
    agreement.want(None, 0.0)
    for _ in range(3):
        agreement.receive(0, Message(Kind.WANT), 0.0)
    told(agreement)
    say(agreement, 0, Kind.READY, b"x")
    say(agreement, 0, Kind.DONE)
    assert told(agreement) == [(0, "COMMIT"), (0, "PROPOSE")]
    say(agreement, 0, Kind.REFUSED, b"no")
    assert told(agreement) == [(0, "RESULT")] * 3  # it has told itself why
    assert agreement.changes == 2


def test_with_nobody_to_ask_the_first_that_comes_is_asked():
    agreement = Agreement()
    agreement.want(None, 0.0)
    assert told(agreement) == []
    agreement.joined(1, 0, 1.0)
    assert told(agreement) == [(1, "PROPOSE")]


EVENTS = st.lists(st.tuples(st.sampled_from(["want", "ready", "refuse", "die", "start", "late"]), st.integers(0, 2)))


@settings(max_examples=300, deadline=None)
@given(EVENTS)
def test_whatever_happens_workers_have_the_version_in_force_or_are_replaced(events: list[tuple[str, int]]):
    """Workers as they behave: each does what it is told, or refuses, or dies, and begins again with what is in force."""
    agreement = Agreement(within=45, settle=30)
    has: dict[int, bytes | None] = {}
    holds: dict[int, bytes] = {}
    asked: list[int] = []
    now = 0.0
    count = 0

    def deliver(refuse: bool = False) -> None:
        nonlocal count
        orders, agreement.orders = agreement.orders, []
        for worker, message in orders:
            if worker not in has:
                continue
            if message.kind in (Kind.PROPOSE, Kind.PREPARE):
                count += 1
                holds[worker] = message.data or b"%d" % count
                kind = Kind.REFUSED if refuse else Kind.READY
                data = b"no" if refuse else holds[worker] if message.kind == Kind.PROPOSE else b""
                agreement.receive(worker, Message(kind, message.number, data), now)
            elif message.kind == Kind.COMMIT:
                has[worker] = holds[worker]
                agreement.receive(worker, Message(Kind.DONE, message.number), now)
            elif message.kind == Kind.RESULT:
                asked.remove(worker)
        for worker in agreement.stale:
            has.pop(worker, None)
            agreement.left(worker, now)
        agreement.stale.clear()

    def begin(worker: int) -> None:
        has[worker] = agreement.proposal
        agreement.joined(worker, agreement.number, now)

    for worker in range(3):
        begin(worker)
    for event, worker in events:
        now += 1.0
        if event == "want" and worker in has:
            asked.append(worker)
            agreement.receive(worker, Message(Kind.WANT), now)
        elif event in ("ready", "refuse"):
            deliver(event == "refuse")
        elif event == "die" and worker in has:
            del has[worker]
            asked[:] = [one for one in asked if one != worker]
            agreement.left(worker, now)
        elif event == "start" and worker not in has:
            begin(worker)
        elif event == "late":
            now += 100.0
            agreement.tick(now)
    for worker in range(3):
        if worker not in has:
            begin(worker)
    while agreement.orders or agreement.stale:
        deliver()
    assert agreement.phase is Phase.IDLE
    assert asked == []
    assert set(has.values()) <= {agreement.proposal}


class Run:
    """A worker's run that notes what it is told; ``wrong`` is what it has against the next version."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.wrong = ""
        self.held: asyncio.Event | None = None

    async def propose(self) -> bytes:
        await self.prepare(b"")
        return b"x" * 3_000_000  # more than a socket takes at once

    async def prepare(self, proposal: bytes) -> None:
        if self.held is not None:
            await self.held.wait()
        if self.wrong:
            raise ConfigError(self.wrong)
        self.notes.append(f"prepared {len(proposal)}")

    async def commit(self) -> dict[str, Any]:
        self.notes.append("committed")
        return {"status": "reloaded"}

    async def abandon(self, error: Exception) -> None:
        self.notes.append(f"abandoned: {error}")

    def reason(self, error: Exception) -> bytes:
        return str(error).encode()

    def error(self, reason: bytes) -> Exception:
        return ConfigError(reason.decode())


class Parent:
    """A council on a loop, as the supervisor drives it with select."""

    def __init__(self, council: Council) -> None:
        self._council = council

    async def drive(self) -> None:
        while True:
            await asyncio.sleep(0)
            self._council.turn([channel.end for channel in self._council.reading()], 0.0)


async def test_two_delegates_change_together_over_their_channels():
    council = Council()
    runs = [Run(), Run()]
    seats = [council.seat(number) for number in range(2)]
    driving = asyncio.create_task(Parent(council).drive())
    try:
        async with (
            Delegate(Channel(seats[0].end), runs[0], 0) as first,
            Delegate(Channel(seats[1].end), runs[1], 0) as second,
        ):
            assert await second.reload() == {"status": "reloaded"}
            assert runs[0].notes == ["prepared 0", "committed"]
            assert runs[1].notes == ["prepared 3000000", "committed"]
            runs[1].wrong = "not like this"
            for delegate in (first, second):
                with pytest.raises(ConfigError, match="not like this"):
                    await delegate.reload()
            while runs[0].notes.count("abandoned: not like this") != 2:
                await asyncio.sleep(0)
            assert runs[1].notes.count("committed") == 1
            runs[1].wrong = ""
            runs[1].held = asyncio.Event()  # it prepares for ever, and the other one dies
            waiting = asyncio.create_task(second.reload())
            while runs[0].notes[-1] != "prepared 0":
                await asyncio.sleep(0)
            while council._agreement.phase is not Phase.PREPARING:
                await asyncio.sleep(0)
            council._agreement.tick(1000.0)
            with pytest.raises(ConfigError, match="had not prepared"):
                await waiting
    finally:
        driving.cancel()
        await asyncio.wait([driving])
        council.close()


def test_a_channel_puts_messages_together_from_any_pieces():
    left, right = socket.socketpair()
    sender = Channel(left)
    reader = Channel(right)
    sent = [Message(Kind.PREPARE, 1, b"a" * 10), Message(Kind.ABANDON, 2, text="words")]
    for message in sent:
        sender.send(message)
    data = right.recv(1000)
    got: list[Message] = []
    for byte in data:
        left.send(bytes([byte]))
        got += reader.receive()
    assert got == sent
    sender.close()
    assert reader.receive() == []
    assert reader.closed
    reader.send(sent[0])
    assert not reader.waiting
    reader.close()
