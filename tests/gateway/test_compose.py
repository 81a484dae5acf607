from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from blocks.core.errors import ConfigError, Unavailable, UpstreamTimeout
from blocks.gateway.compose import Composition, compose
from blocks.gateway.context import STATE_KEY
from blocks.http.message import Request, Response
from gateway.gateway_kit import context

JSON = {"content-type": "application/json"}


class Service:
    """Answers by path; keeps what it was asked."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[Request] = []
        self.running = self.peak = 0

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await asyncio.sleep(0)
            answer = self.answers[request.path]
            if isinstance(answer, Callable):  # type: ignore[arg-type]  # a coroutine function
                answer = await answer()
            if isinstance(answer, BaseException):
                raise answer
            return answer if isinstance(answer, Response) else Response.json(answer)
        finally:
            self.running -= 1


async def ask(
    made: Any, target: str = "/orders/7?x=1", *, method: str = "GET", body: bytes = b"", **fields: str
) -> tuple[int, Any, Response]:
    request = Request(method, target, {"host": "api", **fields}, body)
    request.state[STATE_KEY] = context(params={"id": 7})
    response = await made(request)
    return response.status, json.loads(response.body), response


async def never() -> None:
    await asyncio.Event().wait()


async def test_branches_go_side_by_side_and_in_steps() -> None:
    service = Service(
        {
            "/orders/7": {"id": 7, "user": 3, "secret": 1},
            "/users/3": {"name": "ann", "mail": "m"},
            "/stock/7": [1, 2],
            "/more": {"a": 1},
        }
    )
    made = compose({
        "order": {"service": service, "path": "/orders/{id}", "at": "", "remove": ["secret"]},
        "user": {"service": service, "path": "/users/{order.user}", "keep": ["name"], "rename": {"name": "full"},
        "headers": {"x-order": "{order.id}"}},
        "stock": {"service": service, "path": "/stock/{id}", "query": {"q": "{query.x}&"}, "at": "extra.stock"},
        "more": {"service": service, "path": "/more", "at": "extra.more"},
    })  # fmt: skip
    status, body, _ = await ask(made, **{"accept-language": "de", "authorization": "secret"})
    assert status == 200
    assert body == {"id": 7, "user": {"full": "ann"}, "extra": {"stock": [1, 2], "more": {"a": 1}}}
    assert service.peak == 3
    last = service.asked[-1]
    assert last.path == "/users/3"
    assert dict(last.headers.items()) == {
        "host": "api",
        "accept-language": "de",
        "x-order": "7",
        "accept": "application/json",
    }
    assert [one.target for one in service.asked if one.path == "/stock/7"] == ["/stock/7?q=1%26"]


@pytest.mark.parametrize(("answer", "reason", "status"), [
    (Response(503), "status", 503), (Unavailable("down", reason="connect-refused"), "connect-refused", 0), (UpstreamTimeout("late"),
    "timeout", 0),
    (Response(200, JSON, b'{"a":'), "bad-json", 200), (Response(200, JSON, b'{"a":"\xff"}'), "bad-json", 200), (Response(200, {}, b"x"),
    "not-json", 200),
    (RuntimeError("bug"), "internal", 0), (never, "timeout", 0),
])  # fmt: skip
async def test_an_optional_part_that_fails_is_stated(answer: Any, reason: str, status: int) -> None:
    service = Service({"/a": {"ok": 1}, "/b": answer})
    made = compose(
        {
            "a": {"service": service, "path": "/a"},
            "b": {"service": service, "path": "/b", "mode": "optional", "timeout": 0.05},
        }
    )
    got, body, response = await ask(made)
    assert got == 200
    assert body["a"] == {"ok": 1}
    assert body["b"] is None
    assert body["errors"] == [{"branch": "b", "reason": reason, **({"status": status} if status else {})}]
    assert response.headers["gateway-partial"] == f"b;reason={reason}"
    assert response.headers["cache-control"] == "no-store"


async def test_a_default_stands_in_and_others_may_use_it() -> None:
    service = Service({"/a": Response(500), "/b/0": {"b": 1}})
    branches = {
        "a": {"service": service, "path": "/a", "mode": "default", "default": {"n": 0}},
        "b": {"service": service, "path": "/b/{a.n}"},
        "c": {"service": service, "path": "/c", "mode": "optional", "after": ["b"]},
        "d": {"service": service, "path": "/d/{c.x}", "mode": "optional"},
    }
    status, body, _ = await ask(compose(branches, errors="meta.lacking", partial_status=203))
    assert status == 203
    assert body["a"] == {"n": 0}
    assert body["b"] == {"b": 1}
    assert [lack["reason"] for lack in body["meta"]["lacking"]] == ["status", "internal", "needs-other"]
    quiet = compose(branches, errors="")
    _, body, response = await ask(quiet)
    assert "errors" not in body
    assert "a;reason=status" in response.headers["gateway-partial"]


@pytest.mark.parametrize(("answer", "settings", "status"), [
    (Response(500), {}, 502), (never, {"timeout": 0.05}, 504), (Response(404), {"relay": [404]}, 404), (Response(404), {}, 502),
])  # fmt: skip
async def test_a_required_part_that_fails_ends_it_all(answer: Any, settings: dict[str, Any], status: int) -> None:
    service = Service({"/a": answer, "/slow": never})
    made = compose({"slow": {"service": service, "path": "/slow"}, "a": {"service": service, "path": "/a", **settings}})
    got, body, _ = await ask(made)
    assert got == status
    assert body["errors"][0]["branch"] == "a"
    assert service.running == 0
    assert made.figures()["failed_a"] == 1  # type: ignore[attr-defined]  # a Composition


async def test_one_deadline_holds_for_all_steps() -> None:
    service = Service({"/a": {"x": 1}, "/b/1": never})
    made = compose(
        {"a": {"service": service, "path": "/a"}, "b": {"service": service, "path": "/b/{a.x}"}}, deadline=0.05
    )
    status, body, _ = await ask(made)
    assert status == 504
    assert service.asked[0].deadline == service.asked[1].deadline


async def test_bodies_go_in_and_the_whole_is_shaped() -> None:
    service = Service({"/a": {"x": {"y": 1}}, "/b": {"z": 2}})
    made = compose(
        {"a": {"service": service, "path": "/a", "method": "post", "body": {"from": "{body.user}", "n": "{id}"}},
         "b": {"service": service, "path": "/b", "method": "POST", "body": {"x": "{a.x}"}}},
        shape={"rename": {"a.x.y": "y"}, "remove": ["a"]},
    )  # fmt: skip
    status, body, _ = await ask(made, method="POST", body=b'{"user":"u"}', **JSON)
    assert (status, body) == (200, {"b": {"z": 2}, "y": 1})
    assert [json.loads(one.body) for one in service.asked] == [{"from": "u", "n": 7}, {"x": {"y": 1}}]
    assert (await ask(made, method="POST", body=b"{", **JSON))[0] == 400


async def test_large_answers_are_not_taken_and_nothing_is_a_null() -> None:
    service = Service({"/a": Response(200, JSON, b'"' + b"x" * 100 + b'"'), "/b": Response(204)})
    made = compose(
        {"a": {"service": service, "path": "/a", "mode": "optional"}, "b": {"service": service, "path": "/b"}},
        max_answer=50,
    )
    _, body, _ = await ask(made)
    assert body["errors"] == [{"branch": "a", "reason": "body-too-large", "status": 200}]
    assert body["b"] is None


@pytest.mark.parametrize("branches", [
    {}, {"A": {"path": "/"}}, {"claims": {"path": "/"}}, {"a": {"path": "/{b.x}"}, "b": {"path": "/{a.x}"}}, {"a": {"path": "/",
    "after": ["z"]}},
    {"a": {"path": "/", "mode": "default"}}, {"a": {"path": "/", "mode": "maybe"}}, {"a": {"path": "/{nobody.x}"}}, {"a": {"path": "x"}},
    {"a": {"path": "/", "keep": ["a..b"]}}, {f"b{n}": {"path": "/"} for n in range(40)},
])  # fmt: skip
def test_compositions_that_cannot_be(branches: dict[str, Any]) -> None:
    for one in branches.values():
        one["service"] = Service({})
    with pytest.raises(ConfigError):
        compose(branches)


def test_parts_are_spliced_where_nobody_looks_into_them() -> None:
    service = Service({})
    made = compose({
        "a": {"service": service, "path": "/"}, "b": {"service": service, "path": "/", "at": "a.b"}, "c": {"service": service,
        "path": "/", "keep": ["x"]},
        "d": {"service": service, "path": "/{e.x}"}, "e": {"service": service, "path": "/"}, "f": {"service": service, "path": "/",
        "at": ""},
    })  # fmt: skip
    assert isinstance(made, Composition)
    assert {branch.name for branch in made._branches if branch.raw} == {"d"}
