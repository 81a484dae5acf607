"""What ``explain`` says of a request is what the running stack does with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from blocks.app.explain import Explainer, Stop, asked, explain, told
from blocks.app.stack import Stack
from blocks.http.message import Peer, Request, Response

SEEN: list[tuple[str, str, str]] = []


async def recorder(request: Request) -> Response:
    """An application that notes what it is asked."""
    SEEN.append((request.method, request.target, request.headers.get("host") or ""))
    return Response(200, {"cache-control": "max-age=60"}, b"ok")


STACK: dict[str, Any] = {
    "servers": {
        "public": {"listen": "127.0.0.1:0", "handler": "front", "max_body": "1KiB"},
        "direct": {"listen": "127.0.0.2:0", "handler": "spread"},
    },
    "edges": {
        "front": {
            "origin": "api",
            "memory": "8MiB",
            "key": {"drop": ["utm_*"], "sort": True},
            "rules": [{"path": "/account", "store": False}, {"path": "/static/", "ttl": "1d"}],
            "allow_purge": ["10.0.0.0/8"],
        }
    },
    "gateways": {
        "api": {
            "routes": [
                {"path": "/users/{id:int}", "service": "spread", "limit": "100/s per ip", "timeout": "20s"},
                {"path": "/v1/{rest:path}", "service": "app", "transform": {"path": "/v2/{rest}"}},
                {"path": "/account", "service": "app", "methods": ["GET"]},
                {"path": "/static/{rest:path}", "service": "app", "canary": {"service": "spread", "share": 0.5}},
                {"path": "/new", "methods": ["POST"], "publish": {"to": "events", "topic": "orders.new"}},
            ]
        }
    },
    "balancers": {
        "spread": {
            "upstreams": ["app", {"url": "http://127.0.0.1:9/base", "weight": 2, "priority": 1}],
            "health": {"path": "/healthz", "interval": "1h"},
            "upstream_timeout": "7s",
        }
    },
    "brokers": {"events": {"data": ":memory:"}},
    "apps": {"app": {"python": f"{__name__}:recorder"}},
}


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Stack:
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or __import__(__name__))
    SEEN.clear()
    return Stack.load(STACK, environment={})


def way(stack: Stack, method: str, url: str, headers: list[tuple[str, str]] | None = None, **settings: Any) -> Stop:
    server = settings.pop("server", "")
    version = stack.version
    return Explainer(version.settings, version.nodes).explain(asked(method, url, headers or [], **settings), server)


def stops(stop: Stop) -> dict[str, dict[str, Any]]:
    found = {stop.block: stop.says}
    for one in stop.next:
        found |= stops(one)
    return found


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "/users/7?utm_source=x&b=2&a=1"),
        ("GET", "/v1/things/9?q=1"),
        ("DELETE", "/users/7"),
        ("GET", "/account?b=1&a=2"),
    ],
)
async def test_the_application_is_asked_what_explain_says(stack: Stack, method: str, url: str) -> None:
    said = stops(way(stack, method, f"http://shop.example{url}"))["apps.app"]["target"]
    async with stack:
        peer = Peer(("127.0.0.1", 1), scheme="http")
        response = await stack.handler("front")(Request(method, url, {"host": "shop.example"}, peer=peer))
        await response.read()
    assert response.status == 200
    assert [f"{seen[0]} {seen[1]}" for seen in SEEN if seen[1] != "/healthz"] == [said]


async def test_nothing_is_asked_or_counted(stack: Stack) -> None:
    for _ in range(200):
        way(stack, "GET", "http://shop.example/users/7")
    assert SEEN == []
    async with stack:
        assert stack["spread"].requests == 0
        assert stack["front"].counts.hits == 0
        request = Request("GET", "/users/7", {"host": "shop.example"}, peer=Peer(("127.0.0.1", 1)))
        assert (await stack.handler("front")(request)).status == 200  # its limit of 100 a second is untouched


def test_the_edge_says_key_rule_and_storing(stack: Stack) -> None:
    front = stops(way(stack, "GET", "http://Shop.Example/users/7?utm_x=1&b=2&a=1"))["edges.front"]
    assert front["step"] == "lookup"
    assert front["key"] == "http://shop.example/users/7?a=1&b=2"
    assert front["rule"] == "the edge's own settings"
    assert stops(way(stack, "GET", "/static/x.css"))["edges.front"]["ttl"] == 86400.0
    account = stops(way(stack, "GET", "/account"))["edges.front"]
    assert (account["step"], account["why"]) == ("pass", "its rule says store = false")
    secret = stops(way(stack, "GET", "/users/7", [("Authorization", "Bearer x")]))["edges.front"]
    assert "RFC 9111 §3.5" in secret["stored"]
    no_store = stops(way(stack, "GET", "/users/7", [("Cache-Control", "no-store")]))["edges.front"]
    assert no_store["step"] == "pass"


@pytest.mark.parametrize(("client", "says"), [("10.1.2.3", "may purge"), ("127.0.0.1", "403: 127.0.0.1 may not purge")])
def test_a_purge_is_for_those_who_may(stack: Stack, client: str, says: str) -> None:
    found = way(stack, "PURGE", "/static/x.css", client=client)
    assert says in stops(found)["edges.front"]["why"]
    assert found.next[0].next == []


def test_the_gateway_says_route_steps_limits_and_refusals(stack: Stack) -> None:
    found = stops(way(stack, "GET", "/users/7", client="192.0.2.1"))["gateways.api"]
    assert (found["route"], found["params"], found["timeout"]) == ("/users/{id:int}", {"id": "7"}, 20.0)
    assert found["steps"][0]["limits"][0]["key"] == "192.0.2.1"
    assert stops(way(stack, "POST", "/account"))["gateways.api"]["status"] == 405
    assert stops(way(stack, "GET", "/none"))["gateways.api"]["status"] == 404
    published = stops(way(stack, "POST", "/new"))["gateways.api"]
    assert (published["answer"], published["broker"], published["topic"]) == ("publish", "events", "orders.new")


def test_limits_are_those_of_the_consumer_and_the_tier() -> None:
    limit = {"rate": "5/s", "per": "consumer", "tiers": {"gold": "50/s"}}
    routes = [{"path": "/", "service": "app", "limit": "each"}]
    tables = {
        "servers": {"s": {"listen": "127.0.0.1:0", "handler": "api"}},
        "gateways": {"api": {"routes": routes, "limits": {"each": limit}}},
        "apps": {"app": {"python": "json:dumps"}},
    }
    version = Stack.load(tables, environment={}).version
    for consumer, tier, key in (("alder", "gold", "alder"), ("", "", "")):
        explainer = Explainer(version.settings, version.nodes, consumer=consumer, tier=tier)
        found = stops(explainer.explain(asked("GET", "/")))["gateways.api"]["steps"][0]["limits"][0]
        assert key in found["key"]


def test_an_upgrade_passes_the_edge(stack: Stack) -> None:
    found = stops(way(stack, "GET", "/users/7", [("Connection", "upgrade"), ("Upgrade", "websocket")]))["edges.front"]
    assert (found["step"], found["why"]) == ("pass", "an upgrade is for the origin")


def test_a_composition_asks_for_each_branch() -> None:
    branches = {
        "user": {"service": "app", "path": "/users/{id}"},
        "far": {"service": "far", "path": "/f/{user.org}", "method": "post"},
    }
    tables = {
        "servers": {"s": {"listen": "127.0.0.1:0", "handler": "api"}},
        "gateways": {
            "api": {
                "routes": [
                    {"path": "/home/{id}", "compose": {"branches": branches}},
                    {"path": "/m", "service": "app", "mirror": "far"},
                ],
                "services": {"far": {"url": "http://far:80/x", "timeout": "3s"}},
            }
        },
        "apps": {"app": {"python": "json:dumps"}},
    }
    stack = Stack.load(tables, environment={})
    gateway = way(stack, "GET", "/home/7").next[0]
    assert gateway.says["answer"] == "compose"
    assert [(one.block, one.says["when"]) for one in gateway.next] == [
        ("apps.app", "for the branch user"),
        ("http://far:80/x", "for the branch far"),
    ]
    assert gateway.next[0].says["target"] == "GET /users/7"
    assert gateway.next[1].says["asks"] == "POST http://far:80/x/f/{user.org}"
    mirrored = way(stack, "GET", "/m").next[0].next
    assert [(one.block, one.says.get("when")) for one in mirrored] == [
        ("apps.app", None),
        ("http://far:80/x", "mirror"),
    ]


def test_many_ways_are_not_all_told_as_text() -> None:
    members = [f"http://10.0.0.{number}:80" for number in range(20)]
    tables = {"servers": {"s": {"listen": "127.0.0.1:0", "handler": "b"}}, "balancers": {"b": {"upstreams": members}}}
    stop = way(Stack.load(tables, environment={}), "GET", "/")
    assert "    … and 12 more (--json has all)" in told(stop)
    assert len(stop.next[0].next) == 20


def test_a_canary_is_one_of_the_ways(stack: Stack) -> None:
    gateway = way(stack, "GET", "/static/a").next[0].next[0]
    assert [(one.block, one.says.get("when")) for one in gateway.next] == [
        ("apps.app", None),
        ("balancers.spread", "canary"),
    ]


def test_the_balancer_says_candidates_backups_retries_and_probes(stack: Stack) -> None:
    found = stops(way(stack, "GET", "/users/7"))
    spread = found["balancers.spread"]
    assert spread["candidates"] == ["app"]
    assert spread["backups"] == ["http://127.0.0.1:9/base, weight 2, priority 1"]
    assert spread["retries"].startswith("up to 3 tries, after a refused")
    assert "every 3600 s" in spread["health"]
    assert found["http://127.0.0.1:9/base"]["asks"] == "GET http://127.0.0.1:9/base/users/7"
    assert (found["http://127.0.0.1:9/base"]["timeout"], found["http://127.0.0.1:9/base"]["connect_timeout"]) == (
        7.0,
        5.0,
    )
    assert "only when nothing of it was sent" in stops(way(stack, "POST", "/users/7"))["balancers.spread"]["retries"]


def test_the_server_is_found_by_its_port_or_named(stack: Stack) -> None:
    assert way(stack, "GET", "/users/7", server="direct").block == "servers.direct"
    tables = {
        **STACK,
        "servers": {"a": {"listen": "127.0.0.1:81", "handler": "app"}, "b": {"listen": "0.0.0.0:82", "handler": "app"}},
    }
    other = Stack.load(tables, environment={})
    assert way(other, "GET", "http://shop.example:82/").block == "servers.b"
    assert way(other, "GET", "http://localhost:81/").block == "servers.a"
    assert "no server listens on" in way(other, "GET", "http://shop.example:83/").says["taken"]


def test_a_body_that_is_too_large_ends_at_the_server(stack: Stack) -> None:
    found = way(stack, "POST", "/users/7", [("Content-Length", "4096")])
    assert (found.says["status"], found.next) == (413, [])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "stack.json"
    tables = {**STACK, "apps": {"app": {"python": "json:dumps"}}}
    path.write_text(json.dumps(tables))
    return path


def run(*words: Any) -> Any:
    return CliRunner().invoke(explain, [str(word) for word in words])


def test_the_command_tells_it_as_text_and_json(file: Path) -> None:
    result = run(file, "get", "http://127.0.0.1/users/7", "-H", "Accept: text/html", "--client", "192.0.2.9")
    assert result.exit_code == 0
    assert result.stdout.startswith("GET http://127.0.0.1/users/7 from 192.0.2.9\nservers.public\n")
    assert "counted for 192.0.2.9" in result.stdout
    table = json.loads(run(file, "GET", "/users/7", "--json").stdout)
    assert table["block"] == "servers.public"
    assert table["next"][0]["next"][0]["route"] == "/users/{id:int}"


@pytest.mark.parametrize(
    "words",
    [["GET", "shop.example/x"], ["GET", "ftp://x/"], ["GET", "/x", "-H", "nothing"], ["GET", "/x", "--server", "no"]],
)
def test_what_is_no_request_is_a_mistake_of_usage(file: Path, words: list[str]) -> None:
    assert run(file, *words).exit_code == 2
