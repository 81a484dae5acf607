"""Damage to what was acknowledged is found, kept aside and reported; nothing is silently left out."""

from __future__ import annotations

from random import Random

import pytest

from blocks.broker.errors import DiskFailed, DiskFull
from blocks.broker.log.disk import MemoryDisk
from blocks.broker.log.segment import HEADER_SIZE, WrongVersion
from blocks.core.status import Status
from broker.recording import FailingDisk
from broker.rig import Rig, ack, offsets, payloads

pytestmark = pytest.mark.exhaustive  # runs with the integration tests


def copied(disk: MemoryDisk) -> MemoryDisk:
    twin = MemoryDisk()
    for name, file in disk.files.items():
        twin.open(name, create=True).write(0, [bytes(file.data)])
    return twin


def small(clean: bool, segment_bytes: int = 1 << 20) -> tuple[MemoryDisk, dict[int, bytes]]:
    rig = Rig(segment_bytes=segment_bytes)
    for number in range(12):
        rig.publish("t", b"message %d" % number, b"another" * 3, keys=[b"k%d" % number, None])
    sent = rig.read("t")
    if clean:
        rig.stop()
    assert isinstance(rig.disk, MemoryDisk)
    return rig.disk, sent


def log_name(disk: MemoryDisk) -> str:
    return next(name for name in disk.names() if name.endswith(".log"))


def test_every_flipped_byte_is_noticed_or_harmless() -> None:
    disk, sent = small(clean=True)
    name = log_name(disk)
    for position in range(len(disk.files[name].data)):
        twin = copied(disk)
        twin.files[name].data[position] ^= 1 << position % 8
        rig = Rig(twin)
        found = rig.read("t") if "t" in rig.engine.topic_named else {}
        assert all(sent[offset] == payload for offset, payload in found.items()), "never other bytes than were sent"
        if found != sent:
            assert rig.problems, f"byte {position}: something is missing and nobody says so"


def test_every_flipped_byte_after_a_crash_leaves_no_wrong_message() -> None:
    disk, sent = small(clean=False)
    name = log_name(disk)
    last = max(sent)
    for position in range(len(disk.files[name].data)):
        twin = copied(disk)
        twin.files[name].data[position] ^= 0x80
        rig = Rig(twin)
        found = rig.read("t") if "t" in rig.engine.topic_named else {}
        assert all(sent[offset] == payload for offset, payload in found.items())
        if not rig.problems:  # only the last commit may look like a tail that was torn
            assert {o for o in sent if o not in found} <= {last, last - 1}


def test_every_length_of_a_log_cut_after_a_clean_stop_is_reported() -> None:
    disk, sent = small(clean=True)
    name = log_name(disk)
    for length in range(len(disk.files[name].data)):
        twin = copied(disk)
        del twin.files[name].data[length:]
        rig = Rig(twin)
        assert rig.problems, f"cut to {length} bytes and nobody says so"
        found = rig.read("t") if "t" in rig.engine.topic_named else {}
        assert all(sent[offset] == payload for offset, payload in found.items())


def test_every_length_of_a_log_cut_in_a_crash_is_a_torn_tail() -> None:
    disk, sent = small(clean=False)
    name = log_name(disk)
    for length in range(HEADER_SIZE, len(disk.files[name].data)):
        twin = copied(disk)
        del twin.files[name].data[length:]
        rig = Rig(twin)
        assert rig.problems == []
        found = rig.read("t") if "t" in rig.engine.topic_named else {}
        assert found == {offset: sent[offset] for offset in range(len(found))}, "a prefix of what was sent"
        again = Rig(twin)
        assert again.problems == []


def test_a_missing_end_in_whole_batches_is_reported_and_the_log_goes_on() -> None:
    disk, _ = small(clean=True)
    name = log_name(disk)
    del disk.files[name].data[HEADER_SIZE:]
    rig = Rig(disk)
    assert any("end is missing" in problem for problem in rig.problems)
    receipts = rig.publish("t", b"new")
    assert receipts.offsets[0] == 24, "offsets that were given out are not given out again: the snapshot knows them"
    again = Rig(disk)
    assert again.read("t")[24] == b"new"


def test_damage_in_the_middle_is_quarantined_and_the_rest_is_served() -> None:
    disk, sent = small(clean=False)
    name = log_name(disk)
    data = disk.files[name].data
    original = bytes(data)
    data[len(data) // 2] ^= 0xFF
    broken = bytes(data)
    rig = Rig(disk)
    assert len(rig.problems) == 1
    assert "damaged" in rig.problems[0]
    assert rig.engine.status is Status.BUSY
    kept = [n for n in disk.files if n.startswith("quarantine/") and not n.endswith(".txt")]
    assert bytes(disk.files[kept[0]].data) == broken != original
    found = rig.read("t")
    assert len(sent) - 2 <= len(found) < len(sent)
    assert all(sent[offset] == payload for offset, payload in found.items())
    member = rig.subscribe("t")
    assert offsets(member.take(1000)) == sorted(found)
    rig.publish("t", b"after")
    again = Rig(disk)
    assert again.problems == [], "it was repaired once, and is whole now"
    assert again.read("t") == {**found, 24: b"after"}


def test_damage_in_a_sealed_segment_is_found_when_it_is_read() -> None:
    disk, sent = small(clean=True, segment_bytes=512)
    names = [name for name in disk.names() if name.endswith(".log")]
    assert len(names) > 2
    disk.files[names[1]].data[HEADER_SIZE + 60] ^= 1
    rig = Rig(disk)
    assert rig.problems == [], "sealed segments are not read at the start"
    member = rig.subscribe("t")
    got = payloads(member.take(1000)) + payloads(member.take(1000)) + payloads(member.take(1000))
    assert rig.engine.damage
    assert len(sent) - 4 <= len(got) < len(sent)


def test_a_missing_segment_is_reported() -> None:
    disk, _ = small(clean=True, segment_bytes=512)
    names = [name for name in disk.names() if name.endswith(".log")]
    disk.unlink(names[1])
    assert any("missing" in problem for problem in Rig(disk).problems)


@pytest.mark.parametrize("ending", [".index", ".snapshot", "clean"])
def test_caches_and_snapshots_may_be_damaged_or_lost(ending: str) -> None:
    disk, sent = small(clean=True, segment_bytes=512)
    for name in disk.names():
        if name.endswith(ending):
            for position in range(0, len(disk.files[name].data), 7):
                twin = copied(disk)
                twin.files[name].data[position] ^= 0xFF
                assert Rig(twin).read("t") == sent
            twin = copied(disk)
            twin.unlink(name)
            assert Rig(twin).read("t") == sent


def test_other_versions_are_refused_clearly() -> None:
    disk, _ = small(clean=False)
    name = log_name(disk)
    for start in (0, HEADER_SIZE // 2):
        disk.files[name].data[start + 6] = 9
    with pytest.raises(WrongVersion, match="version 9"):
        Rig(disk)


def test_another_brokers_segment_is_left_out_and_reported() -> None:
    disk, _ = small(clean=False)
    other = Rig(seed=77)
    other.publish("t", b"foreign")
    assert isinstance(other.disk, MemoryDisk)
    foreign = bytes(other.disk.files[log_name(other.disk)].data)
    from blocks.broker.log.segment import decode_header

    header = decode_header(foreign)._replace(id=2)
    disk.open("000000000002.log", create=True).write(0, [header.encode() + foreign[HEADER_SIZE:]])
    rig = Rig(disk)
    assert any("another broker" in problem for problem in rig.problems)
    assert b"foreign" not in rig.read("t").values()


def test_files_that_are_not_ours_are_left_alone() -> None:
    disk, sent = small(clean=True)
    names = ("notes.txt", "app.log", "foo.index", "my.snapshot", "x.tmp")
    for name in names:
        disk.open(name, create=True).write(0, [b"mine"])
    rig = Rig(disk)
    assert (rig.problems, rig.read("t")) == ([], sent)
    assert all(bytes(disk.files[name].data) == b"mine" for name in names)


def test_zero_filled_tails_are_never_batches() -> None:
    disk, sent = small(clean=False)
    name = log_name(disk)
    for extra in (1, 43, 44, 45, 512, 4096, 70_000):
        twin = copied(disk)
        twin.files[name].data += bytes(extra)
        rig = Rig(twin)
        assert rig.problems == []
        assert rig.read("t") == sent


def test_a_full_disk_refuses_publishers_serves_consumers_and_recovers() -> None:
    disk = FailingDisk()
    rig = Rig(disk)
    rig.publish("t", *[b"x" * 50] * 20)
    member = rig.subscribe("t")
    rig.commit()
    before = rig.read("t")
    disk.room = 30
    first = rig.publish("t", b"y" * 100)
    assert isinstance(first.errors[0], DiskFull)
    assert isinstance(rig.publish("t", b"z").errors[0], DiskFull)
    assert rig.engine.status is Status.BUSY
    runs = member.take(10)
    assert len(payloads(runs)) == 10, "consumers are served"
    ack(member, runs)
    rig.advance(1.0)
    rig.commit()
    assert isinstance(rig.publish("t", b"z").errors[0], DiskFull), "there is still no room"
    disk.room = None
    rig.advance(1.0)
    rig.commit()
    assert rig.engine.status is Status.OPEN
    assert rig.publish("t", b"again").offsets[0] == 20, "the offsets go on without a hole"
    again = Rig(disk)
    assert again.problems == []
    assert again.read("t") == {**before, 20: b"again"}
    assert offsets(again.subscribe("t").take(100)) == list(range(10, 21)), (
        "what was acked while it was full stays acked"
    )


def test_a_full_disk_at_a_new_segment_leaves_no_half_made_file() -> None:
    disk = FailingDisk()
    rig = Rig(disk, segment_bytes=4096)
    while len(rig.engine.log.segments) < 2 or rig.engine.log.active.length < 4096:  # type: ignore[union-attr]
        rig.publish("t", b"x" * 500)
    count = len(rig.read("t"))
    disk.room = 0
    assert isinstance(rig.publish("t", b"y").errors[0], DiskFull)
    disk.room = None
    rig.advance(1.0)
    rig.commit()
    assert rig.publish("t", b"y").offsets[0] == count
    assert len(Rig(disk).read("t")) == count + 1


@pytest.mark.parametrize("room", range(0, 400, 7))
def test_wherever_the_disk_is_full_the_log_stays_whole(room: int) -> None:
    disk = FailingDisk()
    rig = Rig(disk)
    rig.publish("t", b"before")
    disk.room = room
    stored = [b"before"]
    for number in range(6):
        receipts = rig.publish("t", b"%d" % number, ids=[f"i{number}"])
        if not receipts.errors:
            stored.append(b"%d" % number)
    disk.room = None
    rig.advance(1.0)
    rig.commit()
    for number in range(6):
        rig.publish("t", b"%d" % number, ids=[f"i{number}"])
    again = Rig(disk)
    assert again.problems == []
    assert sorted(again.read("t").values()) == sorted([b"before", *(b"%d" % n for n in range(6))])


def test_a_failed_sync_fails_what_waits_and_is_never_tried_again() -> None:
    disk = FailingDisk()
    rig = Rig(disk)
    rig.publish("t", b"good")
    member = rig.subscribe("t")
    rig.commit()
    disk.broken = True
    waited: list[int] = []
    runs = member.take(10)
    member.ack("t", runs[0].offsets, runs[0].token, waited.append)
    receipts = rig.publish("t", b"lost?")
    assert isinstance(receipts.errors[0], DiskFailed)
    assert waited == [-1]
    assert rig.engine.status is Status.CLOSED
    disk.broken = False
    assert isinstance(rig.publish("t", b"more").errors[0], DiskFailed), "it stopped for good"
    rig.commit()
    assert not disk.synced_after_failure
    again = Rig(disk)
    assert again.read("t")[0] == b"good"


def test_random_garbage_is_never_read_as_a_message() -> None:
    random = Random(5)
    disk, sent = small(clean=False)
    name = log_name(disk)
    for _ in range(300):
        twin = copied(disk)
        data = twin.files[name].data
        start = random.randrange(HEADER_SIZE, len(data))
        length = random.randrange(1, 200)
        data[start : start + length] = random.randbytes(length)
        found = Rig(twin)
        messages = found.read("t") if "t" in found.engine.topic_named else {}
        assert all(sent.get(offset) == payload for offset, payload in messages.items())
