"""Routes that say the same share what was worked out of it, and count for themselves."""

from __future__ import annotations

from typing import Any

from blocks.core.clock import FakeClock
from blocks.gateway import Gateway, route
from blocks.gateway.auth import ApiKeys, hash_key
from blocks.gateway.consumer import Consumer
from blocks.gateway.figures import Figures, readings
from blocks.gateway.limits.cells import Cells
from blocks.http import Request, Response, direct

AUTH = {"auth": {"keys": ApiKeys({hash_key("k"): Consumer("ann", scopes=["read"])})}}


@direct
async def service(request: Request) -> Response:
    return Response(200)


def ask(app: Gateway, path: str, key: str | None = "k") -> int:
    try:
        app(Request("GET", path, {} if key is None else {"x-api-key": key})).send(None)
    except StopIteration as stop:
        status: int = stop.value.status
        return status
    raise AssertionError("it waited")


def steps_of(app: Gateway) -> list[dict[str, Any]]:
    return [{type(step).__name__: step for step in lane.plan.steps} for lane in app.snapshot.lanes.values()]


def test_counters_are_each_routes_own() -> None:
    words: dict[str, Any] = {"auth": "keys", "scopes": ["write"], "limit": ["one"]}
    limits = {"limits": {"one": {"rate": "1/h"}}}
    tables: Any = {**AUTH, **limits}
    app = Gateway([route(path, service, **words) for path in ("/a", "/b")], tables=tables, clock=FakeClock())
    assert [ask(app, "/a", None), ask(app, "/a"), ask(app, "/a"), ask(app, "/b")] == [401, 403, 403, 403]
    one, other = steps_of(app)
    assert one["Authenticate"] is not other["Authenticate"]
    assert (one["Authenticate"].missing, other["Authenticate"].missing) == (1, 0)
    assert (one["Authorize"].refused, other["Authorize"].refused) == (2, 1)


def test_a_named_limit_is_one_bucket_and_two_counts() -> None:
    tables: Any = {"limits": {"one": {"rate": "1/h"}}}
    app = Gateway([route(path, service, limit=["one"]) for path in ("/a", "/b")], tables=tables, clock=FakeClock())
    assert [ask(app, "/a"), ask(app, "/b"), ask(app, "/b")] == [200, 429, 429]
    one, other = steps_of(app)
    assert one["Cells"].rules[0] is other["Cells"].rules[0]
    assert (one["Cells"].figures(), other["Cells"].figures()) == ({"one": 0}, {"one": 2})


def test_a_limit_without_a_name_is_each_routes_own() -> None:
    app = Gateway([route(path, service, limit="1/h") for path in ("/a", "/b")], clock=FakeClock())
    assert [ask(app, "/a"), ask(app, "/a"), ask(app, "/b")] == [200, 429, 200]


def test_a_limit_by_a_parameter_is_made_for_the_route_that_has_it() -> None:
    words: Any = {"limit": {"rate": "1/h", "per": "param:id", "name": "same"}}
    app = Gateway([route("/a/{id}", service, **words), route("/b/{id}/{x}", service, **words)], clock=FakeClock())
    assert [ask(app, "/a/1"), ask(app, "/b/1/x"), ask(app, "/b/2/x")] == [200, 429, 200]
    assert all(type(steps["Cells"]) is Cells for steps in steps_of(app))


def test_a_list_a_text_and_a_table_are_different_settings() -> None:
    tables: Any = {"limits": {"one": {"rate": "1/h", "fields": True}}}
    app = Gateway(
        [route("/a", service, limit=["one"]), route("/b", service, limit="one"), route("/c", service, limit=[{"rate": "1/h"}])],
        tables=tables, clock=FakeClock(),
    )  # fmt: skip
    assert [ask(app, path) for path in ("/a", "/b", "/c")] == [200, 429, 200]


def test_a_route_that_never_answered_has_no_histogram_and_is_shown_as_empty() -> None:
    figures = Figures()
    shown = list(readings([("r", figures)]))
    assert [reading.name for reading in shown] == ["blocks_gateway_request_seconds"]
    assert not has(figures, "durations")
    figures.classes[2] += 1
    figures.durations.record(0.5)
    assert has(figures, "durations")
    assert figures.durations.count == 1


def has(figures: Figures, name: str) -> bool:
    """Whether it is there, without making it."""
    try:
        object.__getattribute__(figures, name)
    except AttributeError:
        return False
    return True
