from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.errors import ConfigError
from blocks.core.lines import MANY, Lines, _pieces


def encode(entries: Sequence[str]) -> bytes:
    return "".join(f"{entry}\n" for entry in entries).encode()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("lines:")]


async def until(condition: object) -> None:
    async with asyncio.timeout(20):
        while not condition():  # type: ignore[operator]  # a file has no event to wait for
            await asyncio.sleep(0.001)


async def test_entries_are_written_in_order_and_at_close(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = Lines(str(path), encode, flush_after=1000)
    for number in range(MANY + 10):
        lines.put(number)
    await until(lambda: path.exists() and path.stat().st_size > 0)
    lines.close()
    assert path.read_text().split() == [str(number) for number in range(MANY + 10)]
    assert (lines.written, lines.dropped) == (MANY + 10, 0)
    assert threads() == []


async def test_a_line_does_not_wait_longer_than_the_interval(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = Lines(str(path), encode, flush_after=0.001)
    lines.put("a")
    await until(lambda: path.exists() and path.read_text() == "a\n")
    lines.close()


async def test_after_a_rotation_lines_go_to_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = Lines(str(path), encode)
    lines.put("before")
    lines.flush()
    path.rename(tmp_path / "log.1")
    lines.put("still before")
    lines.reopen()
    await until(path.exists)
    lines.put("after")
    lines.close()
    assert (tmp_path / "log.1").read_text() == "before\nstill before\n"
    assert path.read_text() == "after\n"


async def test_a_rotation_that_fails_goes_on_in_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    lines = Lines(str(folder / "log"), encode)
    lines.put("before")
    lines.flush()
    await until(lambda: (folder / "log").exists())
    folder.rename(tmp_path / "old")
    lines.reopen()
    lines.put("after")
    lines.close()
    assert (tmp_path / "old" / "log").read_text() == "before\nafter\n"


def test_a_file_that_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Lines(str(tmp_path / "no" / "log"), encode).open()


async def test_a_file_that_cannot_be_opened_later_drops_and_counts(tmp_path: Path) -> None:
    lines = Lines(str(tmp_path / "no" / "log"), encode)
    lines.put("a")
    lines.flush()
    assert (lines.written, lines.dropped) == (0, 1)
    assert "No such file" in lines.failure
    lines.close()


async def test_a_stuck_sink_drops_and_counts_and_does_not_hold_the_loop(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    lines = Lines(str(fifo), encode, pending=300_000)
    for _ in range(10):
        lines.put("x" * 100_000)
        lines.flush()
    assert lines.written + lines.dropped == 10
    assert 0 < lines.dropped < 10

    got = bytearray()

    def drain() -> bool:
        try:
            while chunk := os.read(reader, 1 << 16):
                got.extend(chunk)
        except BlockingIOError:
            pass
        return got.count(b"\n") == lines.written

    await until(drain)
    lines.close()
    os.close(reader)
    assert threads() == []


async def test_a_sink_whose_reader_left_is_said_and_survived(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    lines = Lines(str(fifo), encode)
    lines.open()
    os.close(reader)
    lines.put("a")
    lines.flush()
    writer = lines._writer
    assert writer is not None
    await until(lambda: writer.failure)
    lines.close()
    assert "Broken pipe" in lines.failure
    assert lines.dropped == 1


async def test_standard_output_stays_open(capfd: pytest.CaptureFixture[str]) -> None:
    lines = Lines("-", encode)
    lines.put("out")
    lines.close()
    os.fstat(1)
    assert capfd.readouterr().out == "out\n"


@given(st.lists(st.integers(0, 6000), max_size=20), st.booleans())
def test_a_pipe_gets_whole_lines_in_pieces_that_it_takes_whole(sizes: list[int], ended: bool) -> None:
    data = b"\n".join(b"x" * size for size in sizes) + (b"\n" if ended else b"")
    pieces = list(_pieces(data))
    assert b"".join(pieces) == data
    assert all(piece.endswith(b"\n") for piece in pieces[:-1])
    assert all(len(piece) <= 4096 or piece.count(b"\n") <= 1 for piece in pieces)
