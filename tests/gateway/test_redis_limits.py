from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError
from blocks.gateway import Gateway, route
from blocks.gateway.limits import Limit
from blocks.gateway.redis import Address
from blocks.http import Server, Upstream
from blocks.http.handler import running
from blocks.http.message import Request, Response
from gateway.redis_peer import RedisPeer, free_port

pytestmark = pytest.mark.integration


async def handler(request: Request) -> Response:
    return Response(200, body=b"ok")


def gateway(url: str | list[str], *limits: Any, timeout: float = 1.0) -> Gateway:
    given = [Limit(**{"store": "redis", **limit}) if isinstance(limit, dict) else limit for limit in limits]
    return Gateway([route("/", handler, limit=given)], redis={"url": url, "timeout": timeout})


async def ask(app: Gateway, key: str = "a") -> Response:
    return await app(Request("GET", "/", {"host": "a", "x-k": key}))


async def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.02)


async def test_many_gateways_let_exactly_the_amount_pass(tmp_path: Path) -> None:
    async with RedisPeer(tmp_path) as redis:
        apps = [
            gateway(redis.url, {"rate": "50/h", "per": "header:x-k"}, {"rate": "70/h", "algorithm": "window"})
            for _ in range(4)
        ]
        async with running(*apps):
            answers = await asyncio.gather(*[ask(apps[number % 4], "ab"[number % 2]) for number in range(400)])
        counts = Counter(answer.status for answer in answers)
        assert counts == {200: 70, 429: 330}, "the window holds all of them, and refused ones took nothing"
        refused = next(answer for answer in answers if answer.status == 429)
        assert int(refused.headers["retry-after"]) >= 1
        first = answers[0].headers["ratelimit"]
        assert first.startswith('"limit-1";r=')


async def test_every_kind_counts_in_redis_as_in_memory(tmp_path: Path) -> None:
    async with RedisPeer(tmp_path) as redis:
        for shape in (
            {"rate": "5/h"},
            {"rate": "5/h", "algorithm": "window"},
            {"rate": "5/month"},
            {"rate": "20/h", "cost": 4},
            {"rate": "5/h", "burst": 3},
        ):
            name = str(shape)
            shared = gateway(redis.url, {**shape, "name": name})
            local = Gateway([route("/", handler, limit=Limit(**{**shape, "name": name}))])
            async with running(shared, local):
                for _ in range(7):
                    one, other = await ask(shared), await ask(local)
                    assert one.status == other.status
                    # the standing differs at most by the seconds between the two questions
                    assert (
                        one.headers["ratelimit"].rpartition(";t=")[0] == other.headers["ratelimit"].rpartition(";t=")[0]
                    )


async def test_all_limits_of_a_request_are_one_call(tmp_path: Path) -> None:
    async with RedisPeer(tmp_path) as redis:
        app = gateway(redis.url, {"rate": "50/h"}, {"rate": "70/h", "algorithm": "window"}, {"rate": "90/day"})
        async with running(app):
            assert (await ask(app)).status == 200  # the script is there
            await redis.command(b"CONFIG RESETSTAT")
            assert {(await ask(app)).status for _ in range(20)} == {200}
            told = await redis.command(b"INFO commandstats")
        calls = {
            line.split(b":")[0]: line.split(b"calls=")[1].split(b",")[0]
            for line in told.split(b"\r\n")
            if b"calls=" in line
        }
        assert calls[b"cmdstat_evalsha"] == b"20"


async def test_the_time_is_the_servers_whatever_the_gateways_clocks_say(tmp_path: Path) -> None:
    async with RedisPeer(tmp_path) as redis:
        apps = []
        for off in (0.0, 86_400.0, -86_400.0):
            clock = FakeClock()
            clock.advance(abs(off)) if off > 0 else None
            limits = [Limit(rate="10/h", store="redis"), Limit(rate="12/h", store="redis", algorithm="window")]
            apps.append(
                Gateway([route("/", handler, limit=limits)], redis={"url": redis.url, "timeout": 2.0}, clock=clock)
            )
        async with running(*apps):
            answers = [await ask(apps[number % 3]) for number in range(15)]
        assert [answer.status for answer in answers] == [200] * 10 + [429] * 5
        waits = {int(answer.headers["retry-after"]) for answer in answers[10:]}
        assert max(waits) - min(waits) <= 2, "and all tell the same wait"


async def test_learnt_costs_are_charged_in_redis(tmp_path: Path) -> None:
    async def dear(request: Request) -> Response:
        return Response(200, {"x-cost": "4"})

    async with RedisPeer(tmp_path) as redis:
        app = Gateway(
            [route("/", dear, limit=Limit(rate="10/h", learn="x-cost", store="redis"))],
            redis={"url": redis.url, "timeout": 2},
        )
        async with running(app):
            statuses = [(await ask(app)).status for _ in range(4)]
        assert statuses == [200, 200, 200, 429], "4, 8, then a third may pass at 2 left and owes"


async def test_a_memory_limit_gets_back_what_it_took_when_redis_refuses(tmp_path: Path) -> None:
    async with RedisPeer(tmp_path) as redis:
        app = gateway(redis.url, "100/h", {"rate": "2/h", "name": "far"})
        async with running(app):
            assert [(await ask(app)).status for _ in range(5)] == [200, 200, 429, 429, 429]
            await redis.command(b"FLUSHALL")
            response = await ask(app)
            assert '"limit-1";r=97' in response.headers["ratelimit"]


@pytest.mark.parametrize(("on_error", "expected"), [("open", {200}), ("closed", {503}), ("local", {200, 429})])
@pytest.mark.parametrize("fault", ["kill", "hang"])
async def test_on_error_says_what_happens_while_redis_is_away(
    tmp_path: Path, on_error: str, expected: set[int], fault: str
) -> None:
    async with RedisPeer(tmp_path) as redis:
        app = gateway(redis.url, {"rate": "20/h", "on_error": on_error, "per": "header:x-k"})
        async with running(app):
            link = app.snapshot.site.redis()
            assert (await ask(app, "before")).status == 200
            redis.kill() if fault == "kill" else redis.hang()
            during = [(await ask(app)).status for _ in range(60)]
            await until(lambda: not link.up)
            began = time.monotonic()
            during += [(await ask(app)).status for _ in range(200)]
            assert time.monotonic() - began < 5, "a known absence costs nobody a wait"
            assert set(during) == expected
            if on_error == "local":
                assert during.count(200) == 20
            if fault == "kill":
                await redis.start()
            else:
                redis.go_on()
            await until(lambda: link.up)
            answer = await ask(app, "after")
            assert (answer.status, answer.headers["ratelimit"].partition(";t=")[0]) == (200, '"default";r=19')


async def test_a_served_gateway_asks_redis_without_a_task(tmp_path: Path) -> None:
    async with RedisPeer(tmp_path) as redis:
        app = gateway(redis.url, {"rate": "30/h"}, {"rate": "40/h", "algorithm": "window"})
        async with Server(app, "127.0.0.1:0") as server, Upstream(server.url) as client:
            answers = await asyncio.gather(*[client(Request("GET", "/", {"host": "a"})) for _ in range(100)])
            assert Counter(answer.status for answer in answers) == {200: 30, 429: 70}
            redis.hang()
            during = await asyncio.gather(*[client(Request("GET", "/", {"host": "a"})) for _ in range(50)])
            redis.go_on()
            assert Counter(answer.status for answer in during) == {200: 30, 429: 20}, (
                "each gateway's own limit holds meanwhile"
            )


async def test_load_goes_on_through_a_restart(tmp_path: Path) -> None:
    async with RedisPeer(tmp_path) as redis:
        app = gateway(redis.url, {"rate": "100000/s", "on_error": "open"})
        statuses: Counter[int] = Counter()
        stop = False

        async def load() -> None:
            while not stop:
                statuses[(await ask(app)).status] += 1
                await asyncio.sleep(0)

        async with running(app):
            link = app.snapshot.site.redis()
            workers = [asyncio.create_task(load()) for _ in range(8)]
            await asyncio.sleep(0.2)
            redis.kill()
            await until(lambda: not link.up)
            await redis.start()
            await until(lambda: link.up)
            before = statuses[200]
            await until(lambda: statuses[200] > before + 50)
            stop = True
            await asyncio.gather(*workers)
        assert set(statuses) == {200}


async def test_a_failover_is_followed_to_the_server_that_takes_writes(tmp_path: Path) -> None:
    first = RedisPeer(tmp_path)
    async with first, RedisPeer(tmp_path, "--replicaof", "127.0.0.1", str(first.port)) as second:
        app = gateway([first.url, second.url], {"rate": "10/h", "on_error": "closed"})
        async with running(app):
            link = app.snapshot.site.redis()
            assert (await ask(app)).status == 200
            for _ in range(400):
                link_up = b"master_link_status:up" in await second.command(b"INFO replication")
                if link_up and await first.offset() == await second.offset():
                    break
                await asyncio.sleep(0.025)
            await second.command(b"REPLICAOF NO ONE")
            first.kill()
            assert (await ask(app)).status == 503
            await until(lambda: link.up)
            answer = await ask(app)
            assert answer.status == 200
            assert '"default";r=8' in answer.headers["ratelimit"], "the count came with the replica"
        # and a server that becomes a replica under the connection is left
        third = RedisPeer(tmp_path)
        async with third:
            app = gateway([second.url, third.url], {"rate": "10/h", "on_error": "closed"})
            async with running(app):
                link = app.snapshot.site.redis()
                assert (await ask(app, "x")).status == 200
                await second.command(b"REPLICAOF 127.0.0.1 %d" % third.port)
                assert (await ask(app, "x")).status == 503
                await until(lambda: link.up)
                assert (await ask(app, "x")).status == 200


async def test_four_local_first_gateways_overshoot_by_no_more_than_the_bound(tmp_path: Path) -> None:
    sync, burst, rate, gateways = 0.1, 20, 20.0, 4
    async with RedisPeer(tmp_path) as redis:
        apps = [
            gateway(redis.url, {"rate": "20/s", "sync": sync, "per": "header:x-k"}, timeout=2.0)
            for _ in range(gateways)
        ]
        passed = 0
        async with running(*apps):
            began = time.monotonic()
            while time.monotonic() - began < 3.0:
                for app in apps:
                    passed += (await ask(app)).status == 200
                await asyncio.sleep(0.002)
            lasted = time.monotonic() - began
        allowed = burst + rate * lasted
        slack = 1.0  # seconds that a sync may be late on a busy machine
        bound = allowed + (gateways - 1) * (burst + rate * (sync + slack))
        assert passed <= bound
        assert passed >= rate * lasted / 2, "and what is allowed is not lost"


async def test_local_first_waits_for_nobody_and_pays_what_passed_too_many(tmp_path: Path) -> None:
    async with RedisPeer(tmp_path) as redis:
        apps = [gateway(redis.url, {"rate": "10/h", "sync": 0.05}) for _ in range(3)]
        async with running(*apps):
            assert [(await ask(app)).status for app in apps for _ in range(10)] == [200] * 30, (
                "nobody has told anybody yet"
            )
            assert [(await ask(app)).status for app in apps] == [429] * 3

            def owed() -> bool:
                [rule] = next(iter(apps[0].snapshot.lanes.values())).plan.steps[0].rules
                return rule.default.own.standing("", time.monotonic())[1] > 2 * 3600

            for _ in range(400):
                if owed():
                    break
                apps[0].snapshot.lanes[apps[0].snapshot.table.routes[0]].plan.steps[0].rules[0].default.own.charge(
                    "", 0, time.monotonic()
                )
                await asyncio.sleep(0.02)
            assert owed(), "all three bursts stand in the shared bucket"


async def test_nobody_there_at_the_start_is_no_error(tmp_path: Path) -> None:
    app = gateway(f"redis://127.0.0.1:{free_port()}", {"rate": "2/h", "on_error": "local"})
    async with running(app):
        assert [(await ask(app)).status for _ in range(3)] == [200, 200, 429]
    unstarted = gateway(f"redis://127.0.0.1:{free_port()}", {"rate": "2/h", "on_error": "closed"})
    assert (await ask(unstarted)).status == 503
    await unstarted.snapshot.site.redis().close()


def test_urls() -> None:
    assert Address.of("redis://u:p%40@h:1/2").setup == (("AUTH", "u", "p@"), ("SELECT", "2"))
    assert Address.of("rediss://h").tls
    assert Address.of("unix:///run/redis.sock").path == "/run/redis.sock"
    for bad in ("http://h", "redis://h/x", "redis://h:99999", "unix://"):
        with pytest.raises(ConfigError):
            Address.of(bad)
