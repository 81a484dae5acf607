"""What a service manager is told, message by message."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.manager import Manager
from blocks.core.notify import Notifier
from blocks.http.pulse import Pulse


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


def notifier(manager: Manager, **more: str) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": str(manager.path), **more})


def test_each_state_is_one_message(manager: Manager):
    told = notifier(manager)
    before = time.monotonic() * 1e6
    told.ready("serving on 127.0.0.1:8080\nand more")
    told.reloading()
    told.ready()
    told.say("busy")
    told.stopping(10.0)
    ready, reloading, again, busy, stopping = manager.hear()
    assert ready == {"READY": "1", "STATUS": "serving on 127.0.0.1:8080 and more"}
    assert reloading["RELOADING"] == "1"
    assert before - 1 <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic() * 1e6
    assert again == {"READY": "1"}
    assert busy == {"STATUS": "busy"}
    assert stopping == {"STOPPING": "1", "STATUS": "draining", "EXTEND_TIMEOUT_USEC": "15000000"}


def test_an_abstract_socket_is_reached():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        name = f"blocks-test-{os.getpid()}"
        listener.bind("\0" + name)
        Notifier({"NOTIFY_SOCKET": "@" + name}).ready()
        assert listener.recv(100) == b"READY=1"


def test_without_a_manager_or_with_a_deaf_one_nothing_happens(tmp_path: Path):
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).stopping(1.0)


def test_the_watchdog_is_meant_for_one_process():
    watched = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "3000000"}
    assert Notifier(watched).interval == 1.5
    assert Notifier({**watched, "WATCHDOG_PID": str(os.getpid())}).interval == 1.5
    assert Notifier({**watched, "WATCHDOG_PID": "1"}).interval is None
    assert Notifier({**watched, "WATCHDOG_USEC": "often"}).interval is None
    assert Notifier({"WATCHDOG_USEC": "3000000"}).interval is None


async def test_a_loop_that_turns_feeds_the_watchdog_until_cancelled(manager: Manager):
    watch = notifier(manager, WATCHDOG_USEC="2000").watch(asyncio.get_running_loop())
    while len(manager.said("WATCHDOG")) < 3:
        await asyncio.sleep(0.001)
    watch.cancel()
    heard = len(manager.said("WATCHDOG"))
    await asyncio.sleep(0.005)
    assert len(manager.said("WATCHDOG")) == heard


def test_a_parent_feeds_the_watchdog_only_when_every_worker_was_heard(manager: Manager):
    pulse = Pulse(notifier(manager, WATCHDOG_USEC="4000000"))
    try:
        first, second = pulse.of(0), pulse.of(1)
        assert first.interval == 1.0  # the parent's is 2 s
        first.alive()
        pulse.receive()
        pulse.beat(10.0, [0, 1])
        assert manager.said("WATCHDOG") == []
        assert pulse.wait(10.0) == 0.5
        second.alive()
        pulse.receive()
        pulse.beat(10.5, [0, 1])
        assert manager.said("WATCHDOG") == ["1"]
        assert pulse.wait(10.5) == 2.0
        pulse.beat(12.5, [1])  # heard before, not since
        assert manager.said("WATCHDOG") == ["1"]
        pulse.beat(13.0, [])
        assert manager.said("WATCHDOG") == ["1", "1"]
    finally:
        pulse.close()


def test_workers_of_a_process_that_nobody_watches_say_nothing():
    pulse = Pulse(Notifier({}))
    try:
        assert pulse.of(0).interval is None
        assert pulse.wait(0.0) is None
        pulse.receive()
        pulse.beat(1.0, [0])
    finally:
        pulse.close()
