"""What the method, the host and the path of a request decide alone is remembered; what anything else decides is asked each time."""

from __future__ import annotations

from typing import Any

import pytest

from blocks.gateway import Gateway, route
from blocks.gateway.context import context_of
from blocks.http import Request, Response, direct


@direct
async def service(request: Request) -> Response:
    context = context_of(request)
    return Response.json({"route": context.route.name, "params": dict(context.params), "target": request.target})


def ask(app: Gateway, method: str, target: str, headers: Any = None) -> Response:
    try:
        app(Request(method, target, headers or {})).send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # a handler answers with one
    raise AssertionError("it waited")


def twice(app: Gateway, method: str, target: str, headers: Any = None) -> tuple[int, bytes]:
    first, second = ask(app, method, target, headers), ask(app, method, target, headers)
    assert (first.status, first.body) == (second.status, second.body)
    return first.status, first.body


def test_methods_of_one_path_are_remembered_apart() -> None:
    app = Gateway(
        [
            route("/o/{id:int}", service, methods="GET", name="get"),
            route("/o/{id:int}", service, methods="POST", name="post"),
        ]
    )
    for _ in range(2):
        assert b'"get"' in twice(app, "GET", "/o/7")[1]
        assert b'"post"' in twice(app, "POST", "/o/7")[1]
        assert twice(app, "PUT", "/o/7")[0] == 405
        assert b'"id":8' in twice(app, "GET", "/o/8?x=1")[1]


def test_hosts_are_remembered_apart_and_a_wildcard_takes_none_of_theirs() -> None:
    app = Gateway(
        [
            route("/x", service, host="a.example", name="a"),
            route("/x", service, host="*.example", name="any"),
            route("/x", service, name="none"),
        ]
    )
    for _ in range(2):
        for host, name in (
            ("a.example", b'"a"'),
            ("A.EXAMPLE:80", b'"a"'),
            ("b.example", b'"any"'),
            ("c.test", b'"none"'),
        ):
            assert name in twice(app, "GET", "/x", {"host": host})[1]


def test_what_a_field_decides_is_not_remembered() -> None:
    app = Gateway([route("/x", service, headers={"x-beta": "1"}, name="beta"), route("/x", service, name="all")])
    for headers, name in (({}, b'"all"'), ({"x-beta": "1"}, b'"beta"'), ({}, b'"all"')):
        assert name in ask(app, "GET", "/x", headers).body


def test_what_weights_decide_is_drawn_each_time() -> None:
    app = Gateway([route("/x", service, weight=1, name="a"), route("/x", service, weight=1, name="b")])
    assert {ask(app, "GET", "/x").body for _ in range(64)} == {
        b'{"route":"%b","params":{},"target":"/x"}' % name for name in (b"a", b"b")
    }


def test_a_path_that_is_rewritten_is_rewritten_each_time() -> None:
    app = Gateway([route("/a/{x}", service, name="r")])
    for _ in range(3):
        assert b'"target":"/a/b?q"' in ask(app, "GET", "/a/./%62?q").body


def test_a_preflight_finds_the_route_that_it_asks_for_each_time() -> None:
    app = Gateway([route("/x", service, methods="PUT", cors={"origins": ["https://a.example"], "methods": ["PUT"]})])
    asked = {"origin": "https://a.example", "access-control-request-method": "PUT"}
    for headers, status in ((asked, 204), ({}, 405), (asked, 204)):
        assert ask(app, "OPTIONS", "/x", headers).status == status


def test_values_that_requests_share_cannot_be_changed() -> None:
    @direct
    async def spoil(request: Request) -> Response:
        context_of(request).params["id"] = 0  # type: ignore[index]  # that is the point
        return Response(200)

    with pytest.raises(TypeError, match="does not support item assignment"):
        ask(Gateway([route("/{id}", spoil)]), "GET", "/7")


def test_the_memory_is_bounded_and_long_paths_stay_out() -> None:
    app = Gateway([route("/{rest:path}", service)])
    for number in range(5000):
        app.snapshot.find(Request("GET", f"/{number}"))
    assert len(app.snapshot._seen) <= 4096
    before = len(app.snapshot._seen)
    app.snapshot.find(Request("GET", "/" + "x" * 300))
    assert len(app.snapshot._seen) == before
