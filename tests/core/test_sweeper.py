"""One timer for all deadlines: late by an interval at most, never early, none when nothing is watched."""

from __future__ import annotations

import asyncio
from math import inf

from blocks.core.sweeper import INTERVAL, Sweeper, sweeper
from integration.wire import jump, jumping


class Member:
    def __init__(self, deadline: float = inf) -> None:
        self.deadline = deadline
        self.expired: list[float] = []

    def expire(self, now: float) -> None:
        self.expired.append(now)
        self.deadline = inf


def timers() -> int:
    return len([handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()])  # type: ignore[attr-defined]


@jumping
async def test_a_deadline_is_met_late_by_at_most_an_interval_and_never_early():
    loop = asyncio.get_running_loop()
    watched = Sweeper(loop)
    member = Member(loop.time() + 10)
    watched.add(member)
    await jump(9)
    assert member.expired == []
    due = member.deadline
    await jump(0.8)
    assert len(member.expired) == 1
    assert member.expired[0] >= due
    await jump(100)
    assert len(member.expired) == 1
    watched.discard(member)


@jumping
async def test_no_timer_runs_when_nothing_is_watched():
    watched = Sweeper(asyncio.get_running_loop())
    assert timers() == 0
    members = [Member() for _ in range(100)]
    for member in members:
        watched.add(member)
    assert timers() == 1
    await jump(1)
    assert (timers(), len(watched)) == (1, 100)
    for member in members:
        watched.discard(member)
    watched.discard(members[0])
    assert (timers(), len(watched)) == (0, 0)


@jumping
async def test_a_member_that_fails_harms_no_other():
    reported: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))

    class Broken(Member):
        def expire(self, now: float) -> None:
            super().expire(now)
            raise KeyError("x")

    watched = Sweeper(loop)
    broken, well = Broken(loop.time()), Member(loop.time())
    watched.add(broken)
    watched.add(well)
    await jump(INTERVAL)
    assert len(broken.expired) == len(well.expired) == len(reported) == 1
    watched.discard(broken)
    watched.discard(well)


@jumping
async def test_members_may_come_and_go_while_it_sweeps():
    loop = asyncio.get_running_loop()
    watched = Sweeper(loop)
    late = Member(loop.time() + 1)

    class Leaves(Member):
        def expire(self, now: float) -> None:
            super().expire(now)
            watched.discard(self)
            watched.add(late)

    first = Leaves(loop.time())
    watched.add(first)
    await jump(INTERVAL)
    assert (len(first.expired), len(watched)) == (1, 1)
    await jump(2)
    assert len(late.expired) == 1
    watched.discard(late)
    assert timers() == 0


@jumping
async def test_each_loop_has_one():
    assert sweeper() is sweeper(asyncio.get_running_loop())
