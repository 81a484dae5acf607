"""Waiting for a condition in place of a sleep."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

from blocks.core.quantities import seconds

T = TypeVar("T")


async def until(
    condition: Callable[[], T | Awaitable[T]], timeout: float | str = 60.0, every: float | str = 0.005
) -> T:
    """Return the condition's value as soon as it is true: ``await until(lambda: edge.has("/page"))``, ``await until(lb.healthy == 1)``.

    It is looked at once each ``every`` on the loop's clock, so on a virtual one a minute costs milliseconds. Raises ``TimeoutError``, which
    shows the condition's last value, after ``timeout``.
    """
    if not callable(condition):
        raise TypeError(
            f"until({condition!r}) would never change: give it a function, like until(lambda: edge.has('/page'))"
        )
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds(timeout)
    pause = seconds(every)
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if loop.time() >= end:
            raise TimeoutError(f"{_source(condition)} was still {value!r} after {seconds(timeout):g} s")
        await asyncio.sleep(pause)


def _source(condition: Callable[[], object]) -> str:
    """The condition as it is written, where its source can be had."""
    try:
        return inspect.getsource(condition).strip()
    except (OSError, TypeError):
        return repr(condition)
