from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from blocks.core.config.complaint import ConfigErrors
from blocks.gateway.front import Front
from blocks.http import Server
from blocks.http.handler import running
from blocks.http.message import Peer, Request, Response

TEXT = '[change]\nshare = 1\n[[routes]]\npath = "/"\nname = "all"\nlimit = "100/h"\nrespond = { body = "BODY" }\n'


def write(path: Path, body: str) -> None:
    path.write_text(TEXT.replace("BODY", body))


async def body(front: Front) -> bytes:
    return bytes((await front(Request("GET", "/", {"host": "a"}))).body)


async def settled(front: Front) -> None:
    for _ in range(1000):
        await asyncio.sleep(0.005)
        if front._task is not None and front._task.done() and not front._again:
            return
    raise AssertionError("the reload did not end")


async def test_a_reload_swaps_and_a_wrong_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    write(path, "one")
    front = Front(path)
    async with running(front):
        assert await body(front) == b"one"
        write(path, "two")
        front.reload()
        await settled(front)
        assert await body(front) == b"two"
        path.write_text("junk = 1\n")  # a test
        front.reload()
        await settled(front)
        assert await body(front) == b"two"
        assert "unknown key 'junk'" in front.last_error
        with pytest.raises(ConfigErrors):
            await front.apply()
        write(path, "three")
        await front.apply()
        assert front.last_error == ""
        response = await front(Request("GET", "/", {"host": "a"}))
        assert '"default";r=96' in response.headers["ratelimit"], "the limit has counted through all of it"


async def test_a_storm_of_reloads_ends_with_the_last_file(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    write(path, "0")
    front = Front(path)
    async with running(front):
        for number in range(1, 30):
            write(path, str(number))
            front.reload()
            assert await body(front) != b""
            await asyncio.sleep(0)
        await settled(front)
        assert await body(front) == b"29"
        assert len(front.changes.history) <= 6


async def test_services_are_told_of_the_client_and_the_trace(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    text = '[services.s]\npython = "blocks.gateway.config.load:_nobody"\n[[routes]]\npath = "/"\nservice = "s"\n'
    path.write_text(text)
    front = Front(path)
    async with running(front):
        request = Request("GET", "/", {"host": "a", "x-forwarded-for": "9.9.9.9"}, peer=Peer(("192.0.2.1", 7)))
        assert (await front(request)).status == 503
        assert request.headers["x-forwarded-for"] == "192.0.2.1", "what a client says of itself is not passed on"
        assert "traceparent" in request.headers
        path.write_text(text.replace('_nobody"', '_nobody"\nforwarded = false\ntrace = false'))
        await front.apply(share=1)
        request = Request("GET", "/", {"host": "a"})
        await front(request)
        assert request.headers.items() == [("host", "a")]


WRONG = """
[change]
share = 7
[[alerts]]
name = "x"
when = "sad"
above = 1
[[alerts]]
name = "y"
when = "p99"
above = "1s"
route = "heloo"
"""


async def test_wrong_rules_of_change_and_alerts_are_told_with_their_place_also_at_a_reload(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    good = TEXT.replace("[change]\nshare = 1\n", "")
    places = [("change",), ("alerts", 0, "when"), ("alerts", 1, "route")]
    path.write_text(good + WRONG)
    with pytest.raises(ConfigErrors) as caught:
        Front(path)
    assert [one.at for one in caught.value.complaints] == places
    path.write_text(good)
    front = Front(path)
    async with running(front):
        path.write_text(good + WRONG)
        with pytest.raises(ConfigErrors) as caught:
            await front.apply(share=1)
        assert [one.at for one in caught.value.complaints] == places
        assert "share" in front.last_error


async def test_a_reload_brings_new_rules_of_change_and_leaves_what_rings_ringing(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    alert = '[[alerts]]\nname = "errors"\nwhen = "error_rate"\nabove = 0.5\nover = "9s"\n'
    path.write_text(TEXT + alert)
    front = Front(path)
    async with running(front):
        ringing = front.alerts
        path.write_text(TEXT.replace("share = 1", 'share = 1\nwatch = "7s"') + alert)
        await front.apply()
        assert front.changes.rules.watch == "7s"
        assert front.alerts is ringing
        path.write_text(TEXT + alert.replace("0.5", "0.4"))
        await front.apply()
        assert front.alerts is not ringing
        assert [watch.above for watch in front.alerts.watches] == [0.4]


async def test_a_service_whose_settings_stay_keeps_its_connections(tmp_path: Path) -> None:
    async def hello(request: Request) -> Response:
        return Response(200, body=b"hello")

    path = tmp_path / "g.toml"
    async with Server(hello, "127.0.0.1:0") as server:
        text = f'[services.s]\nurl = "{server.url}"\n[[routes]]\npath = "/"\nservice = "s"\n'
        path.write_text(text)
        front = Front(path)
        async with running(front):
            assert await body(front) == b"hello"
            [first] = [lane.route.handler for lane in front.gateway.snapshot.lanes.values()]
            path.write_text(text + 'limit = "100/s"\n')
            await front.apply(share=1)
            [second] = [lane.route.handler for lane in front.gateway.snapshot.lanes.values()]
            assert first is second
            assert await body(front) == b"hello"
            path.write_text(text.replace("url =", 'timeout = "3s"\nurl ='))
            await front.apply(share=1)
            assert [lane.route.handler for lane in front.gateway.snapshot.lanes.values()] != [first]
            assert await body(front) == b"hello"
