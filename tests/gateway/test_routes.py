from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.errors import ConfigError
from blocks.gateway.route import Route, route
from blocks.gateway.routes.table import Missed, Table
from blocks.gateway.versions import Versions
from blocks.http.message import Request, Response


async def handler(request: Request) -> Response:
    return Response(200)


def table(*routes: Route, versions: Versions | None = None) -> Table:
    return Table(routes, random=Random(1), versions=versions)


def find(found: Table, path: str, method: str = "GET", host: str = "", headers: dict[str, str] | None = None) -> Any:
    target = path
    result = found.match(method, host, path.partition("?")[0], Request(method, target, headers or {}))
    return sorted(result.allowed) if isinstance(result, Missed) else (result[0].name, dict(result[1]))


def named(template: str, name: str | None = None, **options: Any) -> Route:
    return route(template, handler, name=name or template, **options)


def test_a_template_without_parameters_takes_everything_below_it_by_segments() -> None:
    routes = table(named("/api"))
    assert find(routes, "/api") == find(routes, "/api/") == find(routes, "/api/a/b") == ("/api", {})
    assert find(routes, "/apix") == find(routes, "/") == []


def test_exact_takes_the_path_alone() -> None:
    routes = table(named("/api", exact=True), named("/", "root", exact=True))
    assert find(routes, "/api") == ("/api", {})
    assert find(routes, "/api/") == find(routes, "/api/x") == []
    assert find(routes, "/") == ("root", {})


def test_the_root_without_parameters_takes_what_nobody_else_does() -> None:
    routes = table(named("/"), named("/a"))
    assert find(routes, "/")[0] == find(routes, "/b")[0] == "/"
    assert find(routes, "/a/b")[0] == "/a"


def test_parameters_have_kinds_and_the_narrower_wins() -> None:
    identity = "12345678-1234-1234-1234-123456789abc"
    routes = table(named("/o/{x}"), named("/o/{x:int}"), named("/o/{x:uuid}"), named("/o/new"), named("/o/{x:path}"))
    assert find(routes, "/o/new") == ("/o/new", {})
    assert find(routes, "/o/7") == ("/o/{x:int}", {"x": 7})
    assert find(routes, "/o/007") == ("/o/{x}", {"x": "007"})
    assert find(routes, f"/o/{identity}") == ("/o/{x:uuid}", {"x": UUID(identity)})
    assert find(routes, "/o/caf%C3%A9") == ("/o/{x}", {"x": "café"})
    assert find(routes, "/o/a/b/") == ("/o/{x:path}", {"x": "a/b/"})
    assert find(routes, "/o") == ("/o/{x:path}", {"x": ""})


def test_a_narrow_branch_without_a_taker_is_left_again() -> None:
    routes = table(named("/a/b/c", exact=True), named("/a/{x}/d"), named("/{y}/b/e"), named("/{r:path}"))
    assert find(routes, "/a/b/d") == ("/a/{x}/d", {"x": "b"})
    assert find(routes, "/a/b/e") == ("/{y}/b/e", {"y": "a"})
    assert find(routes, "/a/b/f") == ("/{r:path}", {"r": "a/b/f"})


def test_a_trailing_slash_is_another_path_where_there_are_parameters() -> None:
    routes = table(named("/o/{x}"), named("/p/{x}/"))
    assert find(routes, "/o/1/") == []
    assert find(routes, "/p/1/") == ("/p/{x}/", {"x": "1"})
    assert find(routes, "/p/1") == []


def test_methods_decide_after_the_path_and_a_wider_route_may_take_the_rest() -> None:
    routes = table(
        named("/o/{x}", "get", methods=["GET"]), named("/o/{x}", "post", methods="POST"), named("/o/{x:path}", "rest", methods=["PUT"])
    )  # fmt: skip
    assert find(routes, "/o/1")[0] == find(routes, "/o/1", "HEAD")[0] == "get"
    assert find(routes, "/o/1", "POST")[0] == "post"
    assert find(routes, "/o/1", "PUT")[0] == "rest"
    assert find(routes, "/o/1", "DELETE") == ["GET", "HEAD", "POST", "PUT"]


def test_hosts_go_from_exact_over_wildcards_to_any() -> None:
    routes = table(
        named("/", "any"), named("/", "wild", host="*.a.com"), named("/", "wilder", host="*.com"), named("/x", "one", host="B.a.com.")
    )  # fmt: skip
    assert find(routes, "/x", host="b.a.com")[0] == "one"
    assert find(routes, "/y", host="b.a.com")[0] == "wild"
    assert find(routes, "/y", host="a.com")[0] == "wilder"
    assert find(routes, "/y", host="z.org")[0] == "any"


def test_fields_and_query_tell_routes_of_one_path_apart() -> None:
    routes = table(
        named("/", "plain"),
        named("/", "canary", headers={"x-env": "canary"}),
        named("/", "both", headers={"x-env": "canary"}, query={"debug": True}),
        named("/", "old", query={"v": ["1", "2"]}),
    )
    assert find(routes, "/")[0] == "plain"
    assert find(routes, "/", headers={"X-Env": "canary"})[0] == "canary"
    assert find(routes, "/?debug=", headers={"X-Env": "canary"})[0] == "both"
    assert find(routes, "/?v=2")[0] == "old"
    assert find(routes, "/?v=2&v=3")[0] == "plain"  # all must match: no service sees another than was matched


def test_weights_share_requests_out() -> None:
    routes = table(named("/", "a", weight=3), named("/", "b", weight=1), named("/x", "off", weight=0))
    counts = Counter(find(routes, "/")[0] for _ in range(4000))
    assert 2800 < counts["a"] < 3200
    assert find(routes, "/x")[0] in ("a", "b")


def test_two_routes_for_the_same_requests_are_refused() -> None:
    with pytest.raises(ConfigError, match="same requests"):
        table(named("/o/{a}", "one"), named("/o/{b}", "two"))
    with pytest.raises(ConfigError, match="two routes are named"):
        table(named("/a", "x"), named("/b", "x"))


@pytest.mark.parametrize(
    "template",
    ["api", "/a//b", "/{x", "/{x}y", "/{x:path}/b", "/{x}/{x}", "/{x:num}", "/a/../b", "/a b", "/%61", "/a\\b"],
)
def test_a_template_that_no_path_can_match_is_refused(template: str) -> None:
    with pytest.raises(ConfigError):
        named(template)


def test_an_unknown_keyword_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="did you mean 'limit'"):
        named("/", limits="1/s")


def test_versions_by_header_and_media_type() -> None:
    by = Versions(by="header", name="api-version", default="1")
    routes = table(named("/o", "one", version="1"), named("/o", "two", version="2"), versions=by)
    assert find(routes, "/o")[0] == "one"
    assert find(routes, "/o", headers={"api-version": "2"})[0] == "two"
    assert find(routes, "/o", headers={"api-version": "3"}) == []
    routes = table(named("/o", "one", version="1"), named("/o", "two", version="2"), versions=Versions(by="media-type"))
    assert find(routes, "/o", headers={"accept": "application/vnd.acme.v2+json"})[0] == "two"
    assert find(routes, "/o", headers={"accept": "application/json; version=1"})[0] == "one"
    assert find(routes, "/o", headers={"accept": "*/*"}) == []


SEGMENTS = st.sampled_from(["a", "b", "7", "{x}", "{x:int}"])


def _shape(parts: list[str]) -> str:
    names = iter("pqrstuv")
    return "/" + "/".join(part.replace("x", next(names)) if "{" in part else part for part in parts)


def _slow(templates: list[tuple[str, bool]], path: str) -> str | None:
    """A reference: every template by hand, the narrowest first, segment by segment."""
    ranks = {"int": 1, "str": 2}
    takers = []
    segments = path[1:].split("/")
    for text, exact in templates:
        parts = text[1:].split("/")
        prefix = "{" not in text and not exact
        if len(parts) > len(segments) or (len(parts) < len(segments) and not prefix):
            continue
        rank = []
        for part, segment in zip(parts, segments, strict=False):
            if "{" not in part:
                fits, grade = part == segment, 0
            else:
                kind = "int" if ":int" in part else "str"
                fits, grade = (
                    kind == "str" or (segment.isdigit() and (segment == "0" or segment[0] != "0")),
                    ranks[kind],
                )
            if not fits:
                break
            rank.append(grade)
        else:
            takers.append(([*rank, 9] if len(parts) < len(segments) or prefix else rank, text, exact))
    return min(takers, key=lambda taker: taker[0])[1] if takers else None


@given(
    st.lists(st.tuples(st.lists(SEGMENTS, min_size=1, max_size=3), st.booleans()), min_size=1, max_size=8),
    st.lists(st.sampled_from(["a", "b", "7", "07", "z"]), min_size=1, max_size=4),
)
def test_the_table_agrees_with_a_slow_reference(shapes: list[tuple[list[str], bool]], segments: list[str]) -> None:
    templates: dict[tuple[str, bool], None] = {}
    for parts, exact in shapes:
        text = _shape(parts)
        templates[(text, exact or "{" in text)] = None
    kept = list(templates)
    routes = table(*[named(text, f"{text} {exact}", exact=exact) for text, exact in kept])
    path = "/" + "/".join(segments)
    expected = _slow(kept, path)
    found = find(routes, path)
    assert (found[0].split(" ")[0] if found else None) == expected
