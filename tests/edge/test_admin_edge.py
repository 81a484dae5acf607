"""The admin API of the edge: purges that are durable when they are answered, statistics, entries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from blocks.edge.admin import routes
from blocks.edge.edge import Edge
from blocks.edge.push.releases import Releases
from blocks.edge.readings import readings
from blocks.edge.store.disk import DiskStore
from blocks.http.body import Stream
from blocks.http.handler import running
from blocks.http.message import Request, Response


async def origin(request: Request) -> Response:
    return Response(
        200,
        {"cache-control": "max-age=60", "surrogate-key": "all", "content-type": "text/plain"},
        request.target.encode(),
    )


@asynccontextmanager
async def edge_and_client(path: Path, *, push: bool = True) -> AsyncIterator[tuple[Edge, TestClient[Any, Any]]]:
    releases = Releases(path / "push") if push else None
    edge = Edge(origin, memory="1MiB", store=DiskStore(path / "store", "16MiB"), releases=releases)
    if releases is not None and releases not in edge.parts:
        edge.parts = (*edge.parts, releases)
    async with running(edge):
        app = web.Application()
        routes(app, edge)
        async with TestClient(TestServer(app)) as client:
            yield edge, client


async def ask(edge: Edge, path: str) -> str:
    response = await edge(Request("GET", path, {"host": "a.test"}))
    await response.read()
    return response.headers["cache-status"]


@pytest.mark.parametrize(
    "what", [{"url": "http://a.test/1"}, {"prefix": "http://a.test/"}, {"host": "a.test"}, {"tag": "all"}]
)
async def test_a_purge_reaches_both_tiers_and_lasts(tmp_path: Path, what: dict[str, str]) -> None:
    async with edge_and_client(tmp_path) as (edge, client):
        await ask(edge, "/1")
        assert "hit" in await ask(edge, "/1")
        answer = await client.post("/v1/edge/purge", json=what)
        assert answer.status == 200
        assert (await answer.json())["purged"] == 1
        assert "fwd" in await ask(edge, "/1")
        await client.post("/v1/edge/purge", json=what)
    async with edge_and_client(tmp_path) as (edge, _):
        assert "fwd" in await ask(edge, "/1")


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    async with edge_and_client(tmp_path) as (edge, _):
        await ask(edge, "/1")
    async with edge_and_client(tmp_path) as (edge, _):
        assert "hit" in await ask(edge, "/1")


async def test_what_is_too_large_for_memory_is_on_disk_whatever_its_size(tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(300_000)

    async def large(request: Request) -> Response:
        return Response(
            200, {"cache-control": "max-age=60", "content-type": "text/plain"}, Stream.of(chunks(), 300_000)
        )

    edge = Edge(large, memory="1MiB", store=DiskStore(tmp_path, "16MiB"))
    async with running(edge):
        assert "fwd" in await ask(edge, "/1")
        assert "hit" in await ask(edge, "/1")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": "http://a/", "tag": "x"},
        {"url": ""},
        {"url": 5},
        {"soft": True},
        {"zone": "x"},
        {"tag": "t", "soft": "yes"},
        [],
    ],
)
async def test_a_purge_that_means_nothing_is_refused(tmp_path: Path, body: Any) -> None:
    async with edge_and_client(tmp_path) as (_, client):
        answer = await client.post("/v1/edge/purge", json=body)
        assert answer.status == 400
        assert "error" in await answer.json()


async def test_statistics_and_entries_can_be_looked_at(tmp_path: Path) -> None:
    async with edge_and_client(tmp_path) as (edge, client):
        await ask(edge, "/1")
        stats = await (await client.get("/v1/edge/stats")).json()
        assert stats["misses"] == 1
        assert stats["store"]["capacity"] == 16 << 20
        entry = await (await client.get("/v1/edge/entry", params={"url": "http://a.test/1"})).json()
        assert entry["status"] == 200
        assert (await client.get("/v1/edge/entry", params={"url": "http://a.test/none"})).status == 404


async def test_the_numbers_are_prometheus_series(tmp_path: Path) -> None:
    async with edge_and_client(tmp_path) as (edge, _):
        for _ in range(2):
            await ask(edge, "/1")
        found = {(reading.name, reading.labels): reading.value for reading in readings(edge)}
        assert found["blocks_edge_requests_total", (("result", "hit"),)] == 1
        assert found["blocks_edge_requests_total", (("result", "miss"),)] == 1
        assert found["blocks_edge_disk_damaged_total", ()] == 0
        assert len(found) >= 20


async def test_an_edge_without_releases_says_how_to_have_them(tmp_path: Path) -> None:
    async with edge_and_client(tmp_path, push=False) as (_, client):
        answer = await client.get("/v1/push/releases")
        assert answer.status == 400
        assert "--store" in (await answer.json())["error"]
