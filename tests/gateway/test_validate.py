from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blocks.core.errors import ConfigError
from blocks.gateway.access import Access
from blocks.gateway.access import Settings as AccessSettings
from blocks.gateway.access import step as access
from blocks.gateway.context import Context
from blocks.gateway.security_headers import SecurityHeaders
from blocks.gateway.security_headers import Settings as SecuritySettings
from blocks.gateway.site import Site
from blocks.gateway.validate import Settings, Validate, step
from blocks.gateway.validate.accept import Accept
from blocks.gateway.validate.accept import Settings as AcceptSettings
from blocks.gateway.validate.body import BadBody, decode
from blocks.gateway.validate.parameters import coerce, pairs
from blocks.http.body import Stream, TooLarge
from blocks.http.message import Peer, Request, Response
from gateway.gateway_kit import context, passes

JSON = {"content-type": "application/json"}
ORDER = {
    "type": "object", "required": ["item", "count"], "additionalProperties": False,
    "properties": {"item": {"type": "string"}, "count": {"type": "integer", "minimum": 1}, "mail": {"type": "string", "format": "email"}},
}  # fmt: skip
SITE = Site()


def made(**settings: Any) -> Validate:
    return step(Settings(**settings), SITE)


def post(body: Any, target: str = "/orders", headers: dict[str, str] | None = None) -> Request:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request("POST", target, JSON if headers is None else headers, data)


async def verdict(validate: Validate, request: Request, given: Context | None = None) -> tuple[int, list[str]]:
    given = given or context()
    given.path = request.path
    answer = await passes(validate, request, given)
    if answer is None:
        return 0, []
    return answer.status, [error["pointer"] for error in json.loads(answer.body).get("errors", ())]


@pytest.mark.parametrize(("body", "status", "pointers"), [
    ({"item": "x", "count": 1}, 0, []), ({"item": "x", "count": 0}, 422, ["#/body/count"]), ({"item": 1}, 422, ["#/body", "#/body/item"]),
    ({"item": "x", "count": 1, "mail": "no"}, 422, ["#/body/mail"]), ({"item": "x", "count": 1, "z": 1}, 422, ["#/body"]),
    (b"{", 400, ["#/body"]), (b"\xff", 400, ["#/body"]), (b'{"item":"\xff","count":1}', 400, ["#/body"]), (b"", 422, ["#/body"]),
    (b"[" * 100 + b"]" * 100, 413, ["#/body"]), (b"[" * 100_000, 400, ["#/body"]), (b"NaN", 400, ["#/body"]),
])  # fmt: skip
async def test_a_body_against_a_schema(body: Any, status: int, pointers: list[str]) -> None:
    got, at = await verdict(made(schema=ORDER), post(body))
    assert got == status
    assert sorted(at) == pointers


async def test_a_body_that_is_still_coming_is_read_and_kept() -> None:
    stream = Stream()
    stream.feed(b'{"item":"x",')
    stream.feed(b'"count":1}')
    stream.finish()
    request = Request("POST", "/", JSON, stream)
    assert await verdict(made(schema=ORDER), request) == (0, [])
    assert request.body == b'{"item":"x","count":1}'
    endless = Stream(length=10_000)
    with pytest.raises(TooLarge):
        await verdict(made(schema=ORDER, max_body=100), Request("POST", "/", JSON, endless))
    assert (await verdict(made(schema=ORDER, max_body=100), post(b"x" * 101)))[0] == 413


async def test_the_media_type_must_be_json_and_report_mode_lets_pass() -> None:
    assert (await verdict(made(schema=ORDER), post({}, headers={"content-type": "text/plain"})))[0] == 415
    assert (
        await verdict(
            made(schema=ORDER), post({"item": "x", "count": 1}, headers={"content-type": "application/x+json; a=b"})
        )
    )[0] == 0
    report = made(schema=ORDER, mode="report")
    given = context()
    assert (await verdict(report, post({"item": 1}), given))[0] == 0
    assert report.figures()["invalid_requests"] == 1
    assert given.notes["invalid_request"]


async def test_two_members_of_one_name_are_refused_where_asked() -> None:
    twice = b'{"item":"x","count":1,"count":2}'
    assert (await verdict(made(schema=ORDER), post(twice)))[0] == 0
    assert (await verdict(made(schema=ORDER, unique=True), post(twice)))[0] == 400


@pytest.mark.parametrize("bad", [{"type": "nonsense"}, {"$ref": "http://inner.example/x"}, {"pattern": "("}])
def test_a_schema_that_is_none_is_found_at_load_and_nothing_is_fetched(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        made(schema=bad)


async def test_answers_are_reported_or_replaced() -> None:
    def answer() -> Response:
        return Response(200, JSON, b'{"item":1}')

    report, enforce = made(response=ORDER), made(response=ORDER, response_mode="enforce")
    given = context()
    kept = report.after(Request(), answer(), given)
    assert isinstance(kept, Response)
    assert kept.status == 200
    assert report.invalid_responses == 1
    assert given.notes["invalid_response"]
    replaced = enforce.after(Request(), answer(), context())
    assert isinstance(replaced, Response)
    assert replaced.status == 502
    stream = Stream(length=24)
    stream.feed(b'{"item":"x","count":1}  ')
    stream.finish()
    passed = enforce.after(Request(), Response(200, JSON, stream), context())
    assert not isinstance(passed, Response)
    assert (await passed).body == b'{"item":"x","count":1}  '
    unknown = Response(200, JSON, Stream())
    assert report.after(Request(), unknown, context()) is unknown
    for other in (Response(404, JSON, b"x"), Response(204), Response(200, {"content-type": "text/html"}, b"<")):
        assert enforce.after(Request(), other, context()) is other


API: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "t", "version": "1"},
    "servers": [{"url": "https://x.example/v1"}],
    "paths": {
        "/orders": {
            "get": {
                "operationId": "list",
                "parameters": [
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100}},
                    {
                        "name": "tag",
                        "in": "query",
                        "schema": {"type": "array", "items": {"type": "string", "maxLength": 3}},
                    },
                    {
                        "name": "f",
                        "in": "query",
                        "style": "deepObject",
                        "schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
                    },
                    {"name": "X-Id", "in": "header", "required": True, "schema": {"type": "string", "minLength": 2}},
                    {
                        "name": "ids",
                        "in": "query",
                        "style": "pipeDelimited",
                        "explode": False,
                        "schema": {"type": "array", "items": {"type": "integer"}},
                    },
                ],
                "responses": {
                    "200": {"content": {"application/json": {"schema": {"type": "array"}}}},
                    "404": {"$ref": "#/components/responses/E"},
                    "default": {"$ref": "#/components/responses/E"},
                },
            },
            "post": {
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}, "text/*": {}},
                },
                "responses": {"2XX": {"description": "ok"}},
            },
        },
        "/orders/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
            "get": {"responses": {}},
        },
        "/orders/mine": {"get": {"responses": {}}},
    },
    "components": {
        "schemas": {
            "Order": {
                **ORDER,
                "properties": {
                    **ORDER["properties"],
                    "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Order"}},
                },
            }
        },  # type: ignore[dict-item]  # a table
        "responses": {
            "E": {"content": {"application/problem+json": {"schema": {"type": "object", "required": ["title"]}}}}
        },
    },
}


@pytest.mark.parametrize(("target", "headers", "status"), [
    ("/v1/orders?limit=5&tag=a&tag=b", {"x-id": "ab"}, 0), ("/v1/orders?limit=500", {"x-id": "ab"}, 422), ("/v1/orders?limit=x",
    {"x-id": "ab"}, 422),
    ("/v1/orders?limit=1&limit=2", {"x-id": "ab"}, 422), ("/v1/orders", {}, 422), ("/v1/orders", {"x-id": "a"}, 422),
    ("/v1/orders?tag=long", {"x-id": "ab"}, 422), ("/v1/orders?other=1", {"x-id": "ab"}, 422), ("/v1/orders?f[a]=1", {"x-id": "ab"}, 0),
    ("/v1/orders?f[a]=x", {"x-id": "ab"}, 422), ("/v1/orders?ids=1%7C2", {"x-id": "ab"}, 0), ("/v1/orders?ids=1%7Cx", {"x-id": "ab"}, 422),
    ("/v1/orders/7", {}, 0), ("/v1/orders/x", {}, 422), ("/v1/orders/mine", {}, 0), ("/v1/other", {}, 404), ("/orders", {}, 404),
])  # fmt: skip
async def test_requests_against_an_openapi_document(target: str, headers: dict[str, str], status: int) -> None:
    assert (await verdict(made(openapi=API), Request("GET", target, headers)))[0] == status


async def test_bodies_and_answers_against_an_openapi_document() -> None:
    validate = made(openapi=API, response_mode="enforce")
    good = {"item": "x", "count": 1}
    assert await verdict(validate, post({**good, "parts": [good]}, "/v1/orders")) == (0, [])
    assert await verdict(validate, post({**good, "parts": [{}]}, "/v1/orders")) == (
        422,
        ["#/body/parts/0", "#/body/parts/0"],
    )
    assert (await verdict(validate, post(b"hi", "/v1/orders", {"content-type": "text/plain"})))[0] == 0
    assert (await verdict(validate, post(b"hi", "/v1/orders", {"content-type": "image/png"})))[0] == 415
    assert (await verdict(validate, post(b"", "/v1/orders")))[0] == 422
    given = context()
    assert await verdict(validate, Request("GET", "/v1/orders", {"x-id": "ab"}), given) == (0, [])
    for response, status in (
        (Response(200, JSON, b"[]"), 200), (Response(200, JSON, b"{}"), 502), (Response(404,
        {"content-type": "application/problem+json"}, b"{}"), 502),
        (Response(200, JSON, b"]"), 502),
    ):  # fmt: skip
        judged = validate.after(Request(), response, given)
        assert isinstance(judged, Response)
        assert judged.status == status
    open_to_all = made(openapi=API, undescribed="pass")
    assert (await verdict(open_to_all, Request("GET", "/v1/other")))[0] == 0
    assert (await verdict(open_to_all, Request("GET", "/v1/orders/mine?x=1")))[0] == 0


@pytest.mark.parametrize("change", [
    {"openapi": "3.0.3"}, {"paths": []}, {"paths": {"/a": {"get": {"parameters": [{"name": "x", "in": "body"}]}}}},
    {"paths": {"/a": {"$ref": "other.json#/x"}}}, {"paths": {"/a": {"$ref": "#/paths/~1a"}}},
    {"paths": {"/a": {"post": {"requestBody": {"content": {"application/json": {"schema": {"type": 7}}}}}}}},
])  # fmt: skip
def test_a_document_that_is_wrong_is_found_at_load(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        made(openapi={**API, **change})


def test_documents_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "api.json").write_text(json.dumps(API))
    (tmp_path / "order.yaml").write_text("type: object\n")
    (tmp_path / "bad.json").write_text("[")
    site = Site(base=tmp_path)
    assert step("api.json", site)._document is not None
    assert step("order.yaml", site)._schema is not None
    for bad in ("bad.json", "missing.json", 5):
        with pytest.raises(ConfigError):
            step(bad, site)
    for settings in (Settings(), Settings(schema={}, openapi=API), Settings(schema={}, mode="maybe")):
        with pytest.raises(ConfigError):
            step(settings, site)


def test_texts_become_what_their_schema_means() -> None:
    assert coerce("12", frozenset({"integer"})) == 12
    assert coerce("012", frozenset({"integer"})) == "012"
    assert coerce("1e3", frozenset({"number"})) == 1000.0
    assert coerce("true", frozenset({"boolean"})) is True
    assert coerce("", frozenset({"null"})) is None
    assert coerce("1", frozenset({"string"})) == "1"
    assert pairs("a=1&a=2&b&c=%20+") == {"a": ["1", "2"], "b": [""], "c": ["  "]}


def test_depth_is_counted_in_levels() -> None:
    assert decode(b"[" * 64 + b"]" * 64) is not None
    with pytest.raises(BadBody):
        decode(b"[" * 65 + b"]" * 65)
    assert decode(b"[" + b"[]," * 100 + b"[]]") is not None


@pytest.mark.parametrize(("fields", "body", "status"), [
    (JSON, b"12345", 0), (JSON, b"123456", 413), ({"content-type": "text/plain"}, b"1", 415), ({}, b"1", 415), ({}, b"", 0),
    ({**JSON, "content-encoding": "gzip"}, b"1", 415), ({**JSON, "content-encoding": "br, identity"}, b"1", 0),
])  # fmt: skip
async def test_what_is_accepted_by_its_head(fields: dict[str, str], body: bytes, status: int) -> None:
    accept = Accept(AcceptSettings(types=["application/json"], max_body=5, encodings=["br"]))
    answer = await passes(accept, Request("POST", "/", fields, body))
    assert (answer.status if answer else 0) == status


async def test_targets_fields_and_lengths() -> None:
    accept = Accept(AcceptSettings(max_target=10, max_fields=50, length=True, max_body=3))
    for request, status in (
        (Request("GET", "/" + "x" * 10), 414), (Request("GET", "/", {"a": "b" * 50}), 431), (Request("POST", "/", {}, Stream()), 411),
        (Request("POST", "/", {}, Stream(length=4)), 413), (Request("POST", "/", {}, Stream(length=3)), 0),
    ):  # fmt: skip
        answer = await passes(accept, request)
        assert (answer.status if answer else 0) == status


async def test_a_body_of_unknown_length_is_cut_where_it_goes_over() -> None:
    accept = Accept(AcceptSettings(max_body=3))
    stream = Stream()
    request = Request("POST", "/", {}, stream)
    assert await passes(accept, request) is None
    stream.feed(b"1234")
    with pytest.raises(TooLarge):
        await request.read()


@pytest.mark.parametrize(("client", "allowed"), [
    ("10.1.2.3", True), ("10.9.9.9", False), ("192.0.2.1", False), ("2001:db8::1", True), ("2001:db9::1", False), ("unix", True),
    ("nonsense", False),
    ("::ffff:10.1.2.3", True),
])  # fmt: skip
async def test_addresses(client: str, allowed: bool) -> None:
    gate = Access(["10.0.0.0/8", "2001:db8::/32"], ["10.9.0.0/16"])
    for _ in range(2):
        answer = await passes(gate, Request(), context(client=client))
        assert (answer is None) is allowed
    assert Access([], ["10.0.0.0/8"]).allows("192.0.2.1")


@pytest.mark.parametrize(
    "settings", [AccessSettings(), AccessSettings(allow=["10.0.0.1/8"]), AccessSettings(deny=["x"]), "10.0.0.0/8"]
)
def test_networks_that_are_none_are_found_at_load(settings: Any) -> None:
    with pytest.raises(ConfigError):
        access(settings, SITE)


def test_security_headers() -> None:
    step = SecurityHeaders(SecuritySettings(extra={"X-Own": "1"}))
    plain = step.after(Request(), Response(200, {"server": "x/1", "x-frame-options": "SAMEORIGIN"}), context())
    assert plain.headers["x-content-type-options"] == "nosniff"
    assert plain.headers.get_all("x-frame-options") == ["SAMEORIGIN"]
    assert plain.headers["x-own"] == "1"
    assert "server" not in plain.headers
    assert "strict-transport-security" not in plain.headers
    https = Request(peer=Peer(scheme="https"))
    assert (
        step.after(https, Response(), context()).headers["strict-transport-security"]
        == "max-age=31536000; includeSubDomains"
    )
    override = SecurityHeaders(SecuritySettings(override=True))
    assert override.after(https, Response(200, {"x-frame-options": "SAMEORIGIN"}), context()).headers.get_all(
        "x-frame-options"
    ) == ["DENY"]
    with pytest.raises(ConfigError):
        SecurityHeaders(SecuritySettings(hsts="a\r\nb"))


async def test_an_enforced_answer_is_asked_for_uncoded_and_refusals_of_the_gateway_stand() -> None:
    enforce = made(response=ORDER, response_mode="enforce")
    request = Request("GET", "/", {"accept-encoding": "br", "range": "bytes=0-1"})
    assert await passes(enforce, request) is None
    assert len(request.headers) == 0
    coded = enforce.after(request, Response(200, {**JSON, "content-encoding": "br"}, b"x"), context())
    assert isinstance(coded, Response)
    assert coded.status == 502
    described = made(openapi=API, response_mode="enforce")
    given = context()
    assert await verdict(described, Request("GET", "/v1/orders", {"x-id": "ab"}), given) == (0, [])
    refusal = Response(409, {"content-type": "application/problem+json"}, b"{}")
    assert described.after(Request(), refusal, given) is refusal
