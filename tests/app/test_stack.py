"""A stack from its file: every kind of table becomes what it says, and everything is started and stopped in order."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from app.staged import asking, get, loaded, origins, written
from blocks import LoadBalancer, Request, connect
from blocks.app.lives import CannotStart
from blocks.app.source import StackErrors
from blocks.app.stack import Stack
from blocks.core.status import Status

APP = """
from blocks import Response
entered = []
async def hello(request):
    return Response(200, {}, b"hello " + request.target.encode())
async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            entered.append(message["type"])
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = f"staged_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(APP)
    path = list(sys.path)
    yield name
    sys.path[:] = path
    sys.modules.pop(name, None)


async def test_every_kind_of_table_is_what_it_says(tmp_path: Path, module: str):
    async with origins("a", "b") as ((a, a_url), (b, b_url)):
        text = f"""
        [servers.public]
        listen = ["127.0.0.1:0", "unix:{tmp_path}/s.sock"]
        handler = "cache"
        head_timeout = "5s"
        [edges.cache]
        origin = "front"
        memory = "8MiB"
        rules = [{{ path = "/users/", ttl = "1m" }}]
        [gateways.front]
        [[gateways.front.routes]]
        path = "/users"
        service = "users"
        [[gateways.front.routes]]
        path = "/hello"
        service = "hello"
        [[gateways.front.routes]]
        path = "/asgi"
        service = "site"
        [[gateways.front.routes]]
        path = "/orders"
        methods = ["POST"]
        publish = {{ to = "queue", topic = "orders" }}
        [balancers.users]
        upstreams = ["a", {{ url = "{b_url}", weight = 2 }}]
        policy = "round-robin"
        [upstreams.a]
        url = "{a_url}"
        [apps.hello]
        python = "{module}:hello"
        [apps.site]
        asgi = "{module}:asgi"
        [brokers.queue]
        data = ":memory:"
        listen = "127.0.0.1:0"
        """
        stack = loaded(written(tmp_path, text))
        assert next(iter(stack.version.in_order())).name == "queue"
        async with stack, asking(stack.servers["public"].url) as client:
            assert (await get(client, "/hello"))[1] == "hello /hello"
            assert (await get(client, "/asgi"))[1] == "/asgi"
            answers = {(await get(client, f"/users/{n}"))[1][0] for n in range(6)}
            assert answers == {"a", "b"}
            assert b.requests == 4
            assert a.last.headers["x-forwarded-for"] == "127.0.0.1"
            asked = a.requests + b.requests
            await get(client, "/users/1")
            assert a.requests + b.requests == asked  # the edge had it
            async with connect(stack["queue"].url) as queue, queue.subscribe("orders", start="earliest") as messages:
                assert (await get(client, "/orders", "POST", b"one"))[0] == 202
                assert (await anext(messages)).payload == b"one"
            assert isinstance(stack["users"], LoadBalancer)
            assert stack.status is Status.OPEN
            async with asking(f"unix:{tmp_path}/s.sock") as local:
                assert (await get(local, "/hello"))[0] == 200
            assert sys.modules[module].entered == ["lifespan.startup"]
        assert sys.modules[module].entered == ["lifespan.startup", "lifespan.shutdown"]
        assert not Path(f"{tmp_path}/s.sock").exists()


async def test_tables_in_code_are_the_same_as_a_file():
    async with origins("a") as ((_, url),):
        tables = {"servers": {"s": {"listen": "127.0.0.1:0", "handler": url}}}
        async with Stack.load(tables) as stack, asking(stack.servers["s"].url) as client:
            assert (await get(client, "/x"))[1] == "a /x"


async def test_include_merges_tables_relative_to_the_file(tmp_path: Path):
    (tmp_path / "more").mkdir()
    async with origins("a") as ((_, url),):
        written(tmp_path / "more", f'[upstreams.a]\nurl = "{url}"', "one.toml")
        written(tmp_path / "more", '{"balancers": {"b": {"upstreams": ["a"]}}}', "two.json")
        path = written(
            tmp_path, 'include = ["more/*.toml", "more/two.json"]\n[servers.s]\nlisten = "127.0.0.1:0"\nhandler = "b"'
        )
        async with loaded(path) as stack, asking(stack.servers["s"].url) as client:
            assert (await get(client))[0] == 200
        assert [one.name for one in stack.version.source.files()] == ["stack.toml", "one.toml", "two.json"]


async def test_values_are_filled_from_the_environment_and_files(tmp_path: Path):
    written(tmp_path, "127.0.0.1:0\n", "where")
    path = written(tmp_path, '[servers.s]\nlisten = "${file:where}"\nhandler = "${URL}"\nidle_timeout = "${IDLE:-7s}"')
    stack = Stack.load(path, environment={"URL": "http://127.0.0.1:9"})
    table = stack.version.settings.servers["s"]
    assert (table.listen, table.handler, table.idle_timeout) == ("127.0.0.1:0", "http://127.0.0.1:9", "7s")


def complaints(tables: dict[str, object] | Path) -> dict[str, str]:
    with pytest.raises(StackErrors) as caught:
        loaded(tables)
    return {".".join(map(str, one.at)): one.message for one in caught.value.complaints}


def test_all_mistakes_are_said_at_once_each_at_its_key():
    found = complaints(
        {
            "servers": {"s": {"listen": "nowhere", "handler": "cach"}, "t": {"listen": [], "handler": "cache"}},
            "edges": {"cache": {"origin": ["users", "usres"], "profile": "safe", "grace": "1x"}},
            "balancers": {"users": {"upstreams": ["http://127.0.0.1:1", "ftp://x"], "policy": "p3c"}},
            "upstreams": {"one": {"url": "http://127.0.0.1:1", "timeout": "5 parsecs"}},
            "brokers": {"b": {"data": ":memory:", "durability": "never"}},
            "apps": {"a": {"asgi": "no_such_module:app"}, "c": {}},
            "gateways": {"g": {"routes": [{"path": "/", "service": "nobody"}]}},
            "severs": {},
        }
    )
    assert found["servers.s.listen"].startswith("'nowhere' is not an address")
    assert found["servers.s.handler"] == "there is no handler 'cach'; did you mean 'cache'?"
    assert "listens somewhere" in found["servers.t.listen"]
    assert "'1x' is not a duration" in found["edges.cache.grace"]
    assert "ftp://x" in found["balancers.users.upstreams.1"]
    assert found["balancers.users.policy"].startswith("there is no policy 'p3c'")
    assert "duration" in found["upstreams.one.timeout"]
    assert "brokers.b.durability" in found
    assert "cannot be loaded" in found["apps.a.asgi"]
    assert "exactly one of asgi and python" in found["apps.c"]
    assert "there is no service named 'nobody'" in found["gateways.g.routes.0.service"]
    assert found["severs"] == "unknown table 'severs'; did you mean 'servers'?"


def test_a_circle_is_named():
    found = complaints(
        {"edges": {"a": {"origin": "b"}, "b": {"origin": "c"}}, "balancers": {"c": {"upstreams": ["a"]}}}
    )
    (said,) = found.values()
    assert "c → a → b → c" in said


def test_a_circle_through_a_gateway_is_named():
    found = complaints(
        {"edges": {"a": {"origin": "g"}}, "gateways": {"g": {"routes": [{"path": "/", "service": "a"}]}}}
    )
    (said,) = found.values()
    assert "g → a → g" in said or "a → g → a" in said


def test_a_name_given_twice_is_an_error_that_says_where(tmp_path: Path):
    written(tmp_path, '\n[upstreams.a]\nurl = "http://127.0.0.1:2"', "more.toml")
    path = written(tmp_path, 'include = ["more.toml"]\n[upstreams.a]\nurl = "http://127.0.0.1:1"')
    with pytest.raises(StackErrors) as caught:
        loaded(path)
    report = caught.value.report()
    assert f"more.toml:2:1: error: [upstreams.a] is there already in {path} line 2" in report
    assert "[upstreams.a]\n    ^" in report


def test_a_handler_and_another_of_one_name_is_an_error():
    found = complaints(
        {"upstreams": {"a": {"url": "http://127.0.0.1:1"}}, "balancers": {"a": {"upstreams": ["http://127.0.0.1:1"]}}}
    )
    assert "the name 'a' is taken by [upstreams.a]" in found["balancers.a"] or "taken by" in found["upstreams.a"]


def test_a_mistake_in_a_gateways_own_file_is_told_with_its_place(tmp_path: Path):
    written(tmp_path, '[[routes]]\npath = "/"\nservic = "a"', "gateway.toml")
    path = written(tmp_path, '[gateways.g]\nfile = "gateway.toml"\n[upstreams.a]\nurl = "http://127.0.0.1:1"')
    with pytest.raises(StackErrors) as caught:
        loaded(path)
    assert "gateway.toml:3:1: error: unknown key 'servic'" in caught.value.report()


def test_a_broker_with_several_workers_is_refused():
    found = complaints({"process": {"workers": 2}, "brokers": {"b": {"data": ":memory:"}}})
    assert "a broker lives in one process" in found["brokers.b"]


async def test_a_server_that_cannot_listen_leaves_nothing_running(tmp_path: Path):
    taken = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    tables = {
        "servers": {
            "one": {"listen": "127.0.0.1:0", "handler": "http://127.0.0.1:9"},
            "two": {"listen": f"127.0.0.1:{port}", "handler": "http://127.0.0.1:9"},
        },
        "brokers": {"b": {"data": str(tmp_path / "b"), "listen": "127.0.0.1:0"}},
    }
    stack = loaded(tables)
    with pytest.raises(OSError, match="cannot listen"):
        await stack.start()
    assert not stack.servers
    assert stack["b"].status is Status.CLOSED
    taken.close()
    await taken.wait_closed()


async def test_what_two_need_is_entered_once_and_left_once():
    class Part:
        entered = left = 0

        async def __aenter__(self):
            self.entered += 1
            return self

        async def __aexit__(self, *_):
            self.left += 1

        async def __call__(self, request):
            raise AssertionError

    part = Part()
    sys.modules["staged_part"] = type(sys)("staged_part")
    sys.modules["staged_part"].part = part  # type: ignore[attr-defined]
    tables = {
        "apps": {"p": {"python": "staged_part:part"}, "q": {"python": "staged_part:part"}},
        "balancers": {"one": {"upstreams": ["p"]}, "two": {"upstreams": ["p", "q"]}},
    }
    async with loaded(tables):
        assert (part.entered, part.left) == (1, 0)
    assert (part.entered, part.left) == (1, 1)
    del sys.modules["staged_part"]


async def test_drain_lets_requests_finish_and_says_so():
    async with origins("a") as ((a, url),):
        a.gate.clear()
        async with loaded({"servers": {"s": {"listen": "127.0.0.1:0", "handler": url}}}) as stack:
            async with asking(stack.servers["s"].url) as client:
                asked = asyncio.create_task(get(client))
                while not a.requests:
                    await asyncio.sleep(0.001)
                drained = asyncio.create_task(stack.drain(20))
                await asyncio.sleep(0)
                a.gate.set()
                assert (await asked)[0] == 200
                assert await drained


async def test_an_application_that_fails_to_start_is_named(tmp_path: Path):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    sys.modules["staged_failing"] = type(sys)("staged_failing")
    sys.modules["staged_failing"].app = app  # type: ignore[attr-defined]
    stack = loaded({"apps": {"site": {"asgi": "staged_failing:app"}}})
    with pytest.raises(CannotStart, match=r"\[apps.site\] cannot start: .*no database"):
        await stack.start()
    assert not stack.entered
    del sys.modules["staged_failing"]


async def test_a_file_in_yaml_is_the_same(tmp_path: Path):
    pytest.importorskip("yaml")
    async with origins("a") as ((_, url),):
        text = f"servers:\n  s:\n    listen: 127.0.0.1:0\n    handler: b\nbalancers:\n  b:\n    upstreams: ['{url}']\n"
        async with loaded(written(tmp_path, text, "stack.yaml")) as stack, asking(stack.servers["s"].url) as client:
            assert (await get(client))[0] == 200


def test_a_long_chain_of_includes_and_of_handlers_is_no_trouble(tmp_path: Path):
    count = 350
    for number in range(count):
        origin = f'"e{number + 1}"' if number + 1 < count else '"http://127.0.0.1:9"'
        more = f'include = ["{number + 1}.toml"]\n' if number + 1 < count else ""
        written(tmp_path, f"{more}[edges.e{number}]\norigin = {origin}\nmemory = 1000000\n", f"{number}.toml")
    stack = loaded(tmp_path / "0.toml")
    assert [node.name for node in stack.version.in_order()] == [f"e{number}" for number in reversed(range(count))]


def test_includes_that_never_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("blocks.app.source.MAX_FILES", 20)
    (tmp_path / "more").mkdir()
    for number in range(21):
        written(tmp_path / "more", "", f"{number}.toml")
    with pytest.raises(StackErrors, match="more than 20 files are included") as caught:
        loaded(written(tmp_path, 'include = ["more/*.toml"]'))
    assert len(caught.value.complaints) == 1


async def test_consistent_hashing_looks_at_what_the_table_says():
    async with origins("a", "b", "c") as made:
        urls = [url for _, url in made]
        tables = {
            "servers": {"s": {"listen": "127.0.0.1:0", "handler": "b"}},
            "balancers": {"b": {"upstreams": urls, "hash_by": "header:X-User", "hash_bound": 2.0}},
        }
        async with loaded(tables) as stack, asking(stack.servers["s"].url) as client:
            for user in ("ada", "bob", "eve"):
                answers = set()
                for _ in range(4):
                    response = await client(Request("GET", "/", {"host": "t", "x-user": user}))
                    answers.add(await response.read())
                assert len(answers) == 1


def test_what_hashing_looks_at_needs_the_policy_for_it():
    found = complaints(
        {
            "balancers": {
                "b": {"upstreams": ["http://127.0.0.1:1"], "policy": "random", "hash_by": "path"},
                "c": {"upstreams": ["http://127.0.0.1:1"], "hash_by": "cookie"},
            }
        }
    )
    assert "not for 'random'" in found["balancers.b.hash_by"]
    assert "it is client, path or header:NAME" in found["balancers.c.hash_by"]
