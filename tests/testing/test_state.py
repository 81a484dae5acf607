"""What blocks say of their state, and the one timeline on which all of it meets."""

from __future__ import annotations

import pytest

from blocks import Response
from blocks.core.errors import ConfigError, UpstreamFault
from blocks.core.logging import events


async def test_the_endpoints_of_a_balancer_by_the_member_they_stand_for(blocks):
    a, b = await blocks.origins(2)
    lb = await blocks.balancer(a, b, health="250ms")
    for member in (a, a.url, a.name):
        assert lb.endpoint(member) is lb.endpoints[0]
    await blocks.load(lb, rate=10, duration=2)
    assert lb.endpoint(a).requests + lb.endpoint(b).requests == 20
    a.crash()
    await blocks.until(lambda: not lb.endpoint(a).usable)
    assert (lb.endpoint(a).state.value, lb.endpoint(b).state.value) == ("unhealthy", "healthy")
    with pytest.raises(ConfigError, match=r"is not in balancer: \['origin', 'origin-2'\]"):
        lb.endpoint("nobody")


async def test_what_an_edge_holds_and_how_old_it_is(blocks):
    origin = await blocks.origin(Response(200, {"cache-control": "max-age=3600", "surrogate-key": "news"}, b"page"))
    edge = await blocks.edge(origin, ttl_jitter=0)
    assert edge.entry("/page") is None
    assert not edge.has("/page")
    await edge.get("/page")
    await blocks.clock.sleep("30min")
    entry = edge.entry("/page")
    assert (entry.age, entry.lifetime, entry.fresh, entry.tags) == (pytest.approx(1800, abs=1), 3600, True, ("news",))
    assert edge.has(edge.url + "/page")
    await blocks.clock.sleep("1h")
    assert not edge.entry("/page").fresh
    edge.purge(tag="news")
    assert not edge.has("/page")


async def test_how_much_of_a_limit_is_left(blocks):
    from blocks.gateway import route

    origin = await blocks.origin()
    gateway = await blocks.gateway(
        route("/a", blocks.upstream(origin), limit={"name": "orders", "rate": "10/h", "per": "header:x-user"}),
        route("/b", blocks.upstream(origin), limit="5/s"),
    )
    for _ in range(4):
        assert (await gateway.get("/a", {"x-user": "ann"})).status == 200
    limiter = gateway.limiter("orders")
    assert (limiter.level("ann"), limiter.level("bob")) == (6, 10)
    assert limiter.full_in("ann") == pytest.approx(4 * 360, abs=1)
    for _ in range(8):
        await gateway.get("/a", {"x-user": "ann"})
    assert limiter.refusals == 2
    await blocks.clock.sleep("30min")
    assert limiter.level("ann") == pytest.approx(5, abs=0.01)
    with pytest.raises(ConfigError, match="not one limit"):
        gateway.limiter()
    with pytest.raises(ConfigError, match="is per header:x-user: say which"):
        limiter.level()


async def test_a_limit_that_all_share_has_no_key(blocks):
    from blocks.gateway import route

    gateway = await blocks.gateway(route("/", blocks.upstream(await blocks.origin()), limit="5/min"))
    assert [(await gateway.get("/")).status for _ in range(6)] == [200] * 5 + [429]
    assert gateway.limiter().level() < 1
    with pytest.raises(ConfigError, match="is one for all"):
        gateway.limiter().level("127.0.0.1")


async def test_a_link_stands_before_a_member_or_a_broker(blocks):
    origin, broker = await blocks.origin("hello"), await blocks.broker()
    link, wire = await blocks.link(origin), await blocks.link(broker)
    lb = await blocks.balancer(link)
    link.fault.next(1).reset()
    answers = [(await lb.get("/")).body for _ in range(2)]
    assert answers == [b"hello"] * 2
    assert link.fault.seen >= 2
    assert lb.endpoint(link).usable
    client = await blocks.client(wire)
    assert (await client.publish("orders", b"one")).offset == 0


async def test_how_far_behind_a_group_is(blocks):
    broker = await blocks.broker()
    orders = broker.topic("orders")
    assert (orders.messages, orders.lag("billing")) == (0, 0)
    async with broker.subscribe("orders", group="billing", max_deliveries=2, prefetch=3, lease="60s") as messages:
        for number in range(5):
            await broker.publish("orders", b"%d" % number)
        held = [await anext(messages) for _ in range(3)]
        assert (orders.messages, orders.next, orders.size) == (5, 5, 5)
        assert (orders.lag("billing"), orders.waiting("billing"), orders.in_flight("billing")) == (5, 2, 3)
        await held[0].ack()
        await held[1].reject("no")
        await broker.flush()
        assert (orders.lag("billing"), orders.dead("billing")) == (3, 1)


async def test_blocks_start_again_on_their_port_and_have_forgotten(blocks):
    origin = await blocks.origin(Response(200, {"cache-control": "max-age=3600"}, b"page"))
    edge = await blocks.edge(origin)
    url = edge.url
    await edge.get("/page")
    await edge.crash()
    with pytest.raises(UpstreamFault, match="refused"):
        await blocks.get(url, "/page")
    await edge.restart()
    assert edge.url == url
    assert not edge.has("/page")
    assert (await edge.get("/page")).body == b"page"
    assert origin.journal.total == 2


async def test_one_timeline_over_all_blocks(blocks):
    origin = await blocks.origin(Response(200, {"cache-control": "max-age=60"}, b"page"), name="shop")
    lb = await blocks.balancer(origin, health="1s")
    edge = await blocks.edge(await blocks.gateway({"/": lb}))
    broker = await blocks.broker()
    disk = blocks.disk("orders")
    await blocks.broker(disk=disk)
    origin.fault.next(1).status(503)
    await edge.get("/page")
    edge.purge(url="/page")
    origin.crash()
    await blocks.until(lambda: lb.healthy == 0)
    async with broker.subscribe("jobs", group="workers", start="earliest") as messages:
        await broker.publish("jobs", b"one")
        await (await anext(messages)).nack()
        await (await anext(messages)).reject("never")
    await broker.flush()
    blocks.clock.jump("-2h")
    await disk.power_cut()
    events().warning("something-else", reason="why")
    text = blocks.timeline.render(1000)
    for who, what in [
        ("edge", "fill GET /page"),
        ("gateway", "GET /page -> "),
        ("balancer", "GET /page -> "),
        ("shop", "GET /page -> 503 [status-503]"),
        ("edge", "purge url"),
        ("shop", "crashed"),
        ("balancer", "unhealthy shop"),
        ("broker", "published jobs: 1"),
        ("broker", "delivered jobs to workers: 1, some of them again"),
        ("broker", "returned jobs [0] of workers: nack"),
        ("broker", "dead-letter jobs [0] of workers: never"),
        ("clock", "the wall clock jumps -7200 s"),
        ("orders", "power cut, synced is kept"),
        ("log", "warning something-else reason=why"),
    ]:
        assert any(name == who and what in str(told) for _, name, told in blocks.timeline), (who, what, text)


async def test_a_jump_of_the_wall_clock_moves_dates_and_no_durations(blocks):
    broker = await blocks.broker()
    origin = await blocks.origin(Response(200, {"cache-control": "max-age=3600"}, b"page"))
    edge = await blocks.edge(origin, ttl_jitter=0, refresh_ahead=0)
    await edge.get("/page")
    await broker.publish("jobs", b"tomorrow", at=blocks.clock.wall() + 86_400)
    async with broker.subscribe("jobs", group="workers", lease="30s", max_lease="30s", start="earliest") as messages:
        await broker.publish("jobs", b"now")
        held = await anext(messages)
        blocks.clock.jump("25h")
        assert (await anext(messages)).payload == b"tomorrow"  # a date has come
        assert held.attempt == 1
        assert edge.entry("/page").fresh  # a duration has not passed
        blocks.clock.jump("-50h")
        assert edge.entry("/page").age < 60
        assert broker.topic("jobs").in_flight("workers") == 2


async def test_a_comparison_of_what_was_read_is_asked_again(blocks):
    a, b = await blocks.origins(2)
    lb = await blocks.balancer(a, b, health="250ms")
    before = lb.healthy
    a.crash()
    await blocks.until(lb.healthy == 1)
    await blocks.until(lb.healthy < 2)
    assert before == 2
    assert (before != 2) == 0
    assert lb.healthy == 1
    assert (before > 1, before >= 3, before <= 1, f"{before}", {before: 1}[2], sum([before, 1])) == (1, 0, 0, "2", 1, 3)
    with pytest.raises(TypeError, match="give it a function"):
        await blocks.until(before + 1)
