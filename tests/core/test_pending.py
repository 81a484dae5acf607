"""Coroutines driven without a task: outcomes, cancellation, the move into a task, and what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.pending import Driver, Pending


class Recorder(Driver):
    """A driver that keeps the outcome."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop())
        self.outcome: list[Any] = []
        self.ended = asyncio.Event()

    def returned(self, value: Any) -> None:
        self.outcome.append(value)
        self.ended.set()

    def raised(self, error: BaseException) -> None:
        self.outcome.append(error)
        self.ended.set()


def drive(coroutine: Coroutine[Any, Any, Any], *, direct: bool = True) -> Recorder:
    recorder = Recorder()
    recorder.start(coroutine, direct=direct)
    return recorder


async def test_an_answer_that_comes_later_runs_the_coroutine_on_in_the_same_call():
    pending: Pending[int] = Pending()

    async def work() -> int:
        return await pending + 1

    recorder = drive(work())
    assert (recorder.outcome, recorder.running) == ([], True)
    pending.resolve(41)
    assert (recorder.outcome, recorder.running) == ([42], False)
    assert len(asyncio.all_tasks()) == 1


async def test_an_answer_that_is_there_already_is_not_waited_for():
    pending: Pending[int] = Pending()
    pending.resolve(1)

    async def work() -> int:
        return await pending

    assert drive(work()).outcome == [1]


async def test_a_failure_is_raised_where_it_is_awaited():
    pending: Pending[int] = Pending()

    async def work() -> str:
        try:
            await pending
        except KeyError:
            return "caught"
        return "not"

    recorder = drive(work())
    pending.fail(KeyError("x"))
    assert recorder.outcome == ["caught"]


async def test_only_the_first_answer_counts():
    pending: Pending[int] = Pending()

    async def work() -> int:
        return await pending

    recorder = drive(work())
    pending.resolve(1)
    pending.resolve(2)
    pending.fail(KeyError())
    assert recorder.outcome == [1]


async def test_what_the_coroutine_raises_is_the_outcome():
    async def work() -> None:
        raise KeyError("x")

    (error,) = drive(work()).outcome
    assert isinstance(error, KeyError)


class Watched(Pending[int]):
    given_up = 0

    def abandoned(self) -> None:
        self.given_up += 1


@pytest.mark.parametrize("direct", [True, False])
async def test_cancelling_tells_the_pending_and_ends_in_cancelled(direct: bool):
    pending = Watched()

    async def work() -> int:
        return await pending

    recorder = drive(work(), direct=direct)
    await asyncio.sleep(0)
    recorder.interrupt()
    await asyncio.wait_for(recorder.ended.wait(), 5)
    (error,) = recorder.outcome
    assert isinstance(error, asyncio.CancelledError)
    assert pending.given_up == 1
    pending.resolve(1)
    assert len(recorder.outcome) == 1


async def test_a_coroutine_that_interrupts_itself_is_cancelled_where_it_waits_next():
    pending = Watched()

    async def work() -> int:
        recorder.interrupt()
        return await pending

    recorder = Recorder()
    recorder.start(work(), direct=True)
    (error,) = recorder.outcome
    assert isinstance(error, asyncio.CancelledError)
    assert pending.given_up == 1


async def test_a_cancelled_coroutine_may_still_clean_up_and_answer():
    first, second = Watched(), Watched()

    async def work() -> str:
        try:
            await first
        except asyncio.CancelledError:
            return f"cleaned {await second}"
        return "not"

    recorder = drive(work())
    recorder.interrupt()
    assert recorder.outcome == []
    second.resolve(7)
    assert recorder.outcome == ["cleaned 7"]


async def test_waiting_on_anything_else_moves_it_into_a_task_as_it_is():
    pending: Pending[int] = Pending()

    async def work() -> list[Any]:
        steps: list[Any] = [await pending]
        await asyncio.sleep(0)
        steps.append(asyncio.current_task() is not None)
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        later: Pending[int] = Pending()
        asyncio.get_running_loop().call_soon(later.resolve, 2)
        steps.append(await later)
        return steps

    recorder = drive(work())
    pending.resolve(1)
    assert recorder.running
    await asyncio.wait_for(recorder.ended.wait(), 5)
    assert recorder.outcome == [[1, True, 2]]


async def test_a_failure_of_what_was_waited_on_before_the_move_arrives():
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work() -> str:
        try:
            await future
        except KeyError:
            return "caught"
        return "not"

    recorder = drive(work())
    future.set_exception(KeyError())
    await asyncio.wait_for(recorder.ended.wait(), 5)
    assert recorder.outcome == ["caught"]


async def test_interrupting_after_the_move_cancels_the_task():
    async def work() -> None:
        await asyncio.Event().wait()

    recorder = drive(work())
    await asyncio.sleep(0)
    recorder.interrupt()
    await asyncio.wait_for(recorder.ended.wait(), 5)
    assert isinstance(recorder.outcome[0], asyncio.CancelledError)


async def test_one_driver_inside_another_keeps_both_apart():
    outer_answer: Pending[str] = Pending()
    inner_answer: Pending[str] = Pending()

    async def inner() -> str:
        return await inner_answer

    async def outer() -> str:
        other = drive(inner())
        inner_answer.resolve("inner")
        return f"{other.outcome[0]} {await outer_answer}"

    recorder = drive(outer())
    outer_answer.resolve("outer")
    assert recorder.outcome == ["inner outer"]


async def test_a_pending_in_an_ordinary_task_is_an_ordinary_future():
    pending: Pending[int] = Pending()

    async def work() -> int:
        return await pending

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    pending.resolve(3)
    assert await task == 3
    cancelled = Watched()

    async def more() -> int:
        return await cancelled

    task = asyncio.create_task(more())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert cancelled.given_up == 1
    cancelled.resolve(1)


@given(st.lists(st.sampled_from(["pending", "ready", "sleep", "fail"]), max_size=8), st.booleans())
def test_any_mixture_of_waits_gives_the_same_as_a_task(steps: list[str], direct: bool):
    async def work(open_: list[Pending[int]]) -> list[str]:
        done: list[str] = []
        for step in steps:
            if step == "sleep":
                await asyncio.sleep(0)
            else:
                pending: Pending[int] = Pending()
                if step == "ready":
                    pending.resolve(1)
                else:
                    open_.append(pending)
                try:
                    await pending
                except KeyError:
                    done.append("failed")
            done.append(step)
        return done

    async def run() -> None:
        open_: list[Pending[int]] = []
        recorder = drive(work(open_), direct=direct)
        for _ in range(200):
            if recorder.ended.is_set():
                break
            while open_:
                pending = open_.pop()
                if steps[-1] == "fail":
                    pending.fail(KeyError())
                else:
                    pending.resolve(1)
            await asyncio.sleep(0)
        (outcome,) = recorder.outcome
        assert [step for step in outcome if step != "failed"] == steps

    asyncio.run(run())
