"""Redis is killed, hung, and failed over to a replica while requests keep coming: each answer is what ``on_error`` promises, and none is lost."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from blocks.gateway import Gateway, route
from blocks.gateway.limits import Limit
from blocks.http import Server, Upstream
from blocks.http.message import Request, Response
from gateway.gateway_kit import until
from gateway.redis_peer import RedisPeer

pytestmark = pytest.mark.integration

ENOUGH = 60  # answers seen in each phase


async def hello(request: Request) -> Response:
    return Response(200, body=b"ok")


class Load:
    """Clients that never pause. ``answers`` counts statuses by the phase in which a request began and ended; others are "between"."""

    def __init__(self, client: Upstream) -> None:
        self.answers: dict[str, Counter[int]] = defaultdict(Counter)
        self.phase = "up"
        self._client = client
        self._stop = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._run(number)) for number in range(8)]
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _run(self, number: int) -> None:
        asked = 0
        while not self._stop:
            phase, asked = self.phase, asked + 1
            async with asyncio.timeout(20):
                answer = await self._client(Request("GET", "/", {"host": "a", "x-k": f"{number}-{asked}"}))
                await answer.read()
            self.answers[phase if phase == self.phase else "between"][answer.status] += 1

    async def enough(self, phase: str) -> None:
        self.phase = phase
        await until(lambda: self.answers[phase].total() >= ENOUGH)


@pytest.mark.parametrize("fault", ["kill", "hang", "failover"])
@pytest.mark.parametrize(("on_error", "during"), [("open", 200), ("closed", 503), ("local", 200)])
async def test_a_fault_under_load(tmp_path: Path, on_error: Any, during: int, fault: str) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(RedisPeer(tmp_path))
        urls = [first.url]
        if fault == "failover":
            second = await stack.enter_async_context(RedisPeer(tmp_path, "--replicaof", "127.0.0.1", str(first.port)))
            urls.append(second.url)

            async def copied() -> bool:
                return b"master_link_status:up" in await second.command(b"INFO replication")

            await until(copied, every=0.02)
        limits = [
            Limit(rate="5/h", per="header:x-k", store="redis", on_error=on_error),
            Limit(rate="100000/s", store="redis", on_error=on_error),
        ]
        gateway = Gateway([route("/", hello, limit=limits)], redis={"url": urls, "timeout": 0.5})
        server = await stack.enter_async_context(Server(gateway, "127.0.0.1:0"))
        load = await stack.enter_async_context(Load(await stack.enter_async_context(Upstream(server.url))))
        link = gateway.snapshot.site.redis()
        await until(lambda: link.up)
        await load.enough("before")
        load.phase = "between"
        first.hang() if fault == "hang" else first.kill()
        await until(lambda: not link.up)
        if fault != "failover":  # there the other server may be found at any time
            await load.enough("during")
        load.phase = "between"
        match fault:
            case "kill":
                await first.start()
            case "hang":
                first.go_on()
            case _:
                await second.command(b"REPLICAOF NO ONE")
        await until(lambda: link.up)
        await load.enough("after")
        load.phase = "over"
    seen = load.answers
    assert set(seen["before"]) == set(seen["after"]) == {200}
    assert set(seen["during"]) <= {during}
    assert set(seen["between"]) <= {200, during}


async def test_what_was_counted_before_a_failover_counts_after_it(tmp_path: Path) -> None:
    first = RedisPeer(tmp_path)
    async with first, RedisPeer(tmp_path, "--replicaof", "127.0.0.1", str(first.port)) as second:
        limit = Limit(rate="10/h", store="redis", on_error="closed")
        gateway = Gateway([route("/", hello, limit=limit)], redis={"url": [first.url, second.url], "timeout": 1.0})

        async def copied() -> bool:
            return b"master_link_status:up" in await second.command(b"INFO replication")

        await until(copied, every=0.02)
        async with Server(gateway, "127.0.0.1:0") as server, Upstream(server.url) as client:

            async def ask() -> int:
                answer = await client(Request("GET", "/", {"host": "a"}))
                await answer.read()
                return answer.status

            link = gateway.snapshot.site.redis()
            await until(lambda: link.up)
            assert [await ask() for _ in range(10)] == [200] * 10
            assert await ask() == 429

            async def caught_up() -> bool:
                return await copied() and await first.offset() == await second.offset()

            await until(caught_up, every=0.02)
            first.kill()
            await second.command(b"REPLICAOF NO ONE")
            answers = [await ask()]
            while answers[-1] == 503:
                await asyncio.sleep(0.01)
                answers.append(await ask())
            assert answers[-1] == 429, "the replica knows what was spent"
