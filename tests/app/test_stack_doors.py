"""The admin API of a stack: every block's own routes by its name, figures with its name, and reloads."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from app.staged import asking, loaded, origins, written
from blocks import Request, Upstream
from blocks.app.process import StackRun
from blocks.app.stack import Stack
from blocks.http.admin import Admin
from blocks.http.options import Serving

TWO = """
[servers.s]
listen = "127.0.0.1:0"
handler = "cache"
[balancers.one]
upstreams = ["http://127.0.0.1:9"]
[balancers.two]
upstreams = ["http://127.0.0.1:9", "one"]
[edges.cache]
origin = "front"
[gateways.front]
[[gateways.front.routes]]
path = "/"
service = "two"
[brokers.queue]
data = ":memory:"
"""


@asynccontextmanager
async def administered(stack: Stack) -> AsyncIterator[Upstream]:
    run = StackRun(stack)
    stack.ground = stack.ground._replace(metered=True)
    await run.start()
    try:
        async with Admin(run.subject(lambda: None), Serving(admin="127.0.0.1:0"), run.extend) as address:
            async with asking(f"http://{address}") as client:
                yield client
    finally:
        await run.stop()


async def ask(client: Upstream, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
    data = b"" if body is None else json.dumps(body).encode()
    response = await client(Request(method, path, {"host": "127.0.0.1"}, data))
    text = await response.read()
    return response.status, json.loads(text) if text.startswith((b"{", b"[")) else text.decode()


async def test_each_block_is_reached_by_its_name_and_alone_by_its_own_path(tmp_path: Path):
    async with administered(loaded(written(tmp_path, TWO))) as client:
        status, rows = await ask(client, "/v1/balancers/two/upstreams")
        assert (status, [row["name"] for row in rows["upstreams"]]) == (200, ["http://127.0.0.1:9", "one"])
        assert (await ask(client, "/v1/balancers/one"))[1]["name"] == "one"
        assert (await ask(client, "/v1/balancers"))[1] == ["one", "two"]
        status, said = await ask(client, "/v1/upstreams")
        assert status == 409
        assert "/v1/balancers/one/…, /v1/balancers/two/…" in said["error"]
        for path in ("/v1/edge/stats", "/v1/edges/cache/stats", "/v1/edges/cache/edge/stats"):
            assert (await ask(client, path))[1]["hits"] == 0
        assert (await ask(client, "/v1/gateway/routes"))[1] == (await ask(client, "/v1/gateways/front/routes"))[1]
        assert (await ask(client, "/v1/brokers/queue/topics"))[0] == 200
        assert (await ask(client, "/v1/edges/nobody/stats"))[0] == 404
        assert (await ask(client, "/v1/edges/cache/nothing"))[0] == 404
        assert (await ask(client, "/v1/nothing"))[0] == 404
        purge = {"url": "http://a/b"}
        assert (await ask(client, "/v1/edges/cache/purge", "POST", purge)) == (
            200,
            {"purged": 0, **purge, "soft": False},
        )
        assert (await ask(client, "/v1/gateways/front/reload", "POST"))[0] == 404  # its tables are the stack's


async def test_the_topology_goes_through_all_blocks(tmp_path: Path):
    async with administered(loaded(written(tmp_path, TWO))) as client:
        _, rows = await ask(client, "/v1/topology")
        depths = {row["part"]: row["depth"] for row in rows}
        assert depths["s"] < depths["cache"] < depths["front"] < depths["two"] < depths["one"]
        assert depths["queue"] == 0
        status, body = await ask(client, "/readyz?verbose")
        assert (status, body["status"]) == (200, "ready")
        _, nodes = await ask(client, "/v1/stack")
        assert {node["name"]: node["needs"] for node in nodes}["cache"] == ["front"]


async def test_figures_have_the_name_of_their_block(tmp_path: Path):
    async with administered(loaded(written(tmp_path, TWO))) as client:
        _, text = await ask(client, "/metrics")
        for series in (
            'blocks_balancer_requests_total{balancer="one"} 0',
            'blocks_balancer_requests_total{balancer="two"} 0',
            'blocks_edge_fills_total{edge="cache"} 0',
            'broker="queue"',
            'gateway="front"',
            'blocks_http_requests_total{server="s"} 0',
            "blocks_stack_last_reload_successful 1",
        ):
            assert series in text
        assert text.count("# TYPE blocks_balancer_requests_total") == 1


async def test_a_reload_by_post_says_what_it_did_and_what_was_wrong(tmp_path: Path):
    async with origins("a") as ((_, url),):
        path = written(tmp_path, TWO)
        async with administered(loaded(path)) as client:
            written(tmp_path, TWO.replace("balancers.one", "balancers.onne"))
            status, body = await ask(client, "/v1/reload", "POST")
            assert status == 422
            assert body["complaints"][0] | {"column": 0} == {
                "file": str(path), "line": 8, "column": 0, "level": "error", "key": "balancers.two.upstreams[1]",
                "message": "there is no handler 'one'; did you mean 'onne'?",
            }  # fmt: skip
            assert "^" in body["report"]
            _, status_now = await ask(client, "/v1/status")
            assert "onne" in status_now["config"]["last_error"]
            assert "blocks_stack_last_reload_successful 0" in (await ask(client, "/metrics"))[1]
            written(
                tmp_path,
                TWO.replace('"http://127.0.0.1:9", "one"', f'"{url}"').replace("[balancers.one]", "[balancers.new]"),
            )
            status, body = await ask(client, "/v1/reload", "POST")
            assert (status, body["changed"]) == (200, True)
            assert (await ask(client, "/v1/balancers"))[1] == ["new", "two"]
            assert (await ask(client, "/v1/balancers/new"))[1]["name"] == "new"
            assert (await ask(client, "/v1/balancers/one"))[0] == 404
            assert (await ask(client, "/v1/status"))[1]["config"]["last_error"] == ""


async def test_secrets_are_masked_in_what_the_api_shows(tmp_path: Path):
    written(tmp_path, "sesame-open-up-now", "token")
    text = TWO + '[upstreams.u]\nurl = "http://127.0.0.1:9"\nhost = "${file:token}"\n'
    async with administered(loaded(written(tmp_path, text))) as client:
        _, shown = await ask(client, "/config")
        assert "sesame" not in json.dumps(shown)
        assert shown["settings"]["balancers"]["one"]["upstreams"] == ["http://127.0.0.1:9"]
