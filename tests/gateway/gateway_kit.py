"""What the gateway's tests share: a route-less context, and a way to run steps as the gateway does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from blocks.gateway.consumer import Consumer
from blocks.gateway.context import NO_PARAMS, Context
from blocks.http.message import Request, Response


def context(
    *, client: str = "203.0.113.9", now: float = 1000.0, consumer: Consumer | None = None, params: Any = NO_PARAMS
) -> Context:
    made = Context(cast(Any, None), params, "/", client, now)
    made.consumer = consumer
    return made


async def passes(step: Any, request: Request, given: Context | None = None) -> Response | None:
    """The step's check, awaited where it must be."""
    answer = step.check(request, given or context())
    return answer if answer is None or isinstance(answer, Response) else await answer


async def until(question: Callable[[], Any], *, every: float = 0.002, most: float = 30.0) -> None:
    """Wait until the question, or what it gives to await, is true; fail after ``most`` seconds."""
    for _ in range(int(most / every)):
        found = question()
        if await found if isinstance(found, Awaitable) else found:
            return
        await asyncio.sleep(every)
    raise AssertionError("what was waited for did not happen")
