"""Every block in a test: started, on free ports, in virtual time, stopped."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from blocks import Request, Response
from blocks.core.errors import ConfigError
from blocks.testing import Bridge, Kit, VirtualLoop
from blocks.testing.leaks import Held, settled


async def test_a_balancer_passes_over_a_dead_member_and_takes_it_back(blocks):
    a, b = await blocks.origins(2)
    lb = await blocks.balancer(a, b, health="250ms")
    assert lb.healthy == 2
    a.crash()
    await blocks.until(lambda: lb.healthy == 1)
    (await blocks.load(lb, rate=100, duration=5)).expect(errors=0)
    assert b.journal.total >= 500
    await a.recover()
    await blocks.until(lambda: lb.healthy == 2)
    seen = {bytes((await lb.get()).body) for _ in range(40)}
    assert seen == {b"origin", b"origin-2"}


async def test_an_edge_keeps_its_promise_for_exactly_the_ttl(blocks):
    origin = await blocks.origin()
    origin.on("/page", Response(200, {"cache-control": "max-age=86400"}, b"one"))
    edge = await blocks.edge(origin, refresh_ahead=0, ttl_jitter=0)
    assert (await edge.get("/page")).body == b"one"
    await _pass(86_000)
    assert (await edge.get("/page")).body == b"one"
    assert origin.journal.total == 1
    origin.on("/page", Response(200, {"cache-control": "no-store"}, b"two"))
    await _pass(90_000)
    assert (await edge.get("/page")).body == b"two"
    assert origin.journal.total == 2


async def test_a_gateway_counts_an_hour(blocks):
    from blocks.gateway import route

    origin = await blocks.origin()
    lb = await blocks.balancer(origin)
    gateway = await blocks.gateway(route("/api", lb, limit="5/h"), {"/free": origin})
    assert [(await gateway.get("/api")).status for _ in range(7)] == [200] * 5 + [429] * 2
    assert (await gateway.get("/free")).status == 200
    assert (await gateway.get("/nowhere")).status == 404
    await _pass(3600)
    assert (await gateway.get("/api")).status == 200


async def test_a_quota_of_a_month_begins_anew_with_the_next(blocks):
    from blocks.gateway import route

    origin = await blocks.origin()
    limit = {"name": "plan", "rate": "3/month", "algorithm": "quota"}
    gateway = await blocks.gateway(route("/", blocks.upstream(origin), limit=limit))
    assert [(await gateway.get()).status for _ in range(5)] == [200] * 3 + [429] * 2
    left = gateway.limiter("plan").full_in()
    assert 0 < left <= 31 * 86_400
    await blocks.clock.sleep(left - 1)
    assert (await gateway.get()).status == 429
    await blocks.clock.sleep(2)
    assert [(await gateway.get()).status for _ in range(4)] == [200] * 3 + [429]


async def test_a_broker_redelivers_when_a_lease_of_an_hour_ends(blocks):
    broker = await blocks.broker()
    client = await blocks.client(broker)
    await client.publish("orders", b"one")
    began = blocks.clock.monotonic()
    async with client.subscribe("orders", group="workers", lease="1h", start="earliest") as messages:
        first = await anext(messages)
        assert (first.payload, first.attempt) == (b"one", 1)
        again = await anext(messages)
        assert (again.payload, again.attempt) == (b"one", 2)
        assert 3600 <= blocks.clock.monotonic() - began <= 3601
        await again.ack()


@pytest.mark.parametrize("lease", ["30s", "1h"])
async def test_a_consumer_that_hangs_keeps_a_message_for_max_lease_and_no_longer(blocks, lease: str):
    broker = await blocks.broker()
    client = await blocks.client(broker)
    options = {"group": "workers", "lease": lease, "max_lease": "1h", "start": "earliest"}
    for source in (client, broker):
        await broker.publish("orders", b"one")
        began = blocks.clock.monotonic()
        async with source.subscribe("orders", **options) as messages:
            assert (await anext(messages)).attempt == 1
            again = await anext(messages)
            assert again.attempt == 2
            assert 3599 <= blocks.clock.monotonic() - began <= 3601
            await again.ack(wait=True) if source is client else await again.ack()


async def test_an_asgi_application_is_an_origin(blocks):
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    origin = await blocks.asgi(app)
    origin.fault.next().status(503)
    assert (await blocks.get(origin, "/x")).status == 503
    assert (await blocks.get(origin, "/x")).body == b"/x"


async def test_the_whole_stack_in_one_process(blocks):
    a, b = await blocks.origins(2, Response(200, {"cache-control": "max-age=60"}, b"shop"))
    lb = await blocks.balancer(a, b, health="1s")
    edge = await blocks.edge(await blocks.gateway({"/": lb}))
    result = await blocks.load(edge, rate=200, duration=3, path="/p")
    result.expect(errors=0, requests=600)
    pages = len(a.journal.matching(path="/p")) + len(b.journal.matching(path="/p"))
    assert pages == 1
    who = {name for _, name, _ in blocks.timeline}
    assert {"edge", "gateway", "balancer", "origin", "load"} & who >= {"edge", "load"}


async def test_random_things_repeat_with_the_seed():
    async def run() -> list[float]:
        async with Kit(seed=5) as kit:
            return [kit.random.random() for _ in range(5)]

    assert await run() == await run()


async def test_a_thing_without_a_url_is_refused(blocks):
    with pytest.raises(ConfigError, match="has no URL"):
        await blocks.get(object())


def test_the_bridge_serves_plain_code():
    with Bridge() as blocks:
        a, b = blocks.origins(2)
        lb = blocks.balancer(a, b, health="250ms")
        a.fault.next(2).reset()
        assert {lb.get("/").status for _ in range(20)} == {200}
        assert len(a.journal) + len(b.journal) >= 20
        result = blocks.load(lb, rate=50, duration="200ms")
        result.expect(errors=0, requests=10)


def test_plain_code_reads_journals_and_publishes(blocks_sync):
    origin = blocks_sync.origin("hello")
    assert not origin.journal
    for path in ("/a", "/b"):
        assert blocks_sync.get(origin, path).body == b"hello"
    assert [entry.target for entry in origin.journal] == ["/a", "/b"]
    assert origin.journal[0].status == 200
    origin.answer = "changed"
    assert blocks_sync.get(origin).body == b"changed"
    disk = blocks_sync.disk()
    broker = blocks_sync.broker(disk=disk)
    broker.publish("orders", b"one")
    disk.power_cut()
    disk.power_on()
    assert broker.topic("orders").messages == 1
    script = blocks_sync.tcp_origin("send hello\nclose")
    with socket.create_connection(script.address) as client:
        assert client.makefile("rb").read() == b"hello"
    blocks_sync.until(lambda: script.journal[0].done)


def test_the_fixture_for_plain_tests(blocks_sync):
    import urllib.request

    origin = blocks_sync.origin("hello")
    with urllib.request.urlopen(origin.url + "/x", timeout=30) as response:
        assert response.read() == b"hello"
    assert origin.journal.paths == ["/x"]


async def _pass(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def test_a_handler_of_ones_own_is_served(blocks):
    async def hello(request: Request) -> Response:
        return Response.text("hi " + request.path)

    front = await blocks.serve(hello)
    assert (await front.get("/a")).body == b"hi /a"
    assert (await front.request("POST", "/b", body="x")).status == 200


@pytest.mark.integration
def test_a_thousand_cycles_leave_nothing():
    async def cycle() -> None:
        async with Kit() as kit:
            a, b = await kit.origins(2)
            edge = await kit.edge(await kit.gateway({"/": await kit.balancer(a, b, health="1s")}), disk=kit.disk())
            broker = await kit.broker(disk=kit.disk())
            await broker.publish("orders", b"one")
            assert (await edge.get()).status == 200

    async def cycles() -> tuple[int, int]:
        await cycle()
        before = Held.now(), len(os.listdir("/proc/self/fd"))
        for _ in range(1000):
            await cycle()
        assert await settled(before[0]) == []
        return len(os.listdir("/proc/self/fd")), before[1]

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        now, before = runner.run(cycles())
    assert now <= before
