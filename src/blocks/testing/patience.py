"""In virtual time a wait for what never comes is no pause but a spin: timers go on firing, years pass, and the test never ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .virtual import VirtualLoop


@asynccontextmanager
async def patience(limit: float) -> AsyncIterator[None]:
    """Raise ``TimeoutError`` in the block after ``limit`` seconds of real time on a virtual loop; 0 waits for ever.

    Its cause has the line that waited. On other loops nothing happens: there it is the business of pytest-timeout.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if limit <= 0 or task is None or not isinstance(loop, VirtualLoop):
        yield
        return
    began = loop.time()
    passed: list[float] = []

    def over() -> None:
        passed.append(loop.time() - began)
        task.cancel()

    loop.patience(limit, over)
    try:
        yield
    except asyncio.CancelledError as error:
        if not passed:
            raise
        task.uncancel()
        said = f"{limit:g} s of real time and {passed[0]:g} s of virtual time have passed"
        raise TimeoutError(f"{said}: it waits for what never comes, or needs more (--blocks-timeout)") from error
    finally:
        loop.patience(None)
