"""Groups, leases, order within a key, attempts and dead letters, with a clock that only the test moves."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from blocks.broker.errors import BadRequest, BadTopic, Exclusive, NotFound, QuotaExceeded
from blocks.broker.message import Limits, SubscribeOptions
from broker.rig import Rig, Taker, ack, offsets, payloads


def fill(rig: Rig, count: int, topic: str = "t", **columns: Any) -> None:
    rig.publish(topic, *[b"%d" % n for n in range(count)], **columns)


def test_every_group_gets_everything_and_members_share_it() -> None:
    rig = Rig()
    fill(rig, 100)
    one, two = rig.subscribe("t", "a", prefetch=30), rig.subscribe("t", "a", prefetch=30)
    other = rig.subscribe("t", "b")
    got: list[int] = []
    while (runs := one.take(10)) or (runs := two.take(10)):
        got += offsets(runs)
        for member in (one, two):
            for run in runs:
                member.ack(run.topic, run.offsets, run.token)
    assert sorted(got) == list(range(100))
    assert offsets(other.take(1000)) == list(range(100))


def test_waiting_members_share_fairly() -> None:
    rig = Rig()
    members = [rig.subscribe("t", "a", prefetch=1000) for _ in range(4)]
    for member in members:
        assert member.take() == []
    fill(rig, 100)
    counts = [len(payloads(member.take())) for member in members]
    assert sum(counts) == 100
    assert max(counts) <= 50, "nobody takes it all while others wait"


@pytest.mark.parametrize(
    ("start", "expected"), [("earliest", 0), ("latest", 10), ("last", 9), (4, 4), (99, 99), (1_700_000_005.0, 5)]
)
def test_where_a_group_starts(start: Any, expected: int) -> None:
    rig = Rig()
    for number in range(10):
        rig.publish("t", b"%d" % number)
        rig.clock.advance(1)
    member = rig.subscribe("t", "g", start=start)
    rig.commit()
    assert offsets(member.take(100)) == list(range(expected, 10))
    fill(rig, 2)
    fill(rig, 100)
    again = offsets(member.take(200))
    assert (again[0] if again else None) == max(10, expected)


def test_a_bad_start_or_pattern_is_refused() -> None:
    rig = Rig()
    with pytest.raises(BadRequest):
        rig.subscribe("t", start="yesterday")
    with pytest.raises(BadTopic):
        rig.subscribe("a..b")
    with pytest.raises(BadRequest):
        rig.subscribe("t", prefetch=0)
    with pytest.raises(BadTopic):
        rig.subscribe("t", dead_letter="no name")


def test_a_wildcard_group_sees_topics_that_come_later_from_their_first_message() -> None:
    rig = Rig()
    fill(rig, 3, "orders.old")
    member = rig.subscribe("orders.*", "g", start="latest")
    assert member.take() == []
    fill(rig, 2, "orders.new")
    fill(rig, 2, "orders.old")
    fill(rig, 2, "other")
    rig.commit()
    assert sorted((r.topic, list(r.offsets)) for r in member.take()) == [("orders.new", [0, 1]), ("orders.old", [3, 4])]
    again = Rig(rig.disk, rig.clock)
    assert {row["topic"] for row in again.engine.lag("g")} == {"orders.new", "orders.old"}
    member = again.subscribe("orders.*", "g")
    fill(again, 1, "orders.newest")
    assert "orders.newest" in {run.topic for run in member.take()}


def test_an_unacked_message_comes_back_when_its_lease_ends_and_the_old_holder_is_fenced() -> None:
    rig = Rig()
    fill(rig, 1)
    slow, quick = rig.subscribe("t", "g", lease=30.0), rig.subscribe("t", "g", lease=30.0)
    (first,) = slow.take()
    assert quick.take() == []
    rig.advance(29)
    assert quick.take() == []
    rig.advance(1.2)
    (second,) = quick.take()
    assert (list(second.offsets), second.attempts) == ([0], [2])
    assert slow.ack("t", first.offsets, first.token) == 1, "the lease was lost"
    assert quick.ack("t", second.offsets, second.token) == 0
    rig.advance(100)
    assert slow.take() == quick.take() == []


def test_extending_keeps_a_lease() -> None:
    rig = Rig()
    fill(rig, 2)
    member = rig.subscribe("t", "g", lease=10.0)
    (run,) = member.take()
    for _ in range(10):
        rig.advance(8)
        assert member.extend("t", run.offsets, run.token, 10.0) == 0
    assert member.ack("t", run.offsets, run.token) == 0
    assert member.extend("t", run.offsets, run.token, 10.0) == 2, "over what is settled it does nothing"
    assert member.extend("nowhere", [1], run.token, 10.0) == 1


def test_a_member_that_leaves_gives_back_at_once() -> None:
    rig = Rig()
    fill(rig, 5)
    one, two = rig.subscribe("t", "g"), rig.subscribe("t", "g")
    first = offsets(one.take())
    assert first
    rest = offsets(two.take())
    one.close()
    one.close()
    assert sorted(rest + offsets(two.take())) == list(range(5))
    assert rig.engine.lag("g")[0]["lag"] == 5


def test_nack_delays_back_off_and_attempts() -> None:
    rig = Rig()
    fill(rig, 1)
    member = rig.subscribe("t", "g", backoff=1.0, backoff_cap=3.0, max_deliveries=100)
    for attempt, pause in ((1, 1.0), (2, 2.0), (3, 3.0), (4, 3.0)):
        (run,) = member.take()
        assert (run.attempts or [1]) == [attempt]
        member.nack("t", run.offsets, run.token)
        rig.advance(pause - 0.01)
        assert member.take() == []
        rig.advance(0.02)
    (run,) = member.take()
    member.nack("t", run.offsets, run.token, 0)
    assert member.take()[0].attempts == [6]


def test_attempts_survive_a_crash() -> None:
    rig = Rig()
    fill(rig, 3)
    member = rig.subscribe("t", "g")
    (run,) = member.take(2)
    member.nack("t", [0], run.token, 0)
    member.take(1)
    rig.commit()
    after = Rig(rig.disk, rig.clock)
    (one, two) = after.subscribe("t", "g").take()
    assert (list(one.offsets), one.attempts) == ([0, 1], [3, 2])
    assert (list(two.offsets), two.attempts) == ([2], None)


def test_order_is_kept_within_a_key_and_only_there() -> None:
    rig = Rig()
    keys = [b"a", b"a", b"b", None, b"a", None, b"b"]
    fill(rig, 7, keys=keys)
    one, two = rig.subscribe("t", "g"), rig.subscribe("t", "g")
    runs = one.take()
    assert offsets(runs) == [0, 2, 3, 5]
    assert two.take() == []
    one.nack("t", [0], runs[0].token, 5.0)
    assert two.take() == [], "the one that came back keeps its place before the others of its key"
    one.ack("t", [2], runs[0].token)
    (run,) = two.take()
    assert list(run.offsets) == [6]
    rig.advance(6)
    (run,) = two.take()
    assert (list(run.offsets), run.attempts) == ([0], [2])
    two.ack("t", [0], run.token)
    assert offsets(two.take()) == [1]


def test_order_within_a_key_after_a_crash() -> None:
    rig = Rig()
    fill(rig, 6, keys=[b"a", b"b"] * 3)
    member = rig.subscribe("t", "g")
    runs = member.take()
    assert offsets(runs) == [0, 1]
    member.ack("t", [1], runs[0].token)
    assert offsets(member.take()) == [3]
    rig.commit()
    after = Rig(rig.disk, rig.clock)
    member = after.subscribe("t", "g")
    (run,) = member.take()
    assert (list(run.offsets), run.attempts) == ([0, 3], [2, 2])
    ack(member, [run])
    (run,) = member.take()
    assert (list(run.offsets), run.attempts) == ([2, 5], None), "what only waited for its key was never delivered"


def test_a_hot_key_stops_the_scan_at_the_limit() -> None:
    rig = Rig(limits=Limits(blocked_keys=10))
    fill(rig, 100, keys=[b"a"] * 100)
    member = rig.subscribe("t", "g")
    got = []
    while runs := member.take():
        got += offsets(runs)
        assert rig.engine.group_named["g"].queues["t"].blocked <= 10
        ack(member, runs)
    assert got == list(range(100))


def test_prefetch_bounds_what_is_in_flight_in_messages_and_bytes() -> None:
    rig = Rig()
    rig.publish("t", *[b"x" * 1000] * 50)
    member = rig.subscribe("t", "g", prefetch=20, prefetch_bytes=5500)
    runs = member.take(100)
    assert len(payloads(runs)) == 6, "the bytes are exceeded by one message at most"
    assert member.take() == []
    member.ack("t", [0, 1], runs[0].token)
    assert member.member.calls >= 1
    assert len(payloads(member.take())) == 2
    member.flow(prefetch_bytes=1 << 20)
    assert len(payloads(member.take())) == 14
    tiny = rig.subscribe("t", "h", prefetch_bytes=1)
    assert len(payloads(tiny.take())) == 1, "one message may always be in flight, however big"


def test_ready_is_said_once_until_nothing_was_taken() -> None:
    rig = Rig()
    member = rig.subscribe("t", "g")
    taker: Taker = member.member
    fill(rig, 1)
    fill(rig, 1)
    assert taker.calls == 1
    assert len(payloads(member.take())) == 2
    assert member.take() == []
    fill(rig, 1)
    assert taker.calls == 2


def test_a_paused_member_is_passed_over() -> None:
    rig = Rig()
    one, two = rig.subscribe("t", "g"), rig.subscribe("t", "g")
    one.take()
    two.take()
    one.pause()
    fill(rig, 1)
    assert (one.member.calls, two.member.calls) == (0, 1)
    two.pause()
    one.resume()
    assert one.member.calls == 1
    assert offsets(one.take()) == [0]


def test_browsing_consumes_nothing_and_leaves_no_trace() -> None:
    rig = Rig()
    fill(rig, 3)
    rig.subscribe("t", "g")
    rig.commit()
    browser = rig.subscribe("t", "g", mode="browse")
    assert offsets(browser.take()) == [0, 1, 2]
    assert rig.engine.lag("g")[0]["lag"] == 3
    browser.close()
    plain = rig.subscribe("t", None, start="earliest", ack=False)
    assert offsets(plain.take()) == [0, 1, 2]
    assert plain.in_flight == 0
    plain.close()
    assert [row["group"] for row in rig.engine.groups()] == ["g"]
    resumed = rig.subscribe("t", None, positions={"t": 2})
    assert offsets(resumed.take()) == [2]


def test_delivered_is_done_for_a_group_without_acks() -> None:
    rig = Rig()
    fill(rig, 3)
    rig.subscribe("t", "g", ack=False).take()
    rig.commit()
    after = Rig(rig.disk, rig.clock)
    assert after.subscribe("t", "g").take() == []


def test_exclusive_and_single_active_members() -> None:
    rig = Rig()
    fill(rig, 4)
    one = rig.subscribe("t", "only", exclusive=True)
    with pytest.raises(Exclusive):
        rig.subscribe("t", "only")
    one.close()
    rig.subscribe("t", "only").close()
    first, second = rig.subscribe("t", "one", single_active=True), rig.subscribe("t", "one", single_active=True)
    assert second.take() == []
    assert offsets(first.take(2)) == [0, 1]
    first.close()
    assert second.member.calls == 1
    assert offsets(second.take()) == [0, 1, 2, 3]


def test_poison_goes_to_the_dead_letters_with_reason_and_history_and_can_be_redriven() -> None:
    rig = Rig()
    fill(rig, 2, headers=[{"a": "b"}, None], keys=[b"k", b"l"])
    member = rig.subscribe("t", "g", max_deliveries=3, lease=10.0)
    for _ in range(3):
        run = next(run for run in member.take() if 0 in run.offsets)
        member.ack("t", [1], run.token)
        rig.advance(11)
    rig.commit()
    assert member.take() == []
    dead = rig.subscribe("$dead.g", "undertaker")
    (run,) = dead.take()
    headers = (run.headers or [{}])[0] or {}
    assert (run.payloads, run.keys, headers["a"]) == ([b"0"], [b"k"], "b")
    assert headers["dead-letter-topic"] == "t"
    assert (headers["dead-letter-offset"], headers["dead-letter-attempts"]) == ("0", "3")
    assert "lease ended" in headers["dead-letter-reason"]
    assert [entry["reason"] for entry in json.loads(headers["dead-letter-history"])] == ["lease ended"] * 3
    counted: list[int] = []
    rig.engine.redrive("g", done=counted.append)
    rig.commit()
    assert counted == [1]
    (run,) = member.take()
    assert (run.payloads, run.attempts) == ([b"0"], None)
    after = Rig(rig.disk, rig.clock)
    assert offsets(after.subscribe("t", "g").take()) == [0]
    assert after.engine.topics("$dead.*")[0]["messages"] == 0


def test_rejected_messages_and_acks_are_one_batch() -> None:
    rig = Rig()
    fill(rig, 3)
    member = rig.subscribe("t", "g", dead_letter="graveyard")
    (run,) = member.take()
    assert member.reject("t", [1], run.token, "no such customer") == 0
    assert member.reject("t", [1], run.token) == 1
    rig.commit()
    after = Rig(rig.disk, rig.clock)
    assert offsets(after.subscribe("t", "g").take()) == [0, 2]
    (run,) = after.subscribe("graveyard", "h").take()
    assert (run.headers or [{}])[0]["dead-letter-reason"] == "no such customer"  # type: ignore[index]


def test_redriving_what_is_not_in_its_topic_any_more_publishes_it_again() -> None:
    rig = Rig()
    fill(rig, 2)
    member = rig.subscribe("t", "g")
    (run,) = member.take()
    member.reject("t", [0], run.token)
    rig.commit()
    rig.engine.trim(rig.engine.topic_named["t"], 1, 1)
    rig.engine.redrive("g")
    rig.commit()
    assert payloads(member.take()) == [b"0"]
    with pytest.raises(NotFound):
        rig.engine.redrive("nobody")


def test_limits_on_groups_members_and_topics() -> None:
    rig = Rig(limits=Limits(groups=1, members=2, topics=2))
    fill(rig, 1, "a")
    fill(rig, 1, "b")
    assert isinstance(rig.publish("c", b"").errors[0], QuotaExceeded)
    rig.subscribe("a", "g")
    with pytest.raises(QuotaExceeded):
        rig.subscribe("a", "h")
    rig.subscribe("a", None)
    with pytest.raises(QuotaExceeded):
        rig.subscribe("a", "g")


def test_members_of_one_group_with_different_patterns_get_only_theirs() -> None:
    rig = Rig()
    east, west = rig.subscribe("e.*", "g"), rig.subscribe("w.*", "g")
    for topic in ("e.1", "w.1", "e.2"):
        fill(rig, 2, topic)
    assert {run.topic for run in west.take()} == {"w.1"}
    assert {run.topic for run in east.take()} == {"e.1", "e.2"}


def test_deleting_topics_and_groups() -> None:
    rig = Rig()
    fill(rig, 3)
    member = rig.subscribe("t", "g")
    member.take(1)
    rig.engine.delete_topic("t")
    fill(rig, 1)
    rig.commit()
    assert rig.read("t") == {3: b"0"}
    assert offsets(member.take()) == [3]
    after = Rig(rig.disk, rig.clock)
    assert after.read("t") == {3: b"0"}
    after.engine.delete_group("g")
    after.commit()
    with pytest.raises(NotFound):
        after.engine.delete_group("g")
    final = Rig(rig.disk, rig.clock)
    assert final.engine.groups() == []
    assert final.read("t") == {3: b"0"}


def test_a_thousand_random_answers_lose_nothing() -> None:
    random = Random(3)
    rig = Rig()
    fill(rig, 300, keys=[random.choice([None, b"a", b"b", b"c"]) for _ in range(300)])
    member = rig.subscribe("t", "g", max_deliveries=10_000)
    done: set[int] = set()
    for _ in range(5000):
        for run in member.take(7):
            for offset in run.offsets:
                if random.random() < 0.5:
                    assert member.ack("t", [offset], run.token) == 0
                    assert offset not in done
                    done.add(offset)
                else:
                    member.nack("t", [offset], run.token, random.choice([0, 0, 1.0]))
        rig.advance(0.3)
        if len(done) == 300:
            break
    assert done == set(range(300))
    assert rig.engine.lag("g")[0]["lag"] == 0


def test_a_callback_that_fails_keeps_nobody_else_waiting() -> None:
    told: list[str] = []
    rig = Rig(report=lambda event, text: told.append(event))

    class Broken(Taker):
        def ready(self, subscription: Any) -> None:
            super().ready(subscription)
            raise RuntimeError("mine")

    def fail(receipts: Any) -> None:
        raise RuntimeError("mine too")

    rig.engine.subscribe(SubscribeOptions("t", "broken"), Broken())
    member = rig.subscribe("t", "g")
    rig.send("t", b"1", done=fail)
    answers = rig.send("t", b"2")
    rig.commit()
    assert len(answers) == 1
    assert told == ["callback-failed", "member-failed"]
    assert payloads(member.take()) == [b"1", b"2"]


def test_a_disk_that_cannot_be_read_is_reported_and_not_asked_in_a_circle() -> None:
    rig = Rig()
    fill(rig, 3)
    member = rig.subscribe("t", "g")
    rig.engine.log._cache.clear()
    good, rig.engine.log._bytes = rig.engine.log._bytes, raises  # type: ignore[method-assign, assignment]
    assert member.take() == []
    assert any("could not be read" in problem for problem in rig.engine.damage)
    rig.engine.log._bytes = good  # type: ignore[method-assign]
    fill(rig, 1)
    assert offsets(member.take()) == [0, 1, 2, 3]


def raises(*_: Any) -> Any:
    raise OSError(5, "Input/output error")


def test_subscribe_options_are_plain_values() -> None:
    assert SubscribeOptions("a", start="latest") == SubscribeOptions("a")
