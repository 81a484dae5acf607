from __future__ import annotations

import heapq
from random import Random
from typing import Any

import pytest

from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError
from blocks.gateway import Consumer, Gateway, route
from blocks.gateway.limits.adaptive import Adaptive, Aimd, Gradient
from blocks.http.message import Request, Response


def simulate(
    own: Adaptive, load: float, seconds: float, *, workers: int = 8, took: float = 0.01, begin: float = 0.0
) -> dict[str, float]:
    """Arrivals by a schedule to a first-come-first-served service, in virtual time. Figures are those of the second half."""
    random = Random(3)
    rate = load * workers / took
    ends: list[tuple[float, float]] = []  # (end, begun) of what is inside
    free = [begin] * workers
    good = answered = refused = 0
    latencies = []
    for number in range(int(rate * seconds)):
        now = begin + number / rate
        while ends and ends[0][0] <= now:
            end, begun = heapq.heappop(ends)
            own.leave()
            own.sample(end - begun, end)
            if begun > begin + seconds / 2:
                answered += 1
                latencies.append(end - begun)
                good += end - begun <= 0.1
        if not own.enter(1.0, now):
            refused += now > begin + seconds / 2
            continue
        worker = heapq.heappop(free)
        end = max(worker, now) + random.uniform(0.8, 1.2) * took
        heapq.heappush(free, end)
        heapq.heappush(ends, (end, now))
    while ends:
        end, begun = heapq.heappop(ends)
        own.leave()
        own.sample(end - begun, end)
    return {
        "goodput": good / (seconds / 2) / (workers / took),
        "refused": refused,
        "p50": sorted(latencies)[len(latencies) // 2],
    }


@pytest.mark.parametrize("make", [lambda: Gradient(random=Random(1)), lambda: Aimd(0.03)])
@pytest.mark.parametrize("load", [1.5, 3.0])
def test_goodput_stays_near_the_peak_under_overload(make: Any, load: float) -> None:
    figures = simulate(make(), load, 20.0)
    assert figures["goodput"] >= 0.9
    assert figures["p50"] < 0.04


@pytest.mark.parametrize("make", [lambda: Gradient(random=Random(1)), lambda: Aimd(0.03)])
def test_nothing_is_shed_where_there_is_room(make: Any) -> None:
    figures = simulate(make(), 0.5, 20.0)
    assert figures["refused"] == 0
    assert figures["goodput"] == pytest.approx(0.5, rel=0.05)


def test_the_limit_follows_a_service_that_becomes_smaller() -> None:
    own = Gradient(random=Random(1), interval=10.0)
    simulate(own, 2.0, 20.0, workers=32)
    large = own.limit
    simulate(own, 2.0, 40.0, workers=4, begin=1000.0)
    assert own.limit < large / 2


def test_a_limit_that_was_never_reached_is_not_raised() -> None:
    own = Aimd(1.0, start=20)
    for number in range(1000):
        assert own.enter(1.0, number / 10)
        own.leave()
        own.sample(0.01, number / 10)
    assert own.limit == 20


async def test_the_less_important_is_shed_first_and_all_places_come_back() -> None:
    inside: list[int] = []
    own: list[Any] = []

    async def service(request: Request) -> Response:
        return Response(200)

    class Who:
        name = "auth"

        def check(self, request: Request, context: Any) -> None:
            context.consumer = Consumer("x", priority=int(request.query or 1))

    app = Gateway(
        [route("/", service, auth=Who(), shed={"algorithm": "aimd", "target": "1s", "start": 10, "min": 10})],
        clock=FakeClock(),
    )
    [shed] = [step for lane in app.snapshot.lanes.values() for step in lane.plan.steps if step.name == "shed"]
    own.append(shed.own)
    shed.own.busy = 5

    async def status(priority: int) -> int:
        return (await app(Request("GET", f"/?{priority}", {"host": "a"}))).status

    assert [await status(priority) for priority in (0, 1, 2, 3)] == [200, 200, 200, 503]
    shed.own.busy = 8
    assert [await status(priority) for priority in (0, 1, 2, 3)] == [200, 200, 503, 503]
    shed.own.busy = 9
    assert [await status(priority) for priority in (0, 1, 2, 3)] == [200, 503, 503, 503]
    assert shed.own.busy == 9
    assert inside == []
    refused = await app(Request("GET", "/?3", {"host": "a"}))
    assert refused.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    "shed",
    [
        "urgent",
        {"algorithm": "aimd"},
        {"min": 0},
        {"min": 30},
        {"target": "soon"},
        {"algorithm": "magic"},
        {"maximum": 3},
    ],
)
def test_wrong_settings_are_refused(shed: Any) -> None:
    async def service(request: Request) -> Response:
        return Response(200)

    with pytest.raises(ConfigError):
        Gateway([route("/", service, shed=shed)])
