from __future__ import annotations

import json
from typing import Any

import pytest

from blocks.core.config.decode import decode
from blocks.core.errors import ClientFault, ConfigError
from blocks.gateway.consumer import Consumer
from blocks.gateway.path import BadPath
from blocks.gateway.transform.shape import Shape, ShapeSettings, place
from blocks.gateway.transform.step import Settings, Transform
from blocks.gateway.transform.template import Template, View
from blocks.http.body import Stream
from blocks.http.message import Request, Response
from gateway.gateway_kit import context, passes

ALICE = Consumer("alice", tier="gold", groups={"b", "a"}, claims={"org": {"id": 7}, "bad": "a\r\nb", "up": ".."})
JSON = {"content-type": "application/json"}


def transform(params: tuple[str, ...] = ("id", "rest"), **settings: Any) -> Transform:
    return Transform(decode(Settings, settings), params, "rest")


async def changed(step: Transform, request: Request, **params: Any) -> Request:
    answer = await passes(step, request, context(consumer=ALICE, params=params))
    assert answer is None
    return request


def view(target: str = "/x?page=2&q=a%20b", body: Any = None, **fields: str) -> View:
    request = Request("GET", target, {"host": "h", "cookie": "a=1; b=2", **fields})
    return View(request, context(consumer=ALICE, params={"id": 7}), body)


@pytest.mark.parametrize(("text", "made"), [
    ("plain", "plain"), ("{id}", "7"), ("a{{b}}{params.id}", "a{b}7"), ("{consumer.name}/{consumer.tier}/{consumer.groups}",
    "alice/gold/a,b"),
    ("{claims.org.id}", "7"), ("{header.x-a}|{header.none}", "1|"), ("{query.page} {query.q}", "2 a b"), ("{cookie.b}", "2"),
    ("{method} {host} {scheme}", "GET h http"),
    ("{body.items.1.name}{body.items.9}", "two"), ("{client}", "203.0.113.9"), ("{query_string}", "page=2&q=a%20b"), ("", ""),
])  # fmt: skip
def test_templates(text: str, made: str) -> None:
    shown = view(body={"items": [{}, {"name": "two"}]}, **{"x-a": "1"})
    assert Template(text, params=("id",)).render(shown) == made


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "}",
        "{}",
        "{nobody}",
        "{params.other}",
        "{consumer.secret}",
        "{consumer.__class__}",
        "{self.x}",
        "{header.}",
    ],
)
def test_names_that_nothing_has_are_found_at_load(text: str) -> None:
    with pytest.raises(ConfigError):
        Template(text, params=("id",))


def test_a_template_that_is_one_name_keeps_the_kind_of_its_value() -> None:
    assert Template("{id}").value(view()) == 7
    assert Template("{body.a}").value(view(body={"a": [1, {"b": None}]})) == [1, {"b": None}]
    assert Template("{body.none}").value(view()) is None


VALUE = {"a": {"b": 1, "c": 2}, "items": [{"id": 1, "secret": 2}, {"id": 3, "secret": 4}], "z": None}


@pytest.mark.parametrize(("settings", "made"), [
    ({}, VALUE), ({"keep": ["a.b", "items.*.id"]}, {"a": {"b": 1}, "items": [{"id": 1}, {"id": 3}]}),
    ({"remove": ["a", "items.*.secret", "none.x"]}, {"items": [{"id": 1}, {"id": 3}], "z": None}), ({"keep": ["items.0"]},
    {"items": [VALUE["items"][0]]}),
    ({"remove": ["items.0", "a.*"]}, {"a": {}, "items": [VALUE["items"][1]], "z": None}),
    ({"keep": ["a"], "rename": {"a.b": "x.y", "a.none": "q"}}, {"a": {"c": 2}, "x": {"y": 1}}),
    ({"keep": ["z"], "set": {"n.id": "{id}", "t": "no {id}", "l": ["{consumer.name}", True]}}, {"z": None, "n": {"id": 7}, "t": "no 7",
    "l": ["alice", True]}),
    ({"template": {"all": "{body}", "b": "{body.a.b}"}}, {"all": VALUE, "b": 1}),
])  # fmt: skip
def test_shapes(settings: dict[str, Any], made: Any) -> None:
    value = json.loads(json.dumps(VALUE))
    assert Shape(decode(ShapeSettings, settings)).apply(value, view(body=json.loads(json.dumps(VALUE)))) == made


@pytest.mark.parametrize(
    "settings",
    [
        {"keep": [""]},
        {"keep": ["a..b"]},
        {"rename": {"a.*": "b"}},
        {"set": {"*": 1}},
        {"template": {}, "keep": ["a"]},
        {"keep": [".".join("a" * 17)]},
    ],
)
def test_shapes_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Shape(decode(ShapeSettings, settings))


def test_placing_makes_the_way() -> None:
    assert place({"a": 1}, ("a", "b"), 2) == {"a": {"b": 2}}
    assert place([], ("a",), 2) == {"a": 2}
    assert place({}, (), 5) == 5


@pytest.mark.parametrize(("settings", "params", "target", "made"), [
    ({"path": "/v2/{id}/{rest}"}, {"id": "a/b ?#", "rest": "x/y%20z"}, "/old?q=1", "/v2/a%2Fb%20%3F%23/x/y%20z?q=1"),
    ({"strip_prefix": "/api"}, {}, "/api/x", "/x"), ({"strip_prefix": "/api"}, {}, "/api", "/"), ({"strip_prefix": "/api"}, {}, "/apix",
    "/apix"),
    ({"strip_prefix": "/api", "prefix": "/v1"}, {}, "/api/x?a", "/v1/x?a"), ({"pattern": r"^/u/(\d+)$", "replacement": r"/users/\1"}, {},
    "/u/7", "/users/7"),
    ({"query": {"keep": ["a"]}}, {}, "/?a=%41&b=2&a=3", "/?a=%41&a=3"), ({"query": {"remove": ["b"]}}, {}, "/?b=1&%62=2", "/"),
    ({"query": {"rename": {"a": "z"}}}, {}, "/?a=1&b", "/?z=1&b"), ({"query": {"set": {"u": "{consumer.name}&x=1"}}}, {}, "/?u=evil",
    "/?u=alice%26x%3D1"),
    ({"query": {"add": {"a": "2", "n": "{claims.none}"}}}, {}, "/?a=1", "/?a=1&a=2"),
])  # fmt: skip
async def test_targets(settings: dict[str, Any], params: dict[str, Any], target: str, made: str) -> None:
    assert (await changed(transform(**settings), Request("GET", target), **params)).target == made


async def test_no_value_can_climb_out_of_its_path() -> None:
    for path in ("/safe/{claims.up}/x", "/safe/.{claims.dot}", "/safe/.{claims.none}/x"):
        with pytest.raises(BadPath, match="dot segment"):
            await changed(transform(path=path), Request())


async def test_an_empty_value_does_not_move_the_segments_around_it_together() -> None:
    for path in ("/users/{claims.none}/secret", "/users/{query.q}", "/{header.x}{query.q}/x"):
        with pytest.raises(BadPath, match="is empty"):
            await changed(transform(path=path), Request("GET", "/?q=", {"x": "y"}))
    step = transform(path="/users/u{query.q}/{rest}")
    assert (await changed(step, Request("GET", "/?q="), rest="")).target == "/users/u/?q="


async def test_fields_of_requests() -> None:
    step = transform(headers={
        "remove": ["x-internal-*", "cookie"], "rename": {"x-old": "x-new"}, "set": {"x-user": "{consumer.name}",
        "x-none": "{claims.none}", "x-org": "org {claims.org.id}"},
        "add": {"via-gateway": "1"},
    })  # fmt: skip
    request = await changed(step, Request("GET", "/", {
        "x-internal-a": "1", "x-user": "forged", "x-none": "forged", "x-old": "v", "x-new": "forged", "cookie": "c", "accept": "*/*",
    }))  # fmt: skip
    assert dict(request.headers.items()) == {
        "accept": "*/*",
        "x-new": "v",
        "x-user": "alice",
        "x-org": "org 7",
        "via-gateway": "1",
    }
    with pytest.raises(ClientFault):
        await changed(transform(headers={"set": {"x": "{claims.bad}"}}), Request())
    for bad in ({"set": {"content-length": "1"}}, {"remove": ["transfer-encoding"]}, {"set": {"a b": "1"}}):
        with pytest.raises(ConfigError):
            transform(headers=bad)


async def test_bodies_of_requests() -> None:
    step = transform(body={"remove": ["admin"], "set": {"by": "{consumer.name}"}}, method="put")
    request = await changed(
        step, Request("POST", "/", {**JSON, "content-length": "18", "digest": "x"}, b'{"admin":true,"n":1}')
    )
    assert json.loads(request.body) == {"n": 1, "by": "alice"}
    assert "content-length" not in request.headers
    assert "digest" not in request.headers
    assert request.method == "PUT"
    stream = Stream()
    stream.feed(b'{"n":2}')
    stream.finish()
    assert json.loads((await changed(step, Request("POST", "/", JSON, stream))).body) == {"n": 2, "by": "alice"}
    for fields, body, status in (({}, b"{}", 415), (JSON, b"{", 400)):
        answer = await passes(step, Request("POST", "/", fields, body), context())
        assert answer is not None
        assert answer.status == status
    built = transform(body={"template": {"user": "{consumer.name}", "id": "{id}"}})
    assert json.loads((await changed(built, Request("GET", "/"), id=5)).body) == {"user": "alice", "id": 5}


async def test_answers() -> None:
    step = transform(response={
        "status": {"201": 200}, "headers": {"remove": ["x-powered-by"], "set": {"x-total": "{body.total}"}}, "body": {"keep": ["items"]},
    })  # fmt: skip
    response: Any = step.after(
        Request(), Response(201, {**JSON, "x-powered-by": "y", "etag": '"1"'}, b'{"items":[1],"total":9}'), context()
    )
    assert (response.status, response.body) == (200, b'{"items":[1]}')
    assert dict(response.headers.items()) == {"content-type": "application/json", "x-total": "9"}
    stream = Stream()
    stream.feed(b'{"items":[],"x":1}')
    stream.finish()
    response = await step.after(Request(), Response(200, JSON, stream), context())  # type: ignore[misc]  # it waits for a stream
    assert response.body == b'{"items":[]}'
    html = Response(200, {"content-type": "text/html"}, b"<p>")
    assert step.after(Request(), html, context()) is html
    broken: Any = step.after(Request(), Response(200, JSON, b"{"), context())
    assert broken.status == 502
    refusal: Any = step.after(
        Request(), Response(401, {"content-type": "application/problem+json"}, b'{"title":"x"}'), context()
    )
    assert refusal.body == b'{"title":"x"}'
    large: Any = transform(response={"body": {"keep": ["a"]}}, max_body=10).after(
        Request(), Response(200, JSON, b'{"items":[]}'), context()
    )
    assert large.status == 502


@pytest.mark.parametrize("settings", [
    {"path": "/a", "strip_prefix": "/b"}, {"path": "a"}, {"path": "/a b"}, {"pattern": "("}, {"path": "/{nobody}"},
    {"response": {"status": {"9": 200}}}, {"paht": "/"},
])  # fmt: skip
def test_what_cannot_be_is_found_at_load(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        transform(**settings)


async def test_a_coded_answer_cannot_smuggle_what_is_removed() -> None:
    step = transform(response={"body": {"remove": ["secret"]}})
    request = await changed(
        step, Request("GET", "/", {"accept-encoding": "gzip", "range": "bytes=0-5", "accept": "*/*"})
    )
    assert dict(request.headers.items()) == {"accept": "*/*"}
    for response in (Response(200, {**JSON, "content-encoding": "gzip"}, b"x"), Response(206, JSON, b'{"secret":1}')):
        judged: Any = step.after(request, response, context())
        assert judged.status == 502
