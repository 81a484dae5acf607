"""What every test is held to: it leaves no task, no socket, no thread and no child behind."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import os
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "blocks", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("blocks")


def _sockets() -> dict[str, str]:
    """Open sockets of this process, by descriptor; empty where /proc is not."""
    found = {}
    try:
        for name in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{name}")
            except OSError:
                continue
            if target.startswith("socket:"):
                found[name] = target
    except FileNotFoundError:
        pass
    return found


@pytest.fixture(autouse=True)
def _leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Sockets and threads after the test are those of before it. Some go a moment later (a closing handshake, an executor's end)."""
    sockets, threads = set(_sockets().values()), set(threading.enumerate())
    # An async test's loop is still open here, with sockets of its own; the wrapper below looks instead.
    looped = inspect.iscoroutinefunction(getattr(request, "function", None))
    yield
    until = time.monotonic() + 3
    while True:
        # asyncio's default executor threads end with their loop; pytest-asyncio closes it after this fixture
        more_threads = [
            t for t in threading.enumerate() if t not in threads and t.is_alive() and not t.name.startswith("asyncio_")
        ]
        more_sockets = {fd: name for fd, name in _sockets().items() if name not in sockets}
        if not more_threads and (not more_sockets or looped):
            return
        if time.monotonic() > until:
            break
        gc.collect()
        time.sleep(0.01)
    pytest.fail(f"the test left behind: threads {more_threads}, sockets {more_sockets}")


def _watched(function):
    """An async test that must leave no task of its own running, and no socket open."""

    @functools.wraps(function)
    async def watched(*args, **kwargs):
        before = set(_sockets().values())
        tasks = asyncio.all_tasks()
        result = await function(*args, **kwargs)
        loop = asyncio.get_running_loop()
        until = loop.time() + 3
        while True:
            left = [task for task in asyncio.all_tasks() - tasks if not task.done()]
            open_now = {fd: name for fd, name in _sockets().items() if name not in before}
            if not left and not open_now:
                return result
            if loop.time() > until:
                pytest.fail(f"the test left behind: tasks {left}, sockets {open_now}")
            gc.collect()
            await asyncio.sleep(0.01)

    return watched


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        function = getattr(item, "obj", None)
        if inspect.iscoroutinefunction(function) and isinstance(item, pytest.Function):
            item.obj = _watched(function)
