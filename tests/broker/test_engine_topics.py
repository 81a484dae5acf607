"""Publishing, duplicates, time to live, schedules, routing, validation, retention and compaction."""

from __future__ import annotations

from typing import Any

import pytest

from blocks.broker import Broker, TopicOptions
from blocks.broker.errors import (
    Aborted,
    BadRequest,
    BadTopic,
    Fenced,
    Invalid,
    NotFound,
    Overloaded,
    QuotaExceeded,
    SequenceGap,
    TooLarge,
)
from blocks.broker.log.disk import MemoryDisk
from blocks.broker.message import Limits
from blocks.core.clock import FakeClock
from broker.rig import Rig, ack, offsets, payloads


def test_offsets_are_dense_by_topic_over_mixed_frames() -> None:
    rig = Rig()
    receipts = rig.publish("", b"a", b"b", b"c", topics=["x", "y", "x"])
    assert list(receipts.offsets) == [0, 0, 1]
    assert rig.publish("x", b"d").offsets == range(2, 3)
    assert rig.read("x") == {0: b"a", 1: b"c", 2: b"d"}


def test_columns_come_out_as_they_went_in() -> None:
    rig = Rig()
    rig.send("t", b"plain")
    rig.publish("t", b"full", keys=[b"k"], headers=[{"h": "ü"}], ids=["i"], reply_tos=["answers"])
    for after in (rig, Rig(rig.disk, rig.clock)):
        (run,) = after.subscribe("t", None).take()
        assert run.payloads == [b"plain", b"full"]
        assert run.keys == [None, b"k"]
        assert run.headers == [None, {"h": "ü"}]
        assert (run.ids, run.reply_tos) == ([None, "i"], [None, "answers"])


def test_an_id_is_stored_once_within_the_window_also_across_restarts() -> None:
    rig = Rig()
    assert rig.publish("t", b"a", b"b", ids=["1", "2"]).duplicates == frozenset()
    again = rig.publish("t", b"b", b"c", b"c", ids=["2", "3", "3"])
    assert (list(again.offsets), again.duplicates) == ([1, 2, 2], {0, 2})
    assert rig.publish("other", b"a", ids=["1"]).duplicates == frozenset(), "the window is the topic's"
    for after in (Rig(rig.disk, rig.clock), rig):
        assert after.publish("t", b"a", ids=["1"]).receipt(0) == ("t", 0, True, "fsync")
    rig.stop()
    after = Rig(rig.disk, rig.clock)
    assert after.publish("t", b"a", ids=["1"]).duplicates == {0}
    rig.clock.advance(121)
    assert after.publish("t", b"a", ids=["1"]).receipt(0) == ("t", 3, False, "fsync")


def test_the_dedup_window_is_bounded() -> None:
    rig = Rig(limits=Limits(dedup_ids=10))
    for number in range(50):
        rig.publish("t", b"", ids=[str(number)])
    assert len(rig.engine.topic_named["t"].ids or {}) == 10
    assert rig.publish("t", b"", ids=["0"]).duplicates == frozenset()


def test_a_duplicate_of_what_is_not_durable_yet_is_answered_with_it() -> None:
    rig = Rig()
    first = rig.send("t", b"a", ids=["1"])
    second = rig.send("t", b"a", ids=["1"])
    assert first == second == []
    rig.commit()
    assert (first[0].offsets, second[0].duplicates) == ([0], {0})


def test_an_idempotent_producers_frame_is_stored_once_and_an_older_epoch_is_fenced() -> None:
    rig = Rig()
    frame: dict[str, Any] = {"producer": "p", "epoch": 1}
    assert list(rig.publish("t", b"a", b"b", sequence=1, **frame).offsets) == [0, 1]
    rig.publish("t", b"c", sequence=2, **frame)
    again = rig.publish("t", b"a", b"b", sequence=1, **frame)
    assert (list(again.offsets), again.duplicates) == ([0, 1], {0, 1})
    after = Rig(rig.disk, rig.clock)
    assert after.publish("t", b"c", sequence=2, **frame).duplicates == {0}
    rig.stop()
    after = Rig(rig.disk, rig.clock)
    assert after.publish("t", b"c", sequence=2, **frame).duplicates == {0}
    assert list(after.publish("t", b"d", sequence=1, producer="p", epoch=2).offsets) == [3]
    assert isinstance(after.publish("t", b"c", sequence=3, **frame).errors[0], Fenced)
    assert isinstance(after.publish("t", b"c", sequence=0, producer="p", epoch=2).errors[0], SequenceGap)


def test_producers_are_bounded() -> None:
    rig = Rig(limits=Limits(producers=5))
    for number in range(20):
        rig.publish("t", b"", producer=f"p{number}", sequence=1)
    assert len(rig.engine.producers) == 5


def test_an_atomic_frame_is_stored_whole_or_not_at_all() -> None:
    rig = Rig(limits=Limits(message_bytes=10))
    refused = rig.publish("", b"ok", b"x" * 11, topics=["a", "b"], atomic=True)
    assert isinstance(refused.errors[0], Aborted)
    assert isinstance(refused.errors[1], TooLarge)
    partly = rig.publish("", b"ok", b"x" * 11, topics=["a", "b"])
    assert (list(partly.offsets), list(partly.errors)) == ([0, -1], [1])
    with pytest.raises(TooLarge):
        partly.receipt(1)


def test_limits_refuse_clearly() -> None:
    rig = Rig(limits=Limits(message_bytes=10, key_bytes=2, headers=1, header_bytes=10, id_chars=3, waiting_bytes=100))
    for columns, payload in (
        ({}, b"x" * 11), ({"keys": [b"abc"]}, b""), ({"headers": [{"a": "x" * 10}]}, b""), ({"ids": ["abcd"]}, b""),
    ):  # fmt: skip
        assert isinstance(rig.publish("t", payload, **columns).errors[0], TooLarge)
    assert isinstance(rig.publish("a..b", b"").errors[0], BadTopic)
    assert isinstance(rig.engine.topic_named.get("t"), object)
    rig.send("t", b"x" * 10)
    rig.send("t", b"x" * 10)
    assert isinstance(rig.send("t", b"x")[0].errors[0], Overloaded)
    rig.commit()
    assert not rig.publish("t", b"x").errors


def test_who_is_told_may_publish_at_once() -> None:
    rig = Rig()
    told: list[bytes] = []

    def again(receipts: Any) -> None:
        told.append(receipts.publication.payloads[0])
        if len(told) < 6:
            rig.send("t", b"%d" % len(told), ids=["same"] if len(told) % 2 else None, done=again)

    rig.send("t", b"0", ids=["same"], done=again)
    for _ in range(10):
        rig.commit()
    assert told == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert list(rig.read("t").values()) == [b"0", b"2", b"4"]


def test_one_call_is_bounded_as_it_becomes_one_batch() -> None:
    rig = Rig(limits=Limits(frame_bytes=100))
    assert isinstance(rig.publish("t", b"x" * 60, b"y" * 60).errors[1], TooLarge)


def test_stored_times_do_not_go_back_over_a_restart() -> None:
    rig = Rig()
    rig.publish("t", b"1")
    rig.stop()
    rig.clock.jump(-1000)
    after = Rig(rig.disk, rig.clock)
    after.publish("t", b"2")
    times = [batch.time for s in after.engine.log.segments.values() for batch in after.engine.log.batches(s)]
    assert times == sorted(times)


def test_a_message_is_not_delivered_after_its_time_to_live() -> None:
    rig = Rig()
    rig.publish("t", b"short", b"long", b"ever", ttls=[5.0, 50.0, None])
    rig.clock.advance(10)
    member = rig.subscribe("t", "g")
    (run,) = member.take()
    assert run.payloads == [b"long", b"ever"]
    member.nack("t", [1], run.token, 100.0)
    member.ack("t", [2], run.token)
    rig.advance(101)
    assert member.take() == []
    rig.commit()
    assert rig.engine.lag("g")[0]["lag"] == 0


def test_a_scheduled_message_is_delivered_when_it_is_due_and_not_before() -> None:
    rig = Rig()
    early = rig.subscribe("t", "early", lease=1000.0)
    now = rig.clock.wall()
    rig.publish("t", b"later", b"now", dues=[now + 60, now - 1])
    assert payloads(early.take()) == [b"now"]
    latest = rig.subscribe("t", "latest", start="latest", lease=1000.0)
    assert rig.engine.wait() is not None
    rig.advance(59)
    assert early.take() == []
    after = Rig(rig.disk, rig.clock)
    rig.advance(1.1)
    assert payloads(early.take()) == [b"later"]
    assert payloads(latest.take()) == [b"later"], "who is there when it falls due gets it"
    rig.commit()
    final = Rig(rig.disk, rig.clock)
    assert offsets(final.subscribe("t", "early").take()) == [0, 1], "neither was acked"
    after.clock.advance(0)
    after.engine.tick()
    assert payloads(after.subscribe("t", "new").take()) == [b"later", b"now"]


def test_twenty_four_hours_of_scheduled_messages_under_a_fake_clock() -> None:
    rig = Rig()
    start = rig.clock.wall()
    member = rig.subscribe("jobs", "g", prefetch=10_000)
    for hour in range(24):
        rig.publish(
            "jobs",
            *[b"%d" % (hour * 60 + m) for m in range(60)],
            dues=[start + (hour * 60 + m) * 60 for m in range(60)],
        )
    rig.commit()
    got: list[int] = []
    for minute in range(24 * 60):
        if minute % 360 == 100:  # it is restarted now and then
            rig.commit()
            rig = Rig(rig.disk, rig.clock)
            member = rig.subscribe("jobs", "g", prefetch=10_000)
        runs = member.take(10_000)
        ack(member, runs)
        rig.commit()
        got += [int(payload) for payload in payloads(runs)]
        rig.advance(60)
        assert got == list(range(minute + 1)), "each in its minute, once"
    assert rig.engine.stats()["scheduled"] == 0


def test_clock_jumps() -> None:
    rig = Rig()
    member = rig.subscribe("t", "g", lease=30.0)
    rig.publish("t", b"due", b"plain", dues=[rig.clock.wall() + 100, None])
    (run,) = member.take()
    rig.clock.jump(-3600)
    rig.engine.tick()
    rig.publish("t", b"after the jump")
    times = [batch.time for s in rig.engine.log.segments.values() for batch in rig.engine.log.batches(s)]
    assert times == sorted(times), "stored times never go back"
    assert member.ack("t", run.offsets, run.token) == 0, "leases do not hang on the wall clock"
    assert payloads(member.take()) == [b"after the jump"]
    rig.clock.jump(3600 + 101)
    rig.engine.tick()
    assert payloads(member.take()) == [b"due"]


def test_scheduled_messages_are_bounded() -> None:
    rig = Rig(limits=Limits(scheduled=2))
    due = rig.clock.wall() + 10
    rig.publish("t", b"", b"", dues=[due, due])
    assert isinstance(rig.publish("t", b"", dues=[due]).errors[0], QuotaExceeded)


def test_bindings_copy_by_topic_and_headers_and_survive() -> None:
    rig = Rig()
    rig.engine.bind("orders.*", "audit")
    rig.engine.bind("orders.*", "big", {"size": "l", "land": "de"}, "any")
    rig.engine.bind("audit", "archive")
    rig.engine.bind("archive", "orders.new")
    rig.publish("orders.new", b"1", b"2", headers=[{"size": "l"}, None], ids=["a", "b"])
    assert (len(rig.read("audit")), rig.read("big"), len(rig.read("archive"))) == (2, {0: b"1"}, 2)
    assert len(rig.read("orders.new")) == 2, "a circle ends where it began"
    rig.publish("orders.new", b"1", ids=["a"])
    assert len(rig.read("audit")) == 2, "a duplicate is not copied again"
    after = Rig(rig.disk, rig.clock)
    after.publish("orders.old", b"3")
    assert len(after.read("audit")) == 3
    after.engine.unbind("orders.*", "audit")
    with pytest.raises(NotFound):
        after.engine.unbind("orders.*", "audit")
    after.publish("orders.old", b"4")
    assert len(after.read("audit")) == 3
    assert len(after.engine.bindings()) == 3


def test_validation_by_schema_and_code_refuses_or_dead_letters() -> None:
    rig = Rig()
    schema = '{"type": "object", "required": ["n"]}'
    rig.engine.configure("strict", TopicOptions(schema=schema))
    rig.engine.configure("lax", TopicOptions(schema=schema, on_invalid="dead-letter"))
    receipts = rig.publish("strict", b'{"n": 1}', b"{}", b"no json")
    assert (list(receipts.offsets), sorted(receipts.errors)) == ([0, -1, -1], [1, 2])
    assert isinstance(receipts.errors[1], Invalid)
    assert not rig.publish("lax", b"{}", b'{"n": 2}').errors
    assert (rig.read("lax"), rig.read("$dead.lax")) == ({0: b'{"n": 2}'}, {0: b"{}"})
    with pytest.raises(BadRequest):
        rig.engine.configure("bad", TopicOptions(schema='{"type": 3}'))
    with pytest.raises(BadRequest):
        rig.engine.configure("bad", TopicOptions(retain_bytes=-1))


def test_whatever_a_hook_raises_refuses_one_message() -> None:
    rig = Rig()
    rig.engine.checks.transforms.add("t", lambda payload, headers: (payload, {"n": {b"1": "one"}[payload]}))
    rig.engine.refresh_plain()
    rig.engine.checks.transforms.add("u", lambda payload, headers: ("text", headers))  # type: ignore[arg-type, return-value]
    rig.engine.refresh_plain()
    assert isinstance(rig.publish("u", b"1").errors[0], Invalid)
    receipts = rig.publish("t", b"1", b"2", b"1")
    assert (list(receipts.offsets), list(receipts.errors)) == ([0, -1, 1], [1])
    assert isinstance(receipts.errors[1], Invalid)


def test_retention_by_count_bytes_and_age() -> None:
    rig = Rig()
    from blocks.broker.retention import Retention

    retention = Retention(rig.engine, rig.disk, rig.random)
    rig.engine.configure("count", TopicOptions(retain_messages=10))
    rig.engine.configure("bytes", TopicOptions(retain_bytes=100))
    rig.engine.configure("age", TopicOptions(retain_seconds=60))
    rig.engine.configure("last", TopicOptions(retain_seconds=1, keep_last=True))
    for _ in range(30):
        for topic in ("count", "bytes", "age", "last"):
            rig.publish(topic, b"x" * 10, b"y" * 10)
        rig.clock.advance(5)
    late = rig.subscribe("count", "g")
    assert retention.trim() > 0
    rig.commit()
    for engine in (rig.engine, Rig(rig.disk, rig.clock).engine):
        rows = {row["topic"]: row for row in engine.topics()}
        assert rows["count"]["messages"] == 10
        assert (rows["bytes"]["messages"], rows["bytes"]["bytes"]) == (10, 100)
        assert 22 <= rows["age"]["messages"] <= 26
        assert rows["last"]["messages"] == 1
    assert offsets(late.take()) == list(range(50, 60))


async def test_the_cleaner_gives_room_back_and_keeps_the_last_value_of_a_key() -> None:
    disk, clock = MemoryDisk(), FakeClock()
    options = {"kv": TopicOptions(compact=True), "old": TopicOptions(retain_messages=5)}
    async with Broker("x", disk=disk, clock=clock, segment_bytes=8192, topics=options) as broker:
        for number in range(200):
            await broker.publish("kv", b"%d" % number + b"." * 200, key=b"k%d" % (number % 7))
            await broker.publish("old", b"o" * 200)
        await broker.publish("kv", b"", key=b"k0")
        before = broker.engine.log.size
        broker.retention.trim()
        broker.engine.want_snapshot()
        await broker.flush()
        for _ in range(4):
            await broker.retention.clean()
            await broker.flush()
        assert broker.engine.log.size < before / 3
    async with Broker("x", disk=disk, clock=clock, segment_bytes=8192) as broker:
        assert broker.engine.damage == []
        async with broker.subscribe("kv", start="earliest", ack=False) as messages:
            values = {}
            count = 0
            while (message := messages.poll()) is not None:
                values[message.key] = message.payload
                count += 1
        assert count < 60
        assert values[b"k0"] == b""
        assert {k: int(v.split(b".")[0]) for k, v in values.items() if v} == {
            b"k%d" % (n % 7): n for n in range(193, 200) if n % 7
        }
        assert broker.engine.topics("old")[0]["messages"] == 5
        assert (await broker.publish("old", b"next")).offset == 200


def test_deleting_a_topic_with_uncommitted_messages_never_reuses_an_offset() -> None:
    rig = Rig()
    rig.publish("t", b"1")
    rig.send("t", b"2")
    rig.engine.delete_topic("t")
    rig.publish("t", b"3")
    assert rig.read("t") == {2: b"3"}
    assert Rig(rig.disk, rig.clock).read("t") == {2: b"3"}
