from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from blocks.broker.client import connect
from blocks.broker.errors import BadRequest, BadTopic, Closed, Fenced, Invalid, LeaseLost, NotFound, TooLarge
from blocks.broker.frames import Welcome
from blocks.broker.message import Outgoing
from blocks.broker.wire import Encoder
from blocks.core.errors import ConfigError
from broker.network import Net, serving, until, within


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    async with serving() as net:
        yield net
    assert len(asyncio.all_tasks()) == 1


async def take(messages: Any, count: int) -> list[Any]:
    return [await within(messages.__anext__()) for _ in range(count)]


async def test_what_is_published_is_received_as_it_was(net: Net) -> None:
    async with connect(net.url) as client:
        receipt = await client.publish("orders.created", b"one", key=b"42", headers={"source": "shop"}, id="a1")
        assert (receipt.topic, receipt.offset, receipt.duplicate) == ("orders.created", 0, False)
        assert receipt.durability == "memory"
        receipts = await client.publish_many("orders.created", [b"two", b"three"])
        assert [r.offset for r in receipts] == [1, 2]
        async with client.subscribe("orders.*", group="billing", start="earliest", prefetch=10) as messages:
            first, second, _ = await take(messages, 3)
            assert (first.topic, first.payload, first.key, first.offset, first.attempt) == (
                "orders.created",
                b"one",
                b"42",
                0,
                1,
            )
            assert first.headers == {"source": "shop"}
            assert first.id == "a1"
            assert first.timestamp > 1_600_000_000
            assert second.payload == b"two"
            assert second.headers == {}
            assert second.key is None


async def test_messages_of_one_tick_leave_in_one_frame(net: Net) -> None:
    async with connect(net.url) as client:
        work = [asyncio.create_task(client.publish("t", b"%d" % n)) for n in range(100)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert client.unanswered == 1
        receipts = await within(asyncio.gather(*work))
        assert [r.offset for r in receipts] == list(range(100))


async def test_options_that_only_some_messages_of_a_frame_have_stay_with_theirs(net: Net) -> None:
    async with connect(net.url) as client:
        await asyncio.gather(
            client.publish("t", b"0"),
            client.publish("t", b"1", key=b"k"),
            client.publish("t", b"2", headers={"a": "b"}),
            client.publish("t", b"3"),
            client.publish("t", b"4", id="x", key=b"l"),
        )
        async with client.subscribe("t", start="earliest") as messages:
            got = await take(messages, 5)
        assert [m.payload for m in got] == [b"0", b"1", b"2", b"3", b"4"]
        assert [m.key for m in got] == [None, b"k", None, None, b"l"]
        assert [m.headers for m in got] == [{}, {}, {"a": "b"}, {}, {}]
        assert [m.id for m in got] == [None, None, None, None, "x"]


async def test_publish_many_keeps_columns_and_order_over_many_frames(net: Net) -> None:
    async with connect(net.url) as client:
        payloads = [b"%d" % n + b"x" * (n * 7 % 3000) for n in range(500)]
        keys = [b"k%d" % n if n % 2 else None for n in range(500)]
        receipts = await client.publish_many("t", payloads, keys=keys, headers={"h": "all"})
        assert [r.offset for r in receipts] == list(range(500))
        async with client.subscribe("t", start="earliest") as messages:
            got = await take(messages, 500)
        assert [m.payload for m in got] == payloads
        assert [m.key for m in got] == keys
        assert all(m.headers == {"h": "all"} for m in got)


async def test_a_batch_over_several_topics_is_stored_as_a_whole(net: Net) -> None:
    async with connect(net.url) as client:
        receipts = await client.publish_batch(
            [Outgoing("a", b"1"), Outgoing("b", b"2", headers={"x": "y"}), Outgoing("a", b"3")]
        )
        assert [(r.topic, r.offset) for r in receipts] == [("a", 0), ("b", 0), ("a", 1)]
        with pytest.raises(BadTopic):
            await client.publish_batch([Outgoing("a", b"4"), Outgoing("not a topic", b"5")])
        assert (await client.publish("a", b"6")).offset == 2


async def test_an_id_that_comes_again_is_a_duplicate(net: Net) -> None:
    async with connect(net.url) as client:
        first = await client.publish("t", b"x", id="a1")
        await client.publish("t", b"y")
        again = await client.publish("t", b"x", id="a1")
        assert again.duplicate
        assert again.offset == first.offset


async def test_acked_messages_do_not_come_again_and_others_do(net: Net) -> None:
    async with connect(net.url) as client:
        await client.publish_many("t", [b"%d" % n for n in range(10)])
        async with client.subscribe("t", group="g", start="earliest") as messages:
            for message in await take(messages, 10):
                if int(message.payload) % 2 == 0:
                    await message.ack(wait=True)
        async with client.subscribe("t", group="g", start="earliest") as messages:
            again = await take(messages, 5)
            assert [m.payload for m in again] == [b"1", b"3", b"5", b"7", b"9"]
            assert all(m.attempt == 2 for m in again)


async def test_what_was_never_handed_out_goes_back_without_counting_an_attempt(net: Net) -> None:
    async with connect(net.url) as client:
        await client.publish_many("t", [b"%d" % n for n in range(5)])
        for attempt in range(1, 4):
            async with client.subscribe("t", group="g", start="earliest") as messages:
                (first,) = await take(messages, 1)
                assert (first.payload, first.attempt) == (b"0", attempt)
        async with client.subscribe("t", group="g") as messages:
            assert [m.attempt for m in await take(messages, 5)] == [4, 1, 1, 1, 1]


async def test_nack_delivers_again_and_reject_does_not(net: Net) -> None:
    async with connect(net.url) as client:
        await client.publish_many("t", [b"a", b"b"])
        async with client.subscribe("t", group="g", start="earliest", dead_letter="dead") as messages:
            first, second = await take(messages, 2)
            await first.nack()
            await second.reject("no good")
            (again,) = await take(messages, 1)
            assert (again.payload, again.attempt) == (b"a", 2)
            await again.ack()
        async with client.subscribe("dead", start="earliest") as dead:
            (letter,) = await take(dead, 1)
            assert letter.payload == b"b"
            assert "no good" in str(letter.headers)


async def test_members_of_a_group_share_and_groups_do_not(net: Net) -> None:
    async with (
        connect(net.url) as client,
        connect(net.url) as other,
        client.subscribe("t", group="g", start="earliest", prefetch=5) as one,
        other.subscribe("t", group="g", start="earliest", prefetch=5) as two,
        other.subscribe("t", group="h", start="earliest") as all_of_them,
    ):
        await client.publish_many("t", [b"%d" % n for n in range(10)])
        shared = await take(one, 5) + await take(two, 5)
        assert sorted(m.offset for m in shared) == list(range(10))
        assert [m.offset for m in await take(all_of_them, 10)] == list(range(10))


async def test_prefetch_bounds_what_is_unsettled_in_the_client(net: Net) -> None:
    async with connect(net.url) as client:
        await client.publish_many("t", [b"x"] * 100)
        async with client.subscribe("t", group="g", start="earliest", prefetch=7) as messages:
            got = await take(messages, 7)
            await client.topics()
            assert messages.buffered == 0
            for message in got[:3]:
                await message.ack()
            await take(messages, 3)
            await client.topics()
            assert messages.buffered == 0


async def test_browsing_takes_nothing_away_and_is_bounded_by_credit(net: Net) -> None:
    async with connect(net.url) as client:
        await client.publish_many("t", [b"%d" % n for n in range(50)])
        async with client.subscribe("t", mode="browse", start="earliest", prefetch=10) as messages:
            await take(messages, 1)
            await client.topics()
            assert messages.buffered <= 10
            await take(messages, 49)


async def test_a_request_is_answered_and_one_without_a_responder_times_out(net: Net) -> None:
    async with connect(net.url) as client, connect(net.url) as server:
        async with server.subscribe("rpc.upper", group="r", start="earliest") as messages:

            async def serve() -> None:
                async for message in messages:
                    await message.respond(message.payload.upper(), {"by": "server"})
                    await message.ack()

            task = asyncio.create_task(serve())
            answers = await within(
                asyncio.gather(*(client.request("rpc.upper", b"a%d" % n, timeout=20) for n in range(10)))
            )
            assert [a.payload for a in answers] == [b"A%d" % n for n in range(10)]
            assert answers[0].headers["by"] == "server"
            task.cancel()
            await asyncio.wait([task])
        with pytest.raises(TimeoutError):
            await client.request("nobody", b"x", timeout=0.05)
        with pytest.raises(NotFound):
            await client.publish("$inbox." + "x" * 32, b"too late")


async def test_wrong_arguments_are_refused_where_they_are_made(net: Net) -> None:
    async with connect(net.url) as client:
        with pytest.raises(BadRequest, match="payload is bytes"):
            await client.publish("t", "text")  # type: ignore[arg-type]
        with pytest.raises(BadRequest):
            await client.publish("t", b"", headers={"a": 1})  # type: ignore[dict-item]
        with pytest.raises(BadTopic):
            await client.publish("no good", b"")
        with pytest.raises(TooLarge):
            await client.publish("t", b"", headers={"a": "x" * 70_000})
        with pytest.raises(TooLarge):
            await client.publish("t", bytes(9 * 1024 * 1024))
        with pytest.raises(BadRequest):
            await client.publish_many("t", [b"1"], keys=[b"1", b"2"])
        with pytest.raises(BadTopic):
            async with client.subscribe("a.>.b"):
                pass
        with pytest.raises(BadRequest):
            async with client.subscribe("a", mode="nonsense"):
                pass
        with pytest.raises(NotFound):
            await client.ask("nonsense")
        assert (await client.publish("t", b"fine")).offset == 0


async def test_a_url_that_is_none_is_refused() -> None:
    for url in ("http://127.0.0.1", "blocks://", "blocks://host:99999", "blocks://host/path", "nonsense"):
        with pytest.raises(ConfigError):
            connect(url)


async def test_nobody_there_is_an_error_at_once() -> None:
    with pytest.raises(OSError):
        async with connect("blocks://127.0.0.1:1"):
            pass


async def test_after_a_lost_connection_everything_goes_on(net: Net) -> None:
    async with (
        connect(net.url) as client,
        client.subscribe("t", group="g", start="earliest") as grouped,
        client.subscribe("t", start="latest") as plain,
    ):
        await client.publish("t", b"0")
        (held,) = await take(grouped, 1)
        assert (await take(plain, 1))[0].payload == b"0"
        net.cut()
        await client.publish("t", b"1")
        assert client.reconnects == 1
        await held.ack()
        assert grouped.stale == 1
        again, new = await take(grouped, 2)
        assert (again.payload, again.attempt, new.payload) == (b"0", 2, b"1")
        assert (await take(plain, 1))[0].payload == b"1"
        net.cut()
        await until(lambda: client.reconnects == 2)
        with pytest.raises(LeaseLost):
            await again.ack(wait=True)


async def test_publishes_in_flight_land_once_although_the_broker_goes_away(net: Net) -> None:
    async with connect(net.url) as client:
        await client.publish("t", b"first")
        work = [asyncio.create_task(client.publish("t", b"%d" % n)) for n in range(200)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        net.cut()
        more = [asyncio.create_task(client.publish("t", b"%d" % n)) for n in range(200, 300)]
        receipts = await within(asyncio.gather(*work, *more))
        assert sorted(r.offset for r in receipts) == list(range(1, 301))
        async with client.subscribe("t", start="earliest") as messages:
            got = await take(messages, 301)
        assert sorted(int(m.payload) for m in got[1:]) == list(range(300))


async def test_a_server_that_stops_and_returns_is_found_again() -> None:
    async with (
        serving() as net,
        connect(net.url) as client,
        client.subscribe("t", group="g", start="earliest") as messages,
    ):
        await net.down(grace=0.2)
        waiting = asyncio.create_task(client.publish("t", b"x"))
        await until(lambda: not client.connected)
        await net.up()
        assert (await within(waiting)).offset == 0
        assert (await take(messages, 1))[0].payload == b"x"


async def test_a_broker_that_stays_away_ends_everything_with_an_error() -> None:
    async with serving() as net:
        async with connect(net.url, give_up_after=0.1) as client, client.subscribe("t") as messages:
            waiting = asyncio.create_task(messages.__anext__())
            await net.down()
            publishing = asyncio.create_task(client.publish("t", b"x"))
            for task in (waiting, publishing):
                with pytest.raises(Closed):
                    await within(task)
            with pytest.raises(Closed):
                await client.publish("t", b"y")
        await net.up()


async def test_memory_is_bounded_while_nobody_answers() -> None:
    async with serving() as net, connect(net.url, buffer="64KiB") as client:
        await net.down()
        await until(lambda: not client.connected)
        tasks = [asyncio.create_task(client.publish("t", b"x" * 10_000)) for _ in range(50)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sum(len(p) for b in client._outbox._queue for p in b.payloads) <= 80_000
        tasks[-1].cancel()
        await net.up()
        done = await within(asyncio.gather(*tasks, return_exceptions=True))
        assert sum(not isinstance(d, BaseException) for d in done) == 49


async def test_a_cancelled_publish_or_wait_leaves_the_client_whole(net: Net) -> None:
    async with connect(net.url) as client, client.subscribe("t", group="g", start="earliest") as messages:
        task = asyncio.create_task(client.publish("t", b"0"))
        await asyncio.sleep(0)
        task.cancel()
        waiting = asyncio.create_task(messages.__anext__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([task, waiting])
        await client.publish("t", b"1")
        assert (await take(messages, 1))[0].payload in (b"0", b"1")


async def test_two_tasks_on_one_subscription_are_told_so(net: Net) -> None:
    async with connect(net.url) as client, client.subscribe("t") as messages:
        waiting = asyncio.create_task(messages.__anext__())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one task"):
            await messages.__anext__()
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_closing_sends_what_was_published_and_acked(net: Net) -> None:
    async with connect(net.url) as client:
        await client.publish_many("t", [b"0", b"1"])
        async with client.subscribe("t", group="g", start="earliest") as messages:
            for message in await take(messages, 2):
                await message.ack()
        task = asyncio.create_task(client.publish("t", b"2"))
        await asyncio.sleep(0)
    assert (await task).offset == 2
    with pytest.raises(Closed):
        await client.publish("t", b"late")
    async with connect(net.url) as client, client.subscribe("t", group="g", start="earliest") as messages:
        assert (await take(messages, 1))[0].payload == b"2"


async def test_iterating_ends_when_the_subscription_is_closed(net: Net) -> None:
    async with connect(net.url) as client, client.subscribe("t") as messages:

        async def iterate() -> int:
            return len([m async for m in messages])

        task = asyncio.create_task(iterate())
        await asyncio.sleep(0)
        await messages.close()
        assert await within(task) == 0


async def test_a_lease_is_extended_while_the_message_is_worked_on(net: Net) -> None:
    async with connect(net.url) as client:
        await client.publish("t", b"slow")
        async with client.subscribe("t", group="g", start="earliest", lease=1.0) as messages:
            (message,) = await take(messages, 1)
            await asyncio.sleep(0)
            sent: list[Any] = []
            send, client.__class__.send = (
                client.__class__.send,
                lambda self, frame: sent.append(frame) or send(self, frame),
            )  # type: ignore[method-assign,assignment,func-returns-value]
            try:
                messages.expire(client.loop.time())
            finally:
                client.__class__.send = send  # type: ignore[method-assign]
            assert [frame.verb for frame in sent] == [3]
            assert sent[0].runs[0][2] == [0, 0]
            await message.ack(wait=True)
            assert not messages._held


async def test_a_lower_epoch_of_a_producer_is_shut_out(net: Net) -> None:
    async with connect(net.url, producer="writer", epoch=2) as new:
        await new.publish("t", b"1")
        async with connect(net.url, producer="writer", epoch=1) as old:
            with pytest.raises(Fenced):
                await old.publish("t", b"2")


async def test_headers_that_are_larger_than_payloads_still_fit_into_frames(net: Net) -> None:
    wide = {"wide": "x" * 50_000}
    async with connect(net.url) as client:
        receipts = await client.publish_many("t", [b"%d" % n for n in range(400)], headers=[wide] * 400)
        assert [r.offset for r in receipts] == list(range(400))
        async with client.subscribe("t", mode="browse", start="earliest") as messages:
            got = await take(messages, 400)
        assert [m.payload for m in got] == [b"%d" % n for n in range(400)]
        assert all(m.headers == wide for m in got)
        assert client.reconnects == 0


async def test_many_refusals_fit_into_frames_too(net: Net) -> None:
    async with connect(net.url) as client:
        work = [client.publish(f"no good {'x' * 200}", b"") for _ in range(9_000)]
        refused = await within(asyncio.gather(*work, return_exceptions=True))
        assert all(isinstance(one, BadTopic) for one in refused)
        assert client.reconnects == 0


async def test_lists_come_page_by_page(net: Net) -> None:
    async with connect(net.url) as client:
        await client.publish_batch([Outgoing(f"t.{n}", b"") for n in range(5_500)])
        assert {row["topic"] for row in await client.topics("t.*")} == {f"t.{n}" for n in range(5_500)}


async def test_a_named_producer_that_starts_again_is_no_duplicate_of_itself(net: Net) -> None:
    for offset in range(3):
        async with connect(net.url, producer="writer") as client:
            receipt = await client.publish("t", b"%d" % offset)
            assert (receipt.offset, receipt.duplicate) == (offset, False)


async def test_a_subscription_without_a_group_resumes_with_what_it_had_not_handed_out(net: Net) -> None:
    async with connect(net.url) as client, client.subscribe("t.*", start="earliest", prefetch=50) as messages:
        await client.publish_many("t.a", [b"a%d" % n for n in range(10)])
        await client.publish_many("t.b", [b"b%d" % n for n in range(10)])
        got = await take(messages, 13)
        for count in (1, 2, 3):
            net.cut()
            await until(lambda count=count: client.reconnects == count)  # type: ignore[misc]
            await client.topics()
            assert messages.buffered <= 7
        got += await take(messages, 7)
        assert [m.payload for m in got if m.topic == "t.a"] == [b"a%d" % n for n in range(10)]
        assert [m.payload for m in got if m.topic == "t.b"] == [b"b%d" % n for n in range(10)]


async def _swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.read(65536):
            pass
    except ConnectionError:
        pass
    writer.close()


async def test_a_broker_that_hangs_is_given_up_and_another_connection_is_made() -> None:
    welcomed = 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal welcomed
        welcomed += 1
        await reader.read(10)
        writer.write(Encoder().encode(Welcome(1, {"heartbeat": 0.05})))
        await _swallow(reader, writer)

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"blocks://127.0.0.1:{port}") as client:
            task = asyncio.create_task(client.publish("t", b"x"))
            await until(lambda: client.reconnects >= 1)
            assert not task.done()
            await client.close(0.0)
            with pytest.raises(Closed):
                await task
    assert welcomed >= 2


async def test_a_broker_that_talks_nonsense_is_left() -> None:
    async def rave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(Encoder().encode(Welcome(1, {"heartbeat": "often", "message_bytes": -5})))
        writer.write(random.Random(3).randbytes(1000))
        await _swallow(reader, writer)

    async with await asyncio.start_server(rave, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Closed):
            async with (
                connect(f"blocks://127.0.0.1:{port}", give_up_after=0.0) as client,
                client.subscribe("t") as messages,
            ):
                await within(anext(messages))


async def test_a_wrong_settlement_is_refused_and_costs_no_connection(net: Net) -> None:
    async with connect(net.url) as client:
        await client.publish_many("t", [b"a", b"b"])
        async with client.subscribe("t", group="g", start="earliest") as messages:
            first, second = await take(messages, 2)
            for wrong in (-1, float("nan"), float("inf"), 1e300, 10**30, True, "soon"):
                with pytest.raises(BadRequest):
                    await first.nack(delay=wrong)
                with pytest.raises(BadRequest):
                    await first.extend(wrong)
            await first.extend("20s")
            await first.nack(delay="1ms")
            (again,) = await take(messages, 1)
            assert (again.payload, again.attempt) == (b"a", 2)
            await second.reject("why " * 500_000)
            await again.ack(wait=True)
        assert client.reconnects == 0


async def test_a_subscription_that_no_frame_can_ask_for_is_refused(net: Net) -> None:
    async with connect(net.url) as client:
        with pytest.raises(BadRequest):
            await client.subscribe("t", start=10**30).__aenter__()
        with pytest.raises(BadRequest):
            await client.subscribe("t", start="bogus").__aenter__()
        await client.publish("t", b"x")
        async with client.subscribe("t", start="earliest") as messages:
            assert len(await take(messages, 1)) == 1


async def test_times_that_are_over_before_they_begin_are_refused(net: Net) -> None:
    async with connect(net.url) as client:
        for options in ({"ttl": -1}, {"delay": -1.0}, {"at": -1.0}, {"headers": "no"}):
            with pytest.raises(BadRequest):
                await client.publish("t", b"x", **options)


async def test_a_topic_is_kept_as_it_is_written_down_or_not_at_all(net: Net) -> None:
    async with connect(net.url) as client:
        answer = await client.configure("t", retain_seconds="7d", retain_bytes="1GiB", schema={"required": ["a"]})
        assert (answer["retain_seconds"], answer["retain_bytes"]) == (604_800.0, 1 << 30)
        await client.publish("t", b'{"a": 1}')
        with pytest.raises(Invalid):
            await client.publish("t", b"{}")
        for wrong in (
            {"retain_seconds": "long"},
            {"retain_messages": "10"},
            {"retain_messages": -1},
            {"retain_bytes": float("nan")},
            {"dedup_seconds": -1},
            {"compact": "yes"},
            {"on_invalid": "shrug"},
            {"schema": 3},
        ):
            with pytest.raises(BadRequest):
                await client.configure("t", **wrong)


async def test_a_binding_with_headers_can_be_undone(net: Net) -> None:
    async with connect(net.url) as client:
        await client.bind("orders.*", "audit", headers={"a": "1"}, match="any")
        with pytest.raises(NotFound):
            await client.unbind("orders.*", "audit")
        await client.unbind("orders.*", "audit", headers={"a": "1"}, match="any")
        assert await client.ask("bindings") == []
