from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError, Unavailable
from blocks.http import Peer, Request, Response, Section, Server, Stream, chain
from blocks.http.filters import access_log, body_limit, compress, forwarded, request_id, retry, timeout, trace_context
from blocks.http.filters.access_lines import combined_lines, json_lines

PEER = Peer(("203.0.113.9", 5), ("127.0.0.1", 80))
COMBINED = re.compile(r'(\S+) - (\S+) \[([^\]]+)\] "([^"]*)" (\d{3}) (\d+) "([^"]*)" "([^"]*)"\n')


async def logged(path: Path, handler: Any, *requests: Request, **settings: Any) -> list[Any]:
    log = access_log(str(path), clock=FakeClock(), **settings)
    app = chain(log, to=handler)
    async with log:
        for request in requests:
            try:
                response = await app(request)
                if request.method == "HEAD":
                    response.discard()
                else:
                    await response.read()
            except Exception:
                pass
    lines = path.read_text().splitlines(keepends=True)  # nobody waits for this loop
    return lines if settings.get("format") == "combined" else [json.loads(line) for line in lines]


async def hello(request: Request) -> Response:
    request.state.update(request_id="id-1", upstream="a", client="198.51.100.7")
    return Response(200, None, b"hello")


async def test_a_line_of_json(tmp_path: Path) -> None:
    request = Request("GET", "/a?b=c", {"host": "a.test", "user-agent": "curl/8", "referer": "http://b"}, peer=PEER)
    (line,) = await logged(tmp_path / "log", hello, request)
    assert line.pop("seconds") >= 0
    assert line == {
        "time": "2023-11-14T22:13:20.000Z",
        "client": "198.51.100.7",
        "method": "GET",
        "host": "a.test",
        "target": "/a?b=c",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 5,
        "agent": "curl/8",
        "referer": "http://b",
        "id": "id-1",
        "upstream": "a",
    }


async def test_a_line_in_the_combined_format(tmp_path: Path) -> None:
    request = Request("GET", "/a", {"user-agent": "curl/8"}, peer=PEER, version=10)
    (line,) = await logged(tmp_path / "log", hello, request, format="combined")
    assert line == '198.51.100.7 - - [14/Nov/2023:22:13:20 +0000] "GET /a HTTP/1.0" 200 5 "-" "curl/8"\n'


@pytest.mark.parametrize(("target", "shown"), [
    ("/a?token=x", "/a?token=***"), ("/a?b=1&access_token=x.y.z&c=2", "/a?b=1&access_token=***&c=2"), ("/a?API-Key=x", "/a?API-Key=***"),
    ("/a?key=x&sig=y&code=z", "/a?key=***&sig=***&code=***"), ("/a?monkey=x&page=2", "/a?monkey=x&page=2"), ("/token=x", "/token=x"),
    ("/a?token=", "/a?token="), ("/a?password=x%26y&z", "/a?password=***&z"), ("/a?x[secret]=1", "/a?x[secret]=***"),
])  # fmt: skip
async def test_what_is_named_like_a_secret_is_masked_in_queries(tmp_path: Path, target: str, shown: str) -> None:
    request = Request("GET", target, {"referer": f"http://b{target}"})
    (line,) = await logged(tmp_path / "log", hello, request)
    assert (line["target"], line["referer"]) == (shown, f"http://b{shown}")
    (line,) = await logged(tmp_path / "log2", hello, request, format="combined")
    assert COMBINED.match(line).group(4, 7) == (f"GET {shown} HTTP/1.1", f"http://b{shown}")  # type: ignore[union-attr]


async def test_a_note_may_say_itself_what_the_line_has_of_it(tmp_path: Path) -> None:
    class Note:
        def logged(self) -> dict[str, str]:
            return {"client": "192.0.2.1", "consumer": "ann", "route": "orders"}

    async def noting(request: Request) -> Response:
        request.state.update(gateway=Note(), target="/as/it/came?token=x")
        request.target = "/changed"
        return Response(200)

    (line,) = await logged(tmp_path / "log", noting, Request("GET", "/as/it/came?token=x", peer=PEER))
    told = [line[name] for name in ("client", "consumer", "route", "target")]
    assert told == ["192.0.2.1", "ann", "orders", "/as/it/came?token=***"]
    (line,) = await logged(tmp_path / "log2", noting, Request("GET", "/", peer=PEER), format="combined")
    assert line.startswith("192.0.2.1 - ann [")
    assert '"GET /as/it/came?token=*** HTTP' in line


async def test_queries_can_be_left_out(tmp_path: Path) -> None:
    (line,) = await logged(tmp_path / "log", hello, Request("GET", "/a?token=x"), query=False)
    assert line["target"] == "/a"


def stream_of(*parts: bytes, error: BaseException | None = None) -> Stream:
    stream = Stream()
    for part in parts:
        stream.feed(part)
    if error is not None:
        stream.fail(error)
    else:
        stream.finish()
    return stream


async def test_a_stream_is_logged_when_it_has_passed_or_broken_off(tmp_path: Path) -> None:
    async def handler(request: Request) -> Response:
        if request.target == "/down":
            raise Unavailable("x", reason="all-down")
        if request.target == "/bug":
            raise ZeroDivisionError
        error = Unavailable("x", reason="cut") if request.target == "/cut" else None
        return Response(200, None, stream_of(b"ab", b"cd", error=error))

    targets = ["/", "/cut", "/down", "/bug"]
    lines = await logged(tmp_path / "log", handler, *(Request("GET", target) for target in targets), Request("HEAD"))
    assert [(line["status"], line["bytes"], line.get("error")) for line in lines[:4]] == [
        (200, 4, None),
        (200, 4, "cut"),
        (503, 0, "all-down"),
        (500, 0, "ZeroDivisionError"),
    ]
    assert "error" not in lines[4]


async def test_a_reader_that_leaves_is_told(tmp_path: Path) -> None:
    log = access_log(str(tmp_path / "log"))

    async def streaming(request: Request) -> Response:
        return Response(200, None, Stream())

    async def stuck(request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with log:
        (await chain(log, to=streaming)(Request())).discard()
        task = asyncio.ensure_future(chain(log, to=stuck)(Request()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["status"], line["error"]) for line in lines] == [(200, "client-gone"), (499, "client-gone")]


@given(st.text(), st.binary(max_size=40), st.binary(max_size=40))
def test_nothing_that_a_client_sends_forges_a_line(target: str, agent: bytes, referer: bytes) -> None:
    section = Section([(b"user-agent", agent), (b"referer", referer), (b"host", agent)])
    entry = (
        1.7e9,
        "1.2.3.4",
        "GET",
        target.encode("utf-8", "replace").decode(),
        11,
        200,
        5,
        0.1,
        section,
        {"consumer": target},
        None,
    )
    combined = combined_lines()([entry, entry]).decode("ascii")
    assert combined.count("\n") == 2
    assert COMBINED.fullmatch(combined[: len(combined) // 2])
    data = json_lines()([entry, entry])
    assert data.count(b"\n") == 2
    first = json.loads(data.splitlines()[0])
    assert first["status"] == 200
    assert first["host"] == agent.decode("latin-1")


def test_long_values_are_cut() -> None:
    entry = (
        1.7e9,
        "",
        "GET",
        "/" + "x" * 100_000,
        11,
        200,
        5,
        0.1,
        Section([(b"user-agent", b"x" * 100_000)]),
        {},
        None,
    )
    assert len(combined_lines()([entry])) < 9000
    assert len(json_lines()([entry])) < 9000


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="xml"):
        access_log("-", "xml")


async def test_all_filters_stand_before_a_real_server_and_the_server_observes(tmp_path: Path) -> None:
    calls = 0

    async def handler(request: Request) -> Response:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Unavailable("once")
        body = await request.read()
        lines = [f"{name}={value}" for name, value in request.headers.items()]
        return Response.text("\n".join([str(len(body)), *lines]) + "\n" + "x" * 1000)

    log = access_log(str(tmp_path / "log"))
    filters = [
        forwarded(),
        request_id(prefix=lambda: "p"),
        trace_context(),
        body_limit("1MiB"),
        compress(),
        timeout("30s"),
        retry(wait=1e-6, longest=1e-6),
    ]
    async with (
        log,
        Server(chain(*filters, to=handler), "127.0.0.1:0", observer=log.observe) as server,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(
            server.url + "/a", headers={"x-forwarded-for": "6.6.6.6", "accept-encoding": "gzip"}
        ) as answer:
            seen = await answer.text()
            assert answer.headers["content-encoding"] == "gzip"
            assert "x-forwarded-for=127.0.0.1" in seen
            assert "x-request-id=p-1" in seen
            assert "traceparent=00-" in seen
        async with session.put(server.url + "/b", data=b"x" * 200_000) as answer:
            assert (await answer.text()).startswith("200000\n")
        async with session.get(server.url + "/c") as answer:
            assert answer.status == 200
        reader, writer = await asyncio.open_connection(*server.addresses[0].split(":"))
        writer.write(b"nonsense\r\n\r\n")
        assert b"400" in await reader.read()
        writer.close()
        await writer.wait_closed()
    assert calls == 4
    figures = {reading.name: reading.value for part in [*filters, log] for reading in getattr(part, "readings", list)()}
    assert figures == {
        "blocks_http_retries_total": 1,
        "blocks_http_retries_refused_total": 0,
        "blocks_http_compressed_responses_total": 3,
        "blocks_http_compressing_streams": 0,
        "blocks_http_access_log_lines_total": 4,
        "blocks_http_access_log_dropped_total": 0,
    }
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["target"], line["status"], line.get("id")) for line in lines] == [
        ("/a", 200, "p-1"),
        ("/b", 200, "p-2"),
        ("/c", 200, "p-3"),
        ("", 400, None),
    ]
    assert all(line["bytes"] > 100 for line in lines)
