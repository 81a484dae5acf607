"""The short way of a miss: what is worked out once for a section is right for each request, and nobody is left waiting."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError, Failure, UpstreamFault
from blocks.edge import Edge, Rule
from blocks.edge.entry import Entry
from blocks.edge.rules import Route
from blocks.http import Headers, Peer, Request, Response
from blocks.http.message import Section


class Origin:
    """Answers with one section for as long as it is not given another: as a connection has them whose heads repeat."""

    direct = True

    def __init__(self, *fields: tuple[str, str], status: int = 200) -> None:
        self.asked: list[Request] = []
        self.status = status
        self.failure: Failure | None = None
        self.gate: asyncio.Event | None = None
        self.says(*fields)

    def says(self, *fields: tuple[str, str]) -> None:
        self.section = Headers(fields).section

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return Response(self.status, Headers.of(self.section), request.target.encode())


def edge_over(origin: Origin, **options: Any) -> tuple[Edge, FakeClock]:
    clock = FakeClock()
    return Edge(origin, "8MiB", clock=clock, random=Random(3), **{"ttl_jitter": 0, **options}), clock


def get(target: str = "/x", version: int = 11, **fields: str) -> Request:
    pairs = [("host", "site"), *((name.replace("_", "-"), value) for name, value in fields.items())]
    return Request("GET", target, pairs, version=version, peer=Peer(("127.0.0.1", 1)))


def said(response: Response) -> str:
    return response.headers["cache-status"]


async def test_what_was_refused_may_be_stored_later() -> None:
    origin = Origin(("cache-control", "no-store"))
    edge, _ = edge_over(origin)
    for _ in range(3):
        assert said(await edge(get())) == "blocks; fwd=uri-miss; fwd-status=200; detail=no-store"
    assert origin.asked[-1].headers.section is not origin.asked[0].headers.section  # two requests, two sections
    origin.says(("cache-control", "max-age=60"))
    assert "stored" in said(await edge(get()))
    assert "hit" in said(await edge(get()))
    assert edge.stats()["refused"] == 3
    assert edge.stats()["misses"] == 4


@pytest.mark.parametrize("fields", [{}, {"cache_control": "min-fresh=1"}])  # the short way, and the long one
async def test_what_was_refused_long_ago_is_waited_for_again(fields: dict[str, str]) -> None:
    origin = Origin(("cache-control", "no-store"))
    edge, clock = edge_over(origin)
    await edge(get(**fields))
    origin.says(("cache-control", "max-age=60"))
    origin.gate = asyncio.Event()
    for pause, fills in ((100, 3), (121, 1)):
        clock.advance(pause)
        origin.asked.clear()
        asking = [asyncio.create_task(edge(get(**fields))) for _ in range(3)]
        await asyncio.sleep(0)
        assert len(origin.asked) == fills
        if pause == 100:
            origin.failure = UpstreamFault("not yet")
        else:
            origin.failure = None
        origin.gate.set()
        await asyncio.gather(*asking, return_exceptions=True)
        origin.gate.clear()
    assert "hit" in said(await edge(get()))


async def test_a_section_that_repeats_is_judged_for_each_status_and_client() -> None:
    origin = Origin(("cache-control", "max-age=60"), ("date", "Tue, 14 Nov 2023 22:13:20 GMT"))
    edge, _ = edge_over(origin)
    assert "detail=authorization" in said(await edge(get("/1", authorization="Bearer x")))
    assert "stored" in said(await edge(get("/2")))
    origin.status = 206
    assert "detail=partial" in said(await edge(get("/3")))
    origin.status = 200
    assert "stored" in said(await edge(get("/4")))


async def test_two_edges_and_two_routes_rule_apart_on_one_section() -> None:
    origin = Origin(("content-type", "text/plain"), ("date", "Tue, 14 Nov 2023 22:13:20 GMT"))
    one, _ = edge_over(origin, rules=[Rule("/kept/", default_ttl=9), Rule("*.css", store=False)])
    two, _ = edge_over(origin)
    for _ in range(2):
        assert "no-freshness" in said(await one(get("/x")))
        assert "no-freshness" in said(await two(get("/kept/x?1")))
    assert "ttl=9" in said(await one(get("/kept/x?1")))
    assert "fwd=bypass" in said(await one(get("/a.css?v=1")))


async def test_a_lifetime_that_is_counted_from_now_is_not_kept_with_the_section() -> None:
    origin = Origin(("expires", "Tue, 14 Nov 2023 22:14:20 GMT"))
    edge, clock = edge_over(origin)
    assert "ttl=60" in said(await edge(get("/1")))
    clock.advance(20)
    assert "ttl=40" in said(await edge(get("/2")))


async def test_requests_that_repeat_are_forwarded_with_one_section() -> None:
    origin = Origin(("cache-control", "no-store"))
    edge, _ = edge_over(origin)
    headers = get(x_forwarded_host="evil", accept="*/*").headers
    for target in ("/1", "/2"):
        await edge(Request("GET", target, Headers.of(headers.section)))
    first, second = (request.headers.section for request in origin.asked)
    assert first is second
    assert not first.has(b"x-forwarded-host")
    assert headers.section.has(b"x-forwarded-host")


@pytest.mark.parametrize(
    ("via", "version", "came", "sent"),
    [
        ("blocks", 11, None, "1.1 blocks"), ("blocks", 10, None, "1.0 blocks"), ("edge-7.site", 11, "1.0 old", "1.0 old, 1.1 edge-7.site"),
        (None, 11, "1.0 old", "1.0 old"), (None, 11, None, None),
    ],
)  # fmt: skip
async def test_origins_are_told_who_forwards(via: str | None, version: int, came: str | None, sent: str | None) -> None:
    origin = Origin(("cache-control", "no-store"))
    edge, _ = edge_over(origin, via=via)
    fields = {} if came is None else {"via": came}
    await edge(get(version=version, **fields))
    passed = get(version=version, **fields)
    passed.method = "POST"
    await edge(passed)
    for request in origin.asked:
        assert request.headers.get("via") == sent
        assert "cdn-loop" in request.headers


async def test_a_section_is_forwarded_as_the_version_it_came_in() -> None:
    origin = Origin(("cache-control", "no-store"))
    edge, _ = edge_over(origin)
    section = Section([(b"host", b"site")])
    for version in (11, 10, 11):
        await edge(Request("GET", "/x", Headers.of(section), version=version))
    assert [request.headers["via"] for request in origin.asked] == ["1.1 blocks", "1.0 blocks", "1.1 blocks"]


def test_a_name_that_cannot_stand_in_via_is_refused() -> None:
    with pytest.raises(ConfigError, match="via"):
        Edge(Origin(), via="two words")


async def test_an_error_is_everybodys_and_is_not_noted() -> None:
    origin = Origin(status=503)
    origin.gate = asyncio.Event()
    edge, _ = edge_over(origin)
    asking = [asyncio.create_task(edge(get())) for _ in range(3)]
    await asyncio.sleep(0)
    origin.gate.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert len(origin.asked) == 1
    statuses = sorted(answer.status for answer in answers if isinstance(answer, Response | Failure))
    assert statuses == [503, 503, 503]
    assert not edge.memory.entries
    assert not edge.flights


async def test_the_next_in_line_asks_when_the_first_goes_away() -> None:
    origin = Origin(("cache-control", "max-age=60"))
    origin.gate = asyncio.Event()
    edge, _ = edge_over(origin)
    asking = [asyncio.create_task(edge(get())) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    origin.gate.set()
    answers = await asyncio.gather(*asking[1:])
    assert [answer.status for answer in answers] == [200, 200]
    assert len(origin.asked) == 2
    assert edge.admission.under_way == 0


async def test_a_failure_is_counted_and_leaves_nothing_behind() -> None:
    origin = Origin()
    origin.failure = UpstreamFault("gone")
    edge, _ = edge_over(origin)
    with pytest.raises(UpstreamFault):
        await edge(get())
    assert edge.stats()["errors"] == 1
    assert edge.admission.under_way == 0
    assert not edge.flights
    assert not edge.memory.entries


async def test_a_request_that_was_here_before_is_refused_on_the_short_way_too() -> None:
    origin = Origin(("cache-control", "no-store"))
    edge, _ = edge_over(origin)
    await edge(get())
    with pytest.raises(Failure) as caught:
        await edge(get(cdn_loop=origin.asked[0].headers["cdn-loop"]))
    assert caught.value.status == 508
    assert len(origin.asked) == 1


async def test_releases_are_a_part_of_the_edge_by_themselves() -> None:
    class Pushed:
        def find(self, request: Request, url: str) -> None:
            return None

    pushed, origin = Pushed(), Origin()
    assert edge_over(origin, releases=pushed)[0].parts == (origin, pushed)


class LongWay(Edge):
    """The same without the short way."""

    def _straight_on(self, target: str, key: str, noted: Entry | None) -> Route | None:
        return None


CONTROLS = [
    "no-store",
    "private",
    "max-age=5",
    "max-age=0",
    "no-cache",
    "s-maxage=3, stale-if-error=9",
    "max-age=9, must-understand",
    "",
]
ASKS: list[dict[str, str]] = [
    {}, {"accept_encoding": "gzip"}, {"accept_encoding": "br"}, {"cookie": "a=b"}, {"authorization": "x"}, {"cache_control": "no-cache"},
    {"if_none_match": '"e"'}, {"range": "bytes=0-1"},
]  # fmt: skip
exchanges = st.tuples(
    st.sampled_from(["/a", "/b?x=1", "/c/..;/d.css"]), st.sampled_from(ASKS), st.sampled_from([200, 200, 200, 404, 500, 503, 299]),
    st.sampled_from(CONTROLS), st.sampled_from(["", "accept-encoding", "*"]), st.booleans(), st.sampled_from([0.0, 1.0, 4.0, 200.0]),
)  # fmt: skip


@given(st.lists(exchanges, min_size=1, max_size=12), st.sampled_from(["safe", "rfc"]))
@settings(max_examples=60, deadline=None)
def test_the_short_way_leads_where_the_long_one_does(script: list[tuple[Any, ...]], profile: str) -> None:
    sections: dict[tuple[Any, ...], Section] = {}  # shared and repeated, as on a connection

    def perform(kind: type[Edge]) -> tuple[list[Any], dict[str, Any]]:
        clock, seen = FakeClock(), list[Any]()
        turn: tuple[Any, ...] = ()

        async def answer(request: Request) -> Response:
            seen.append((request.target, [pair for pair in request.headers.raw if pair[0] != b"cdn-loop"]))
            _, _, status, control, vary, cookie, _ = turn
            fields = [
                ("date", "Tue, 14 Nov 2023 22:13:20 GMT"),
                ("etag", '"e"'),
                ("cache-control", control),
                ("vary", vary),
            ]
            fields += [("set-cookie", "a=b")] if cookie else []
            made = Headers([pair for pair in fields if pair[1]]).section
            return Response(status, Headers.of(sections.setdefault(turn[2:6], made)), request.target.encode())

        answer.direct = True  # type: ignore[attr-defined]  # it never waits
        edge = kind(answer, "1MiB", profile=profile, clock=clock, random=Random(1), ttl_jitter=0, refresh_ahead=0)
        for turn in script:
            clock.advance(turn[-1])
            coroutine = edge(get(turn[0], **turn[1]))
            try:
                coroutine.send(None)
            except StopIteration as stop:
                response = stop.value
                seen.append((response.status, response.headers.raw, response.body))
            except Failure as failure:
                seen.append((failure.status, failure.reason))
        return seen, edge.stats()

    assert perform(Edge) == perform(LongWay)
