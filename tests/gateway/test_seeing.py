"""What is logged of a request says who, where and which route, and no secret, however the request ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blocks.core.config.complaint import ConfigErrors
from blocks.core.logging import events
from blocks.gateway import Gateway, route
from blocks.gateway.auth import ApiKeys, Basic, InQuery, Jwt, Key, KeySet, Rules, hash_key
from blocks.gateway.front import Front
from blocks.http.filters.access_log import AccessLog
from blocks.http.handler import chain, running
from blocks.http.message import Peer, Request, Response

KEY, TOKEN, WORD = "bk_a-key-in-clear", "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl", "cGFzc3dvcmQ"
PEER = Peer(("10.0.0.9", 1), ("127.0.0.1", 80))


async def service(request: Request) -> Response:
    return Response(200, body=request.target.encode())


def app() -> Gateway:
    keys = ApiKeys({hash_key(KEY): "robot"}, carriers=(InQuery("k"),))
    tokens = Jwt(KeySet([Key.from_secret(b"s" * 32)]), Rules())
    return Gateway(
        [
            route("/keys/{id}", service, auth=keys, transform={"path": "/inner/{id}"}, name="keys"),
            route("/shown/{id}", service, auth=ApiKeys({hash_key(KEY): "robot"}, carriers=(InQuery("k", hide=False),))),
            route("/tokens", service, auth=tokens),
            route("/basic", service, auth=Basic({})),
            route("/open", service),
        ],
        trusted=["10.0.0.0/8"],
    )


async def lines(path: Path, format: str, *requests: Request) -> tuple[str, list[int]]:
    statuses = []
    log = AccessLog(str(path), format)
    async with log, running(app()) as gateway:
        handler = chain(log, to=gateway)
        for request in requests:
            response = await handler(request)
            await response.read()
            statuses.append(response.status)
    return path.read_text(), statuses


def get(target: str, **fields: str) -> Request:
    return Request("GET", target, {"host": "a", "x-forwarded-for": "203.0.113.7", **fields}, peer=PEER)


@pytest.mark.parametrize("format", ["json", "combined"])
async def test_no_credential_is_in_the_access_log(tmp_path: Path, format: str) -> None:
    secrets = [KEY, TOKEN, WORD, "another-key", "%61nother"]
    text, statuses = await lines(
        tmp_path / "log", format,
        get(f"/keys/7?k={KEY}"), get("/keys/7?k=another-key"), get(f"/keys/7?k={KEY}&k={KEY}"), get(f"/keys/7?%6b={KEY}"),
        get(f"/shown/7?a=1&k={KEY}&b=2"), get("/tokens", authorization=f"Bearer {TOKEN}"), get(f"/tokens?access_token={TOKEN}"),
        get("/basic", authorization=f"Basic {WORD}"), get(f"/open?api_key={KEY}", cookie=f"session={KEY}", referer=f"http://b/?token={KEY}"),
        get(f"/nowhere?token={TOKEN}"),
    )  # fmt: skip
    assert statuses == [200, 401, 401, 200, 200, 401, 401, 401, 200, 404]
    assert [one for one in secrets if one in text] == []
    assert "/shown/7?a=1&k=***&b=2" in text, "and nothing else is taken out"


async def test_the_log_says_who_where_and_which_route(tmp_path: Path) -> None:
    text, _ = await lines(tmp_path / "log", "json", get(f"/keys/7?k={KEY}&q=1"), get("/open/../open"))
    first, second = (json.loads(line) for line in text.splitlines())
    told: list[Any] = [first[name] for name in ("client", "route", "consumer", "target")]
    assert told == ["203.0.113.7", "keys", "robot", "/keys/7?k=***&q=1"], (
        "the client of the trusted proxy, and the target as it came"
    )
    assert second["target"] == "/open/../open"


async def test_a_refused_file_is_told_without_its_secrets(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    good = '[[routes]]\npath = "/"\nrespond = {}\n'
    path.write_text(good)
    front = Front(path)
    async with running(front):
        path.write_text(
            f"""[auth.a]
type = "jwt"
secret = "{WORD}"
[auth.b]
type = "api-key"
keys = {{"{KEY}" = "ann"}}
[auth.c]
type = "basic"
users = {{}}
passwords = "{TOKEN}"
[brokers.bus]
url = "blks://ann:{WORD}@h:1"
[consumers.ann]
keys = ["{KEY}"]
password = "{WORD}"
secrets = {{k = "{WORD}"}}
{good}"""
        )
        with pytest.raises(ConfigErrors):
            await front.apply()
        told = json.dumps(events().recent(1)) + front.last_error
    assert "reload_refused" in told
    assert [one for one in (KEY, TOKEN, WORD) if one in told] == []
