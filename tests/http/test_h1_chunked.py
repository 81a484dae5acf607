"""The chunked coding, byte by byte (RFC 9112 §7.1), and the ways in which it has been bent."""

from __future__ import annotations

import pytest

from blocks.http.h1 import BadMessage, Limits
from blocks.http.h1.framing import Chunked


def decode(data: bytes, step: int = 0, limits: Limits | None = None) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    """(body, what is left, trailers); raises when it is malformed, or has not ended with the data."""
    decoder = Chunked(limits or Limits())
    body = b""
    pieces = [data] if not step else [data[at : at + step] for at in range(0, len(data), step)]
    for number, piece in enumerate(pieces):
        part, rest = decoder.decode(piece)
        body += part
        if decoder.done:
            return body, rest + b"".join(pieces[number + 1 :]), decoder.trailers.pairs if decoder.trailers else []
    raise EOFError(body)


GOOD: list[tuple[bytes, bytes, bytes]] = [
    (b"0\r\n\r\n", b"", b""),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello", b""),
    (b"5\r\nhello\r\n0\r\n\r\nGET /", b"hello", b"GET /"),
    (b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n\r\n", b"ab", b"\r\n"),
    (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b""),
    (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b""),
    (b"0005\r\nhello\r\n0\r\n\r\n", b"hello", b""),
    (b"5\r\nhello\r\n000\r\n\r\n", b"hello", b""),
    (b"5;a\r\nhello\r\n0;b=c\r\n\r\n", b"hello", b""),
    (b'5;a="b c";d\r\nhello\r\n0\r\n\r\n', b"hello", b""),
    (b"5 ;a\r\nhello\r\n0\r\n\r\n", b"hello", b""),
    (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", b""),
    (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n", b""),
]


@pytest.mark.parametrize(("data", "body", "rest"), GOOD)
@pytest.mark.parametrize("step", [0, 1, 2, 3, 7])
def test_is_read(data: bytes, body: bytes, rest: bytes, step: int):
    assert decode(data, step)[:2] == (body, rest)


BAD: list[bytes] = [
    b"\r\n", b"\n", b"x\r\n", b"g\r\n", b"-1\r\n", b"-0\r\n", b"+5\r\nhello", b"0x5\r\nhello", b"0X5\r\nhello", b"5_0\r\n", b"_5\r\n", b" 5\r\nhello", b"\t5\r\nhello", b"5 \r\nhello", b"5\t\r\nhello",
    b"5 5\r\n", b"5,\r\n", b"5.0\r\n", b"5h\r\n", b"\x005\r\n", b"5\x00\r\n", b"\x0b5\r\n", b"5\x0b\r\n", b"5\x0c\r\n", b"5\xa0\r\n", b"\xd9\xa5\r\n", b"\"5\"\r\n", b"'5'\r\n", b"5\rhello", b"5\r\r\nhello", b"5\nhello", b"5\n\rhello",
    b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n", b"5\r\nhello\r0\r\n\r\n", b"5\r\nhello\r\r\n0\r\n\r\n", b"5\r\nhello!\r\n0\r\n\r\n", b"5\r\nhello\r\n\r\n0\r\n\r\n", b"5\r\nhello\n\r0\r\n\r\n",
    b"0\n\n", b"0\n\r\n", b"0\r\n\n", b"0\r\nX\r\n\r\n", b"0\r\n X: y\r\n\r\n", b"0\r\nX : y\r\n\r\n", b"0\r\nX: y\n\r\n\r\n", b"0\r\nX: \x00\r\n\r\n", b"0\r\n: y\r\n\r\n", b"0\r\nX: y\rZ: w\r\n\r\n", b"0\r\nX: y\n\n", b"0\r\nX: a\r\n b\r\n\r\n",
    b"FFFFFFFFFFFFFFFF\r\n", b"7FFFFFFFFFFFFFFF\r\n", b"8000000000000000\r\n", b"10000000000000000\r\n", b"100000000000000005\r\nhello", b"00000000000000000\r\n\r\n", b"1000000000000001\r\n", b"F" * 40 + b"\r\n",
    b"5;a\nb\r\nhello", b"5;a\rb\r\nhello", b"5;a\x00\r\nhello", b"5;\n", b"5;a=\"\n\"\r\nhello", b"5;a=\"\r\n\"\r\nhello", b"5;\x7f\r\nhello", b"5;\xff\r\nhello", b"5=a\r\nhello", b"5a;\n",
    b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\nHost: b\r\n\r\n", b"0\r\nConnection: x\r\n\r\n", b"0\r\nGET /admin HTTP/1.1\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("data", BAD)
@pytest.mark.parametrize("step", [0, 1, 3])
def test_is_refused(data: bytes, step: int):
    with pytest.raises(BadMessage):
        decode(data + b"\r\n0\r\n\r\n" * 2, step)


@pytest.mark.parametrize(
    "data",
    [
        b"z",
        b"-",
        b"+",
        b" ",
        b"5x",
        b"5\n",
        b"5\r\nhelloX",
        b"\n",
        b"5\r\nhello\n",
        b"0\r\nX: y\n",
        b"g" * 20,
        b"1" * 20,
    ],
)
def test_what_can_never_become_a_chunk_is_refused_without_waiting_for_its_line(data: bytes):
    with pytest.raises(BadMessage):
        decode(data)


WAITS = [
    b"",
    b"5",
    b"5\r",
    b"5\r\n",
    b"5\r\nhel",
    b"5\r\nhello",
    b"5\r\nhello\r",
    b"5\r\nhello\r\n",
    b"0",
    b"0\r",
    b"0\r\n",
    b"0\r\n\r",
    b"0\r\nX",
    b"0\r\nX: y\r\n",
    b"0\r\nX: y\r\n\r",
    b"5;",
    b"5 ",
    b'5;a="b',
]


@pytest.mark.parametrize("data", WAITS)
def test_waits_for_more_and_an_end_here_is_a_cut(data: bytes):
    decoder = Chunked(Limits())
    decoder.decode(data)
    assert not decoder.done
    with pytest.raises(BadMessage, match="truncated-body"):
        decoder.eof()


def test_trailers():
    assert decode(b"0\r\nX-Checksum: abc\r\nY: z\r\n\r\n") == (b"", b"", [(b"x-checksum", b"abc"), (b"y", b"z")])


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "Cache-Control",
        "Content-Encoding",
        "Content-Range",
        "Content-Type",
        "Cookie",
        "Set-Cookie",
        "Expect",
        "If-Match",
        "If-None-Match",
        "Max-Forwards",
        "Pragma",
        "Range",
        "TE",
        "Trailer",
        "Upgrade",
        "Keep-Alive",
        "Proxy-Authorization",
        "X-Forwarded-For",
        "Forwarded",
        "Via",
        "Age",
        "Date",
        "Expires",
        "Location",
        "Retry-After",
        "Vary",
        "WWW-Authenticate",
    ],
)
def test_a_field_that_may_not_be_a_trailer_is_left_out(name: str):
    assert decode(b"0\r\n%b: x\r\nY: z\r\n\r\n" % name.encode())[2] == [(b"y", b"z")]


def test_extensions_are_bounded_over_the_whole_message():
    limits = Limits(extensions=100)
    assert decode(b"1;aaaa\r\nx\r\n" * 19 + b"0\r\n\r\n", limits=limits)[0] == b"x" * 19
    with pytest.raises(BadMessage, match="chunk-extensions-too-long"):
        decode(b"1;aaaa\r\nx\r\n" * 21 + b"0\r\n\r\n", limits=limits)


@pytest.mark.parametrize("step", [0, 1, 100])
def test_a_size_line_and_trailers_are_bounded_before_they_end(step: int):
    with pytest.raises(BadMessage):
        decode(b"5;" + b"a" * 5000, step)
    with pytest.raises(BadMessage, match="trailers-too-long"):
        decode(b"0\r\nX: " + b"a" * 9000, step)
    with pytest.raises(BadMessage):
        decode(b"0\r\n" + b"X: a\r\n" * 101 + b"\r\n", step)
