"""What an upstream may answer and what it may not: response splitting, conflicting lengths, bytes too many (RFC 9112 §6.3, RFC 9110 §15)."""

from __future__ import annotations

import pytest

from blocks.http.h1 import BadMessage, End, Limits, Part, ResponseHead, ResponseReader


def read(data: bytes, method: str = "GET", *, eof: bool = False, limits: Limits | None = None) -> list[object]:
    """(status, body, whole) for each response, then the reason of the refusal, then what is left over if it is not empty."""
    reader = ResponseReader(limits or Limits())
    reader.method = method
    reader.receive(data)
    out: list[list[object]] = []
    bad = ""
    try:
        while (event := reader.event()) is not None:
            if isinstance(event, ResponseHead):
                out.append([event.status, b"", not event.body])
                if not event.interim and not event.body:
                    break
            elif isinstance(event, Part):
                out[-1][1] += event.data  # type: ignore[operator]
            else:
                assert isinstance(event, End)
                out[-1][2] = True
                break
        if eof:
            reader.eof()
            if reader.event() is not None:
                out[-1][2] = True
    except BadMessage as error:
        bad = error.reason
    result: list[object] = [tuple(one) for one in out]
    if bad:
        result.append(bad)
    elif reader.buffered:
        result.append(reader.rest())
    return result


def ok(*lines: bytes, body: bytes = b"", status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([status, *lines, b"", b""]) + body


CL5 = b"Content-Length: 5"
CHUNKED = b"Transfer-Encoding: chunked"

REFUSED: list[tuple[str, bytes]] = [
    ("CL and TE", ok(CL5, CHUNKED, body=b"0\r\n\r\n")),
    ("TE and CL", ok(CHUNKED, CL5, body=b"0\r\n\r\n")),
    ("two lengths", ok(CL5, b"Content-Length: 6", body=b"hello!")),
    ("the same length twice", ok(CL5, CL5, body=b"hello")),
    ("a list of lengths", ok(b"Content-Length: 5, 5", body=b"hello")),
    *[(f"length {v!r}", ok(b"Content-Length: " + v, body=b"hello")) for v in (b"", b"+5", b"-5", b"0x5", b"5 5", b"5;", b"9" * 20, b"18446744073709551616", b"5\x00", b"\xb2", b"five")],
    *[(f"coding {v!r}", ok(b"Transfer-Encoding: " + v, body=b"0\r\n\r\n")) for v in (b"", b"identity", b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"xchunked", b"chunked;x", b"\x0bchunked", b"chunked\x00")],
    ("TE twice", ok(CHUNKED, CHUNKED, body=b"0\r\n\r\n")),
    ("TE in HTTP/1.0", ok(CHUNKED, status=b"HTTP/1.0 200 OK", body=b"0\r\n\r\n")),
    ("TE on 204", ok(CHUNKED, status=b"HTTP/1.1 204 No Content")),
    ("TE on 100", ok(CHUNKED, status=b"HTTP/1.1 100 Continue")),
    ("TE on 103", ok(CHUNKED, status=b"HTTP/1.1 103 Early Hints")),
    ("TE on 101", ok(CHUNKED, b"Upgrade: websocket", b"Connection: upgrade", status=b"HTTP/1.1 101 Switching Protocols")),
    ("a twin of TE", ok(b"Transfer_Encoding: chunked", CL5, body=b"hello")),
    ("a twin of CL", ok(b"Content_Length: 6", CL5, body=b"hello")),
    ("space before the colon", ok(b"Content-Length : 5", body=b"hello")),
    ("obs-fold", ok(b"X: a", b" b", CL5, body=b"hello")),
    ("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"),
    ("bare LF in a field", ok(b"X: a\nContent-Length: 0", CL5, body=b"hello")),
    ("bare LF ends the head", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\nhello\r\n\r\n"),
    ("bare CR in a field", ok(b"X: a\rContent-Length: 0", CL5, body=b"hello")),
    ("NUL in a field", ok(b"X: a\x00b", CL5, body=b"hello")),
    ("NUL in the reason", ok(CL5, status=b"HTTP/1.1 200 O\x00K", body=b"hello")),
    ("CR in the reason", ok(CL5, status=b"HTTP/1.1 200 O\rK", body=b"hello")),
    ("no colon", ok(b"X", CL5, body=b"hello")),
    ("an empty name", ok(b": x", CL5, body=b"hello")),
    ("a control character in a name", ok(b"X\x01: a", CL5, body=b"hello")),
    ("an empty line first", b"\r\n" + ok(CL5, body=b"hello")),
    ("a bare LF first", b"\n" + ok(CL5, body=b"hello")),
    ("white space first", b" " + ok(CL5, body=b"hello")),
    *[
        (f"status line {line!r}", ok(CL5, status=line, body=b"hello"))
        for line in (
            b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/1.1 20", b"HTTP/1.1 2000 OK", b"HTTP/1.1 20x OK", b"HTTP/1.1 -200 OK", b"HTTP/1.1 +200 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK",
            b"HTTP/1.1 200OK", b"HTTP/1.1 099 X", b"HTTP/1.1 000 X", b"HTTP/1.1 600 X", b"HTTP/1.1 999 X", b"HTTP/2 200", b"HTTP/2.0 200 OK", b"HTTP/1.2 200 OK", b"HTTP/0.9 200 OK",
            b"HTTP/1 200 OK", b"http/1.1 200 OK", b"ICY 200 OK", b"200 OK", b"GET / HTTP/1.1", b"HTTP/1.1 200\tOK", b"HTTP/1.1 \xb2\xb0\xb0 OK", b"HTTP/1.1 2 00", b"HTTPS/1.1 200 OK", b"",
        )
    ],
    ("a greeting of a mail server", b"220 mail ESMTP\r\n"),
    ("an answer of HTTP/0.9", b"<html>\r\nhello\r\n</html>"),
    ("SSH", b"SSH-2.0-OpenSSH\r\n"),
    ("TLS", b"\x15\x03\x01\x00\x02\x02\x46"),
    ("a chunk size that is none", ok(CHUNKED, body=b"x\r\n")),
    ("a chunk that does not end", ok(CHUNKED, body=b"5\r\nhelloX0\r\n\r\n")),
    ("a head too long", ok(b"X: " + b"a" * 40000)),
    ("too many fields", ok(*[b"X: a"] * 101)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data"), REFUSED, ids=[row[0] for row in REFUSED])
def test_is_refused(name: str, data: bytes):
    out = read(data)
    assert isinstance(out[-1], str), out
    assert all(body == b"" for _, body, _ in out[:-1])  # type: ignore[misc]


TAKEN: list[tuple[str, str, bytes, list[object]]] = [
    ("a length", "GET", ok(CL5, body=b"hello"), [(200, b"hello", True)]),
    ("a length of 0", "GET", ok(b"Content-Length: 0"), [(200, b"", True)]),
    ("bytes left over", "GET", ok(CL5, body=b"hello!"), [(200, b"hello", True), b"!"]),
    ("a second response left over", "GET", ok(CL5, body=b"hello") + ok(CL5, body=b"evil!"), [(200, b"hello", True), ok(CL5, body=b"evil!")]),
    ("chunked", "GET", ok(CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n"), [(200, b"hello", True)]),
    ("chunked with something behind", "GET", ok(CHUNKED, body=b"0\r\n\r\nX"), [(200, b"", True), b"X"]),
    ("until close", "GET", ok(body=b"hello"), [(200, b"hello", False)]),
    ("HEAD with a length", "HEAD", ok(CL5), [(200, b"", True)]),
    ("HEAD with chunked", "HEAD", ok(CHUNKED), [(200, b"", True)]),
    ("HEAD with a body all the same", "HEAD", ok(CL5, body=b"hello"), [(200, b"", True), b"hello"]),
    ("HEAD without a length", "HEAD", ok(), [(200, b"", True)]),
    ("204", "GET", ok(status=b"HTTP/1.1 204 No Content"), [(204, b"", True)]),
    ("204 with a body all the same", "GET", ok(CL5, status=b"HTTP/1.1 204 No Content", body=b"hello"), [(204, b"", True), b"hello"]),
    ("304 with a length", "GET", ok(CL5, status=b"HTTP/1.1 304 Not Modified"), [(304, b"", True)]),
    ("304 with chunked", "GET", ok(CHUNKED, status=b"HTTP/1.1 304 Not Modified"), [(304, b"", True)]),
    ("100 first", "GET", ok(status=b"HTTP/1.1 100 Continue") + ok(CL5, body=b"hello"), [(100, b"", True), (200, b"hello", True)]),
    ("100 and 103 first", "GET", ok(status=b"HTTP/1.1 100 Continue") + ok(b"Link: </a>", status=b"HTTP/1.1 103 Early Hints") + ok(CL5, body=b"hello"), [(100, b"", True), (103, b"", True), (200, b"hello", True)]),
    ("eight interim", "GET", ok(status=b"HTTP/1.1 103 Early Hints") * 8 + ok(CL5, body=b"hello"), [(103, b"", True)] * 8 + [(200, b"hello", True)]),
    ("nine interim", "GET", ok(status=b"HTTP/1.1 103 Early Hints") * 9 + ok(CL5, body=b"hello"), [(103, b"", True)] * 8 + ["too-many-interim"]),
    ("no reason phrase", "GET", ok(CL5, status=b"HTTP/1.1 200", body=b"hello"), [(200, b"hello", True)]),
    ("an empty reason phrase", "GET", ok(CL5, status=b"HTTP/1.1 200 ", body=b"hello"), [(200, b"hello", True)]),
    ("obs-text in the reason", "GET", ok(CL5, status=b"HTTP/1.1 200 \xc3\xa9", body=b"hello"), [(200, b"hello", True)]),
    ("HTTP/1.0", "GET", ok(CL5, status=b"HTTP/1.0 200 OK", body=b"hello"), [(200, b"hello", True)]),
    ("an unknown status", "GET", ok(CL5, status=b"HTTP/1.1 599 X", body=b"hello"), [(599, b"hello", True)]),
    ("a redirect with a split in Location", "GET", ok(b"Location: /%0d%0aX: y", CL5, body=b"hello"), [(200, b"hello", True)]),
    ("half a head", "GET", b"HTTP/1.1 200 OK\r\nContent-", [b"HTTP/1.1 200 OK\r\nContent-"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "method", "data", "expected"), TAKEN, ids=[row[0] for row in TAKEN])
def test_is_taken(name: str, method: str, data: bytes, expected: list[object]):
    assert read(data, method) == expected


CUT: list[tuple[str, bytes, list[object]]] = [
    ("until close", ok(body=b"hello"), [(200, b"hello", True)]),
    ("a length, cut", ok(CL5, body=b"hel"), [(200, b"hel", False), "truncated-body"]),
    ("a length, cut at once", ok(CL5), [(200, b"", False), "truncated-body"]),
    ("chunked, cut in a chunk", ok(CHUNKED, body=b"5\r\nhel"), [(200, b"hel", False), "truncated-body"]),
    ("chunked, cut between chunks", ok(CHUNKED, body=b"5\r\nhello\r\n"), [(200, b"hello", False), "truncated-body"]),
    ("chunked, cut in the last line", ok(CHUNKED, body=b"5\r\nhello\r\n0\r\n"), [(200, b"hello", False), "truncated-body"]),
    ("chunked, cut in a trailer", ok(CHUNKED, body=b"5\r\nhello\r\n0\r\nX: y\r\n"), [(200, b"hello", False), "truncated-body"]),
    ("chunked, whole", ok(CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n"), [(200, b"hello", True)]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "expected"), CUT, ids=[row[0] for row in CUT])
def test_a_body_cut_short_is_told_from_a_whole_one(name: str, data: bytes, expected: list[object]):
    assert read(data, eof=True) == expected


@pytest.mark.parametrize(
    ("data", "method", "keep"),
    [
        (ok(CL5), "GET", True),
        (ok(CL5, b"Connection: close"), "GET", False),
        (ok(b"Connection: close"), "HEAD", False),
        (ok(), "GET", False),  # it ends with the connection
        (ok(), "HEAD", True),
        (ok(CHUNKED), "GET", True),
        (ok(CL5, status=b"HTTP/1.0 200 OK"), "GET", False),
        (ok(CL5, b"Connection: keep-alive", status=b"HTTP/1.0 200 OK"), "GET", True),
        (ok(status=b"HTTP/1.1 204 X"), "GET", True),
        (ok(CL5, status=b"HTTP/1.1 204 X"), "GET", False),  # five bytes may yet come (RFC 9110 §8.6 forbids the field)
        (ok(CL5, status=b"HTTP/1.1 304 X"), "GET", True),
    ],
)
def test_whether_the_connection_can_be_used_again(data: bytes, method: str, keep: bool):
    reader = ResponseReader()
    reader.method = method
    reader.receive(data)
    head = reader.event()
    assert isinstance(head, ResponseHead)
    assert head.keep_alive is keep


def test_the_count_of_interim_responses_is_for_one_exchange():
    """The same block three times over is remembered; the count must start anew all the same."""
    reader = ResponseReader(Limits(interim=2))
    early = ok(b"Content-Length: 1", status=b"HTTP/1.1 103 Early Hints")
    final = ok(b"Content-Length: 1", body=b"x")
    for _ in range(10):
        reader.receive(early + final)
        seen = [reader.event() for _ in range(4)]
        assert [type(event) for event in seen] == [ResponseHead, ResponseHead, Part, End]


def test_a_remembered_response_is_read_by_the_method_of_its_request():
    reader = ResponseReader()
    data = ok(CL5, body=b"hello")
    for method, body in [("GET", True), ("GET", True), ("GET", True), ("HEAD", False), ("GET", True)]:
        reader.method = method
        reader.receive(data if body else ok(CL5))
        head = reader.event()
        assert isinstance(head, ResponseHead)
        assert head.body is body
        if body:
            assert reader.whole() == b"hello"
        assert reader.buffered == 0
