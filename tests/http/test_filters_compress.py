from __future__ import annotations

import asyncio
import gzip
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.errors import ConfigError, MissingExtra
from blocks.http import Headers, Request, Response, Stream, chain
from blocks.http.filters import compress
from blocks.http.filters.coders import coder_maker
from blocks.http.filters.negotiation import TYPES, Types, choose_coding, parse_accept_encoding

TEXT = b"the quick brown fox jumps over the lazy dog\n" * 100
DECODE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


async def answered(
    response: Response, accept: str | None = "gzip", method: str = "GET", filter: Any = None, **headers: str
) -> Response:
    async def handler(request: Request) -> Response:
        return response

    asked = {name.replace("_", "-"): value for name, value in headers.items()}
    if accept is not None:
        asked["accept-encoding"] = accept
    return await chain(filter or compress(["zstd", "br", "gzip"]), to=handler)(Request(method, "/", asked))


def text(body: Any = TEXT, status: int = 200, **headers: str) -> Response:
    fields = {
        "content-type": "text/plain; charset=utf-8",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return Response(status, fields, body)


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
async def test_whole_bodies_are_coded_as_the_client_takes_them(coding: str) -> None:
    response = await answered(text(etag='"abc"', content_length="4400", accept_ranges="bytes", content_md5="x"), coding)
    assert DECODE[coding](response.body) == TEXT
    assert response.headers.items() == [
        ("content-type", "text/plain; charset=utf-8"),
        ("vary", "Accept-Encoding"),
        ("content-encoding", coding),
        ("etag", 'W/"abc"'),
    ]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("gzip", "gzip"),
        ("gzip, br", "br"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1, br;q=0.5", "gzip"),
        ("x-gzip", "gzip"),
        ("GZIP", "gzip"),
        ("*", "zstd"),
        ("*;q=0.5, br;q=0", "zstd"),
        ("gzip;q=0", None),
        ("", None),
        (None, None),
        ("deflate", None),
        ("identity", None),
        ("identity, gzip;q=0.5", None),
        ("gzip;q=0.5, identity;q=0.5", "gzip"),
        ("gzip;q=1.5", None),
        ("gzip;q=0.0001", None),
        ("gzip;q=x", None),
        ("gzip ; q=0.1", "gzip"),
        ("zstd;q=0, *", "br"),
        (",,gzip,,", "gzip"),
        ("*;q=0", None),
    ],
)
def test_the_coding_is_the_one_of_most_weight(accept: str | None, chosen: str | None) -> None:
    assert choose_coding(accept, ("zstd", "br", "gzip")) == chosen


@given(st.text(max_size=80))
def test_weights_are_always_weights(value: str) -> None:
    assert all(0 <= weight <= 1 for weight in parse_accept_encoding(value).values())


@pytest.mark.parametrize(
    "response",
    [
        text(b"short"),
        text(content_encoding="br"),
        text(cache_control="private, No-Transform"),
        text(status=206),
        text(content_range="bytes 0-1/2"),
        Response(200, {"content-type": "image/png"}, TEXT),
        Response(200, {}, TEXT),
        text(b"", 204),
        text(b"", 304),
        text(Stream(length=10)),
        Response(200, {"content-type": "application/octet-stream"}, TEXT),
    ],
)
async def test_what_must_not_be_coded_is_left_alone(response: Response) -> None:
    before, body = response.headers.items(), response.body
    got = await answered(response)
    assert (got.headers.items(), got.body) == (before, body)


async def test_caches_are_told_even_when_this_client_takes_none() -> None:
    plain = await answered(text(), None)
    assert (plain.body, plain.headers["vary"], plain.headers.get("content-encoding")) == (TEXT, "Accept-Encoding", None)
    assert (await answered(text(vary="Origin"))).headers["vary"] == "Origin, Accept-Encoding"
    assert (await answered(text(vary="accept-encoding"))).headers["vary"] == "accept-encoding"
    assert (await answered(text(vary="*"))).headers["vary"] == "*"


async def test_a_client_may_forbid_it() -> None:
    assert (await answered(text(), cache_control="no-transform")).body == TEXT


async def test_head_has_the_headers_of_get() -> None:
    response = await answered(text(b"", content_length="4400"), method="HEAD")
    assert response.headers["content-encoding"] == "gzip"
    assert "content-length" not in response.headers
    assert (await answered(text(b"", content_length="10"), method="HEAD")).headers.get("content-encoding") is None


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
@pytest.mark.parametrize("length", [True, False])
async def test_streams_are_coded_as_they_come(coding: str, length: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(TEXT), 700):
            yield TEXT[at : at + 700]

    response = await answered(text(Stream.of(chunks(), len(TEXT) if length else None)), coding)
    assert response.body.length is None
    assert DECODE[coding](await response.read()) == TEXT


async def test_trailers_and_failures_pass() -> None:
    stream = Stream()
    response = await answered(text(stream))
    stream.feed(TEXT)
    stream.finish(Headers({"x-sum": "1"}))
    assert DECODE["gzip"](await response.read()) == TEXT
    stream = Stream()
    response = await answered(text(stream))
    stream.feed(TEXT)
    stream.fail(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await response.read()


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
async def test_an_event_can_be_decoded_when_it_was_sent(coding: str) -> None:
    stream = Stream()
    response = await answered(Response(200, {"content-type": "text/event-stream"}, stream), coding)
    decoder: Any = {
        "gzip": lambda: zlib.decompressobj(31).decompress,
        "br": lambda: brotli.Decompressor().process,
        "zstd": lambda: zstandard.ZstdDecompressor().decompressobj().decompress,
    }[coding]()
    got: list[bytes] = []

    class Sink:
        def write(self, data: bytes) -> None:
            got.append(decoder(data))

        def end(self, trailers: Any) -> None:
            got.append(b"end")

        def abort(self, error: BaseException) -> None:
            raise AssertionError

    response.body.pour(Sink())
    for number in range(3):
        stream.feed(f"data: {number}\n\n".encode())
        assert b"".join(got).endswith(f"data: {number}\n\n".encode())
    stream.finish()
    assert got[-1] == b"end"


class Source:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def cancel(self) -> None:
        self.calls.append("cancel")


async def test_back_pressure_and_giving_up_reach_the_source() -> None:
    source = Source()
    filter = compress(streams=1)
    response = await answered(text(Stream(source)), filter=filter)
    assert source.calls == []
    assert filter.active == 1
    plain = await answered(text(stream := Stream()), filter=filter)
    assert plain.body is stream

    class Sink:
        def write(self, data: bytes) -> None: ...

        def end(self, trailers: Any) -> None: ...

        def abort(self, error: BaseException) -> None: ...

    response.body.pour(Sink())
    response.body.pause()
    response.body.resume()
    response.discard()
    assert source.calls == ["resume", "pause", "resume", "cancel"]
    assert filter.active == 0


async def test_a_long_body_is_coded_in_steps() -> None:
    body = bytes(range(256)) * 4096
    response = await answered(text(body))
    assert isinstance(response.body, Stream)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(others())
    assert gzip.decompress(await response.read()) == body
    task.cancel()
    assert turns > 5


def test_types_are_patterns() -> None:
    types = Types(TYPES)
    yes = [
        b"text/html",
        b"TEXT/HTML; charset=x",
        b"application/json",
        b"application/problem+json;v=1",
        b"image/svg+xml",
    ]
    no = [b"image/png", b"application/jsonx", b"video/mp4", b"text", b"", b"application/zip"]
    assert [content in types for content in yes + no] == [True] * len(yes) + [False] * len(no)
    assert b"text/plain" not in Types([])


def test_wrong_settings_and_missing_libraries_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="deflate"):
        compress(["deflate"])
    with pytest.raises(ConfigError):
        compress("gzip")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="compress"):
        coder_maker("br")


def test_optional_libraries_are_not_imported_for_gzip() -> None:
    import subprocess

    heavy = ("brotli", "zstandard", "msgspec", "structlog", "aiohttp")
    code = f"import sys, blocks.http.filters as f; f.compress(); print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": ":".join(sys.path)},
            check=True,
        ).stdout
        == "[]\n"
    )
