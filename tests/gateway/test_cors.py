from __future__ import annotations

from typing import Any

import pytest

from blocks.core.errors import ConfigError
from blocks.gateway.cors import Cors, Settings
from blocks.http.message import Request, Response
from gateway.gateway_kit import context, passes

APP = "https://app.example"


def preflight(origin: str = APP, method: str = "PUT", **fields: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return Request("OPTIONS", "/", {"origin": origin, "access-control-request-method": method, **named})


async def answer(step: Cors, request: Request) -> Response:
    given = await passes(step, request)
    assert given is not None
    return given


async def test_a_preflight_is_granted_as_far_as_asked_and_allowed() -> None:
    step = Cors(Settings(origins=[APP], methods=["PUT"], headers=["X-Token"], credentials=True, max_age="1h"))
    granted = await answer(step, preflight(access_control_request_headers="x-token, content-type"))
    assert granted.status == 204
    assert granted.headers["access-control-allow-origin"] == APP
    assert granted.headers["access-control-allow-methods"] == "PUT"
    assert granted.headers["access-control-allow-headers"] == "x-token, content-type"
    assert granted.headers["access-control-allow-credentials"] == "true"
    assert granted.headers["access-control-max-age"] == "3600"
    assert "Origin" in granted.headers["vary"]


@pytest.mark.parametrize("request_", [
    preflight("https://evil.example"), preflight("null"), preflight(APP + ".evil.example"), preflight("http://app.example"),
    preflight(APP + ":8443"), preflight(method="DELETE"), preflight(method="put"), preflight(access_control_request_headers="x-other"),
    preflight(access_control_request_headers="x token"), preflight(access_control_request_headers=",".join(["x-token"] * 65)),
])  # fmt: skip
async def test_a_preflight_that_asks_for_more_is_refused(request_: Request) -> None:
    step = Cors(Settings(origins=[APP], methods=["PUT"], headers=["X-Token"]))
    refused = await answer(step, request_)
    assert refused.status == 403
    assert "access-control-allow-origin" not in refused.headers
    assert "Origin" in refused.headers["vary"]


async def test_only_preflights_are_answered() -> None:
    step = Cors(Settings(origins=[APP]))
    assert await passes(step, Request("GET", "/", {"origin": APP})) is None
    assert await passes(step, Request("OPTIONS", "/", {"origin": APP})) is None
    assert await passes(step, Request("OPTIONS", "/", {"access-control-request-method": "GET"})) is None


def after(step: Cors, fields: dict[str, str], said: dict[str, str] | None = None) -> Response:
    return step.after(Request("GET", "/", fields), Response(200, said or {}), context())


def test_answers_say_who_may_read_them_and_services_do_not() -> None:
    step = Cors(Settings(origins=[APP], expose=["X-Total"], credentials=True))
    response = after(step, {"origin": APP}, {"access-control-allow-origin": "*", "vary": "Accept"})
    assert response.headers.get_all("access-control-allow-origin") == [APP]
    assert response.headers["access-control-allow-credentials"] == "true"
    assert response.headers["access-control-expose-headers"] == "X-Total"
    assert response.headers["vary"] == "Accept, Origin"
    for fields in ({"origin": "https://evil.example"}, {}):
        refused = after(step, fields, {"access-control-allow-origin": "*"})
        assert "access-control-allow-origin" not in refused.headers
        assert refused.headers["vary"] == "Origin"


def test_a_star_is_the_same_for_all_and_needs_no_vary() -> None:
    response = after(Cors(Settings(origins=["*"])), {"origin": "https://any.example"})
    assert response.headers["access-control-allow-origin"] == "*"
    assert "vary" not in response.headers


@pytest.mark.parametrize(("origin", "allowed"), [
    ("https://a.example.com", True), ("https://a.b.example.com", True), ("https://example.com", False), ("https://.example.com", False),
    ("https://a.example.com.evil", False), ("http://a.example.com", False), ("https://evil.com/.example.com", False),
    ("https://evil.com:1@x.example.com", False), ("https://A.example.com", False), ("https://a.example.com:443", False),
])  # fmt: skip
def test_subdomains(origin: str, allowed: bool) -> None:
    assert Cors(Settings(origins=["https://*.example.com"])).allows(origin.encode()) is allowed


def test_origins_are_written_as_browsers_write_them() -> None:
    step = Cors(Settings(origins=["HTTPS://App.Example:443", "http://localhost:3000", "null", "http://[::1]:80"]))
    for origin in (APP, "http://localhost:3000", "null", "http://[::1]"):
        assert step.allows(origin.encode())


@pytest.mark.parametrize("settings", [
    {"origins": []}, {"origins": ["*"], "credentials": True}, {"origins": [APP], "headers": ["*"], "credentials": True},
    {"origins": [APP + "/"]}, {"origins": ["app.example"]}, {"origins": [APP], "methods": ["A B"]}, {"origins": [APP], "expose": ["a b"]},
])  # fmt: skip
def test_contradictions_are_found_at_load(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Cors(Settings(**settings))


async def test_stars_for_methods_and_fields_do_not_cover_authorization() -> None:
    step = Cors(Settings(origins=["*"], methods=["*"], headers=["*"]))
    assert (await answer(step, preflight(method="PURGE", access_control_request_headers="x-anything"))).status == 204
    assert (await answer(step, preflight(access_control_request_headers="authorization"))).status == 403
