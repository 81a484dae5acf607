from __future__ import annotations

import asyncio
from typing import Any

import pytest

from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError
from blocks.gateway import Gateway, route
from blocks.gateway.alerts import Alarm, Alerts
from blocks.gateway.config.schema import AlertTable
from blocks.http import Server
from blocks.http.message import Request, Response


class Service:
    def __init__(self) -> None:
        self.status = 200

    async def __call__(self, request: Request) -> Response:
        return Response(self.status)


def test_a_figure_that_trembles_at_the_bound_rings_once() -> None:
    alarm = Alarm(above=0.1, clear=0.05, minimum=20)
    values = [0.0, 0.2, 0.09, 0.11, 0.06, 0.12, 0.04, 0.2]
    assert [alarm.look(value, 100) for value in values] == [
        None,
        "firing",
        None,
        None,
        None,
        None,
        "resolved",
        "firing",
    ]
    assert Alarm(0.1, 0.05, 20).look(1.0, 19) is None, "too few requests say nothing"


async def drive(app: Gateway, number: int) -> None:
    for _ in range(number):
        await app(Request("GET", "/", {"host": "a"}))


async def test_error_rates_and_refusals_are_looked_at_over_a_span() -> None:
    service = Service()
    clock = FakeClock()
    app = Gateway([route("/", service, name="r", limit="150/h")], clock=clock)
    rules = [
        AlertTable(name="errors", when="error_rate", above="5%"),
        AlertTable(name="limited", when="limited", above=0.5, route="r"),
    ]
    told: list[Any] = []
    alerts = Alerts(app, rules, clock=clock, told=lambda event, fields: told.append(fields))
    assert alerts.look() == []
    await drive(app, 50)
    assert alerts.look() == []
    service.status = 500
    await drive(app, 50)
    [change] = alerts.look()
    assert (change["alert"], change["state"], change["value"], change["route"]) == ("errors", "firing", 0.5, "r")
    service.status = 200
    for _ in range(6):
        await drive(app, 50)
        alerts.look()
    assert [(one["alert"], one["state"]) for one in told] == [
        ("errors", "firing"),
        ("limited", "firing"),
        ("errors", "resolved"),
    ]


async def test_the_webhook_is_told() -> None:
    got: list[bytes] = []
    arrived = asyncio.Event()

    async def hook(request: Request) -> Response:
        got.append(await request.read())
        arrived.set()
        return Response(204)

    service = Service()
    service.status = 503
    async with Server(hook, "127.0.0.1:0") as server:
        app = Gateway([route("/", service, name="r")])
        rule = AlertTable(
            name="errors", when="error_rate", above=0.1, over=0.3, minimum=1, webhook=f"{server.url}/alert?x=1"
        )
        async with Alerts(app, [rule]):
            await drive(app, 10)
            await asyncio.wait_for(arrived.wait(), 20)
    assert b'"alert":"errors","state":"firing"' in got[0]


@pytest.mark.parametrize(
    "table",
    [
        {"when": "sadness", "above": 1},
        {"when": "error_rate", "above": "many"},
        {"when": "error_rate", "above": 0.1, "clear": 0.2},
        {"when": "p99", "above": "soon"},
        {"when": "p99", "above": "1s", "webhook": "ftp://x"},
        {"when": "p99", "above": "1s", "over": 0},
    ],
)
def test_wrong_rules_are_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Alerts(Gateway([route("/", Service())]), [AlertTable(name="x", **table)])
