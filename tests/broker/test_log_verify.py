"""``verify`` reads every byte and changes none; ``repair`` keeps damage aside and leaves a log that is whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from blocks.broker import Broker
from blocks.broker.errors import NotFound
from blocks.broker.log.disk import Locked
from blocks.broker.log.verify import repair, verify

pytestmark = pytest.mark.exhaustive  # runs with the integration tests


async def written(path: Path) -> None:
    async with Broker(path, segment_bytes=8192) as broker:
        for number in range(60):
            await broker.publish("t", b"%d" % number + b"." * 700, id=str(number))


def logs(path: Path) -> list[Path]:
    return sorted(path.glob("*.log"))


def contents(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


async def test_a_whole_log_is_reported_whole_and_left_alone(tmp_path: Path) -> None:
    await written(tmp_path)
    before = contents(tmp_path)
    seen: list[tuple[int, int]] = []
    report = verify(tmp_path, lambda done, total: seen.append((done, total)))
    assert (report.ok, report.messages, report.topics, report.problems) == (True, 60, 1, [])
    assert report.to_dict()["segments"] == report.segments > 3
    assert seen[-1][0] == seen[-1][1] > 0
    assert contents(tmp_path) == before


async def test_damage_anywhere_is_found_and_repaired_once(tmp_path: Path) -> None:
    await written(tmp_path)
    segments = logs(tmp_path)
    with segments[1].open("r+b") as file:
        file.seek(3000)
        file.write(b"rot")
    before = contents(tmp_path)
    report = verify(tmp_path)
    assert not report.ok
    assert segments[1].name in report.problems[0]
    assert contents(tmp_path) == before, "verify changes nothing"
    fixed = repair(tmp_path)
    assert fixed.repaired
    assert fixed.messages == 59
    assert len(list((tmp_path / "quarantine").glob("*.log.*"))) == 2, "the file as it was, and why it is there"
    assert verify(tmp_path).ok
    async with Broker(tmp_path) as broker:
        assert broker.engine.damage == []
        async with broker.subscribe("t", start="earliest", ack=False) as messages:
            assert len([m for _ in range(59) if (m := messages.poll()) is not None]) == 59
            assert messages.poll() is None


async def test_a_log_that_was_cut_after_a_clean_stop_is_reported(tmp_path: Path) -> None:
    await written(tmp_path)
    last = logs(tmp_path)[-1]
    with last.open("r+b") as file:
        file.truncate(last.stat().st_size - 100)
    report = verify(tmp_path)
    assert any("end is missing" in problem for problem in report.problems)
    async with Broker(tmp_path) as broker:
        assert any("end is missing" in problem for problem in broker.engine.damage)
        assert (await broker.publish("t", b"next", id="60")).offset >= 60, "no offset is given out twice"


async def test_an_open_log_can_be_verified_but_not_repaired(tmp_path: Path) -> None:
    async with Broker(tmp_path) as broker:
        await broker.publish("t", b"x")
        assert verify(tmp_path).ok
        with pytest.raises(Locked):
            repair(tmp_path)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        verify(tmp_path / "none")
    assert verify(tmp_path).ok


def cut(path: Path) -> None:
    last = logs(path)[-1]
    with last.open("r+b") as file:
        file.truncate(last.stat().st_size - 100)


def lose_the_last_segment(path: Path) -> None:
    logs(path)[-1].unlink()


def lose_a_segment(path: Path) -> None:
    logs(path)[1].unlink()


def lose_every_segment(path: Path) -> None:
    for file in logs(path):
        file.unlink()


def flip_in_the_snapshot(path: Path) -> None:
    newest = sorted(path.glob("*.snapshot"))[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)


@pytest.mark.parametrize("harm", [cut, lose_the_last_segment, lose_a_segment, lose_every_segment, flip_in_the_snapshot])
async def test_a_repaired_log_is_whole_and_goes_on(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    await written(tmp_path)
    harm(tmp_path)
    assert not verify(tmp_path).ok
    assert repair(tmp_path).repaired
    assert verify(tmp_path).problems == [], "what is lost is said once"
    for number in range(2):
        async with Broker(tmp_path) as broker:
            assert broker.engine.damage == []
            receipt = await broker.publish("t", b"next", id=f"after-{number}")
            assert (receipt.offset, receipt.duplicate) == (60 + number, False), "no offset is given out twice"
        assert verify(tmp_path).problems == []
