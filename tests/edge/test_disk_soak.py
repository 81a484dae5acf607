"""Lives of an edge with a small disk, each ended by kill -9: with sizes, ranges, purges, leaving clients mixed, every byte is right."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import aiohttp
import pytest

from edge.edge_process import EdgeProcess, an_origin, body_of, edge_process

pytestmark = pytest.mark.integration

SIZES = (100, 5_000, 60_000, 300_000, 1_500_000, 4_000_000)
REQUESTS = 400
CLIENTS = 12


class Life:
    def __init__(self, edge: EdgeProcess, session: aiohttp.ClientSession, dice: random.Random) -> None:
        self.edge = edge
        self.session = session
        self.dice = dice
        self.left = REQUESTS
        self.hits = 0
        self.dead = False
        self.wrong: list[str] = []

    async def client(self) -> None:
        while self.left > 0 and not self.dead:
            self.left -= 1
            try:
                await self.once()
            except aiohttp.ClientError as error:
                if not self.dead:
                    self.wrong.append(repr(error))

    async def once(self) -> None:
        number = int(200 ** self.dice.random())
        size = SIZES[number * 7 % len(SIZES)] + number
        path = f"/size/{size}/{number}"
        start, stop, fields = 0, size, {}
        if self.dice.random() < 0.2:
            start = self.dice.randrange(size)
            stop = min(size, start + self.dice.randrange(1, 400_000))
            fields = {"Range": f"bytes={start}-{stop - 1}"}
        async with self.session.get(self.edge.url + path, headers=fields) as answer:
            if self.dice.random() < 0.02:
                answer.close()  # a client that leaves
                return
            body = await answer.read()
            self.hits += "hit" in answer.headers.get("Cache-Status", "")
            expected = body_of(path, size)[start:stop] if answer.status == 206 else body_of(path, size)
            if answer.status not in (200, 206) or body != expected:
                self.wrong.append(f"{path} {fields}: {answer.status}, {len(body)} of {len(expected)} bytes")

    async def purges(self) -> None:
        while self.left > 0 and not self.dead:
            await asyncio.sleep(0.2)
            body = self.dice.choice([{"prefix": "http://s.test/size/1"}, {"url": "/size/5001/1"}, {"host": "other"}])
            try:
                async with self.session.post(
                    f"{self.edge.admin}/v1/edge/purge", json=body, headers={"Host": "localhost"}
                ) as answer:
                    await answer.read()
            except aiohttp.ClientError:
                pass  # it was just killed

    async def end(self) -> None:
        while self.left > REQUESTS // 10:  # with requests under way
            await asyncio.sleep(0.01)
        self.dead = True
        await self.edge.kill()


def on_disk(folder: Path) -> int:
    return sum(file.stat().st_size for kind in ("*.seg", "*.blob") for file in folder.rglob(kind))


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_byte_is_right_over_lives_that_end_by_a_kill(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    async with an_origin() as origin:
        for _ in range(3):
            async with (
                edge_process(tmp_path, origin.url, "--memory", "4MiB") as edge,
                aiohttp.ClientSession(headers={"Host": "s.test"}) as session,
            ):
                life = Life(edge, session, dice)
                await asyncio.gather(*(life.client() for _ in range(CLIENTS)), life.purges(), life.end())
                assert life.wrong == []
                assert life.hits > REQUESTS // 10
            assert on_disk(tmp_path) <= 64 * 1024 * 1024 + 8_000_000  # and what the kill cut off
