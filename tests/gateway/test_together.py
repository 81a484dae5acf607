"""The gateway with what it stands on and what outlives its configuration: balancers, tunnels and streams through it, and state through a reload."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import websockets
from websockets.asyncio.server import serve as serve_websockets

from blocks.balancer import LoadBalancer
from blocks.core.config.complaint import ConfigErrors
from blocks.edge import Edge
from blocks.gateway import Gateway, route
from blocks.gateway.auth import ApiKeys, hash_key
from blocks.gateway.config.load import Objects, load
from blocks.http import Server, Upstream
from blocks.http.body import Stream
from blocks.http.handler import running
from blocks.http.message import Request, Response
from gateway.redis_peer import free_port

TEXT = """
[gateway]
auth = "robots"

[auth.robots]
type = "api-key"
keys = {"HASH" = "robot"}

[[routes]]
path = "/orders"
service = "echo"
name = "orders"
idempotency = true
limit = "1000/s"

[[routes]]
path = "/cached"
service = "echo"
name = "cached"
cache = "edge"

[[routes]]
path = "/reports/{rest:path}"
name = "reports"
jobs = {service = "echo"}
"""


async def test_idempotency_cache_and_jobs_survive_a_reload(tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    async def echo(request: Request) -> Response:
        asked[request.path] += 1
        return Response.json({"n": asked[request.path]}, headers={"cache-control": "max-age=600"})

    objects = Objects(services={"echo": echo}, caches={"edge": lambda inner: Edge(inner, memory="1MiB")})
    path = tmp_path / "g.toml"
    path.write_text(TEXT.replace("HASH", hash_key("k")))
    gateway = Gateway.of(load(path, objects=objects).snapshot)

    async def ask(method: str, target: str, **fields: str) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        response = await gateway(
            Request(method, target, {"host": "a", "x-api-key": "k", **named}, b"x" if method == "POST" else b"")
        )
        return response.status, json.loads(await response.read())

    async with running(gateway):
        first = [await ask("POST", "/orders", idempotency_key="1"), await ask("GET", "/cached")]
        _, job = await ask("POST", "/reports/year")
        path.write_text(path.read_text().replace('limit = "1000/s"', 'limit = "2000/s"\nsecurity_headers = true'))
        new = load(path, objects=objects, kept=gateway.kept).snapshot
        await gateway.enter(new)
        gateway.swap(new)
        assert [await ask("POST", "/orders", idempotency_key="1"), await ask("GET", "/cached")] == first
        assert asked["/orders"] == asked["/cached"] == 1, "nothing was asked again"
        assert (await ask("GET", job["status"]))[0] == 200, "and the job is still known"


CACHED = """
[services.echo]
python = "gateway.cached_service:counted"

[caches.edge]
python = "blocks.edge:Edge"
settings = {memory = "1MiB"}

[[routes]]
path = "/cached"
service = "echo"
cache = "edge"
"""


async def test_a_file_names_a_cache_which_a_reload_keeps_as_long_as_its_table_stands(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    path.write_text(CACHED)
    gateway = Gateway.of(load(path).snapshot)

    async def count() -> int:
        response = await gateway(Request("GET", "/cached", {"host": "a"}))
        return int(await response.read())

    async def reload(text: str) -> None:
        path.write_text(text)
        new = load(path, kept=gateway.kept).snapshot
        await gateway.enter(new)
        gateway.swap(new)

    async with running(gateway):
        first = await count()
        assert await count() == first
        await reload(CACHED + "security_headers = true\n")
        assert await count() == first
        await reload(CACHED.replace("1MiB", "2MiB"))
        assert await count() == first + 1


@pytest.mark.parametrize(("wrong", "place", "said"), [
    ('python = "blocks.edge:Edgee"', ("caches", "edge", "python"), "cannot be loaded"), ('python = "edge"', ("caches", "edge", "python"), "write it like"),
    ('python = "blocks.edge:Edge"\nsettings = {memry = 1}', ("caches", "edge", "settings"), "memry"),
    ('python = "blocks.edge:Edge"\nsettings = {memory = "much"}', ("routes", 0, "cache"), "much"),
])  # fmt: skip
def test_what_is_wrong_with_a_cache_is_told(tmp_path: Path, wrong: str, place: Any, said: str) -> None:
    path = tmp_path / "g.toml"
    path.write_text(f'[caches.edge]\n{wrong}\n[[routes]]\npath = "/"\nrespond = {{}}\ncache = "edge"\n')
    with pytest.raises(ConfigErrors) as caught:
        load(path)
    [one] = caught.value.complaints
    assert one.at == place
    assert said in one.message


async def test_a_dead_server_behind_a_balancer_costs_no_request() -> None:
    async def alive(request: Request) -> Response:
        return Response(200, body=await request.read() or b"alive")

    async with Server(alive, "127.0.0.1:0") as server:
        balancer = LoadBalancer([Upstream(f"http://127.0.0.1:{free_port()}"), Upstream(server.url)])
        gateway = Gateway([route("/", balancer, limit="1000/s")])
        async with running(gateway):
            answers = [await gateway(Request("GET", "/", {"host": "a"})) for _ in range(20)]
            posts = [await gateway(Request("POST", "/", {"host": "a"}, b"body")) for _ in range(20)]
            assert {answer.status for answer in (*answers, *posts)} == {200}
            assert {bytes(await answer.read()) for answer in posts} == {b"body"}


@pytest.mark.integration
async def test_websockets_of_services_pass_through_identity_and_limits() -> None:
    async def echo(socket: Any) -> None:
        async for message in socket:
            await socket.send(f"{socket.request.headers['x-user']}: {message}")

    async with serve_websockets(echo, "127.0.0.1", 0) as service:
        port = next(iter(service.sockets)).getsockname()[1]
        keys = ApiKeys({hash_key("k"): "ann"})
        gateway = Gateway(
            [route("/ws", Upstream(f"http://127.0.0.1:{port}"), auth=keys, limit=["1 concurrent per key"],
                   transform={"headers": {"set": {"x-user": "{consumer.name}"}}})]
        )  # fmt: skip
        async with Server(gateway, "127.0.0.1:0") as server:
            url = server.url.replace("http", "ws") + "/ws"
            with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
                await websockets.connect(url)
            assert refused.value.response.status_code == 401
            async with websockets.connect(url, additional_headers={"x-api-key": "k"}) as socket:
                for text in ("one", "two"):
                    await socket.send(text)
                    assert await socket.recv() == f"ann: {text}"
                with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
                    await websockets.connect(url, additional_headers={"x-api-key": "k"})
                assert refused.value.response.status_code == 429, "an open tunnel holds its place"
            for _ in range(200):
                try:
                    async with websockets.connect(url, additional_headers={"x-api-key": "k"}):
                        break
                except websockets.exceptions.InvalidStatus:
                    await asyncio.sleep(0.02)
            else:
                raise AssertionError("the place of the ended tunnel did not come back")


@pytest.mark.integration
async def test_events_of_services_pass_as_they_come() -> None:
    go = asyncio.Event()

    async def feed(request: Request) -> Response:
        stream = Stream()
        stream.feed(b"data: one\n\n")

        async def later() -> None:
            await go.wait()
            stream.feed(b"data: two\n\n")
            stream.finish()

        task = asyncio.create_task(later())
        request.state["task"] = task
        return Response(200, {"content-type": "text/event-stream"}, stream)

    async with Server(feed, "127.0.0.1:0") as service:
        steps: dict[str, Any] = {"limit": "100/s", "security_headers": True, "cors": "*"}
        gateway = Gateway([route("/feed", Upstream(service.url), **steps)])
        async with Server(gateway, "127.0.0.1:0") as server, aiohttp.ClientSession() as session:
            async with session.get(f"{server.url}/feed") as response:
                assert await asyncio.wait_for(response.content.readuntil(b"\n\n"), 30) == b"data: one\n\n"
                go.set()
                assert await asyncio.wait_for(response.content.read(), 30) == b"data: two\n\n"
