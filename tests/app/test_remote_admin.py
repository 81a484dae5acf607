"""The admin API as programs meet it: readiness, settings without secrets, pages, events, a drain that may be asked for twice, a reload."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from blocks import LoadBalancer, Request, Response, running
from blocks.core.config.complaint import Complaint, ConfigErrors
from blocks.core.errors import ClientGone, ConfigError, UpstreamFault
from blocks.core.logging import events
from blocks.core.metrics import Metrics
from blocks.http.admin import Admin, Subject
from blocks.http.guard import read_token
from blocks.http.meter import Meter
from blocks.http.options import Serving

LOOPBACK = Serving(admin="127.0.0.1:0")


async def hello(request: Request) -> Response:
    return Response.text("hello")


class Api:
    """An admin API that listens, and a client of it."""

    def __init__(self, subject: Subject, serving: Serving = LOOPBACK) -> None:
        self._admin = Admin(subject, serving)

    async def __aenter__(self) -> Api:
        self.address = await self._admin.__aenter__()
        self.session = aiohttp.ClientSession(f"http://{self.address}", connector=aiohttp.TCPConnector(force_close=True))
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self.session.close()
        await self._admin.__aexit__(None, None, None)

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        async with self.session.request(method, path, headers=headers) as answer:
            text = await answer.text()
            return (
                answer.status,
                json.loads(text) if answer.content_type == "application/json" else text,
                answer.headers,
            )


async def test_it_says_what_runs_and_how_well():
    lb = LoadBalancer([hello, hello], name="users")
    facts = {"digest": "abc", "loaded": 1.0, "last_error": ""}
    async with (
        running(lb),
        Api(Subject("balancer", lambda: [lb], facts=lambda: facts, listen=lambda: ["127.0.0.1:1"])) as api,
    ):
        status, body, _ = await api.ask("GET", "/readyz?verbose")
        assert (status, body["status"], body["health"]) == (200, "ready", "OPEN")
        assert body["parts"][0] == {"depth": 0, "part": "users", "health": "OPEN"}
        status, body, _ = await api.ask("GET", "/v1/status")
        assert (body["block"], body["config"], body["listen"], body["draining"]) == (
            "balancer",
            facts,
            ["127.0.0.1:1"],
            False,
        )
        assert body["uptime"] >= 0
        assert body["parts_total"] == len(body["parts"]) == 3


async def test_a_drain_may_be_asked_for_twice_and_begins_once():
    begun: list[int] = []
    draining = asyncio.Event()

    def drain() -> None:
        begun.append(1)
        draining.set()

    async with Api(Subject("balancer", lambda: [hello], drain=drain, draining=draining.is_set)) as api:
        for _ in range(3):
            assert (await api.ask("POST", "/v1/drain"))[:2] == (202, {"status": "draining"})
        await asyncio.wait_for(draining.wait(), 10)
        assert begun == [1]
        assert (await api.ask("GET", "/v1/drain"))[0] == 405
        assert (await api.ask("GET", "/readyz"))[0] == 503


async def test_a_refused_reload_says_everything_that_is_wrong():
    answers: list[Any] = [
        ConfigErrors([Complaint(("routes", 3), "no such service"), Complaint((), "also", "warning")]),
        ConfigError("the certificate is no certificate"),
        {"status": "reloaded", "digest": "d"},
    ]

    async def reload() -> Mapping[str, Any]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with Api(Subject("run", lambda: [hello], reload=reload)) as api:
        status, body, _ = await api.ask("POST", "/v1/reload")
        assert status == 422
        assert "configuration: error: no such service (routes[3])" in body["report"]
        assert [(row["level"], row["key"]) for row in body["complaints"]] == [("error", "routes[3]"), ("warning", "")]
        status, body, _ = await api.ask("POST", "/v1/reload")
        assert (status, body["error"], body["complaints"]) == (422, "the certificate is no certificate", [])
        assert (await api.ask("POST", "/v1/reload"))[:2] == (200, {"status": "reloaded", "digest": "d"})


async def test_settings_are_shown_without_their_secrets():
    settings = {"url": "redis://u:p@h/0", "token": "t", "greeting": "say hush-hush", "listen": ["127.0.0.1:80"]}
    async with Api(Subject("run", lambda: [hello], settings=lambda: settings, secrets=lambda: ["hush-hush"])) as api:
        _, body, _ = await api.ask("GET", "/config")
        assert body["settings"] == {
            "url": "redis://***@h/0",
            "token": "***",
            "greeting": "say ***",
            "listen": ["127.0.0.1:80"],
        }


async def test_what_can_grow_comes_in_pages():
    lb = LoadBalancer([hello] * 250, name="many")
    async with running(lb), Api(Subject("balancer", lambda: [lb])) as api:
        status, first, headers = await api.ask("GET", "/v1/topology")
        assert (status, len(first), headers["X-Total-Count"]) == (200, 100, "251")
        assert headers["Link"] == '</v1/topology?offset=100&limit=100>; rel="next"'
        seen = list(first)
        while "Link" in headers:
            _, more, headers = await api.ask("GET", headers["Link"].partition(">")[0][1:])
            seen += more
        assert len(seen) == 251
        assert len((await api.ask("GET", "/v1/topology?limit=9999&offset=x"))[1]) == 251
        assert (await api.ask("GET", "/v1/topology?offset=900"))[1] == []
        _, body, _ = await api.ask("GET", "/v1/status")
        assert (len(body["parts"]), body["parts_total"]) == (100, 251)


async def test_events_are_followed_and_paged():
    async with Api(Subject("balancer", lambda: [hello])) as api:
        async with api.session.get("/events") as stream:
            assert stream.content_type == "text/event-stream"
            told = asyncio.get_running_loop().create_task(stream.content.readline())
            while not told.done():
                events().info("test-event", number=7)
                await asyncio.sleep(0.001)
            event = json.loads(told.result().removeprefix(b"data: "))
            assert (event["event"], event["number"]) == ("test-event", 7)
        assert (await api.ask("GET", "/v1/events?limit=1"))[1][0]["at"] > 0
        events().info("test-event")  # the reader that has left is noticed, and let go


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "LOCALHOST:9900"}, 200),
        ({"Host": "[::1]:9900"}, 200),
        ({"Host": "localhost:abc"}, 421),
        ({"Host": "127.0.0.1@evil.example"}, 421),
        ({"Host": "127.0.0.1:999999"}, 421),
        ({"Host": "["}, 421),
        ({"Host": "a b"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_on_loopback_a_web_page_gets_nothing(headers: dict[str, str], status: int):
    async with Api(Subject("balancer", lambda: [hello])) as api:
        for method, path in (("GET", "/config"), ("GET", "/livez"), ("GET", "/nowhere")):
            wanted = 404 if status == 200 and path == "/nowhere" else status
            assert (await api.ask(method, path, headers))[0] == wanted
        if status != 200:
            assert (await api.ask("POST", "/v1/drain", headers))[0] == status


async def test_with_a_token_nothing_is_answered_without_it(tmp_path: Path):
    (tmp_path / "token").write_text("0123456789abcdef\n")
    serving = Serving(admin="127.0.0.1:0", admin_token_file=str(tmp_path / "token"))
    async with Api(Subject("balancer", lambda: [hello]), serving) as api:
        for path in ("/livez", "/readyz", "/config", "/metrics", "/v1/status", "/events"):
            assert (await api.ask("GET", path))[0] == 401
            assert (await api.ask("GET", path, {"Authorization": "Bearer wrong"}))[0] == 401
        assert (await api.ask("GET", "/livez", {"Authorization": "Bearer 0123456789abcdef"}))[0] == 200


def test_off_loopback_a_token_is_needed(tmp_path: Path):
    with pytest.raises(ConfigError, match="admin-token-file"):
        read_token("0.0.0.0:9900", None)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token("0.0.0.0:9900", str(tmp_path / "nowhere"))
    (tmp_path / "short").write_text("short")
    with pytest.raises(ConfigError, match="16 characters"):
        read_token("127.0.0.1:9900", str(tmp_path / "short"))
    assert read_token("[::1]:9900", None) is None
    assert read_token("unix:/run/a.sock", None) is None


def test_a_meter_tells_answers_from_what_broke_off():
    seen: list[int] = []
    meter = Meter(lambda: 10.0, lambda request, status, sent, began, error: seen.append(status))
    request = Request()
    for status, error in (
        (200, None),
        (204, None),
        (502, UpstreamFault("x")),
        (404, None),
        (200, UpstreamFault("cut")),
        (200, ClientGone("x")),
        (101, None),
    ):
        meter.observe(request, status, 0, 9.5, error)
    assert seen == [200, 204, 502, 404, 200, 200, 101]
    metrics = Metrics()
    metrics.collect(meter.readings)
    rows = {tuple(values): number for values, number in metrics.snapshot()["blocks_http_responses_total"]["series"]}
    assert rows == {("1xx",): 1, ("2xx",): 2, ("4xx",): 1, ("5xx",): 1, ("failed",): 1, ("gone",): 1}
    assert meter.durations.count == 6  # a tunnel has none
    assert meter.durations.quantile(0.5) == pytest.approx(0.5, rel=0.02)
