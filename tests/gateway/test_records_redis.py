from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from blocks.gateway.idempotency import Idempotency, Settings
from blocks.gateway.records import SharedRecords, StoreDown
from blocks.gateway.redis import Link, RedisTable
from blocks.http.message import Request, Response
from gateway.gateway_kit import context, until
from gateway.redis_peer import RedisPeer

pytestmark = pytest.mark.integration


async def test_records_in_redis_keep_the_promises_of_the_others(tmp_path: Path) -> None:
    async with RedisPeer(tmp_path) as peer, Link(RedisTable(url=peer.url, timeout=2.0)) as link:
        store = SharedRecords(link)
        assert await store.add(b"k\xff", b"\x001", 30) is None
        assert await store.add(b"k\xff", b"2", 30) == b"\x001"
        assert not await store.swap(b"k\xff", b"2", b"3", 30)
        assert await store.swap(b"k\xff", b"\x001", b"3", 30)
        assert not await store.drop(b"k\xff", b"1")
        assert await store.get(b"k\xff") == b"3"
        assert await store.drop(b"k\xff", b"3")
        assert await store.get(b"k\xff") is None
        assert (await asyncio.gather(*(store.add(b"one", b"%d" % n, 30) for n in range(50)))).count(None) == 1
        assert await store.add(b"short", b"x", 0.05) is None

        async def gone() -> bool:
            return await store.get(b"short") is None

        await until(gone)
        peer.kill()
        with pytest.raises(StoreDown):
            await asyncio.gather(*(store.get(b"one") for _ in range(3)))


async def test_four_gateways_give_one_effect_and_one_answer(tmp_path: Path) -> None:
    calls = 0

    async def pay(request: Request) -> Response:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.05)
        return Response(201, {}, b"paid %d" % calls)

    async with RedisPeer(tmp_path) as peer:
        links: list[Any] = [Link(RedisTable(url=peer.url, timeout=2.0)) for _ in range(4)]
        for link in links:
            await link.__aenter__()
        try:
            steps = [Idempotency(Settings(), SharedRecords(link), "pay") for link in links]

            async def send(step: Idempotency) -> Response:
                return await step.around(Request("POST", "/pay", {"idempotency-key": "one"}, b"{}"), context(), pay)

            answers = await asyncio.gather(*(send(step) for step in steps * 5))
        finally:
            for link in links:
                await link.__aexit__(None, None, None)
    assert calls == 1
    assert {(answer.status, bytes(answer.body)) for answer in answers} == {(201, b"paid 1")}
