"""A request of each public kind of poisoning and deception leaves nothing in the cache for others; nothing that a client sends grows it."""

# a row of a table is a line

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from blocks.core.clock import FakeClock
from blocks.edge import Edge, KeyRules, Rule
from blocks.edge.defence import UNKEYED, is_deceptive, is_plain_path
from blocks.edge.entry import MARKER
from blocks.http import Request, Response, Section

MAX_AGE = ("cache-control", "max-age=3600")


def edge_over(answer: Any, **options: Any) -> Edge:
    async def origin(request: Request) -> Response:
        return answer(request)  # type: ignore[no-any-return]  # a Response

    memory = options.pop("memory", "8MiB")
    return Edge(origin, memory, clock=FakeClock(), random=Random(3), ttl_jitter=0, **options)


def get(target: str = "/", *fields: tuple[str, str], body: bytes = b"") -> Request:
    return Request("GET", target, [("host", "site"), *fields], body)


def reflect(field: str) -> Any:
    """An origin that builds its page from a field of the request."""
    return lambda request: Response(
        200, [MAX_AGE, ("content-type", "text/html")], (request.headers.get(field) or "clean").encode()
    )


@pytest.mark.parametrize("field", sorted(UNKEYED))
async def test_an_unkeyed_field_does_not_reach_the_origin(field: bytes) -> None:
    edge = edge_over(reflect(field.decode()))
    await edge(get("/", (field.decode(), "evil.example")))
    assert (await edge(get("/"))).body == b"clean"


async def test_a_keyed_field_reaches_it_and_is_kept_apart() -> None:
    edge = edge_over(reflect("x-forwarded-host"), key=KeyRules(headers=("x-forwarded-host",)))
    assert (await edge(get("/", ("x-forwarded-host", "a")))).body == b"a"
    assert (await edge(get("/", ("x-forwarded-host", "b")))).body == b"b"
    assert (await edge(get("/"))).body == b"clean"


async def test_the_rfc_profile_passes_them_on() -> None:
    edge = edge_over(reflect("x-forwarded-host"), profile="rfc")
    assert (await edge(get("/", ("x-forwarded-host", "a")))).body == b"a"


@pytest.mark.parametrize("profile", ["safe", "rfc"])
async def test_a_get_with_a_body_is_neither_stored_nor_answered_from_the_store(profile: str) -> None:
    edge = edge_over(lambda request: Response(200, [MAX_AGE], request.body or b"clean"), profile=profile)
    assert (await edge(get("/", body=b"name=evil"))).body == b"name=evil"
    assert (await edge(get("/"))).body == b"clean"
    assert (await edge(get("/", body=b"name=evil"))).body == b"name=evil"
    assert (await edge(get("/"))).body == b"clean"


async def test_parameters_that_are_not_in_the_key_are_not_forwarded() -> None:
    edge = edge_over(lambda request: Response(200, [MAX_AGE], request.query.encode()), key=KeyRules(drop=("utm_*",)))
    assert (await edge(get("/?q=1&utm_content=x;callback=evil"))).body == b"q=1"  # Rails and old Python read ";" as "&"
    assert (await edge(get("/?q=1"))).body == b"q=1"
    assert (await edge(get("/?q=1&q=2"))).body == b"q=1&q=2"  # repeats stay in the key, in order
    assert (await edge(get("/?q=2&q=1"))).body == b"q=2&q=1"


@pytest.mark.parametrize("target", ["/account/x.css", "/account;x.css", "/account%3Bx.css", "/account%00x.css", "/account%0Ax.png", "/account/%2e%2e/static/x.js", "/static/..%2faccount", "/account%23x.css", "/account%3fx.css", "//account/x.css", "/account\\x.css"])  # fmt: skip
async def test_a_path_that_looks_static_does_not_make_a_page_storable(target: str) -> None:
    edge = edge_over(
        lambda request: Response(200, [("content-type", "text/html"), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")], b"secret"),
        rules=[Rule("*.css", ttl="1d"), Rule("*.png", ttl="1d"), Rule("/static/", ttl="1d"), Rule("*.js", ttl="1d")], default_ttl="1h",
    )  # fmt: skip
    await edge(get(target, ("cookie", "session=victim")))
    again = await edge(get(target))
    assert "hit" not in again.headers["cache-status"]


async def test_even_an_origin_that_says_max_age_does_not_make_html_of_css() -> None:
    edge = edge_over(lambda request: Response(200, [MAX_AGE, ("content-type", "text/html")], b"secret"))
    await edge(get("/account/x.css"))
    assert edge.entry("http://site/account/x.css") is None
    edge = edge_over(lambda request: Response(200, [MAX_AGE, ("content-type", "text/css")], b"a{}"))
    await edge(get("/x.css"))
    assert edge.entry("http://site/x.css") is not None


@pytest.mark.parametrize(
    ("path", "kind", "deceptive"),
    [
        ("/a.css", b"text/css", False), ("/a.css", b"text/html; charset=utf-8", True), ("/a.js", b"application/javascript", False),
        ("/a.PNG", b"text/html", True), ("/a.png", b"image/webp", False), ("/a", b"text/html", False), ("/a.b/c", b"text/html", False),
        ("/page.html", b"text/html", False), ("/v1.2", b"application/json", False), ("/x;a.css", b"text/html", True),
    ],
)  # fmt: skip
def test_deception_is_extension_against_content(path: str, kind: bytes, deceptive: bool) -> None:
    assert is_deceptive(path, Section([(b"content-type", kind)])) is deceptive


@pytest.mark.parametrize(("path", "plain"), [("/a/b.c", True), ("/a%20b", True), ("/a;b", False), ("/a/../b", False), ("/a%2Fb", False), ("/a//b", False), ("/.well-known/x", True), ("/..", False)])  # fmt: skip
def test_plain_paths(path: str, plain: bool) -> None:
    assert is_plain_path(path) is plain


async def test_set_cookie_is_not_stored_unless_allowed() -> None:
    def login(request: Request) -> Response:
        return Response(200, [MAX_AGE, ("set-cookie", "session=1")], b"x")

    for options, stored in (({}, False), ({"rules": [Rule("/", cookies=True)]}, True), ({"profile": "rfc"}, True)):
        edge = edge_over(login, **options)
        first = await edge(get("/"))
        assert first.headers["set-cookie"] == "session=1"
        assert (edge.entry("/") is not None) is stored


async def test_what_was_asked_with_a_cookie_is_stored_on_the_origins_word_only() -> None:
    modified = ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")
    edge = edge_over(lambda request: Response(200, [modified], b"x"), default_ttl=60)
    await edge(get("/", ("cookie", "a=b")))
    entry = edge.entry("http://site/")
    assert entry is None or entry.lifetime == 0
    edge = edge_over(lambda request: Response(200, [MAX_AGE], b"x"))
    await edge(get("/", ("cookie", "a=b")))
    assert edge.entry("http://site/") is not None


async def test_ten_thousand_vary_values_do_not_grow_the_cache() -> None:
    edge = edge_over(lambda request: Response(200, [MAX_AGE, ("vary", "x-a")], bytes(100)), max_variants=16)
    for place in range(10_000):
        await edge(get("/", ("x-a", str(place) * 50)))
    assert len(edge.memory) == 17
    marker = edge.entry("http://site/")
    assert marker is not None
    assert marker.flags & MARKER
    assert len(marker.variants or ()) == 16


@pytest.mark.parametrize("answer", [[MAX_AGE], [("cache-control", "private")]])
async def test_ten_thousand_queries_stay_within_the_bound(answer: list[tuple[str, str]]) -> None:
    edge = edge_over(lambda request: Response(200, answer, bytes(1000)), memory="1MiB")
    for place in range(10_000):
        await edge(get(f"/?q={place}"))
    assert edge.memory.bytes <= 1024 * 1024
    assert len(edge.counts.missed) <= 512
    assert len(edge.flights) == 0


async def test_fields_without_end_are_not_stored() -> None:
    edge = edge_over(
        lambda request: Response(200, [MAX_AGE, *[(f"x-{place}", "v" * 1000) for place in range(80)]], b"x")
    )
    assert (await edge(get("/"))).status == 200
    assert edge.entry("http://site/") is None


async def test_an_origin_error_is_not_negative_cached_unless_asked() -> None:
    edge = edge_over(lambda request: Response(502, [], b"x"))
    await edge(get("/"))
    assert edge.entry("http://site/") is None
    edge = edge_over(lambda request: Response(502, [], b"x"), negative={502: "5s"})
    await edge(get("/"))
    entry = edge.entry("http://site/")
    assert entry is not None
    assert entry.lifetime == 5
