"""What ``blocks top`` makes of two looks, and what it draws."""

from __future__ import annotations

import asyncio
import io
import json
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from blocks import Broker, Edge, Gateway, LoadBalancer, Request, Response, route, running
from blocks.app.cli import cli
from blocks.app.top import ROWS, Between, Look, view
from blocks.app.top_screen import Screen, curve, number, share, size, time
from blocks.broker.readings import readings as broker_readings
from blocks.core.histogram import Histogram
from blocks.core.metrics import Metrics
from blocks.edge.readings import readings as edge_readings
from blocks.http.admin import Admin, Subject
from blocks.http.meter import Meter
from blocks.http.options import Serving


async def hello(request: Request) -> Response:
    return Response.text("hello", headers={"Cache-Control": "max-age=60"})


async def broken(request: Request) -> Response:
    return Response(500)


def drawn(picture: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=160, color_system=None).print(picture)
    return out.getvalue()


async def test_each_block_has_its_rates():
    lb = LoadBalancer([hello, broken], name="users", policy="round-robin", random=Random(1))
    gateway = Gateway([route("/a", hello, name="a"), route("/b", broken, name="b")])
    edge = Edge(hello)
    metrics = Metrics()
    meter = Meter(lambda: 1.0)
    async with running(lb, gateway, edge), Broker(":memory:") as broker:
        for collector in (
            lb.readings,
            gateway.readings,
            meter.readings,
            lambda: edge_readings(edge),
            lambda: broker_readings(broker),
        ):
            metrics.collect(collector)
        before = Look(10.0, metrics.snapshot())
        for number_ in range(20):
            await lb(Request())
            await gateway(Request("GET", "/a" if number_ % 4 else "/b", {"host": "h"}))
            await edge(Request("GET", "/", {"host": "h"}))
            await broker.publish("t", b"x")
            meter.observe(Request(), 200, 0, 0.99, None)
        async with broker.subscribe("t", group="workers", start="earliest"):
            after = Look(
                12.0, metrics.snapshot(), {"block": "run", "health": "BUSY", "uptime": 61.0, "listen": ["a:1"]}
            )
    found = view(before, after)
    assert json.loads(json.dumps(found)) == found
    assert (found["interval"], found["health"]) == (2.0, "BUSY")
    (balancer,) = found["balancers"]
    assert (balancer["balancer"], balancer["requests"], balancer["endpoints_total"]) == ("users", 10.0, 2)
    assert sum(row["tries"] for row in balancer["endpoints"]) == 10.0
    assert all(row["latency"]["p99.9"] >= row["latency"]["p50"] > 0 for row in balancer["endpoints"])
    rows = {row["route"]: row for row in found["gateway"]["routes"]}
    assert (rows["a"]["requests"], rows["b"]["requests"], rows["b"]["errors"]) == (7.5, 2.5, 2.5)
    (cached,) = found["edges"]
    assert cached["hit_ratio"] == pytest.approx(0.95)
    assert cached["offload"] == pytest.approx(0.95)
    (queue,) = found["brokers"]
    assert (queue["published"], queue["lag"]) == (10.0, [{"group": "workers", "lag": 20}])
    text = drawn(
        Screen("http://127.0.0.1:9900").draw(found, [{"at": 1, "level": "error", "event": "ejected", "endpoint": "a"}])
    )
    for words in (
        "run  BUSY  up 1m 1s",
        "balancer users: 10/s",
        "2 of 2 usable",
        "gateway: 2 routes",
        "95%",
        "workers 20",
        "ejected endpoint=a",
    ):
        assert words in text


def snapshot(**series: float) -> Any:
    rows = [[[name], value] for name, value in series.items()]
    return {"n_total": {"kind": "counter", "help": "", "fold": "sum", "labels": ["x"], "series": rows}}


def test_a_counter_that_went_back_counts_from_zero():
    between = Between(Look(0.0, snapshot(a=100, b=5)), Look(2.0, snapshot(a=10, b=9, c=4)))
    assert {row.labels["x"]: row.value for row in between.rates("n_total")} == {"a": 5.0, "b": 2.0, "c": 2.0}
    assert between.rates("nothing_total") == []


def test_percentiles_are_those_of_what_came_in_between():
    def look(at: float, *durations: float) -> Look:
        histogram = Histogram()
        for duration in durations:
            histogram.record(duration)
        entry = {"kind": "histogram", "help": "", "fold": "sum", "labels": [], "series": [[[], histogram.snapshot()]]}
        return Look(at, {"t_seconds": entry})

    old, more = [10.0] * 100, [0.001] * 100
    times = Between(look(0, *old), look(1, *old, *more)).times("t_seconds", lambda labels: "")
    assert times[""]["p99"] == pytest.approx(0.001, rel=0.02)
    times = Between(look(0, *old), look(1, *more)).times("t_seconds", lambda labels: "")
    assert times[""]["p50"] == pytest.approx(0.001, rel=0.02)  # a restart: all of it is new


def test_a_thousand_upstreams_are_as_many_rows_as_a_screen_has():
    lb = LoadBalancer([f"http://10.0.{n // 250}.{n % 250}:80" for n in range(1000)])
    metrics = Metrics()
    metrics.collect(lb.readings)
    look = Look(0.0, metrics.snapshot())
    (balancer,) = view(look, look._replace(at=1.0))["balancers"]
    assert len(balancer["endpoints"]) == ROWS
    assert balancer["endpoints_total"] == 1000


@settings(max_examples=30)
@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 10**12)),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 10**12)),
)
def test_no_rate_is_ever_negative(before: dict[str, int], after: dict[str, int]):
    between = Between(Look(1.0, snapshot(**before)), Look(1.0, snapshot(**after)))
    assert all(row.value >= 0 for row in between.rates("n_total"))


def test_a_process_without_anything_is_drawn_too():
    nothing = view(Look(0.0, {}), Look(1.0, {}))
    assert drawn(Screen("here").draw(nothing))
    assert "gone" in drawn(Screen("here").lost("gone"))


def test_numbers_are_short():
    assert [number(n) for n in (0, 0.05, 3.14, 42, 999.4, 1234, 56_789, 3_400_000)] == [
        "0",
        "0.1",
        "3.1",
        "42",
        "999",
        "1.2k",
        "57k",
        "3.4M",
    ]
    assert [size(n) for n in (0, 512, 3500, 5 * 1024**3, 2 * 1024**4)] == ["0B", "512B", "3.4KiB", "5GiB", "2.0TiB"]
    assert [time(n) for n in (0, 0.0004, 0.012, 1.25)] == ["-", "400µs", "12ms", "1.2s"]
    assert (share(None), share(0.934)) == ("-", "93%")
    assert (curve([0, 0]), curve([0, 5, 10])) == ("▁▁", "▁▅█")


async def test_the_command_looks_twice_and_ends():
    lb = LoadBalancer([hello], name="users")
    meter = Meter(lambda: 1.0)
    async with (
        running(lb),
        Admin(Subject("balancer", lambda: [lb], meters=lambda: {"": meter}), Serving(admin="127.0.0.1:0")) as address,
    ):
        flags = ["top", "--once", "--interval", "0.1s", "--admin", address]
        found = await asyncio.to_thread(CliRunner().invoke, cli, [*flags, "--json"])
        assert found.exit_code == 0
        assert json.loads(found.output)["balancers"][0]["balancer"] == "users"
        found = await asyncio.to_thread(CliRunner().invoke, cli, flags)
        assert found.exit_code == 0
        assert "balancer users" in found.output


def test_it_looks_no_more_often_than_it_should():
    found = CliRunner().invoke(cli, ["top", "--interval", "1ms"])
    assert found.exit_code == 2
    assert "0.1s" in found.stderr
