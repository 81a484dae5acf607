from __future__ import annotations

import re
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError
from blocks.gateway import Consumer, Gateway, route
from blocks.gateway.limits import Limit
from blocks.http.body import Stream
from blocks.http.message import Peer, Request, Response


async def handler(request: Request) -> Response:
    return Response(200, {"x-cost": "4"}, b"ok")


class Who:
    """A step that sets the consumer from a field, in place of authentication."""

    name = "auth"

    def check(self, request: Request, context: Any) -> None:
        name = request.headers.get("x-who")
        if name:
            context.consumer = Consumer(name, tier=request.headers.get("x-tier", "") or "", claims={"org": name[:1]})


def gateway(limit: Any, clock: FakeClock | None = None, target: Any = handler, **options: Any) -> Gateway:
    return Gateway([route("/{rest:path}", target, limit=limit, auth=Who())], clock=clock or FakeClock(), **options)


async def ask(gateway: Gateway, path: str = "/", client: str = "192.0.2.1", **headers: str) -> Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return await gateway(Request("GET", path, {"host": "a", **names}, peer=Peer((client, 1))))


async def statuses(gateway: Gateway, number: int, **given: Any) -> list[int]:
    return [(await ask(gateway, **given)).status for _ in range(number)]


async def test_a_limit_lets_its_amount_pass_and_tells_when_to_come_again() -> None:
    clock = FakeClock()
    app = gateway("3/s", clock)
    assert await statuses(app, 3) == [200] * 3
    refused = await ask(app)
    assert refused.status == 429
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["ratelimit"] == '"default";r=0;t=1'
    assert refused.headers["ratelimit-policy"] == '"default";q=3;w=1'
    assert refused.headers["content-type"] == "application/problem+json"
    assert b"quota-exceeded" in refused.body
    assert b'"violated-policies": ["default"]' in refused.body
    clock.advance(1)
    assert (await ask(app)).status == 200


async def test_answers_tell_where_the_client_stands() -> None:
    response = await ask(gateway(["100/30s", "5/s"]))
    assert response.headers["ratelimit-policy"] == '"limit-1";q=100;w=30, "limit-2";q=5;w=1'
    assert response.headers["ratelimit"] == '"limit-1";r=99;t=1, "limit-2";r=4;t=1'


async def test_fields_of_a_service_behind_are_replaced() -> None:
    async def behind(request: Request) -> Response:
        return Response(200, {"ratelimit": '"x";r=1', "ratelimit-policy": '"x";q=1'})

    response = await ask(gateway("5/s", target=behind))
    assert response.headers.get_all("ratelimit") == ['"default";r=4;t=1']


async def test_several_limits_take_all_or_nothing() -> None:
    clock = FakeClock()
    app = gateway(["2/s per header:x-a", "100/s per header:x-b", "1000/day"], clock)
    assert await statuses(app, 5, x_a="1", x_b="1") == [200, 200, 429, 429, 429]
    response = await ask(app, x_a="2", x_b="1")
    assert '"limit-2";r=97' in response.headers["ratelimit"], "the refused ones took nothing from it"
    assert '"limit-3";r=997' in response.headers["ratelimit"]


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from("xyz")), max_size=60))
async def test_retry_after_is_never_earlier_than_t_and_is_enough(steps: list[tuple[int, str]]) -> None:
    clock = FakeClock()
    app = gateway(["5/3s per header:x-k", Limit(rate="7/5s", algorithm="window"), "40/minute"], clock)
    for ticks, key in steps:
        clock.advance(ticks / 16)
        response = await ask(app, x_k=key)
        if response.status == 429:
            retry = int(response.headers["retry-after"])
            assert retry >= 1
            assert all(int(t) <= retry for t in re.findall(r"t=(\d+)", response.headers["ratelimit"]))
            clock.advance(retry)
            assert (await ask(app, x_k=key)).status == 200


async def test_keys() -> None:
    app = gateway("1/h per ip")
    assert await statuses(app, 2) == [200, 429]
    assert await statuses(app, 1, client="192.0.2.2") == [200]
    assert await statuses(app, 1, client="2001:db8::1") == [200]
    assert await statuses(app, 1, client="2001:db8::2") == [429], "one subscriber has a whole /64"
    assert await statuses(app, 1, client="2001:db8:0:1::1") == [200]
    assert await statuses(app, 1, client="::ffff:192.0.2.1") == [429], "IPv4 in IPv6 clothes is the same client"
    app = gateway("1/h per consumer")
    assert await statuses(app, 2, x_who="ann") == [200, 429]
    assert await statuses(app, 2) == [200, 429], "who has no credential is counted by address"
    app = gateway("1/h per claim:org")
    assert [*await statuses(app, 1, x_who="ann"), *await statuses(app, 1, x_who="abe")] == [200, 429]
    app = gateway("1/h per header:x-key+ip")
    assert await statuses(app, 2, x_key="a") == [200, 429]
    assert await statuses(app, 1, x_key="b") == [200]
    assert await statuses(app, 1) == [200]
    assert await statuses(app, 1) == [429], "leaving the field out opens one bucket, not a new one each time"
    app = gateway("1/h per param:rest")
    assert [(await ask(app, "/a")).status, (await ask(app, "/%61")).status, (await ask(app, "/b")).status] == [
        200,
        429,
        200,
    ]
    app = gateway("1/h per country", country=lambda client: "DE" if client.startswith("192") else "FR")
    assert [*await statuses(app, 2), *await statuses(app, 1, client="198.51.100.1")] == [200, 429, 200]
    app = gateway(Limit(rate="1/h", per=lambda request, context: request.method))
    assert await statuses(app, 2) == [200, 429]


async def test_a_forged_forwarding_field_opens_no_new_bucket() -> None:
    app = gateway("1/h per ip")
    for name in ("x_forwarded_for", "x_real_ip", "forwarded", "true_client_ip"):
        await ask(app, **{name: "203.0.113.7"})
    assert await statuses(app, 1, x_forwarded_for="203.0.113.8") == [429]
    behind = gateway("1/h per ip", trusted=["192.0.2.0/24"])
    assert await statuses(behind, 1, x_forwarded_for="9.9.9.9, 203.0.113.7") == [200]
    assert await statuses(behind, 1, x_forwarded_for="8.8.8.8, 203.0.113.7, 192.0.2.9") == [429]
    assert await statuses(behind, 1, x_forwarded_for="203.0.113.8") == [200]
    assert await statuses(behind, 1, client="198.51.100.1", x_forwarded_for="1.1.1.1") == [200]
    assert await statuses(behind, 1, client="198.51.100.1", x_forwarded_for="1.1.1.2") == [429]


async def test_path_tricks_reach_the_same_bucket_or_nothing() -> None:
    app = Gateway(
        [route("/admin", handler, limit="2/h"), route("/", handler)], clock=FakeClock()
    )  # fmt: skip
    tricks = ["/admin/x", "//admin", "/./admin", "/a/../admin", "/%61dmin", "/admin/"]
    answers = [(await ask(app, trick)).status for trick in tricks]
    assert answers == [200, 200, 429, 429, 429, 429]
    for trick in ["/admin;a=b", "/admin%2f", "/%252e/admin", "/..;/admin", "/\\admin"]:
        assert (await ask(app, trick)).status == 400


async def test_costs_and_learnt_costs() -> None:
    app = gateway(Limit(rate="10/h", cost=4))
    assert await statuses(app, 3) == [200, 200, 429]
    app = gateway(Limit(rate="10/h", cost=lambda request, context: len(request.query)))
    assert [
        (await ask(app, "/?12345678")).status,
        (await ask(app, "/?123")).status,
        (await ask(app, "/?12")).status,
    ] == [200, 429, 200]
    app = gateway(Limit(rate="10/h", learn="x-cost"))
    first = await ask(app)
    assert '"default";r=6' in first.headers["ratelimit"]
    assert "x-cost" not in first.headers
    assert await statuses(app, 3) == [200, 200, 429]


async def test_tiers_and_no_limit() -> None:
    app = gateway(Limit(rate="1/h", per="consumer", tiers={"gold": "3/h", "staff": "none"}))
    assert await statuses(app, 4, x_who="g", x_tier="gold") == [200, 200, 200, 429]
    assert await statuses(app, 2, x_who="f") == [200, 429]
    assert await statuses(app, 9, x_who="s", x_tier="staff") == [200] * 9


async def test_a_dry_run_refuses_nobody_and_counts() -> None:
    app = gateway([Limit(rate="1/h", dry_run=True), "3/h"])
    assert await statuses(app, 4) == [200, 200, 200, 429]
    [step] = [step for lane in app.snapshot.lanes.values() for step in lane.plan.steps if step.name == "limit"]
    assert step.figures() == {"limit-2": 1, "limit-1 (dry run)": 2}


async def test_places_are_held_until_the_body_has_ended() -> None:
    stream = Stream()

    async def slow(request: Request) -> Response:
        return Response(200, body=stream)

    app = gateway("1 concurrent per ip", target=slow)
    first = await ask(app)
    assert (await ask(app)).status == 429
    stream.feed(b"a")
    stream.finish()
    assert await first.read() == b"a"
    stream = Stream()
    second = await ask(app)
    assert second.status == 200
    second.discard()
    stream = Stream()
    assert (await ask(app)).status == 200, "giving the answer up gives the place back"


async def test_a_failure_gives_the_place_back() -> None:
    async def broken(request: Request) -> Response:
        raise RuntimeError("no")

    app = gateway("1 concurrent", target=broken)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            await ask(app)


async def test_a_limit_of_a_table_is_shared_by_routes() -> None:
    app = Gateway(
        [route("/a", handler, limit="api"), route("/b", handler, limit=["api", "100/s"])],
        tables={"limits": {"api": {"rate": "2/h", "per": "ip"}}},
        clock=FakeClock(),
    )
    assert [(await ask(app, path)).status for path in ("/a", "/b", "/a")] == [200, 200, 429]
    assert (await ask(app, "/b")).headers["ratelimit-policy"] == '"api";q=2;w=3600'


async def test_early_limits_decide_before_identity() -> None:
    app = gateway([Limit(rate="1/h", per="ip", early=True), "5/h per consumer"])
    response = await ask(app, x_who="a")
    assert response.headers["ratelimit-policy"] == '"limit-1";q=1;w=3600, "limit-2";q=5;w=3600'
    assert (await ask(app, x_who="b")).status == 429
    assert app.snapshot.table.routes[0].name in {lane.route.name for lane in app.snapshot.lanes.values()}
    assert app.snapshot.lanes[app.snapshot.table.routes[0]].plan.names == ("limit", "auth", "limit")


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("100", "not a limit"),
        ("100/fortnight", "not a rate"),
        ("0/s", "lets nothing pass"),
        ("10/s per planet", "not known"),
        ("10/s per param:x", "no parameter"),
        ("api", "no limit named"),
        (Limit(rate="10/s", cost=11), "more than may ever pass"),
        (Limit(rate="10/month", algorithm="gcra"), "only a quota"),
        (Limit(rate="10/day", zone="Mars/Olympus"), "not a time zone"),
        (Limit(rate="10/s", early=True, per="key"), "nobody is known yet"),
        ({"rate": "10/s", "pre": "ip"}, "did you mean 'per'"),
        ("10/s per country", "needs \\[gateway\\] country_field"),
    ],
)
def test_a_wrong_limit_says_what_would_be_right(limit: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        gateway(limit)


def test_a_rate_below_one_a_second_is_told_in_whole_seconds() -> None:
    app = gateway("1/10s")
    lane = next(iter(app.snapshot.lanes.values()))
    [rule] = lane.plan.steps[-1].rules
    assert rule.default.policy == b'"default";q=1;w=10'
    assert ceil(rule.default.own.period) == 10
