"""Every part in its place: routes with auth, validation, composition, jobs, messages … through a real Gateway, in code and from a file."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws as jose
from joserfc.jwk import OctKey

from blocks.broker import Broker
from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError
from blocks.edge.edge import Edge
from blocks.gateway import Gateway, route
from blocks.gateway.auth import ApiKeys, Jwt, Key, KeySet, Rules, hash_key
from blocks.gateway.compose import compose
from blocks.gateway.config.load import Objects, load
from blocks.gateway.jobs import jobs
from blocks.gateway.messages.publish import publish
from blocks.gateway.messages.subscribe import subscribe
from blocks.http.handler import running
from blocks.http.message import Request, Response
from gateway.gateway_kit import until

CLOCK = FakeClock()
SECRET = b"a secret of thirty-two bytes and more"
JSON = {"content-type": "application/json"}


def token(**claims: Any) -> str:
    whole = {"exp": CLOCK.wall() + 60, "sub": "alice", "aud": "api", "scope": "read", **claims}
    return "Bearer " + str(jose.serialize_compact({"alg": "HS256"}, json.dumps(whole), OctKey.import_key(SECRET)))


class Echo:
    """Says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        body = await request.read()
        told = {
            "target": request.target,
            "method": request.method,
            "body": body.decode(),
            "user": request.headers.get("x-user"),
            "n": len(self.asked),
        }
        return Response.json(told, headers={"server": "echo", "cache-control": "max-age=60"})


async def ask(gateway: Any, method: str, target: str, body: bytes = b"", **fields: str) -> tuple[int, Any, Response]:
    request = Request(
        method,
        target,
        {"host": "api.example", **{name.replace("_", "-"): value for name, value in fields.items()}},
        body,
    )
    response: Response = await gateway(request)
    data = await response.read()
    return response.status, json.loads(data) if data else None, response


async def test_steps_stand_in_their_order() -> None:
    echo = Echo()
    auth = Jwt(KeySet([Key.from_secret(SECRET)]), Rules(audiences=frozenset({"api"})), clock=CLOCK)
    gateway = Gateway(
        [
            route(
                "/orders/{id:int}", echo, methods=["GET", "POST"], auth=auth, scopes=["read"], limit="100/s per consumer",
                cors={"origins": ["https://app.example"]}, security_headers=True, accept={"types": ["application/json"],
                "max_body": "1KiB"},
                validate={"schema": {"type": "object", "required": ["n"]}},
                transform={"path": "/v1/o/{id}", "headers": {"set": {"x-user": "{consumer.name}"}}}, idempotency=True,
            ),
            route("/closed", echo),
            route("/open", echo, auth="anonymous"),
        ],
        auth="deny", clock=CLOCK,
    )  # fmt: skip
    async with running(gateway):
        status, body, response = await ask(
            gateway,
            "POST",
            "/orders/7?a=1",
            b'{"n":1}',
            authorization=token(),
            idempotency_key="k",
            origin="https://app.example",
            **JSON,
        )
        assert status == 200
        assert (body["target"], body["user"], body["body"]) == ("/v1/o/7?a=1", "alice", '{"n":1}')
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "server" not in response.headers
        again = await ask(
            gateway, "POST", "/orders/7?a=1", b'{"n":1}', authorization=token(), idempotency_key="k", **JSON
        )
        assert again[1] == body
        assert len(echo.asked) == 1
        preflight = await gateway(
            Request(
                "OPTIONS",
                "/orders/7",
                {"host": "x", "origin": "https://app.example", "access-control-request-method": "POST"},
            )
        )
        assert preflight.status == 204
        for fields, payload, wanted in (
            ({}, b'{"n":1}', 401), ({"authorization": token(aud="other")}, b'{"n":1}', 401), ({"authorization": token(scope="x")},
            b'{"n":1}', 403),
            ({"authorization": token()}, b"{}", 422), ({"authorization": token()}, b"{", 400), ({"authorization": token()},
            b'"' + b"x" * 2000 + b'"', 413),
        ):  # fmt: skip
            status, _, response = await ask(
                gateway, "POST", "/orders/7", payload, origin="https://app.example", **JSON, **fields
            )
            assert status == wanted
            assert response.headers["access-control-allow-origin"] == "https://app.example"
        assert (await ask(gateway, "GET", "/closed"))[0] == 403
        assert (await ask(gateway, "GET", "/open"))[0] == 200


async def test_ends_in_code() -> None:
    echo = Echo()
    keys = ApiKeys({hash_key("k"): "robot"})
    async with Broker(":memory:") as broker:
        gateway = Gateway(
            [
                route(
                    "/both/{id}",
                    compose(
                        {
                            "a": {"service": echo, "path": "/a/{id}"},
                            "b": {"service": echo, "path": "/b/{a.n}", "keep": ["target"]},
                        }
                    ),
                ),
                route("/reports/{rest:path}", jobs(echo), auth=keys),
                route("/events", publish(broker, "events.new", required_key=True), methods="POST", auth=keys),
                route(
                    "/feed",
                    subscribe(broker, "events.new", start="earliest", lifetime="1s", keep_alive="0.2s"),
                    methods="GET",
                    auth=keys,
                ),
                route("/cached", echo, cache=lambda inner: Edge(inner, memory="1MiB"), auth=[keys, "anonymous"]),
            ],
            clock=CLOCK,
        )
        async with running(gateway):
            status, body, _ = await ask(gateway, "GET", "/both/7")
            assert (status, body["a"]["target"], body["b"]) == (200, "/a/7", {"target": "/b/1"})
            status, job, response = await ask(gateway, "POST", "/reports/year", b"x", x_api_key="k")
            assert status == 202

            async def done() -> bool:
                return bool(
                    (await ask(gateway, "GET", response.headers["location"], x_api_key="k"))[1]["state"] == "done"
                )

            await until(done)
            result = await ask(gateway, "GET", job["status"] + "/result", x_api_key="k")
            assert result[1]["target"] == "/reports/year"
            assert (await ask(gateway, "GET", job["status"]))[0] == 401
            receipts = [
                await ask(gateway, "POST", "/events", b"m", x_api_key="k", idempotency_key="one") for _ in range(2)
            ]
            assert [(status, receipt["duplicate"]) for status, receipt, _ in receipts] == [(202, False), (202, True)]
            assert receipts[0][1]["offset"] == receipts[1][1]["offset"]
            stream = await gateway(Request("GET", "/feed", {"host": "x", "x-api-key": "k"}))
            text = (await stream.read()).decode()
            assert "data: m\n\n" in text
            assert text.count("data:") == 1
            told = {
                (dict(one.labels)["step"], dict(one.labels)["what"]): one.value
                for one in gateway.readings()
                if one.name.endswith("step_events_total")
            }
            assert told[("publish", "published")] == 2
            assert told[("jobs", "started")] == 1
            assert told[("compose", "failed_a")] == 0
            first = await ask(gateway, "GET", "/cached", x_api_key="k")
            assert (await ask(gateway, "GET", "/cached", x_api_key="k"))[1] == first[1]
            assert (await ask(gateway, "GET", "/cached"))[1] != first[1]


FILE = """
[gateway]
auth = "deny"

[auth.people]
type = "jwt"
secret = "a secret of thirty-two bytes and more"
audience = "api"

[auth.robots]
type = "api-key"

[consumers.robot]
keys = ["HASH"]
groups = ["machines"]

[[routes]]
path = "/api/{rest:path}"
service = "echo"
auth = ["people", "robots"]
access = {deny = ["192.0.2.0/24"]}
cors = ["https://app.example"]
security_headers = true
accept = {max_body = "1MiB"}
transform = {strip_prefix = "/api", headers = {set = {x-user = "{consumer.name}"}}, response = {headers = {remove = ["server"]}}}
canary = {service = "echo", share = 0.5}
mirror = "echo"
idempotency = {store = "disk:keys.db", required = true}

[[routes]]
path = "/machines"
service = "echo"
auth = "robots"
groups = ["machines"]
cache = "edge"

[[routes]]
path = "/list"
service = "echo"
auth = "anonymous"
pagination = {offer = "cursor", items = "items"}
validate = {openapi = "api.json", undescribed = "pass"}

[[routes]]
path = "/both/{id}"
auth = "anonymous"
[routes.compose]
deadline = "2s"
[routes.compose.branches.a]
service = "echo"
path = "/a/{id}"
[routes.compose.branches.b]
service = "echo"
path = "/b"
mode = "optional"

[[routes]]
path = "/jobs-of/{rest:path}"
auth = "robots"
jobs = {service = "echo", timeout = "1m"}

[[routes]]
path = "/events/{region}"
auth = "robots"
publish = {to = "bus", topic = "events.{region}"}

[[routes]]
path = "/feed/{region}"
auth = "robots"
subscribe = {source = "bus", topic = "events.{region}", lifetime = "100ms"}
"""
API = {"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {}}


def read(folder: Path, text: str, echo: Any, broker: Any) -> Gateway:
    (folder / "gateway.toml").write_text(text.replace("HASH", hash_key("k")))
    (folder / "api.json").write_text(json.dumps(API))
    objects = Objects(
        services={"echo": echo},
        publishers={"bus": broker},
        subscribers={"bus": broker},
        caches={"edge": lambda inner: Edge(inner, memory="1MiB")},
    )
    return Gateway.of(load(folder / "gateway.toml", objects=objects, clock=CLOCK).snapshot)


async def test_everything_from_a_file(tmp_path: Path) -> None:
    echo = Echo()
    async with Broker(":memory:") as broker:
        gateway = read(tmp_path, FILE, echo, broker)
        async with running(gateway):
            status, body, response = await ask(
                gateway, "POST", "/api/x", b"1", authorization=token(), idempotency_key="1"
            )
            assert (status, body["target"], body["user"]) == (200, "/x", "alice")
            assert "server" not in response.headers
            assert (await ask(gateway, "POST", "/api/x", b"1", x_api_key="k"))[0] == 400
            assert (await ask(gateway, "POST", "/api/x", b"1"))[0] == 401
            first = await ask(gateway, "GET", "/machines", x_api_key="k")
            assert (await ask(gateway, "GET", "/machines", x_api_key="k"))[1] == first[1]
            assert (await ask(gateway, "GET", "/machines", authorization=token()))[0] == 401
            assert (await ask(gateway, "GET", "/list?limit=2"))[0] == 502
            assert (await ask(gateway, "GET", "/both/7"))[1]["a"]["target"] == "/a/7"
            assert (await ask(gateway, "POST", "/jobs-of/x", b"1", x_api_key="k"))[0] == 202
            assert (await ask(gateway, "POST", "/events/eu", b"1", x_api_key="k"))[1]["topic"] == "events.eu"
            assert (await ask(gateway, "POST", "/events/e%2Eu", b"1", x_api_key="k"))[0] == 400
            feed = await gateway(Request("GET", "/feed/eu", {"host": "x", "x-api-key": "k", "last-event-id": "0"}))
            assert feed.headers["content-type"] == "text/event-stream"
            await feed.read()
            await asyncio.sleep(0)


@pytest.mark.parametrize(("right", "wrong", "said"), [
    ('auth = ["people", "robots"]', 'auth = ["poeple", "robots"]', "people"), ('type = "api-key"', 'type = "apikey"', "api-key"),
    ("share = 0.5", "share = 5", "share"), ('offer = "cursor"', 'offer = "curser"', "offer"), ('strip_prefix = "/api"',
    'strip_prefx = "/api"', "strip_prefix"),
    ('mode = "optional"', 'mode = "optoinal"', "mode"), ('topic = "events.{region}"}', 'topic = "events.{regoin}"}', "regoin"),
    ('to = "bus"', 'to = "buss"', "bus"), ('deny = ["192.0.2.0/24"]', 'deny = ["192.0.2.1/24"]', "network"), ("api.json", "missing.json",
    "missing.json"),
    ("secret = \"a secret of thirty-two bytes and more\"", "secret = \"short\"", "32"),
])  # fmt: skip
def test_what_is_wrong_in_a_file_is_said_with_its_place(tmp_path: Path, right: str, wrong: str, said: str) -> None:
    assert right in FILE
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, FILE.replace(right, wrong, 1), Echo(), object())
    assert said in str(caught.value)
