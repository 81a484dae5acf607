from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.errors import ConfigError
from blocks.gateway.consumer import Consumer
from blocks.gateway.pagination import MAX_PAGES, Pagination, Settings
from blocks.gateway.validate.parameters import pairs
from blocks.http.message import Request, Response
from gateway.gateway_kit import context


class Listing:
    """A service with ``size`` items that pages one way."""

    def __init__(self, size: int, way: str, page: int = 7) -> None:
        self.items = list(range(size))
        self.way = way
        self.page = page
        self.asked: list[str] = []

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request.target)
        query = pairs(request.query)
        if self.way == "offset":
            limit, offset = int(query["limit"][0]), int(query["offset"][0])
            return Response.json({"items": self.items[offset : offset + limit], "total": len(self.items)})
        start = int(query.get("cursor", ["c0"])[0][1:])
        end = start + min(self.page, int(query["limit"][0]))
        return Response.json({"items": self.items[start:end], "after": f"c{end}" if end < len(self.items) else None})


def made(offer: str, **settings: Any) -> Pagination:
    return Pagination(Settings(offer=offer, **settings))


async def ask(step: Pagination, service: Any, target: str, who: str = "") -> tuple[int, Any, Response]:
    response = await step.around(Request("GET", target), context(consumer=Consumer(who) if who else None), service)
    return response.status, json.loads(response.body), response


async def walk(step: Pagination, service: Any, target: str) -> list[int]:
    got: list[int] = []
    while target:
        status, body, response = await ask(step, service, target)
        assert status == 200
        got.extend(body["items"])
        link = response.headers.get("link")
        assert (link is None) == (body["next"] is None)
        target = link.partition(">")[0][1:] if link else ""
    return got


@given(
    size=st.integers(0, 40),
    limit=st.integers(1, 12),
    page=st.integers(1, 9),
    offer=st.sampled_from(["cursor", "offset"]),
)
async def test_a_walk_gives_everything_once_and_in_order(size: int, limit: int, page: int, offer: str) -> None:
    service = Listing(size, "offset" if offer == "cursor" else "cursor", page)
    step = made(offer, service_next="after") if offer == "offset" else made(offer)
    assert await walk(step, service, f"/things?limit={limit}&q=1") == service.items


async def test_cursors_belong_to_their_listing() -> None:
    step, service = made("cursor", secret="s" * 16), Listing(50, "offset")
    _, body, _ = await ask(step, service, "/things?limit=5&q=1", "alice")
    cursor = body["next"]
    other = cursor[:9] + ("A" if cursor[9] != "A" else "B") + cursor[10:]
    assert (await ask(made("cursor", secret="s" * 16), service, f"/things?q=1&cursor={cursor}&limit=3", "alice"))[1][
        "items"
    ] == [5, 6, 7]
    for target, who in (
        (f"/things?q=2&cursor={cursor}", "alice"), (f"/other?q=1&cursor={cursor}", "alice"), (f"/things?q=1&cursor={cursor}", "bob"),
        (f"/things?q=1&cursor={other}", "alice"), ("/things?q=1&cursor=x", "alice"), ("/things?q=1&cursor=", "alice"),
        (f"/things?q=1&cursor={cursor}&cursor={cursor}", "alice"),
    ):  # fmt: skip
        assert (await ask(step, service, target, who))[0] == 400
    assert (await ask(made("cursor"), service, f"/things?q=1&cursor={cursor}", "alice"))[0] == 400


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=x", "limit=-1", "limit=1&limit=2", "limit=", "limit=9999999999", "offset=-1", "offset=1000001"],
)
async def test_bad_numbers_are_refused(query: str) -> None:
    assert (await ask(made("offset", service_next="after"), Listing(5, "cursor"), f"/a?{query}"))[0] == 400


async def test_large_limits_are_cut_and_other_parameters_pass() -> None:
    service = Listing(500, "offset")
    _, body, _ = await ask(made("cursor"), service, "/a?limit=400&q=a%20b&offset=99")
    assert len(body["items"]) == 100
    assert service.asked == ["/a?q=a%20b&limit=101&offset=0"]


async def test_known_places_spare_the_walk_and_an_endless_one_is_refused() -> None:
    service = Listing(1000, "cursor", 100)
    step = made("offset", service_next="after")
    assert (await ask(step, service, "/a?offset=500&limit=10"))[1]["items"] == list(range(500, 510))
    walked = len(service.asked)
    assert (await ask(step, service, "/a?offset=510&limit=10"))[1]["items"] == list(range(510, 520))
    assert len(service.asked) - walked == 1
    slow = Listing(10_000, "cursor", 1)
    assert (await ask(step, slow, "/b?offset=5000"))[0] == 400
    assert len(slow.asked) == MAX_PAGES


async def test_what_is_no_page_passes_and_what_is_unlike_one_is_502() -> None:
    step = made("cursor")

    async def missing(request: Request) -> Response:
        return Response.json({"error": 1}, 404)

    async def odd(request: Request) -> Response:
        return Response.json({"items": 5})

    async def broken(request: Request) -> Response:
        return Response(200, {"content-type": "application/json"}, b"{")

    assert (await ask(step, missing, "/a"))[0] == 404
    assert (await ask(step, odd, "/a"))[0] == 502
    assert (await ask(step, broken, "/a"))[0] == 502
    assert (await step.around(Request("POST", "/a"), context(), missing)).status == 404
    _, body, _ = await ask(made("cursor", items=""), Root(), "/a?limit=2")
    assert body == [1, 2]


class Root:
    async def __call__(self, request: Request) -> Response:
        return Response.json([1, 2, 3])


@pytest.mark.parametrize(
    "settings",
    [
        {"offer": "x"},
        {"offer": "cursor", "limit": 0},
        {"offer": "cursor", "limit": 200},
        {"offer": "cursor", "secret": "s"},
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Pagination(Settings(**settings))
