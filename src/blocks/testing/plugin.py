"""The pytest plug-in: the fixtures ``blocks`` and ``blocks_sync``. Nothing is autouse, and nothing of ours is imported before it is used.

``async def test_failover(blocks): …`` runs in virtual time, with pytest-asyncio or anyio's plug-in alike; ``--blocks-real-time`` runs
the same tests on the loop that they would have had. At its end everything is stopped,
and a test that left a task, a socket, a thread or a warning of something dropped open fails.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from .bridge import Bridge
    from .kit import Kit

SEED = 20_260_101  # any number is as good; the same one each run makes a failure come again
TIMEOUT = 300.0  # s of real time: Bazel's for a test of moderate size
_kit = pytest.StashKey["Kit"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--blocks-real-time``, ``--blocks-seed`` and ``--blocks-timeout``."""
    group = parser.getgroup("blocks")
    group.addoption(
        "--blocks-real-time", action="store_true", help="run tests that use the fixture blocks in real time"
    )
    group.addoption(
        "--blocks-seed", type=int, default=SEED, metavar="N", help="the seed of everything drawn (default: %(default)s)"
    )
    group.addoption(
        "--blocks-timeout", type=float, default=TIMEOUT, metavar="SECONDS",
        help="real time that a test in virtual time may take; 0: any (default: %(default)s)",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker ``blocks``."""
    config.addinivalue_line(
        "markers",
        "blocks(seed=None, real_time=None, leaks=True, timeout=None): settings of the fixture blocks for this test",
    )


class Settings(NamedTuple):
    """What holds for one test: its seed, whether time is real, whether leaks are looked for, how much real time it has."""

    seed: int
    real_time: bool
    leaks: bool
    timeout: float


def _settings(item: pytest.Item) -> Settings:
    marker = item.get_closest_marker("blocks")
    given = marker.kwargs if marker is not None else {}
    seed, real = given.get("seed"), given.get("real_time")
    config = item.config
    return Settings(
        config.getoption("--blocks-seed") if seed is None else seed,
        config.getoption("--blocks-real-time") if real is None else real,
        given.get("leaks", True),
        given.get("timeout", config.getoption("--blocks-timeout")),
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the test itself stop its kit: only there does its loop run for certain, whoever's loop it is."""
    for item in items:
        if isinstance(item, pytest.Function) and "blocks" in item.fixturenames:
            target, name = (item.obj.hypothesis, "inner_test") if hasattr(item.obj, "hypothesis") else (item, "obj")
            function = getattr(target, name)
            if inspect.iscoroutinefunction(function):
                setattr(target, name, _closing(function, item))


def _closing(function: Any, item: pytest.Item) -> Any:
    @functools.wraps(function)
    async def closed(*args: Any, **kwargs: Any) -> None:
        from .leaks import Held, Watch, settled
        from .patience import patience

        limit = _settings(item).timeout
        kit = item.stash[_kit]
        if not _settings(item).leaks:
            try:
                async with patience(limit):
                    await function(*args, **kwargs)
            finally:
                await kit.close()
            return
        before = Held.now() if not kit.used else None
        with Watch() as watch:
            try:
                async with patience(limit):
                    await function(*args, **kwargs)
            finally:
                await kit.close()
            del args, kwargs
            left = await settled(before) if before is not None else []
        _fail_for(left + watch.heard)

    return closed


def _fail_for(left: list[str]) -> None:
    if left:
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """While a test that uses ``blocks`` is set up and run, new loops are virtual."""
    if "blocks" not in getattr(item, "fixturenames", ()) or _settings(item).real_time:
        return (yield)
    import asyncio

    from .virtual import VirtualLoop

    # The policy object, not its class, and not another policy: pytest-asyncio holds on to the one it has seen first.
    policy = getattr(asyncio.events, "_get_event_loop_policy", asyncio.get_event_loop_policy)()
    vars(policy)["new_event_loop"] = VirtualLoop
    try:
        return (yield)
    finally:
        del vars(policy)["new_event_loop"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A failed test's report ends with what happened, and how to make it happen again."""
    report = yield
    kit = item.stash.get(_kit, None)
    if report.when == "call" and report.failed and kit is not None:
        report.sections.append((f"blocks timeline (--blocks-seed={kit.seed} replays it)", kit.timeline_text()))
    return report


@pytest.fixture
def blocks(request: pytest.FixtureRequest) -> Kit:
    """Origins, blocks, faults and load for an async test, in virtual time; see docs/how-to/test-with-blocks.md."""
    from .kit import Kit

    item = request.node
    function = getattr(item.obj, "hypothesis", None)
    function = item.obj if function is None else function.inner_test
    if not inspect.iscoroutinefunction(inspect.unwrap(function)):
        pytest.fail("the fixture 'blocks' needs an async test; a plain one uses 'blocks_sync'", pytrace=False)
    kit = item.stash[_kit] = Kit(_settings(item).seed)
    return kit


@pytest.fixture
def blocks_sync(request: pytest.FixtureRequest) -> Iterator[Bridge]:
    """The same for plain tests (requests, Django): every call waits for its result. The loop runs in a thread, in real time."""
    from .bridge import Bridge
    from .kit import Kit
    from .leaks import Held, settled_now

    settings = _settings(request.node)
    kit = request.node.stash[_kit] = Kit(settings.seed)
    before = Held.now()
    with Bridge(kit) as bridge:
        yield bridge
    if settings.leaks:
        _fail_for(settled_now(before))
