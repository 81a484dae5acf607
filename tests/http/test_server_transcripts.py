"""Raw bytes in, what reached the backend as h11 read it, raw bytes out."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration.wire import LAST, OK, Backend, Client, answers, proxy, talk

H = b"Host: a\r\n"


def get(*lines: bytes, start: bytes = b"GET /x HTTP/1.1") -> bytes:
    return b"\r\n".join([start, b"Host: a", *lines, b"", b""])


CHUNKED = b"Transfer-Encoding: chunked"
SMUGGLED = b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"

REFUSED: list[tuple[str, bytes, int]] = [
    ("CL.TE", get(b"Content-Length: 6", CHUNKED, start=b"POST / HTTP/1.1") + b"0\r\n\r\nG", 400),
    ("TE.CL", get(CHUNKED, b"Content-Length: 4", start=b"POST / HTTP/1.1") + b"5c\r\nGPOST / HTTP/1.1\r\n\r\n0\r\n\r\n", 400),
    ("TE.TE", get(CHUNKED, b"Transfer-Encoding: x", start=b"POST / HTTP/1.1") + b"0\r\n\r\n", 400),
    ("TE.TE tab", get(b"Transfer-Encoding:\tchunked", CHUNKED, start=b"POST / HTTP/1.1") + b"0\r\n\r\n", 400),
    ("TE vertical tab", get(b"Transfer-Encoding: \x0bchunked", start=b"POST / HTTP/1.1") + b"0\r\n\r\n", 400),
    ("CL.0 by a bad CL", get(b"Content-Length: 0x20", start=b"POST / HTTP/1.1"), 400),
    ("two CL", get(b"Content-Length: 0", b"Content-Length: 44", start=b"POST / HTTP/1.1"), 400),
    ("0.CL by an early space", get(b"Content-Length : 44", start=b"POST / HTTP/1.1"), 400),
    ("a line before the first field", b"GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", 400),
    ("CR alone", get(b"X: y\rTransfer-Encoding: chunked"), 400),
    ("LF alone", get(b"X: y\nTransfer-Encoding: chunked"), 400),
    ("NUL", get(b"X: y\x00"), 400),
    ("two hosts", get(b"Host: b"), 400),
    ("absolute-form with userinfo", get(start=b"GET http://a@b/ HTTP/1.1"), 400),
    ("chunk size with a sign", get(CHUNKED, start=b"POST / HTTP/1.1") + b"+5\r\nhello\r\n0\r\n\r\n", 400),
    ("chunk of LF", get(CHUNKED, start=b"POST / HTTP/1.1") + b"5\nhello\r\n0\r\n\r\n", 400),
    ("chunk overflow", get(CHUNKED, start=b"POST / HTTP/1.1") + b"FFFFFFFFFFFFFFFF0\r\nhello\r\n0\r\n\r\n", 400),
    ("chunk with too much", get(CHUNKED, start=b"POST / HTTP/1.1") + b"5\r\nhelloX\r\n0\r\n\r\n", 400),
    ("chunk extension with LF", get(CHUNKED, start=b"POST / HTTP/1.1") + b"5;\nx\r\nhello\r\n0\r\n\r\n", 400),
    ("a length in trailers", get(CHUNKED, start=b"POST / HTTP/1.1") + b"0\r\nContent-Length: 44\r\n\r\n", 400),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("HTTP/0.9", b"GET /\r\n", 400),
    ("CONNECT", b"CONNECT a:22 HTTP/1.1\r\nHost: a:22\r\n\r\n", 501),
    ("TRACE", get(start=b"TRACE / HTTP/1.1"), 405),
    ("an unknown expectation", get(b"Expect: x"), 417),
    ("a long head", get(b"X: " + b"y" * 40000), 431),
    ("a long target", get(start=b"GET /" + b"y" * 10000 + b" HTTP/1.1"), 414),
    ("many fields", get(*[b"X: y"] * 150), 431),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "status"), REFUSED, ids=[row[0] for row in REFUSED])
async def test_an_attack_is_answered_once_and_nothing_of_it_gets_through(name: str, data: bytes, status: int):
    async with Backend() as backend, proxy(backend) as server:
        close = b"" if name == "TRACE" else SMUGGLED + LAST
        got = await talk(server, data + close if close else data.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert [answer.status for answer in got] == [status]
        assert got[0].whole
        assert got[0].headers["connection"] == "close"
        assert backend.requests == []
        assert backend.connections == []


@pytest.mark.parametrize(
    ("name", "data", "status"),
    [row for row in REFUSED if row[0] != "TRACE"],
    ids=[row[0] for row in REFUSED if row[0] != "TRACE"],
)
async def test_an_attack_behind_a_good_request_is_answered_after_it(name: str, data: bytes, status: int):
    async with Backend() as backend, proxy(backend) as server:
        got = await talk(server, get() + data + SMUGGLED + LAST)
        assert [answer.status for answer in got] == [200, status]
        assert [seen.target for seen in backend.requests] == ["/x"]
        assert backend.violations == []


# (name, client's bytes, methods, statuses, [(method, target, body)] at the backend)
PASSED: list[tuple[str, bytes, list[str], list[int], list[tuple[str, str, bytes]]]] = [
    ("one", get(), [], [200, 200], [("GET", "/x", b"")]),
    ("three in a row", get() * 3, [], [200] * 4, [("GET", "/x", b"")] * 3),
    ("bodies in a row", (get(b"Content-Length: 5", start=b"POST /p HTTP/1.1") + b"hello") * 3, ["POST"] * 3, [200] * 4, [("POST", "/p", b"hello")] * 3),
    ("GET with a body", get(b"Content-Length: 5") + b"hello", [], [200, 200], [("GET", "/x", b"hello")]),
    ("a request inside a body", get(b"Content-Length: %d" % len(SMUGGLED), start=b"POST /p HTTP/1.1") + SMUGGLED, ["POST"], [200, 200], [("POST", "/p", SMUGGLED)]),
    ("chunked", get(CHUNKED, start=b"POST /p HTTP/1.1") + b"5;x=y\r\nhello\r\n0\r\n\r\n", ["POST"], [200, 200], [("POST", "/p", b"hello")]),
    ("chunked with a request inside", get(CHUNKED, start=b"POST /p HTTP/1.1") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED), ["POST"], [200, 200], [("POST", "/p", SMUGGLED)]),
    ("POST without a body", get(start=b"POST /p HTTP/1.1"), ["POST"], [200, 200], [("POST", "/p", b"")]),
    ("PUT of nothing", get(b"Content-Length: 0", start=b"PUT /p HTTP/1.1"), ["PUT"], [200, 200], [("PUT", "/p", b"")]),
    ("OPTIONS *", get(start=b"OPTIONS * HTTP/1.1"), ["OPTIONS"], [200, 200], [("OPTIONS", "*", b"")]),
    ("absolute-form", get(start=b"GET http://b/y?z HTTP/1.1"), [], [200, 200], [("GET", "/y?z", b"")]),
    ("empty lines", b"\r\n" + get() + b"\r\n\r\n" + get() + b"\r\n", [], [200] * 3, [("GET", "/x", b"")] * 2),
    ("h2c", get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"), [], [200, 200], [("GET", "/x", b"")]),
    ("Expect without a body", get(b"Expect: 100-continue"), [], [200, 200], [("GET", "/x", b"")]),
    ("Expect in HTTP/1.0", b"POST /p HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", ["POST"], [200, 200], [("POST", "/p", b"hello")]),
    ("HTTP/1.0 kept", b"GET /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", [], [200, 200], [("GET", "/x", b"")]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "methods", "statuses", "seen"), PASSED, ids=[row[0] for row in PASSED])
async def test_what_is_passed_on(
    name: str, data: bytes, methods: list[str], statuses: list[int], seen: list[tuple[str, str, bytes]]
):
    async with Backend() as backend, proxy(backend) as server:
        got = await talk(server, data + LAST, *methods)
        assert [answer.status for answer in got] == statuses
        assert all(answer.whole for answer in got)
        assert [(one.method, one.target, one.body) for one in backend.requests] == [*seen, ("GET", "/last", b"")]
        assert backend.violations == []


async def test_the_exact_bytes_that_reach_a_backend():
    async with Backend() as backend, proxy(backend) as server:
        await talk(
            server,
            b"POST http://b:81/y HTTP/1.1\r\nhost: a\r\naccept:*/*  \r\nConnection: x-drop, close\r\nX-Drop: 1\r\nTE: trailers\r\nkeep-alive: 5\r\n"
            b"transfer-encoding: chunked\r\nX-UPPER: \tv\r\n\r\n2;e\r\nhi\r\n0\r\n\r\n",
        )
        assert (
            backend.connections[0].raw
            == b"POST /y HTTP/1.1\r\nHost: b:81\r\nAccept: */*\r\nX-Upper: v\r\nContent-Length: 2\r\n\r\nhi"
        )


async def test_the_exact_bytes_that_reach_a_client():
    answer = b"HTTP/1.1 200 Fine\r\nconnection: x-drop\r\nx-drop: 1\r\ndate: D\r\nKeep-Alive: timeout=5\r\nset-cookie: a\r\nset-cookie: b\r\ntransfer-encoding: chunked\r\n\r\n2;e\r\nok\r\n0\r\n\r\n"
    async with Backend(answer) as backend, proxy(backend) as server, Client(server) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (
            await client.until(b"\r\n\r\nok")
            == b"HTTP/1.1 200 OK\r\nDate: D\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok"
        )


# What an upstream says, and what the client may see of it: (status, body, whole) or None for nothing.
ANSWERS: list[tuple[str, bytes, str, int, bytes, bool]] = [
    ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", "GET", 502, b"", True),
    ("length and coding", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "GET", 502, b"", True),
    ("a bad status line", b"HTTP/1.1 20 OK\r\n\r\n", "GET", 502, b"", True),
    ("no HTTP", b"220 hello\r\n", "GET", 502, b"", True),
    ("HTTP/0.9", b"<html>hello</html>", "GET", 502, b"", True),
    ("a split field", b"HTTP/1.1 200 OK\r\nX: y\nSet-Cookie: evil\r\nContent-Length: 2\r\n\r\nok", "GET", 502, b"", True),
    ("a folded field", b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 2\r\n\r\nok", "GET", 502, b"", True),
    ("a NUL", b"HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 2\r\n\r\nok", "GET", 502, b"", True),
    ("101 unasked", b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "GET", 502, b"", True),
    ("chunked 204", b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "GET", 502, b"", True),
    ("nine interim", b"HTTP/1.1 100 Continue\r\n\r\n" * 9, "GET", 502, b"", True),
    ("a bad first chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n", "GET", 502, b"", True),
    ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", "HEAD", 200, b"", True),
    ("304", b'HTTP/1.1 304 Not Modified\r\nContent-Length: 5000\r\nEtag: "x"\r\n\r\n', "GET", 304, b"", True),
    ("204", b"HTTP/1.1 204 No Content\r\n\r\n", "GET", 204, b"", True),
    ("205", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", "GET", 205, b"", True),
    ("an unknown status", b"HTTP/1.1 555 Odd\r\nContent-Length: 2\r\n\r\nok", "GET", 555, b"ok", True),
    ("100 is kept back", b"HTTP/1.1 100 Continue\r\n\r\n" + OK, "GET", 200, b"ok", True),
    ("HTTP/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "GET", 200, b"ok", True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "answer", "method", "status", "body", "whole"), ANSWERS, ids=[row[0] for row in ANSWERS]
)
async def test_what_a_client_sees_of_an_answer(
    name: str, answer: bytes, method: str, status: int, body: bytes, whole: bool
):
    async with Backend(lambda seen, count: answer if seen.target == "/x" else OK) as backend, proxy(backend) as server:
        got = await talk(server, get(start=method.encode() + b" /x HTTP/1.1") + LAST, method)
        assert [one.status for one in got] == [status, 200]
        assert got[0].whole is whole
        assert got[1].body == b"ok"
        if status != 502:
            assert got[0].body == body
        assert backend.violations == []


LEFT_OVER: list[tuple[str, bytes, str, int]] = [
    ("more than the length", OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "GET", 200),
    ("a byte", OK + b"\r", "GET", 200),
    ("a body on HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n" + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil12345678", "HEAD", 200),
    ("a body on 204", b"HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\nevil", "GET", 204),
    ("a body on 304", b"HTTP/1.1 304 No\r\nContent-Length: 4\r\n\r\nevil", "GET", 304),
    ("behind chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "GET", 200),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "method", "status"), LEFT_OVER, ids=[row[0] for row in LEFT_OVER])
async def test_bytes_behind_a_response_never_reach_the_next_client(name: str, answer: bytes, method: str, status: int):
    async with Backend(lambda seen, count: answer if seen.target == "/x" else OK) as backend, proxy(backend) as server:
        got = await talk(server, get(start=method.encode() + b" /x HTTP/1.1") + LAST, method)
        assert [one.status for one in got] == [status, 200]
        assert got[1].body == b"ok"
        assert len(backend.connections) == 2


@pytest.mark.parametrize("tail", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"x", b"\r\n"])
async def test_what_an_upstream_says_unasked_ends_its_connection(tail: bytes):
    async with Backend() as backend, proxy(backend) as server, Client(server) as client:
        client.send(get())
        await client.until(b"\r\n\r\nok")
        backend.connections[0].transport.write(tail)
        await backend.until(lambda: backend.connections[0].lost.is_set())
        client.send(LAST)
        assert answers(await client.all())[1].body == b"ok"
        assert len(backend.connections) == 2


async def test_interim_responses_do_not_reach_an_http_1_0_client():
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with Backend(early + OK) as backend, proxy(backend) as server:
        got = await talk(server, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        assert [one.status for one in got] == [200]
        got = await talk(server, LAST)
        assert [one.status for one in got] == [103, 200]
        assert got[0].headers == {"link": "</a>"}
    async with Backend(b"HTTP/1.1 102 Processing\r\n\r\n" + OK) as backend, proxy(backend) as server:
        assert [one.status for one in await talk(server, LAST)] == [102, 200]


_LINES = st.sampled_from([
    b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST /d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: u\r\n\r\n", b"GET /e HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\n\r\n", b"\r\n", b"X: y\r\n", b"abc",
    b"POST /f HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"POST /g HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\n", b"3\r\nabc\r\n", b"GET /h HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
])  # fmt: skip


@settings(max_examples=60)
@given(st.lists(_LINES, max_size=8), st.lists(st.integers(0, 1000), max_size=4))
def test_what_reaches_a_backend_is_always_requests_to_h11_too(pieces: list[bytes], cuts: list[int]):
    """Good and bad messages in any order, pipelined and split: h11 never finds fault, and counts no more requests than were answered."""
    import asyncio

    data = b"".join(pieces)
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})

    async def run() -> None:
        async with Backend() as backend, proxy(backend) as server, Client(server) as client:
            for a, b in pairwise(places):
                client.send(data[a:b])
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            client.end()
            got = answers(
                await client.all(), *[piece.split(b" ")[0].decode() for piece in pieces if piece[:1] in b"GP"]
            )
            assert backend.violations == []
            whole = [seen for seen in backend.requests if seen.complete]
            assert len([one for one in got if one.status == 200]) == len(whole)
            assert all(seen.body in (b"", b"abc", b"abcabc", b"abcabcabc") or seen.target == "/g" for seen in whole)

    asyncio.run(run())
