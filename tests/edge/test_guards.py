"""Signed URLs, hotlinks and countries: who gets past the filters before an edge."""

# a row of a table is a line

from __future__ import annotations

from random import Random

import pytest

from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError
from blocks.edge import Edge, GeoGuard, HotlinkGuard, SignedUrls, sign
from blocks.http import Handler, Peer, Request, Response, chain

SECRET = b"0123456789abcdef"
CLOCK = FakeClock()
LATER = int(CLOCK.wall()) + 60


async def echo(request: Request) -> Response:
    return Response(200, [("cache-control", "max-age=60")], request.target.encode())


echo.direct = True  # type: ignore[attr-defined]  # it never waits


def guarded(to: Handler = echo) -> Handler:
    return chain(SignedUrls({"1": SECRET, "new": SECRET * 2}, clock=CLOCK), to=to)


@pytest.mark.parametrize("target", ["/v/a.mp4", "/v/a.mp4?q=1&r=2", "/v/a%20b"])
async def test_a_signed_target_goes_on_without_its_signature(target: str) -> None:
    for key, secret in (("1", SECRET), ("new", SECRET * 2)):
        answer = await guarded()(Request("GET", sign(target, secret, LATER, key=key)))
        assert answer.body == target.encode()


async def test_whatever_is_changed_is_refused() -> None:
    good = sign("/v/a.mp4?q=1", SECRET, LATER)
    for place in range(len(good)):
        changed = good[:place] + ("x" if good[place] != "x" else "y") + good[place + 1 :]
        assert (await guarded()(Request("GET", changed))).status == 403
    for bad in (
        "/v/a.mp4",
        good + "&more=1",
        good + "0",
        good[:-1],
        sign("/v/a.mp4", b"another secret...", LATER),
        sign("/v/a.mp4", SECRET, LATER, key="2"),
    ):
        assert (await guarded()(Request("GET", bad))).status == 403


async def test_it_expires() -> None:
    clock = FakeClock()
    handler = chain(SignedUrls({"1": SECRET}, clock=clock), to=echo)
    target = sign("/x", SECRET, int(clock.wall()) + 5)
    assert (await handler(Request("GET", target))).status == 200
    clock.advance(6)
    answer = await handler(Request("GET", target))
    assert answer.status == 403
    assert b"expired" in answer.body


async def test_a_prefix_is_signed_for_all_below_it() -> None:
    target = sign("/v/7/list.m3u8", SECRET, LATER, prefix="/v/7/")
    query = target.partition("?")[2]
    for path, status in (
        ("/v/7/list.m3u8", 200),
        ("/v/7/1.ts", 200),
        ("/v/8/1.ts", 403),
        ("/v/7/../8/1.ts", 403),
        ("/v/7/%2E%2e/8", 403),
    ):
        assert (await guarded()(Request("GET", f"{path}?{query}"))).status == status
    with pytest.raises(ConfigError):
        sign("/w/1", SECRET, LATER, prefix="/v/")


async def test_signatures_of_one_url_share_one_stored_response() -> None:
    edge = Edge(echo, "8MiB", clock=CLOCK, random=Random(1))
    for later in (LATER, LATER + 1):
        await guarded(edge)(Request("GET", sign("/v/a", SECRET, later), {"host": "h"}))
    assert edge.stats()["hits"] == 1


async def test_only_some_prefixes_need_a_signature_and_secrets_are_long() -> None:
    handler = chain(SignedUrls({"1": SECRET}, prefixes=("/private/",), clock=CLOCK), to=echo)
    assert (await handler(Request("GET", "/public"))).status == 200
    for path in (
        "/private/x",
        "/%70rivate/x",
        "//private/x",
        "/a/../private/x",
        "/a/%2e%2e/private/x",
        "/.%2fprivate/",
        "\\private\\x",
    ):
        assert (await handler(Request("GET", path))).status == 403, path
    for wrong in ({}, {"1": b"short"}):
        with pytest.raises(ConfigError):
            SignedUrls(wrong)


@pytest.mark.parametrize(
    ("referer", "status"),
    [
        ("", 200), ("https://site/page", 200), ("https://www.example.com/", 200), ("https://evil.com/", 403), ("https://example.com.evil.com/", 403),
        ("http://[", 403), ("nonsense", 403),
    ],
)  # fmt: skip
async def test_hotlinks(referer: str, status: int) -> None:
    handler = chain(HotlinkGuard(["*.example.com"], paths=["*.png"]), to=echo)
    fields = [("host", "site:8080"), *([("referer", referer)] if referer else [])]
    assert (await handler(Request("GET", "/a.png", fields))).status == status
    assert (await handler(Request("GET", "/a.html", fields))).status == 200


async def test_hotlinks_without_a_referer_can_be_refused() -> None:
    handler = chain(HotlinkGuard([], empty=False), to=echo)
    assert (await handler(Request("GET", "/a.png", {"host": "site"}))).status == 403


async def test_countries() -> None:
    places = {"1.1.1.1": "DE", "2.2.2.2": "US"}
    for guard, expected in (
        (GeoGuard(lambda client: places.get(client, ""), allow=["de"]), (200, 451, 451)),
        (GeoGuard(lambda client: places.get(client, ""), deny=["us"]), (200, 451, 200)),
    ):
        got = [
            (await chain(guard, to=echo)(Request("GET", "/", peer=Peer((client, 1))))).status
            for client in ("1.1.1.1", "2.2.2.2", "3.3.3.3")
        ]
        assert tuple(got) == expected
    with pytest.raises(ConfigError):
        GeoGuard(lambda client: "")
