"""The edge as a whole: collapsing, hit-for-miss, refreshing behind, fail-over, bounds, purging."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import pytest

from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError, Failure, Unavailable, UpstreamFault
from blocks.edge import Edge, KeyRules, Rule
from blocks.edge.entry import MARKER
from blocks.http import Handler, Headers, Peer, Request, Response, Stream

MAX_AGE = ("cache-control", "max-age=3600")


class Origin:
    """Counts what it is asked; answers when ``open`` is set, with what ``answer`` makes of the request."""

    def __init__(self, answer: Callable[[Request], Response] | None = None) -> None:
        self.answer = answer or (lambda request: Response(200, [MAX_AGE], request.target.encode()))
        self.asked: list[Request] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        await self.open.wait()
        return self.answer(request)


def edge_over(*origins: Handler, **options: Any) -> tuple[Edge, FakeClock]:
    clock = FakeClock()
    options.setdefault("ttl_jitter", 0)
    memory = options.pop("memory", "8MiB")
    return Edge(list(origins), memory, clock=clock, random=Random(3), **options), clock


def get(
    target: str = "/x", method: str = "GET", body: bytes = b"", client: str = "127.0.0.1", **fields: str
) -> Request:
    pairs = [("host", "site"), *((name.replace("_", "-"), value) for name, value in fields.items())]
    return Request(method, target, pairs, body, peer=Peer((client, 1)))


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to be")


async def together(
    edge: Edge, origin: Origin, count: int, request: Callable[[int], Request]
) -> list[Response | BaseException]:
    """``count`` requests at once: the origin answers when all of them wait."""
    origin.open.clear()
    tasks = [asyncio.create_task(edge(request(place))) for place in range(count)]
    await until(lambda: bool(origin.asked))
    for _ in range(10):
        await asyncio.sleep(0)
    origin.open.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_thousand_who_ask_at_once_are_one_request_to_the_origin() -> None:
    origin = Origin()
    edge, _ = edge_over(origin)
    answers = await together(edge, origin, 1000, lambda _: get())
    assert len(origin.asked) == 1
    assert {answer.body for answer in answers} == {b"/x"}  # type: ignore[union-attr]
    assert edge.stats()["collapsed"] == 999
    assert edge.stats()["requests"] == 1000
    assert edge.stats()["offload"] == 0.999
    assert "collapsed" in answers[5].headers["cache-status"]  # type: ignore[union-attr]


async def test_when_the_leader_goes_away_the_next_in_line_leads() -> None:
    origin = Origin()
    edge, _ = edge_over(origin)
    origin.open.clear()
    leader = asyncio.create_task(edge(get()))
    await until(lambda: len(origin.asked) == 1)
    rest = [asyncio.create_task(edge(get())) for _ in range(5)]
    await asyncio.sleep(0)
    leader.cancel()
    await until(lambda: len(origin.asked) == 2)
    origin.open.set()
    assert [answer.body for answer in await asyncio.gather(*rest)] == [b"/x"] * 5
    assert len(origin.asked) == 2
    assert not edge.flights


async def test_a_failure_is_everybodys() -> None:
    def fail(request: Request) -> Response:
        raise UpstreamFault("gone")

    origin = Origin(fail)
    edge, _ = edge_over(origin)
    answers = await together(edge, origin, 20, lambda _: get())
    assert all(isinstance(answer, UpstreamFault) for answer in answers)
    assert len(origin.asked) == 1


async def test_what_is_not_storable_is_not_waited_for_the_next_time() -> None:
    origin = Origin(lambda request: Response(200, [("cache-control", "private")], b"mine"))
    edge, clock = edge_over(origin)
    await edge(get())
    origin.open.clear()
    tasks = [asyncio.create_task(edge(get())) for _ in range(5)]
    await until(lambda: len(origin.asked) == 6)  # all of them at once: hit-for-miss
    origin.open.set()
    await asyncio.gather(*tasks)
    clock.advance(121)
    assert len(await together(edge, origin, 5, lambda _: get())) == 5


async def test_hit_for_miss_ends_with_an_answer_that_is_storable() -> None:
    answers = [Response(200, [("cache-control", "private")]), Response(200, [MAX_AGE], b"now")]
    origin = Origin(lambda request: answers.pop(0))
    edge, _ = edge_over(origin)
    await edge(get())
    await edge(get())
    assert (await edge(get())).body == b"now"
    assert len(origin.asked) == 2


class Drip:
    """A body that the test feeds."""

    def __init__(self, length: int | None = None) -> None:
        self.stream = Stream(self, length)
        self.paused = True
        self.cancelled = False

    def resume(self) -> None:
        self.paused = False

    def pause(self) -> None:
        self.paused = True

    def cancel(self) -> None:
        self.cancelled = True


async def test_followers_read_while_the_first_fills() -> None:
    drip = Drip()
    origin = Origin(lambda request: Response(200, [MAX_AGE], drip.stream))
    edge, _ = edge_over(origin)
    first = await edge(get())
    drip.stream.feed(b"one ")
    second = await edge(get())
    reading = asyncio.create_task(second.read())
    await asyncio.sleep(0)
    drip.stream.feed(b"two")
    drip.stream.finish(Headers({"x-sum": "7"}))
    assert await reading == b"one two"
    assert await first.read() == b"one two"
    assert (await edge(get())).body == b"one two"
    assert len(origin.asked) == 1
    assert not edge.flights
    assert not edge.stats()["filling"]


async def test_a_range_of_what_is_filling_waits_for_its_bytes_only() -> None:
    drip = Drip(10)
    edge, _ = edge_over(Origin(lambda request: Response(200, [MAX_AGE], drip.stream)))
    first = await edge(get())
    part = await edge(get(range="bytes=2-4"))
    drip.stream.feed(b"012345")
    assert part.status == 206
    assert await part.read() == b"234"
    drip.stream.feed(b"6789")
    drip.stream.finish()
    assert await first.read() == b"0123456789"


@pytest.mark.parametrize("length", [None, 20])
async def test_a_body_that_breaks_off_is_not_kept_and_readers_are_told(length: int | None) -> None:
    drips = [Drip(length), Drip()]
    bodies = list(drips)
    edge, _ = edge_over(Origin(lambda request: Response(200, [MAX_AGE], bodies.pop(0).stream)))
    first = await edge(get())
    drips[0].stream.feed(b"half")
    drips[0].stream.fail(UpstreamFault("reset"))
    with pytest.raises(UpstreamFault):
        await first.read()
    second = await edge(get())
    drips[1].stream.finish()
    assert await second.read() == b""
    assert not edge.flights


async def test_a_body_shorter_than_its_length_is_an_error_and_not_kept() -> None:
    drip = Drip(10)
    edge, _ = edge_over(Origin(lambda request: Response(200, [MAX_AGE], drip.stream)))
    first = await edge(get())
    drip.stream.feed(b"short")
    drip.stream.finish()
    with pytest.raises(Failure):
        await first.read()
    assert edge.entry("http://site/x") is None


async def test_what_is_too_large_for_memory_streams_in_a_window() -> None:
    drip = Drip(10 * 1024 * 1024)
    edge, _ = edge_over(Origin(lambda request: Response(200, [MAX_AGE], drip.stream)))
    one, two = await edge(get()), await edge(get())
    assert "stored" not in one.headers["cache-status"]
    sinks = [Tub(one.body), Tub(two.body)]
    await boarded()
    for _ in range(160):
        drip.stream.feed(bytes(64 * 1024))
        assert edge_held(edge) <= 2 * 64 * 1024
    drip.stream.finish()
    assert [sink.size for sink in sinks] == [10 * 1024 * 1024] * 2
    assert edge.entry("http://site/x") is None
    assert not edge.flights


async def boarded() -> None:
    """Until then a fill lets nothing go, so that those who wait for its head can begin."""
    for _ in range(3):
        await asyncio.sleep(0)


def edge_held(edge: Edge) -> int:
    entry = next(iter(edge.flights.values())).entry
    return 0 if entry is None else entry.body.held  # type: ignore[union-attr]


class Tub:
    """A client that takes everything, until it is full."""

    def __init__(self, stream: Stream) -> None:
        self.size = 0
        self.error: BaseException | None = None
        self.ended = False
        self.stream = stream
        stream.pour(self)

    def write(self, data: bytes) -> None:
        self.size += len(data)

    def end(self, trailers: Headers | None) -> None:
        self.ended = True

    def abort(self, error: BaseException) -> None:
        self.error = error


@pytest.mark.parametrize(("condition", "status"), [('"a"', 304), ('"b"', 200)])
async def test_a_condition_on_what_is_too_large_leaves_nothing_behind(condition: str, status: int) -> None:
    drip = Drip(10 * 1024 * 1024)
    edge, _ = edge_over(Origin(lambda request: Response(200, [MAX_AGE, ("etag", '"a"')], drip.stream)))
    answer = await edge(get(if_none_match=condition))
    assert answer.status == status
    if status == 200:
        tub = Tub(answer.body)
        drip.stream.feed(b"x" * 1000)
        assert tub.size == 1000
        answer.discard()
    await boarded()
    assert drip.cancelled
    assert not edge.flights
    assert not edge.stats()["filling"]


async def test_a_slow_client_does_not_hold_up_others_for_ever() -> None:
    drip = Drip(10 * 1024 * 1024)
    edge, _ = edge_over(Origin(lambda request: Response(200, [MAX_AGE], drip.stream)))
    quick, slow = Tub((await edge(get())).body), Tub((await edge(get())).body)
    slow.stream.pause()
    await boarded()
    for _ in range(6):
        drip.stream.feed(bytes(64 * 1024))
    assert drip.paused  # the origin waits for the slow one, within a window
    fill = next(iter(edge.flights.values())).entry
    assert fill is not None
    fill.body.expire(fill.body.deadline + 1)  # type: ignore[union-attr]
    assert isinstance(slow.error, Failure) or slow.stream.ended
    assert not drip.paused
    drip.stream.feed(bytes(64 * 1024))
    assert quick.size == 7 * 64 * 1024
    quick.stream.cancel()
    assert drip.cancelled


async def test_a_kept_fill_goes_on_when_its_reader_leaves() -> None:
    drip = Drip()
    edge, _ = edge_over(Origin(lambda request: Response(200, [MAX_AGE], drip.stream)))
    first = await edge(get())
    first.discard()
    drip.stream.feed(b"all the same")
    drip.stream.finish()
    assert (await edge(get())).body == b"all the same"


async def test_stale_while_revalidate_serves_at_once_and_refreshes_behind() -> None:
    bodies = [b"old", b"new"]
    origin = Origin(
        lambda request: Response(
            200, [("cache-control", "max-age=1, stale-while-revalidate=60"), ("etag", '"a"')], bodies.pop(0)
        )
    )
    edge, clock = edge_over(origin)
    async with edge:
        await edge(get())
        clock.advance(5)
        answer = await edge(get())
        assert answer.body == b"old"
        assert answer.headers["cache-status"] == "blocks; hit; ttl=-4; detail=stale-while-revalidate"
        await until(lambda: not edge._refreshing)
        assert (await edge(get())).body == b"new"
        assert len(origin.asked) == 2


async def test_a_new_body_that_breaks_off_does_not_take_the_old_one_away() -> None:
    drip = Drip(10)
    answers: list[Response] = [
        Response(200, [("cache-control", "max-age=5"), ("etag", '"a"')], b"old"),
        Response(200, [MAX_AGE], drip.stream),
    ]

    def answer(request: Request) -> Response:
        if not answers:
            raise UpstreamFault("gone")
        return answers.pop(0)

    edge, clock = edge_over(Origin(answer))
    await edge(get())
    clock.advance(6)
    broken = await edge(get())
    drip.stream.feed(b"new")
    drip.stream.fail(UpstreamFault("reset"))
    with pytest.raises(UpstreamFault):
        await broken.read()
    assert (await edge(get())).body == b"old"


async def test_clients_need_not_be_obeyed() -> None:
    for obey, asked in ((True, 2), (False, 1)):
        origin = Origin()
        edge, _ = edge_over(origin, obey_clients=obey)
        await edge(get())
        await edge(get(cache_control="no-cache"))
        assert len(origin.asked) == asked


async def test_the_window_of_stale_while_revalidate_ends() -> None:
    origin = Origin(
        lambda request: Response(200, [("cache-control", "max-age=1, stale-while-revalidate=4"), ("etag", '"a"')], b"x")
    )
    edge, clock = edge_over(origin)
    await edge(get())
    clock.advance(6)
    assert "fwd=stale" in (await edge(get())).headers["cache-status"]


async def test_the_hot_are_refreshed_before_they_expire() -> None:
    origin = Origin()
    edge, clock = edge_over(origin)
    async with edge:
        await edge(get())
        await edge(get("/cold"))
        for _ in range(5):
            await edge(get())
        clock.advance(3590)
        assert (await edge(get())).headers["cache-status"].startswith("blocks; hit")
        await edge(get("/cold"))
        await until(lambda: not edge._refreshing)
        assert [request.target for request in origin.asked] == ["/x", "/cold", "/x"]
        clock.advance(20)
        assert (await edge(get())).headers["age"] == "20"


async def test_lifetimes_are_jittered_and_never_longer() -> None:
    edge, _ = edge_over(Origin(), ttl_jitter="10%")
    for place in range(200):
        await edge(get(f"/{place}"))
    lifetimes = {entry.lifetime for entry in edge.memory}
    assert len(lifetimes) > 190
    assert 3240 <= min(lifetimes) < 3300 < 3550 < max(lifetimes) <= 3600


async def test_another_origin_takes_over_and_the_first_is_asked_again_later() -> None:
    down = True

    def shaky(request: Request) -> Response:
        if down:
            raise UpstreamFault("refused")
        return Response(200, [MAX_AGE], b"first")

    first, second = Origin(shaky), Origin(lambda request: Response(200, [MAX_AGE], b"second"))
    edge, clock = edge_over(first, second)
    assert (await edge(get("/1"))).body == b"second"
    assert (await edge(get("/2"))).body == b"second"
    assert len(first.asked) == 1  # it rests
    down = False
    clock.advance(11)
    assert (await edge(get("/3"))).body == b"first"
    assert [kind for _, kind, _ in edge.events] == ["origin-down", "origin-up"]


async def test_an_answer_503_goes_to_the_next_origin_but_a_post_does_not() -> None:
    edge, _ = edge_over(Origin(lambda request: Response(503)), Origin(lambda request: Response(200, [], b"ok")))
    assert (await edge(get())).status == 200

    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    request = get(method="POST")
    request.body = Stream.of(body())
    edge, _ = edge_over(Origin(lambda request: Response(503)), Origin())
    assert (await edge(request)).status == 503


async def test_a_request_that_comes_back_is_a_loop() -> None:
    edge, _ = edge_over(Origin())
    edge.origin = edge
    with pytest.raises(Failure) as caught:
        await edge(get())
    assert caught.value.status == 508


async def test_edges_behind_edges_pass_on_age_and_status() -> None:
    origin = Origin()
    shield, clock = edge_over(origin, name="shield")
    edge = Edge(shield, "8MiB", name="pop", ttl_jitter=0, clock=clock, random=Random(5))
    await shield(get())
    clock.advance(10)
    answer = await edge(get())
    assert answer.headers["age"] == "10"
    assert answer.headers.get_all("cache-status") == [
        "shield; hit; ttl=3590",
        "pop; fwd=uri-miss; fwd-status=200; stored; ttl=3590",
    ]
    clock.advance(5)
    assert (await edge(get())).headers["age"] == "15"
    assert len(origin.asked) == 1


async def test_requests_to_the_origin_are_bounded_in_all_and_for_each_client() -> None:
    origin = Origin()
    edge, clock = edge_over(origin, max_fills=2, fill_rate="3/s")
    origin.open.clear()
    waiting = [asyncio.create_task(edge(get(f"/{place}"))) for place in range(2)]
    await until(lambda: len(origin.asked) == 2)
    with pytest.raises(Unavailable):
        await edge(get("/3"))
    origin.open.set()
    await asyncio.gather(*waiting)
    await edge(get("/4"))
    with pytest.raises(Failure) as caught:
        await edge(get("/5"))
    assert caught.value.status == 429
    assert (await edge(get("/4"))).status == 200  # a hit costs nothing
    assert (await edge(get("/5", client="10.0.0.1"))).status == 200
    clock.advance(1)
    assert (await edge(get("/5b"))).status == 200


async def test_rules_by_route() -> None:
    edge, clock = edge_over(
        Origin(lambda request: Response(404 if "missing" in request.target else 200, [("etag", '"a"')], b"x")),
        rules=[
            Rule("/never/", store=False), Rule("*.css", ttl="1d"), Rule("/short/", default_ttl=5, negative={404: "10s"}),
        ],
    )  # fmt: skip
    for path, first, later in (
        ("/never/x", "bypass", None),
        ("/a.css", "uri-miss", 86399),
        ("/short/x", "uri-miss", 4),
        ("/short/missing", "uri-miss", 9),
    ):
        assert f"fwd={first}" in (await edge(get(path))).headers["cache-status"]
        clock.advance(1)
        again = (await edge(get(path))).headers["cache-status"]
        assert again == ("blocks; fwd=bypass; fwd-status=200" if later is None else f"blocks; hit; ttl={later}")


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"profile": "lax"}, "profile"), ({"ttl_jitter": "200%"}, "ttl_jitter"), ({"allow_purge": ["nonsense"]}, "allow_purge"),
        ({"rules": [Rule("/", negative={200: 3})]}, "negative"), ({"memory": "much"}, "size"), ({"grace": "-1"}, "duration"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_named(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        edge_over(Origin(), **settings)
    with pytest.raises(ConfigError, match="origin"):
        Edge([])


# -- purging


async def filled(**options: Any) -> tuple[Edge, FakeClock, Origin]:
    def tagged(request: Request) -> Response:
        tag = request.path.split("/")[1]
        return Response(
            200,
            [MAX_AGE, ("etag", '"a"'), ("surrogate-key", f"{tag} all"), ("vary", "foo" if tag == "vary" else "")],
            b"x",
        )

    origin = Origin(tagged)
    edge, clock = edge_over(origin, **options)
    for target in ("/img/1", "/img/2", "/css/1", "/css/1?v=2"):
        await edge(get(target))
    for foo in "123":
        await edge(get("/vary/x", foo=foo))
    return edge, clock, origin


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ({"url": "http://site/img/1"}, 1), ({"url": "/css/1"}, 1), ({"url": "http://site/vary/x"}, 3), ({"url": "http://other/img/1"}, 0),
        ({"prefix": "http://site/img/"}, 2), ({"prefix": "/css/1"}, 2), ({"prefix": "/"}, 7), ({"host": "site"}, 7), ({"host": "sit"}, 0),
        ({"tag": "css"}, 2), ({"tag": "all"}, 7), ({"tag": "none"}, 0),
    ],
)  # fmt: skip
async def test_purge(what: dict[str, str], found: int) -> None:
    edge, _, _ = await filled()
    assert edge.purge(**what) == found  # type: ignore[arg-type]
    assert edge.purge(**what) == 0  # type: ignore[arg-type]
    assert sum(not entry.flags & MARKER for entry in edge.memory) == 7 - found


async def test_a_soft_purge_makes_stale() -> None:
    edge, _, origin = await filled()
    assert edge.purge(tag="img", soft=True) == 2
    before = len(origin.asked)
    origin.answer = lambda request: Response(304, [("etag", '"a"'), MAX_AGE])
    answer = await edge(get("/img/1"))
    assert answer.body == b"x"
    assert origin.asked[before].headers["if-none-match"] == '"a"'


async def test_purge_wants_exactly_one_thing() -> None:
    edge, _, _ = await filled()
    for wrong in ({}, {"url": "/x", "tag": "y"}, {"url": "site/x"}):
        with pytest.raises(ConfigError):
            edge.purge(**wrong)  # type: ignore[arg-type]


async def test_the_purge_method_is_for_those_who_may() -> None:
    edge, _, _ = await filled()
    assert (await edge(get("/img/1", "PURGE", client="10.1.1.1"))).status == 403
    assert (await edge(get("/img/1", "PURGE"))).body == b'{"purged":1}'
    assert (await edge(get("/css/*", "PURGE"))).body == b'{"purged":2}'
    assert (await edge(get("/", "PURGE", surrogate_key="vary img"))).body == b'{"purged":4}'
    edge, _, _ = await filled(allow_purge=["10.0.0.0/8"])
    assert (await edge(get("/img/1", "PURGE", client="10.1.1.1", soft_purge="1"))).body == b'{"purged":1}'
    assert edge.entry("/img/1") is not None


# -- keys


async def ask_twice(first: Request, second: Request, **options: Any) -> tuple[bool, Origin]:
    origin = Origin()
    edge, _ = edge_over(origin, **options)
    await edge(first)
    await edge(second)
    return len(origin.asked) == 1, origin


@pytest.mark.parametrize(
    ("rules", "one", "other", "same"),
    [
        (KeyRules(), get("/x?a=1&b=2"), get("/x?b=2&a=1"), False),
        (KeyRules(sort=True), get("/x?a=1&b=2"), get("/x?b=2&a=1"), True),
        (KeyRules(sort=True), get("/x?a=1&a=2"), get("/x?a=2&a=1"), False),
        (KeyRules(drop=("utm_*",)), get("/x?a=1&utm_source=m"), get("/x?utm_medium=n&a=1"), True),
        (KeyRules(drop=("utm_*",)), get("/x"), get("/x?utm_medium=n"), True),
        (KeyRules(allow=("a",)), get("/x?a=1&b=2"), get("/x?a=1&c=3"), True),
        (KeyRules(headers=("x-a",)), get(x_a="1"), get(x_a="2"), False),
        (KeyRules(cookies=("lang",)), get(cookie="lang=de; s=1"), get(cookie="s=2; lang=de"), True),
        (KeyRules(cookies=("lang",)), get(cookie="lang=de"), get(cookie="lang=en"), False),
        (KeyRules(device=True), get(user_agent="iPhone Mobile"), get(user_agent="Android Mobile"), True),
        (KeyRules(device=True), get(user_agent="iPhone Mobile"), get(user_agent="Firefox"), False),
    ],
)
async def test_key_rules(rules: KeyRules, one: Request, other: Request, same: bool) -> None:
    assert (await ask_twice(one, other, key=rules))[0] is same


async def test_hosts_differ_and_their_case_does_not() -> None:
    one, other = Request("GET", "/x", {"host": "Site:80"}), Request("GET", "/x", {"host": "site"})
    assert (await ask_twice(one, other))[0]
    assert not (await ask_twice(one, Request("GET", "/x", {"host": "site2"})))[0]
    assert (await ask_twice(one, Request("GET", "/x", {"host": "site2"}), key=KeyRules(host=False)))[0]


async def test_no_vary_search() -> None:
    def answer(request: Request) -> Response:
        return Response(200, [MAX_AGE, ("no-vary-search", 'key-order, params=("utm" "ref")')], request.query.encode())

    origin = Origin(answer)
    edge, _ = edge_over(origin)
    await edge(get("/x?a=1&b=2&utm=z"))
    assert (await edge(get("/x?ref=q&b=2&a=1"))).body == b"a=1&b=2&utm=z"
    assert (await edge(get("/x?a=2"))).body == b"a=2"
    assert len(origin.asked) == 2


async def test_prefetch_and_stats_tell_what_happened() -> None:
    origin = Origin()
    edge, _ = edge_over(origin)
    assert await edge.prefetch("http://site/a", "http://site/b") == 2
    await edge(get("/a"))
    await edge(get("/a", "POST"))
    stats = edge.stats()
    assert (stats["hits"], stats["misses"], stats["passes"], stats["entries"]) == (1, 2, 1, 1)
    assert stats["hit_ratio"] == 0.25
    assert stats["byte_hit_ratio"] == 0.25
    assert stats["age_median"] == 0
    assert {miss["key"] for miss in stats["top_misses"]} == {"http://site/a", "http://site/b"}


async def test_a_jump_of_the_wall_clock_neither_ages_nor_rejuvenates() -> None:
    origin = Origin()
    edge, clock = edge_over(origin)
    await edge(get())
    clock.jump(10 * 86400)
    assert (await edge(get())).headers["age"] == "0"
    clock.jump(-20 * 86400)
    clock.advance(5)
    assert (await edge(get())).headers["age"] == "5"
    assert len(origin.asked) == 1


async def test_interim_responses_pass() -> None:
    seen: list[int] = []

    async def early(request: Request) -> Response:
        if request.inform is not None:
            request.inform(Response(103, [("link", "</a>")]))
        return Response(200, [MAX_AGE])

    edge, _ = edge_over(early)
    request = get()
    request.inform = lambda response: seen.append(response.status)
    await edge(request)
    await edge(request)
    assert seen == [103]
