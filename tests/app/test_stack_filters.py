"""Filters and guards of a stack's file: they stand where the reference says, and check, tree and explain know them."""

from __future__ import annotations

import gzip
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from app.staged import asking, get, loaded, origins, written
from blocks import Request, Response
from blocks.app.check import check
from blocks.app.explain import Explainer, asked
from blocks.app.sense.view import View
from blocks.app.source import StackErrors
from blocks.app.tables import StackTable
from blocks.app.tree import topology
from blocks.edge.signed import sign
from blocks.http.filters import real_client
from blocks.http.message import Headers, Peer

SECRET = "sixteen bytes or more"


def countries(address: str) -> str:
    """A lookup of countries."""
    return {"127.0.0.1": "", "192.0.2.1": "DE", "192.0.2.2": "FR"}.get(address, "")


def served(handler: str, server: str = "", more: str = "") -> dict[str, Any]:
    return tomllib.loads(f'[servers.public]\nlisten = "127.0.0.1:0"\nhandler = "{handler}"\n{server}\n{more}')


async def test_filters_of_a_server_stand_before_whatever_it_asks():
    async with origins("one") as [(origin, url)]:
        origin.headers = {"content-type": "text/plain", "x-seen": "yes"}
        text = (
            'trusted = ["loopback"]\nrequest_id = {echo = true}\ntrace = true\ntimeout = "5s"\ncompress = {minimum = 1}'
        )
        async with loaded(served(url, text)) as stack, asking(stack.servers["public"].url) as client:
            sent = {
                "host": "test", "accept-encoding": "gzip", "x-forwarded-for": "192.0.2.7", "x-forwarded-proto": "https",
            }  # fmt: skip
            response = await client(Request("GET", "/a", sent))
            assert gzip.decompress(await response.read()) == b"one /a"
            assert origin.last is not None
            seen = origin.last.headers
            assert response.headers.get("x-request-id") == seen.get("x-request-id")
            assert seen.get("traceparent")
            assert (seen.get("x-forwarded-for"), seen.get("x-forwarded-proto")) == ("192.0.2.7", "https")


async def test_a_server_without_filters_asks_its_handler_itself():
    stack = loaded(served("http://127.0.0.1:9"))
    assert stack.listener(stack.version, "public").handler is stack.version.asked["public"]


async def test_a_changed_filter_is_a_changed_server_and_what_it_asks_stays():
    async with origins("one") as [(_, url)]:
        upstream = f'[upstreams.one]\nurl = "{url}"'
        async with loaded(served("one", "", upstream)) as stack, asking(stack.servers["public"].url) as client:
            block = stack["one"]
            assert (await client(Request("GET", "/", {"host": "test"}))).headers.get("x-request-id") is None
            await stack.reload(served("one", "request_id = {echo = true}", upstream))
            async with asking(stack.servers["public"].url) as other:
                response = await other(Request("GET", "/", {"host": "test"}))
                await response.read()
            assert response.headers.get("x-request-id")
            assert stack["one"] is block


async def test_who_hangs_is_answered_with_504_when_the_servers_time_is_up():
    async with origins("one") as [(origin, url)]:
        origin.gate.clear()
        async with loaded(served(url, 'timeout = "50ms"')) as stack, asking(stack.servers["public"].url) as client:
            assert (await get(client))[0] == 504
        origin.gate.set()


async def test_an_upstream_is_asked_again_within_its_budget():
    asked: list[str] = []

    async def failing(request: Request) -> Response:
        asked.append(request.target)
        return Response(503 if len(asked) < 3 else 200)

    from blocks.http import Server

    async with Server(failing, "127.0.0.1:0") as server:
        upstream = f'[upstreams.one]\nurl = "{server.url}"\nretries = {{tries = 3, wait = "1ms", longest = "2ms"}}'
        async with loaded(served("one", "", upstream)) as stack, asking(stack.servers["public"].url) as client:
            assert (await get(client))[0] == 200
            assert len(asked) == 3
            asked.clear()
            assert (await get(client, method="POST"))[0] == 503
            assert len(asked) == 1


GUARDED = f"""
[edges.front]
origin = "ORIGIN"
memory = "8MiB"
default_ttl = "1m"
hotlinks = {{allow = ["*.example.com"], paths = ["/img/*"]}}
signed = {{secrets = {{1 = "{SECRET}"}}, prefixes = ["/private/"]}}
countries = {{lookup = "{__name__}:countries", deny = ["FR"]}}
"""


async def test_guards_stand_before_an_edge_and_signed_links_of_one_url_are_one_stored_answer():
    async with origins("one") as [(origin, url)]:
        text = GUARDED.replace("ORIGIN", url)
        async with (
            loaded(served("front", 'trusted = ["loopback"]', text)) as stack,
            asking(stack.servers["public"].url) as client,
        ):
            assert (await get(client, "/private/a"))[0] == 403
            for expires in (4_000_000_000, 4_000_000_001):
                assert (await get(client, sign("/private/a", SECRET, expires))) == (200, "one /private/a")
            assert origin.requests == 1

            async def status(target: str, **fields: str) -> int:
                headers = {"host": "test", **{name.replace("_", "-"): value for name, value in fields.items()}}
                response = await client(Request("GET", target, headers))
                await response.read()
                return response.status

            assert await status("/img/a", referer="http://elsewhere.test/") == 403
            assert await status("/img/a", referer="http://www.example.com/") == 200
            assert await status("/img/a", x_forwarded_for="192.0.2.2") == 451
            assert await status("/img/a", x_forwarded_for="192.0.2.1") == 200
            assert stack["front"].stats()["hits"] >= 1


async def test_a_balancer_meets_the_guards_of_an_edge_that_is_its_member():
    async with origins("one") as [(_, url)]:
        text = GUARDED.replace("ORIGIN", url) + '[balancers.b]\nupstreams = ["front"]'
        async with loaded(served("b", "", text)) as stack, asking(stack.servers["public"].url) as client:
            assert (await get(client, "/private/a"))[0] == 403


@pytest.mark.parametrize(
    ("server", "key", "said"),
    [
        ("compres = true", "servers.public", "did you mean 'compress'"),
        ('compress = ["gzip", "lzma"]', "servers.public.compress", "lzma"),
        ("request_id = {ekho = true}", "servers.public.request_id", "did you mean 'echo'"),
        ('request_id = {field = "host"}', "servers.public.request_id.field", "cannot carry a request id"),
        ('timeout = "5 parsecs"', "servers.public.timeout", "duration"),
        ('timeout = "0s"', "servers.public.timeout", "leave the filter out"),
        ('trusted = ["10.0.0.0/99"]', "servers.public.trusted", "10.0.0.0/99"),
        ('believe = "forwarded"', "servers.public.believe", "give trusted"),
    ],
)
def test_what_is_wrong_with_a_filter_is_told_at_its_key(server: str, key: str, said: str, tmp_path: Path):
    text = f'[servers.public]\nlisten = "127.0.0.1:0"\nhandler = "http://127.0.0.1:9"\n{server}\n'
    result = CliRunner().invoke(check, [str(written(tmp_path, text)), "--json"])
    rows = [row for row in json.loads(result.stdout) if row["level"] == "error"]
    assert len(rows) == 1, rows
    assert rows[0]["key"].startswith(key)
    assert rows[0]["line"] == 4
    assert said in rows[0]["message"]


@pytest.mark.parametrize(
    ("edge", "key", "said"),
    [
        ('signed = {secrets = {1 = "short"}}', "edges.front.signed.secrets", "at least 16 bytes"),
        ('countries = {lookup = "nothing.of:it", deny = ["FR"]}', "edges.front.countries.lookup", "cannot be loaded"),
        (f'countries = {{lookup = "{__name__}:countries"}}', "edges.front.countries", "either allow= or deny="),
        ("hotlinks = {}", "edges.front.hotlinks", "allow"),
    ],
)
def test_what_is_wrong_with_a_guard_is_told_at_its_key(edge: str, key: str, said: str):
    text = f'[edges.front]\norigin = "http://127.0.0.1:9"\n{edge}'
    with pytest.raises(StackErrors) as caught:
        loaded(served("front", "", text))
    (one,) = caught.value.complaints
    assert ".".join(map(str, one.at)).startswith(key)
    assert said in one.message


def test_retries_that_are_never_made_and_times_that_never_count_are_doubtful():
    stack = loaded(
        served(
            "b",
            'timeout = "2s"',
            '[balancers.b]\nupstreams = ["one", "http://127.0.0.1:8"]\ntimeout = "9s"\n'
            '[upstreams.one]\nurl = "http://127.0.0.1:9"\nretries = 2',
        )
    )
    said = {".".join(map(str, one.at)): one.message for one in stack.warnings}
    assert "which has its own retries" in said["upstreams.one.retries"]
    assert "[servers.public] gives up after 2s" in said["balancers.b.timeout"]


def test_tree_and_explain_know_filters_and_guards():
    tables = served("front", 'trusted = ["loopback"]\nrequest_id = true\ntimeout = "5s"\ncompress = true', GUARDED)
    tables["edges"]["front"]["origin"] = "one"
    tables["upstreams"] = {"one": {"url": "http://127.0.0.1:9", "retries": 2}}
    drawn = topology(View(tables, StackTable).tables).blocks
    assert drawn["servers.public"].about["compress"] == "yes"
    assert drawn["edges.front"].about["signed"] == "yes"
    version = loaded(tables).version
    explainer = Explainer(version.settings, version.nodes, version.filters)
    stop = explainer.explain(asked("GET", "/a", [("x-forwarded-for", "192.0.2.1")]), "public")
    assert stop.says["client"] == "192.0.2.1, by http (trusted)"
    assert stop.says["filters"] == "request_id, timeout 5 s, compress gzip"
    assert stop.next[0].says["guards"] == "let through by GeoGuard, HotlinkGuard, SignedUrls"
    assert stop.next[0].next[0].says["tries"] == "3"
    refused = explainer.explain(asked("GET", "/private/a"), "public").next[0]
    assert refused.says == {"step": "refuse", "why": "403 Forbidden: unsigned"}
    let = explainer.explain(asked("GET", sign("/private/a", SECRET, 4_000_000_000)), "public").next[0]
    assert let.says["target"] == "/private/a"


async def test_the_real_client_is_whom_trusted_proxies_name():
    peers: list[Peer] = []

    async def inner(request: Request) -> Response:
        peers.append(request.peer)
        return Response(204)

    filter = real_client(["10.0.0.0/8"])
    proxy, stranger = Peer(("10.0.0.1", 1), ("10.0.0.2", 80)), Peer(("192.0.2.9", 1), ("10.0.0.2", 80))
    for peer, fields in (
        (proxy, [("x-forwarded-for", "6.6.6.6, 192.0.2.1, 10.0.0.7"), ("x-forwarded-proto", "https")]),
        (stranger, [("x-forwarded-for", "192.0.2.1")]),
        (proxy, []),
        (proxy, [("x-forwarded-for", "nonsense")]),
    ):
        await filter(Request("GET", "/", Headers(fields), peer=peer), inner)
    assert (peers[0].client, peers[0].scheme, peers[0].server) == (("192.0.2.1", 0), "https", ("10.0.0.2", 80))
    assert peers[1] is stranger
    assert peers[2] is proxy
    assert peers[3].client[0] == "10.0.0.1"
    again = Request("GET", "/", Headers([("x-forwarded-for", "192.0.2.1")]), peer=proxy)
    await filter(again, inner)
    again.peer = proxy
    await filter(again, inner)
    assert peers[-1] is peers[-2]
