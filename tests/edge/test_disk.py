"""The disk tier: what is stored is served as it was or not at all, over restarts, kills, full disks and damage."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError, Failure
from blocks.edge.entry import Entry
from blocks.edge.store import Purge
from blocks.edge.store.disk import DiskStore, record
from blocks.edge.store.disk.blob import BlobContent
from blocks.edge.store.disk.record import BLOCK
from edge.disk_faults import FaultyFiles

SIZE = 16 * 1024 * 1024


def entry(key: str, body: bytes = b"body", clock: FakeClock | None = None, **more: object) -> Entry:
    now = clock.monotonic() if clock else 1000.0
    return Entry(key, 200, b"Content-Type: text/plain\r\n", body, born=now, lifetime=60.0, **more)  # type: ignore[arg-type]


def url(n: int) -> str:
    return f"http://a.test/{n}"


def store(path: Path, size: int = SIZE, **more: object) -> DiskStore:
    return DiskStore(path / "store", size, **{"clock": FakeClock(), **more})  # type: ignore[arg-type]


async def body_of(loaded: Entry | None) -> bytes | None:
    if loaded is None:
        return None
    return loaded.body if isinstance(loaded.body, bytes) else await loaded.body.stream().read()


async def filled(disk: DiskStore, key: str, body: bytes, piece: int = 100_000) -> Entry:
    fill = disk.open(key, None)
    assert fill is not None
    for at in range(0, len(body), piece):
        fill.write(body[at : at + piece])
        if fill.congested:
            await disk.sync()
    kept = entry(key, b"")
    kept.body = fill.content
    fill.commit(kept)
    return kept


async def test_what_is_saved_is_there_at_once_and_after_a_restart(tmp_path: Path) -> None:
    async with store(tmp_path) as disk:
        for n in range(100):
            disk.save(entry(url(n), b"%d" % n * 50))
        assert disk.holds(url(7))
        assert await body_of(await disk.load(url(7))) == b"7" * 50
        await disk.sync()
        assert await body_of(await disk.load(url(99))) == b"99" * 50
        assert not disk.holds(url(100))
        assert await disk.load(url(100)) is None
    async with store(tmp_path) as disk:
        assert disk.stats()["entries"] == 100
        for n in range(100):
            assert await body_of(await disk.load(url(n))) == b"%d" % n * 50


async def test_an_entry_keeps_its_fields_and_ages_over_a_restart_by_the_wall_clock(tmp_path: Path) -> None:
    clock = FakeClock()
    async with store(tmp_path, clock=clock) as disk:
        kept = entry(
            "http://a.test/x\0br",
            b"hello",
            clock,
            tags=("t1",),
            names=(b"accept-language",),
            revalidate=5.0,
            on_error=9.0,
        )
        clock.advance(10)
        disk.save(kept)
        await disk.sync()
        clock.jump(500)  # no matter within one process
        loaded = await disk.load(kept.key)
        assert loaded is not None
        assert loaded.age(clock.monotonic()) == 10
    later = FakeClock(wall=clock.wall() + 20, monotonic=5.0)
    async with store(tmp_path, clock=later) as disk:
        loaded = await disk.load(kept.key)
        assert loaded is not None
        assert loaded.age(later.monotonic()) == pytest.approx(10 + 520)
        assert (loaded.status, loaded.wire, loaded.lifetime, loaded.tags, loaded.names, loaded.revalidate, loaded.on_error) == (
            200, kept.wire, 60.0, ("t1",), (b"accept-language",), 5.0, 9.0,
        )  # fmt: skip


async def test_a_new_version_replaces_the_old_one_also_after_a_restart(tmp_path: Path) -> None:
    async with store(tmp_path) as disk:
        for round in range(5):
            for n in range(50):
                disk.save(entry(url(n), b"%d-%d" % (round, n)))
            await disk.sync()
    async with store(tmp_path) as disk:
        assert await body_of(await disk.load(url(3))) == b"4-3"


async def test_what_is_removed_stays_away(tmp_path: Path) -> None:
    async with store(tmp_path) as disk:
        disk.save(entry(url(1)))
        disk.save(entry(url(2)))
        disk.remove(url(1))
        assert not disk.holds(url(1))
        await disk.sync()
        disk.remove(url(2))
        assert await disk.load(url(2)) is None
        disk.save(entry(url(2), b"again"))
    async with store(tmp_path) as disk:
        assert not disk.holds(url(1))
        assert await body_of(await disk.load(url(2))) == b"again"


async def test_a_large_body_is_streamed_and_ranged_from_disk(tmp_path: Path) -> None:
    body = random.Random(1).randbytes(3 * BLOCK + 1234)
    async with store(tmp_path) as disk:
        kept = await filled(disk, url(1), body)
        assert disk.holds(url(1))
        assert await body_of(await disk.load(url(1))) == body
        await disk.sync()
        assert await kept.body.stream(5, 10).read() == body[5:10]  # type: ignore[union-attr]
    async with store(tmp_path) as disk:
        loaded = await disk.load(url(1))
        assert loaded is not None
        assert isinstance(loaded.body, BlobContent)
        assert loaded.length == len(body)
        assert await loaded.body.stream().read() == body
        assert await loaded.body.stream(BLOCK - 3, 2 * BLOCK + 7).read() == body[BLOCK - 3 : 2 * BLOCK + 7]
        assert await loaded.body.stream(len(body) - 2).read() == body[-2:]
        assert loaded.body.stream(10, 10).length == 0


async def test_readers_follow_a_fill_each_at_its_own_speed(tmp_path: Path) -> None:
    body = random.Random(2).randbytes(5 * BLOCK + 99)
    async with store(tmp_path) as disk:
        fill = disk.open(url(1), len(body))
        assert fill is not None
        early = asyncio.ensure_future(fill.content.stream().read())
        fill.write(body[:BLOCK])
        await disk.sync()
        middle = asyncio.ensure_future(fill.content.stream(10, BLOCK + 10).read())
        for at in range(BLOCK, len(body), 10_000):
            fill.write(body[at : at + 10_000])
            await asyncio.sleep(0)
        late = asyncio.ensure_future(fill.content.stream().read())
        kept = entry(url(1), b"")
        kept.body = fill.content
        fill.commit(kept)
        assert await early == body
        assert await middle == body[10 : BLOCK + 10]
        assert await late == body
        await disk.sync()
        assert await fill.content.stream().read() == body


async def test_a_small_fill_becomes_an_ordinary_record(tmp_path: Path) -> None:
    async with store(tmp_path) as disk:
        kept = await filled(disk, url(1), b"short")
        assert await kept.body.stream().read() == b"short"  # type: ignore[union-attr]
        await disk.sync()
        assert os.listdir(tmp_path / "store" / "shard-0" / "blobs") == []
        assert await body_of(await disk.load(url(1))) == b"short"


async def test_a_large_body_that_is_whole_already_becomes_a_blob(tmp_path: Path) -> None:
    body = random.Random(5).randbytes(3_000_000)
    async with store(tmp_path) as disk:
        disk.save(entry(url(1), body))
        assert await body_of(await disk.load(url(1))) == body
        await disk.sync()
        assert disk.stats()["waiting_bytes"] == 0
    async with store(tmp_path) as disk:
        assert await body_of(await disk.load(url(1))) == body


async def test_readers_of_one_block_have_the_same_bytes(tmp_path: Path) -> None:
    async with store(tmp_path) as disk:
        await filled(disk, url(1), bytes(BLOCK * 2))
        await disk.sync()
        loaded = await disk.load(url(1))
        assert loaded is not None
        assert isinstance(loaded.body, BlobContent)
        assert loaded.body.take(0, None) is loaded.body.take(0, BLOCK)
        assert loaded.body.take(5, BLOCK) == bytes(BLOCK - 5)


async def test_an_aborted_fill_leaves_nothing_and_tells_its_readers(tmp_path: Path) -> None:
    async with store(tmp_path) as disk:
        fill = disk.open(url(1), None)
        assert fill is not None
        reading = asyncio.ensure_future(fill.content.stream().read())
        fill.write(b"x" * (2 * BLOCK))
        await disk.sync()
        fill.abort(ConnectionResetError("the origin died"))
        with pytest.raises(Failure, match="origin died"):
            await reading
        await disk.sync()
        assert not disk.holds(url(1))
        assert disk.log.filling == 0
        assert os.listdir(tmp_path / "store" / "shard-0" / "blobs") == []


async def test_a_304_rewrites_the_fields_and_keeps_the_blob(tmp_path: Path) -> None:
    body = bytes(BLOCK * 2)
    async with store(tmp_path) as disk:
        await filled(disk, url(1), body)
        await disk.sync()
        loaded = await disk.load(url(1))
        assert loaded is not None
        loaded.lifetime = 999.0
        disk.update(loaded)
        await disk.sync()
        assert len(os.listdir(tmp_path / "store" / "shard-0" / "blobs")) == 1
        assert disk.log.filling == 0
    async with store(tmp_path) as disk:
        loaded = await disk.load(url(1))
        assert loaded is not None
        assert loaded.lifetime == 999.0
        assert await body_of(loaded) == body


async def test_the_store_stays_within_its_size_and_keeps_what_is_asked_for(tmp_path: Path) -> None:
    size = 4 * 1024 * 1024
    async with store(tmp_path, size) as disk:
        for n in range(20):
            disk.save(entry(f"http://a.test/hot{n}", b"h" * 2000))
        await disk.sync()
        for n in range(3000):
            disk.save(entry(url(n), b"x" * 4000))
            if n % 50 == 0:
                await disk.sync()
                for hot in range(20):
                    await disk.load(f"http://a.test/hot{hot}")
        await disk.sync()
        assert disk.stats()["bytes"] <= size
        on_disk = sum(f.stat().st_size for f in (tmp_path / "store").rglob("*.seg"))
        assert on_disk <= size
        assert all([await disk.load(f"http://a.test/hot{n}") for n in range(20)])
        assert disk.stats()["evicted"] > 1000
    async with store(tmp_path, size) as disk:
        assert all([await disk.load(f"http://a.test/hot{n}") for n in range(20)])


async def test_blobs_count_and_are_evicted(tmp_path: Path) -> None:
    size = 8 * 1024 * 1024
    async with store(tmp_path, size) as disk:
        for n in range(20):
            await filled(disk, url(n), bytes(BLOCK * 4))
            await disk.sync()
            used = sum(f.stat().st_size for f in (tmp_path / "store").rglob("*.blob"))
            assert used <= size
        assert disk.holds(url(19))
        assert not disk.holds(url(0))
        assert disk.log.filling == 0


@pytest.mark.parametrize("kind", ["url", "prefix", "host", "tag", "path", "path prefix"])
async def test_a_purge_is_in_force_at_once_and_after_a_restart(tmp_path: Path, kind: str) -> None:
    kind, value = {
        "url": ("url", "http://a.test/dir/1"),
        "prefix": ("prefix", "http://a.test/dir/"),
        "host": ("host", "a.test"),
        "tag": ("tag", "t"),
        "path": ("url", "/dir/1"),
        "path prefix": ("prefix", "/di"),
    }[kind]
    async with store(tmp_path) as disk:
        disk.save(entry("http://a.test/dir/1", tags=("t", "u")))
        disk.save(entry("http://a.test/dir/1\0br", tags=("t",)))
        disk.save(entry("http://b.test/other/1", tags=("u",)))
        if kind != "tag":
            await disk.sync()
        disk.purge(Purge(kind, value))
        assert await disk.load("http://a.test/dir/1") is None
        assert await disk.load("http://b.test/other/1") is not None
        await disk.sync()
    async with store(tmp_path) as disk:
        assert await disk.load("http://a.test/dir/1") is None
        assert await disk.load("http://a.test/dir/1\0br") is None
        assert await disk.load("http://b.test/other/1") is not None
        disk.save(entry("http://a.test/dir/1", b"after"))
        await disk.sync()
        assert await body_of(await disk.load("http://a.test/dir/1")) == b"after"


async def test_a_soft_purge_makes_stale_and_survives(tmp_path: Path) -> None:
    clock = FakeClock()
    async with store(tmp_path, clock=clock) as disk:
        disk.save(entry(url(1), clock=clock))
        await disk.sync()
        disk.purge(Purge("url", url(1), soft=True))
        loaded = await disk.load(url(1))
        assert loaded is not None
        assert loaded.lifetime == 0
    async with store(tmp_path, clock=clock) as disk:
        loaded = await disk.load(url(1))
        assert loaded is not None
        assert loaded.expires <= clock.monotonic()


async def test_a_fill_that_began_before_a_purge_does_not_outlive_it(tmp_path: Path) -> None:
    async with store(tmp_path) as disk:
        fill = disk.open(url(1), None)
        assert fill is not None
        fill.write(bytes(BLOCK * 2))
        disk.purge(Purge("host", "a.test"))
        kept = entry(url(1), b"")
        kept.body = fill.content
        fill.commit(kept)
        await disk.sync()
        assert await disk.load(url(1)) is None
        assert os.listdir(tmp_path / "store" / "shard-0" / "blobs") == []
        assert disk.log.filling == 0


async def test_tidying_the_journal_keeps_a_purge_that_a_fill_under_way_is_held_against(tmp_path: Path) -> None:
    async with store(tmp_path) as disk:
        fill = disk.open(url(1), None)
        assert fill is not None
        fill.write(bytes(BLOCK * 2))
        disk.purge(Purge("host", "a.test"))
        await disk.sync()
        disk._journal.rewrite(disk._oldest())
        assert len(disk.bans) == 1
        kept = entry(url(1), b"")
        kept.body = fill.content
        fill.commit(kept)
        await disk.sync()
        assert await disk.load(url(1)) is None
        disk._journal.rewrite(disk._oldest())
        assert len(disk.bans) == 0


async def test_a_full_disk_drops_and_recovers(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with store(tmp_path, files=files) as disk:
        for n in range(10):
            disk.save(entry(url(n), b"before"))
        await disk.sync()
        files.room = 1000
        for n in range(10, 40):
            disk.save(entry(url(n), b"y" * 500))
            await disk.sync()
        assert not disk.holds(url(39))
        assert disk.stats()["errors"] > 0
        files.room = None
        disk.save(entry(url(50), b"after"))
        await disk.sync()
        assert await body_of(await disk.load(url(50))) == b"after"
    async with store(tmp_path) as disk:
        assert await body_of(await disk.load(url(50))) == b"after"
        for n in range(10, 40):
            assert await body_of(await disk.load(url(n))) in (None, b"y" * 500)


async def test_a_disk_that_fills_up_under_a_fill_does_not_hurt_its_readers(tmp_path: Path) -> None:
    files = FaultyFiles()
    body = random.Random(3).randbytes(6 * BLOCK)
    async with store(tmp_path, files=files) as disk:
        fill = disk.open(url(1), len(body))
        assert fill is not None
        reading = asyncio.ensure_future(fill.content.stream().read())
        fill.write(body[: 2 * BLOCK])
        await disk.sync()
        files.room = BLOCK // 2
        for at in range(2 * BLOCK, len(body), BLOCK // 2):
            fill.write(body[at : at + BLOCK // 2])
            while fill.congested:
                await asyncio.sleep(0)  # the reader takes a turn of the loop for each piece
            await disk.sync()
        kept = entry(url(1), b"")
        kept.body = fill.content
        fill.commit(kept)
        assert await reading == body
        await disk.sync()
        assert not disk.holds(url(1))
        assert disk.log.filling == 0


async def test_a_damaged_record_is_dropped_and_its_neighbours_are_served(tmp_path: Path) -> None:
    async with store(tmp_path) as disk:
        for n in range(30):
            disk.save(entry(url(n), b"%03d" % n * 100))
    (segment,) = (tmp_path / "store" / "shard-0" / "segments").glob("*.seg")
    data = bytearray(segment.read_bytes())
    at = data.index(b"015015015")
    data[at + 5] ^= 0xFF
    segment.write_bytes(data)
    async with store(tmp_path) as disk:
        for n in range(30):
            assert await body_of(await disk.load(url(n))) == (None if n == 15 else b"%03d" % n * 100)
        assert disk.stats()["damaged"] == 1
        await disk.sync()
        assert not disk.holds(url(15))


@pytest.mark.parametrize("what", ["side", "head", "cut", "missing side"])
async def test_damaged_files_cost_only_what_they_held(tmp_path: Path, what: str) -> None:
    async with store(tmp_path) as disk:
        for n in range(30):
            disk.save(entry(url(n), b"%03d" % n * 100))
    (segment,) = (tmp_path / "store" / "shard-0" / "segments").glob("*.seg")
    side = segment.with_suffix(".idx")
    lost = 0
    if what == "side":
        side.write_bytes(side.read_bytes()[:-1] + b"?")
    elif what == "missing side":
        side.unlink()
    elif what == "head":
        side.unlink()
        segment.write_bytes(b"?" * 64 + segment.read_bytes()[64:])
    else:
        side.unlink()
        segment.write_bytes(segment.read_bytes()[:-200])
        lost = 1
    async with store(tmp_path) as disk:
        bodies = [await body_of(await disk.load(url(n))) for n in range(30)]
        assert bodies.count(None) == lost
        assert all(body in (None, b"%03d" % n * 100) for n, body in enumerate(bodies))


async def test_a_damaged_block_breaks_the_stream_before_it_and_drops_the_entry(tmp_path: Path) -> None:
    body = random.Random(4).randbytes(4 * BLOCK)
    async with store(tmp_path) as disk:
        await filled(disk, url(1), body)
    (blob,) = (tmp_path / "store" / "shard-0" / "blobs").glob("*.blob")
    data = bytearray(body)
    data[2 * BLOCK + 17] ^= 1
    blob.write_bytes(data)
    async with store(tmp_path) as disk:
        loaded = await disk.load(url(1))
        assert loaded is not None
        got: list[bytes] = []

        async def read() -> None:
            async for chunk in loaded.body.stream():  # type: ignore[union-attr]
                got.append(chunk)  # what came before the error counts

        with pytest.raises(Failure, match="checksum"):
            await read()
        assert b"".join(got) == body[: 2 * BLOCK]
        await disk.sync()
        assert not disk.holds(url(1))


@pytest.mark.parametrize("what", ["missing", "short"])
async def test_a_missing_or_short_blob_is_a_miss(tmp_path: Path, what: str) -> None:
    async with store(tmp_path) as disk:
        await filled(disk, url(1), bytes(2 * BLOCK))
    (blob,) = (tmp_path / "store" / "shard-0" / "blobs").glob("*.blob")
    if what == "missing":
        blob.unlink()
    else:
        os.truncate(blob, BLOCK)
    async with store(tmp_path) as disk:
        assert await disk.load(url(1)) is None


async def test_strays_of_a_kill_are_removed_at_the_next_start(tmp_path: Path) -> None:
    async with store(tmp_path):
        pass
    stray = tmp_path / "store" / "shard-0" / "blobs" / "0000000000000007.blob"
    stray.write_bytes(b"half a fill")
    async with store(tmp_path) as disk:
        await disk.sync()
        assert not stray.exists()


async def test_a_segment_that_cannot_be_read_back_is_given_up_whole(tmp_path: Path) -> None:
    files = FaultyFiles()
    size = 4 * 1024 * 1024
    async with store(tmp_path, size, files=files) as disk:
        files.fail_reads = True
        for n in range(2000):
            disk.save(entry(url(n), b"x" * 4000))
            if n % 50 == 0:
                await disk.sync()
        await disk.sync()
        files.fail_reads = False
        assert disk.stats()["bytes"] <= size
        assert all(disk.log.find(short) is not None for short in disk.log.index)
        assert await body_of(await disk.load(url(1999))) == b"x" * 4000


async def test_failing_reads_are_misses(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with store(tmp_path, files=files) as disk:
        disk.save(entry(url(1)))
        await disk.sync()
        files.fail_reads = True
        assert await disk.load(url(1)) is None


async def test_a_forged_record_in_a_body_is_not_believed(tmp_path: Path) -> None:
    forger = record.Codec(b"\0" * 8)
    forged = forger.pack(record.digest_of(url(9).encode()), 9, b"meta", b"evil")
    async with store(tmp_path) as disk:
        disk.save(entry(url(1), forged * 20))
    (segment,) = (tmp_path / "store" / "shard-0" / "segments").glob("*.seg")
    segment.with_suffix(".idx").unlink()
    data = bytearray(segment.read_bytes())
    data[64 + 10] ^= 0xFF  # the honest record's head: the scan now walks through its body
    segment.write_bytes(data)
    async with store(tmp_path) as disk:
        assert not disk.holds(url(9))


async def test_workers_share_a_folder_and_those_too_many_leave_nothing(tmp_path: Path) -> None:
    async with store(tmp_path, shards=2) as one, store(tmp_path, shards=2) as two:
        one.save(entry(url(1)))
        two.save(entry(url(2)))
        with pytest.raises(ConfigError, match="in use"):
            await store(tmp_path, shards=2).__aenter__()
    async with store(tmp_path) as disk:
        assert disk.stats()["entries"] == 1
        assert [each.name for each in (tmp_path / "store").iterdir()] == ["shard-0"]


async def test_one_process_has_a_folder(tmp_path: Path) -> None:
    async with store(tmp_path):
        with pytest.raises(ConfigError, match="in use"):
            await store(tmp_path).__aenter__()


def test_a_tiny_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too small"):
        DiskStore(tmp_path, "1MiB")


async def test_a_flood_is_dropped_not_queued(tmp_path: Path) -> None:
    async with store(tmp_path, 256 * 1024 * 1024) as disk:
        for n in range(60):
            disk.save(entry(url(n), bytes(1_000_000)))
        assert disk.stats()["waiting_bytes"] <= 33 * 1024 * 1024
        assert disk.stats()["dropped"] > 0
        await disk.sync()
        assert disk.stats()["waiting_bytes"] == 0


@settings(max_examples=40, deadline=None)
@given(st.data())
async def test_whenever_it_dies_it_serves_versions_that_were_written_or_nothing(data: st.DataObject) -> None:
    """The disk dies at any call, the last write torn; after that each key has its last or an earlier state."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        files = FaultyFiles()
        history: dict[str, list[bytes | None]] = {url(n): [None] for n in range(6)}
        dead_after = data.draw(st.integers(3, 60))
        disk = DiskStore(path / "store", SIZE, clock=FakeClock(), files=files)
        try:
            await disk.__aenter__()
            files.calls, files.dead_after = 0, dead_after
            for step in range(data.draw(st.integers(1, 30))):
                key = url(data.draw(st.integers(0, 5)))
                what = data.draw(st.sampled_from(["save", "save", "remove", "fill"]))
                if what == "save":
                    body = b"%d:" % step + bytes(data.draw(st.integers(0, 3000)))
                    history[key].append(body)
                    disk.save(entry(key, body))
                elif what == "remove":
                    history[key].append(None)
                    disk.remove(key)
                else:
                    body = b"%d:" % step + bytes(BLOCK + 100)
                    history[key].append(body)
                    await filled(disk, key, body)
                await disk.sync()
        finally:
            await disk.__aexit__()
        async with DiskStore(path / "store", SIZE, clock=FakeClock()) as again:
            for key, states in history.items():
                assert await body_of(await again.load(key)) in [*states, None]
