"""A stack's file in a test: the same topology, on free ports, in memory, in virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks import Response
from blocks.core.errors import ConfigError

STACK = """
[process]
workers = 4
admin = "127.0.0.1:9999"

[servers.public]
listen = "127.0.0.1:8080"
handler = "site"

[servers.inner]
listen = ["127.0.0.1:8081"]
handler = "users"

[edges.site]
origin = "users"
memory = "8MiB"
store = "/var/cache/site"

[balancers.users]
upstreams = ["http://127.0.0.1:9001", "${SECOND}"]
health = { path = "/health", interval = "1s" }

[brokers.events]
listen = "127.0.0.1:7300"
data = "/var/lib/events"
"""


async def test_a_stack_runs_in_a_test_as_it_would_on_a_server(blocks, tmp_path: Path):
    page = Response(200, {"cache-control": "max-age=3600"}, b"page")
    a, b = await blocks.origins(2, page)
    path = tmp_path / "stack.toml"
    path.write_text(STACK, encoding="utf-8")
    stack = await blocks.stack(path, environment={"SECOND": b.url}, replace={"balancers.users.upstreams": [a, b]})
    assert (await stack.get("/page")).body == b"page"
    assert (await stack.get("/page")).body == b"page"
    assert stack["site"].counts.hits == 1
    assert (await stack.get("/page", server="inner")).status == 200
    a.crash()
    await blocks.until(lambda: sum(endpoint.usable for endpoint in stack["users"].endpoints) == 1)
    await stack["events"].publish("orders", b"one")
    assert stack["events"].topic("orders").messages == 1
    seen = {(who, str(what)) for _, who, what in blocks.timeline}
    assert ("public", "GET /page -> 200") in seen
    assert ("site", "fill GET /page") in seen
    assert ("events", "published orders: 1") in seen
    assert any(who == "users" and what.startswith("unhealthy") for who, what in seen)


async def test_what_changes_is_reloaded_and_a_bad_file_changes_nothing(blocks, tmp_path: Path):
    a, b = await blocks.origins(2)
    path = tmp_path / "stack.toml"
    text = '[servers.main]\nlisten = "127.0.0.1:80"\nhandler = "{}"\n'
    path.write_text(text.format(a.url), encoding="utf-8")
    stack = await blocks.stack(path)
    assert (await stack.get()).body == b"origin"
    path.write_text(text.format(b.url), encoding="utf-8")
    await stack.reload()
    assert (await stack.get()).body == b"origin-2"
    path.write_text(text.format("nobody"), encoding="utf-8")
    with pytest.raises(ConfigError) as wrong:
        await stack.reload()
    assert "nobody" in wrong.value.report()
    assert f"{path}:3:" in wrong.value.report()
    assert (await stack.get()).body == b"origin-2"


async def test_text_and_tables_serve_as_well(blocks):
    a = await blocks.origin()
    tables = {"servers": {"main": {"listen": "127.0.0.1:80", "handler": a.url}}}
    assert (await (await blocks.stack(tables)).get()).body == b"origin"
    text = f'[servers.main]\nlisten = "127.0.0.1:80"\nhandler = "{a.url}"\n'
    assert (await (await blocks.stack(text)).get()).body == b"origin"
    assert tables["servers"]["main"]["listen"] == "127.0.0.1:80"


async def test_mistakes_are_told_with_their_lines(blocks, tmp_path: Path):
    path = tmp_path / "stack.toml"
    path.write_text('[servers.main]\nlisten = "127.0.0.1:80"\nhandler = "site"\nlimit = 1\n', encoding="utf-8")
    with pytest.raises(ConfigError) as wrong:
        await blocks.stack(path)
    assert f"{path}:4:1" in wrong.value.report()
    with pytest.raises(ConfigError, match="there is no table 'handler'"):
        await blocks.stack(
            {"servers": {"main": {"listen": ":80", "handler": "http://127.0.0.1:1"}}},
            replace={"servers.main.handler.url": 1},
        )


async def test_the_shop_of_the_examples_with_a_member_that_fails(blocks):
    a, b = await blocks.origins(2, "item")
    shop = Path(__file__).parents[2] / "examples" / "shop.toml"
    stack = await blocks.stack(shop, replace={"balancers.catalog.upstreams": [a, b]})
    a.crash()
    assert [(await stack.get(f"/items/{number}")).body for number in range(5)] == [b"item"] * 5
    answers = [
        (await stack.request("POST", "/orders", {"idempotency-key": f"order-{number}"}, "1")).status
        for number in range(7)
    ]
    assert answers == [202] * 5 + [429] * 2
    assert stack["bus"].topic("orders.created").messages == 5
    await blocks.clock.sleep("1min")
    assert (await stack.request("POST", "/orders", {"idempotency-key": "order-8"}, "1")).status == 202
