"""Load is open, counts from the intended start, and says what a server of known behaviour is known to do."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks import Request, Response
from blocks.core.errors import ConfigError, UpstreamFault
from blocks.testing import Result, constant, day, find_limit, ramp, spike
from blocks.testing.objectives import objective, percentile
from blocks.testing.report import page, svg

# -- shapes


@given(st.floats(0.5, 300), st.floats(0.05, 5))
def test_a_constant_rate_begins_rate_times_duration_requests_evenly(rate: float, duration: float):
    starts = list(constant(rate, duration).starts())
    assert abs(len(starts) - rate * duration) <= 1
    assert all(0 <= start < duration for start in starts)
    for number, start in enumerate(starts):
        assert start == pytest.approx(number / rate, abs=1e-6)


@given(st.sampled_from([ramp(10, 200, 5), spike(20, 400, 5, at=2, lasts=1), day(5, 100, 10), constant("600/min", 7)]))
def test_every_shape_keeps_its_order_and_its_area(shape):
    starts = list(shape.starts())
    assert starts == sorted(starts)
    area = sum(shape.at(t / 1000) / 1000 for t in range(int(shape.duration * 1000)))
    assert len(starts) == pytest.approx(area, rel=0.02, abs=2)


def test_a_spike_is_where_it_was_put():
    starts = list(spike(10, 1000, 10, at=4, lasts=1).starts())
    assert sum(4 <= start < 5 for start in starts) == pytest.approx(1000, abs=2)
    assert len(starts) == pytest.approx(1090, abs=2)


def test_poisson_arrivals_repeat_with_their_seed_and_keep_the_mean():
    one, two = (list(constant(1000, 20).starts(Random(7))) for _ in range(2))
    assert one == two
    assert len(one) == pytest.approx(20_000, rel=0.03)
    gaps = [b - a for a, b in pairwise(one)]
    mean = sum(gaps) / len(gaps)
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2, rel=0.1)  # of an exponential


def test_a_rate_that_is_none_is_refused():
    for rate in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError):
            constant(rate, 1)


# -- results and objectives


def result_of(latencies, causes=()) -> Result:
    result = Result()
    for latency in latencies:
        result.record(0.0, latency, 200, "", 1)
    for cause in causes:
        result.record(0.0, 1.0, 503, cause, 0)
    result.duration = 10.0
    return result


@given(st.lists(st.floats(0, 100), min_size=1, max_size=300), st.floats(0.001, 1))
def test_a_quantile_is_the_nearest_rank(latencies: list[float], share: float):
    found = result_of(latencies).quantile(share)
    assert found in latencies
    assert sum(one <= found for one in latencies) >= share * len(latencies) - 1e-6
    assert sum(one < found for one in latencies) < share * len(latencies) + 1e-6


def test_expect_passes_and_fails_by_each_figure():
    result = result_of([n / 1000 for n in range(1, 101)])
    result.expect(errors=0, p50="<=50ms", p99="<100ms", p99_9="100ms", max="<=100ms", mean="<51ms", min=">=1ms")
    result.expect(availability=1, throughput=">=10/s", requests=100)
    bad = result_of([0.001] * 99, ["connect-refused"])
    with pytest.raises(AssertionError) as missed:
        bad.expect(errors=0, availability=">=99.5%", p50="<20ms")
    text = str(missed.value)
    assert "errors 0: it was 1" in text
    assert "availability >=99.5%: it was 99.0000%" in text
    assert "p50 <20ms" not in text
    assert "error connect-refused" in text


def test_objectives_that_cannot_be_read_are_refused():
    for figure, bound in [
        ("p99", "fast"),
        ("q99", "1s"),
        ("errors", "few"),
        ("availability", "x%"),
        ("throughput", ""),
    ]:
        with pytest.raises(ConfigError, match=figure):
            objective(figure, bound)


def test_names_of_percentiles():
    assert [percentile(name) for name in ("p50", "p99", "p99_9", "p999", "p99.99", "p5", "max", "p")] == [
        0.5, 0.99, 0.999, 0.999, 0.9999, 0.05, None, None,
    ]  # fmt: skip


# -- against servers of known behaviour, in virtual time


async def test_a_server_of_fifty_milliseconds_has_exactly_that(blocks):
    async def fifty(request: Request) -> Response:
        await asyncio.sleep(0.05)
        return Response.text("x")

    result = await blocks.load(await blocks.serve(fifty), rate=200, duration="5s")
    assert result.intended == result.requests == 1000
    assert result.quantile(0) == pytest.approx(0.05, abs=1e-6)
    assert result.max == pytest.approx(0.05, abs=1e-6)
    assert result.throughput == pytest.approx(200, rel=0.02)
    assert result.late < 1e-9


async def test_waiting_is_counted_a_server_that_stops_for_two_seconds_shows_it(blocks):
    """The same stall measured in both models: the closed one all but hides it (coordinated omission)."""
    busy = asyncio.Lock()
    began = asyncio.get_running_loop().time()

    async def stalls_once(request: Request) -> Response:
        async with busy:
            now = asyncio.get_running_loop().time() - began
            await asyncio.sleep(2.0 if 1.0 <= now < 1.005 else 0.001)
        return Response.text("x")

    opened = await blocks.load(stalls_once, rate=200, duration=10)
    began = asyncio.get_running_loop().time()
    closed = await blocks.load(stalls_once, concurrency=1, duration=10)
    assert opened.max == pytest.approx(2.0, abs=0.01)
    assert opened.quantile(0.9) > 0.5  # 400 of the 2,000 users came during the stall
    assert closed.quantile(0.99) < 0.01


async def test_errors_have_causes(blocks):
    a = await blocks.origin()
    a.fault.next(3).reset()
    a.fault.next(2).status(500)
    a.fault.next(1).hang()
    result = await blocks.load(a, rate=100, duration=1, timeout="500ms")
    assert result.errors == 6
    assert result.causes["status-500"] == 2
    assert result.statuses == {200: 94, 500: 2}
    assert sum(result.causes.values()) == 6
    assert result.availability == pytest.approx(0.94)


async def test_a_handler_that_raises_and_one_that_never_answers(blocks):
    async def odd(request: Request) -> Response:
        if request.target == "/fault":
            raise UpstreamFault("no", reason="made-up")
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    result = await blocks.load(odd, rate=10, duration=1, timeout=3, path=lambda n: "/fault" if n % 2 else "/hang")
    assert dict(result.causes) == {"made-up": 5, "timeout": 5}
    assert result.max == pytest.approx(3.0)


async def test_what_is_under_way_is_bounded(blocks):
    async def never(request: Request) -> Response:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    result = await blocks.load(never, rate=100, duration=1, most=20, timeout=5)
    assert dict(result.causes) == {"too-many-under-way": 80, "timeout": 20}


async def test_the_degradation_point_of_a_queue_of_one(blocks):
    """A server of 10 ms that serves one at a time can do 100 a second, and no more."""
    busy = asyncio.Lock()

    async def one_at_a_time(request: Request) -> Response:
        async with busy:
            await asyncio.sleep(0.01)
        return Response.text("x")

    limit = await find_limit(one_at_a_time, 20, step=4, expect={"p99": "<50ms"}, halvings=5)
    assert 95 <= limit.rate <= 102
    assert limit.broke is not None
    assert limit.rate < limit.broke < 107
    rates = [step.rate for step in limit.steps]
    assert rates == sorted(rates)
    assert "p99 <50ms" in limit.table()
    assert limit.as_dict()["limit"] == limit.rate


async def test_a_load_needs_one_model(blocks):
    origin = await blocks.origin()
    for wrong in ({}, {"rate": 1, "concurrency": 2}):
        with pytest.raises(ConfigError, match="one of rate"):
            await blocks.load(origin, **wrong)
    with pytest.raises(ConfigError, match="no URL"):
        await blocks.load("127.0.0.1:80", rate=1)


async def test_reports_are_well_formed(blocks):
    async def quick(request: Request) -> Response:
        return Response.text("x")

    result = await blocks.load(quick, rate=50, duration=1)
    limit = await find_limit(quick, 50, step=0.2, most=100)
    for one in (result, limit):
        ElementTree.fromstring(svg(one))
        html = page(one, "a <title>")
        assert "a &lt;title&gt;" in html
        assert "<script" not in html
    ElementTree.fromstring(svg(Result()))
    assert result.as_dict()["latency"]["p99.9"] == result.quantile(0.999)
