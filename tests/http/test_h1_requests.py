"""What a client may send and what it may not: each row is (name, bytes, what comes of them).

Sources: RFC 9110, RFC 9112; the smuggling literature: Linhart et al. 2005, Kettle "HTTP Desync Attacks" 2019, "HTTP/1.1 must die" 2025
(0.CL, CL.0, TE.0), Klein "HTTP Request Smuggling in 2020", "T-Reqs" 2021, "Funky chunks" 2025.
"""

from __future__ import annotations

import pytest

from blocks.http.h1 import BadMessage, End, Limits, Part, RequestHead, RequestReader

OK = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def read(data: bytes, limits: Limits | None = None) -> list[object]:
    """Everything that a reader makes of ``data``: (method, target, body) for each request, then the refusal's status, if any."""
    reader = RequestReader(limits or Limits())
    reader.receive(data)
    out: list[object] = []
    try:
        while (event := reader.event()) is not None:
            if isinstance(event, RequestHead):
                out.append([event.method, event.target, b""])
            elif isinstance(event, Part):
                out[-1][2] += event.data  # type: ignore[index]
            else:
                assert isinstance(event, End)
    except BadMessage as bad:
        out.append(bad.status)
        reader.receive(OK)
        with pytest.raises(BadMessage):  # and nothing is read after it
            reader.event()
    return [tuple(one) if isinstance(one, list) else one for one in out]


def get(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join([start, *([host] if host else []), *lines, b"", b""])


def post(*lines: bytes, body: bytes = b"", **more: bytes) -> bytes:
    return get(*lines, start=b"POST / HTTP/1.1", **more) + body


CHUNKED = b"Transfer-Encoding: chunked"
CL5 = b"Content-Length: 5"

REFUSED: list[tuple[str, bytes, int]] = [
    # -- two framings, or one in doubt (RFC 9112 §6.1, §6.3)
    ("CL.TE", post(CL5, CHUNKED, body=b"0\r\n\r\n"), 400),
    ("TE.CL", post(CHUNKED, CL5, body=b"0\r\n\r\n"), 400),
    ("CL 0 with TE", post(b"Content-Length: 0", CHUNKED, body=b"0\r\n\r\n"), 400),
    ("same CL twice", post(CL5, CL5, body=b"hello"), 400),
    ("two CL", post(CL5, b"Content-Length: 6", body=b"hello!"), 400),
    ("CL 0 then 5", post(b"Content-Length: 0", CL5, body=b"hello"), 400),
    ("CL in two cases", post(b"content-length: 5", b"CONTENT-LENGTH: 5", body=b"hello"), 400),
    ("CL list", post(b"Content-Length: 5, 5", body=b"hello"), 400),
    ("CL list no space", post(b"Content-Length: 5,5", body=b"hello"), 400),
    ("CL list of different", post(b"Content-Length: 5, 6", body=b"hello"), 400),
    ("CL trailing comma", post(b"Content-Length: 5,", body=b"hello"), 400),
    ("TE twice", post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"), 400),
    ("TE chunked then identity", post(CHUNKED, b"Transfer-Encoding: identity", body=b"0\r\n\r\n"), 400),
    ("TE identity then chunked", post(b"Transfer-Encoding: identity", CHUNKED, body=b"0\r\n\r\n"), 400),
    ("TE chunked twice in a list", post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), 400),
    ("TE chunked, identity", post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"), 400),
    ("TE chunked not last", post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"), 400),
    ("TE in HTTP/1.0", get(CHUNKED, start=b"POST / HTTP/1.0") + b"0\r\n\r\n", 400),
    ("TE and CL in HTTP/1.0", get(CHUNKED, CL5, start=b"POST / HTTP/1.0") + b"0\r\n\r\n", 400),
    *[
        (f"CL {value!r}", post(b"Content-Length: " + value, body=b"hello"), 400)
        for value in (
            b"+5", b"-5", b"-0", b"+0", b"0x5", b"5.0", b"5e0", b"five", b"", b"5 5", b"5;", b"5_0", b"\"5\"", b"'5'", b"5h", b"0b101", b"0o5",
            b"99999999999999999999", b"18446744073709551616", b"9223372036854775808", b"\xd9\xa5", b"\xef\xbc\x95", b"\xb2", b"5\xa0",
            b"5\x85", b"5\x0b", b"5\x0c", b"5\x00", b"\x005", b"\x0b5", b"5\r", b"(5)", b"NaN", b"1e1", b"5 ,", b",5", b"5\t5", b"~5",
        )
    ],
    *[
        (f"TE {value!r}", post(b"Transfer-Encoding: " + value, body=b"5\r\nhello\r\n0\r\n\r\n"), 400)
        for value in (
            b"xchunked", b"chunked;", b"chunked;q=1", b"chunked; ext=1", b"chunkedx", b"\"chunked\"", b"'chunked'", b"chunked,", b",chunked",
            b",", b"", b"identity", b"chunked\x0b", b"\x0bchunked", b"chunked\x0c", b"\x00chunked", b"chunked\x00", b"chunked\xa0",
            b"\x85chunked", b"ch\xfcnked", b"cow", b"chunked cow", b"chunked, ", b", chunked", b"chunked\r", b"\x7fchunked",
            b"[chunked]", b"chunked=1", b"ch-unked", b"chun ked", b"chunked,,", b"none", b"0", b"null", b"chunked, cow",
        )
    ],
    *[
        (f"TE {value!r}", post(b"Transfer-Encoding: " + value, body=b"5\r\nhello\r\n0\r\n\r\n"), 501)
        for value in (b"gzip, chunked", b"identity, chunked", b"deflate,chunked", b"cow, chunked")
    ],
    *[  # names that somebody behind us may read as the framing field
        (f"name {name!r}", post(name + b": chunked", body=b"0\r\n\r\n"), 400)
        for name in (
            b"Transfer-Encoding ", b"Transfer-Encoding\t", b" Transfer-Encoding", b"\tTransfer-Encoding", b"Transfer Encoding",
            b"Transfer_Encoding", b"transfer_encoding", b"TRANSFER_ENCODING", b"Transfer-Encoding\x00", b"\x00Transfer-Encoding", b"Transfer-Encoding\x0b",
            b"\x0bTransfer-Encoding", b"Transfer-Encoding\r", b"Transfer\r-Encoding", b"Transfer\x00-Encoding", b"Transfer-Encod\xefng",
            b"\xefTransfer-Encoding", b"Transfer-Encoding(", b"(Transfer-Encoding", b"\"Transfer-Encoding\"", b"Transfer-Encoding;",
            b"Transfer-Encoding,", b"Transfer-Encoding/", b"Transfer-Encoding=", b"\x7fTransfer-Encoding", b"Transfer\\-Encoding", b"Transfer@Encoding",
        )
    ],
    *[
        (f"name {name!r}", post(name + b": 5", body=b"hello"), 400)
        for name in (b"Content-Length ", b"Content-Length\t", b" Content-Length", b"Content_Length", b"content_length", b"Content Length", b"Content-Length\x00", b"Content-Length\x0b")
    ],
    ("twin of Proxy-Connection", get(b"Proxy_Connection: x"), 400),
    ("twin of Keep-Alive", get(b"Keep_Alive: 5"), 400),
    # -- lines (RFC 9112 §2.2, §5)
    ("obs-fold", get(b"X: a", b" b"), 400),
    ("obs-fold with a tab", get(b"X: a", b"\tb"), 400),
    ("TE with white space behind", post(b"Transfer-Encoding: chunked \t", body=b"0\r\n\r\n"), 400),
    ("obs-fold of TE", post(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n"), 400),
    ("obs-fold of CL", post(b"Content-Length:", b" 5", body=b"hello"), 400),
    ("obs-fold of Host", b"GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n", 400),
    ("fold as the first line", b"GET / HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n", 400),
    ("a tab before the first name", b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", 400),
    ("a blank line of a space", get(b"X: a", b" "), 400),
    ("bare LF ends lines", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("bare LF after the start line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    ("bare LF after a field", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
    ("bare LF hides a field", get(b"X: a\nTransfer-Encoding: chunked"), 400),
    ("bare LF ends the head", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    ("LF CRLF ends the head", b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    ("LF LF", b"GET / HTTP/1.1\r\nHost: a\n\n\r\n\r\n", 400),
    ("bare CR in a value", get(b"X: a\rb"), 400),
    ("bare CR hides a field", get(b"X: a\rTransfer-Encoding: chunked"), 400),
    ("bare CR ends a field", b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400),
    ("CR CR LF", get(b"X: a\r"), 400),
    ("CR CR LF ends the head", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400),
    ("CR only", b"GET / HTTP/1.1\rHost: a\r\r\r\n\r\n", 400),
    ("bare CR in the start line", b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("bare CR in a name", get(b"X\rY: a"), 400),
    ("NUL in a value", get(b"X: a\x00b"), 400),
    ("NUL in a name", get(b"X\x00: a"), 400),
    ("NUL in the target", b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("NUL before the method", b"\x00GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    *[(f"control {value:#04x} in a value", get(b"X: a" + bytes([value]) + b"b"), 400) for value in (1, 7, 8, 11, 12, 14, 27, 31, 127)],
    *[(f"{value:#04x} in a name", get(b"X" + bytes([value]) + b"Y: b"), 400) for value in (0, 1, 9, 11, 12, 32, 34, 40, 41, 44, 47, 59, 60, 61, 62, 63, 64, 91, 92, 93, 123, 125, 127, 128, 233, 255)],
    ("no colon", get(b"X"), 400),
    ("no colon but a space", get(b"X a"), 400),
    ("an empty name", get(b": a"), 400),
    ("only a colon", get(b":"), 400),
    ("colon first, a pseudo-header", get(b":path: /admin"), 400),
    ("space before the colon", get(b"X : a"), 400),
    ("tab before the colon", get(b"X\t: a"), 400),
    ("space before the colon of Host", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("colon in a name after a space", get(b"X Y: a"), 400),
    ("a second start line among fields", get(b"GET /admin HTTP/1.1"), 400),
    # -- the start line (RFC 9112 §3)
    ("no version", b"GET /\r\nHost: a\r\n\r\n", 400),
    ("HTTP/0.9", b"GET /\r\n\r\n", 400),
    ("no target", b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("an empty target", b"GET  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("two spaces before the target", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("two spaces before the version", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a tab for a space", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a tab before the version", b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a vertical tab for a space", b"GET\x0b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a form feed for a space", b"GET\x0c/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a no-break space for a space", b"GET\xa0/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a space behind the version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    ("a word behind the version", b"GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", 400),
    ("a space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a version in the target", b"GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a space before the method", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("only spaces", b"   \r\n\r\n", 400),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("HTTP/3.0", b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    ("HTTP/0.9 said", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    ("HTTP/9.9", b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505),
    ("the HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    *[
        (f"version {version!r}", b"GET / " + version + b"\r\nHost: a\r\n\r\n", 400)
        for version in (b"http/1.1", b"Http/1.1", b"HTTP/1", b"HTTP/1.", b"HTTP/.1", b"HTTP/1.10", b"HTTP/01.1", b"HTTP/1.01", b"HTTP/1,1", b"HTTP/1.1a", b"HTTP/-1.1", b"HTTP/+1.1", b"HTTP 1.1", b"HTTP-1.1", b"HTTPS/1.1", b"HTTP/1.\xb1", b"HTTP/11", b"HTTP/1.1.1", b"HTTP//1.1", b"HTTP/1.x", b"ICE/1.0", b"RTSP/1.0", b"SIP/2.0", b"HTTP/", b"HTTP", b"1.1", b"\x00")
    ],
    ("a method in lower case", b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ("a method in mixed case", b"Get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
    ("CONNECT in origin-form", b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    *[
        (f"method {method!r}", method + b" / HTTP/1.1\r\nHost: a\r\n\r\n", 400)
        for method in (b"GE(T", b"GET:", b"GET,", b"G\x00ET", b"G\xc9T", b"\"GET\"", b"GET/", b"{GET}", b"GET;", b"=GET", b"A" * 33, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\xef\xbb\xbfGET")
    ],
    # -- the target (RFC 9112 §3.2)
    *[
        (f"target {target!r}", b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n", 400)
        for target in (
            b"a", b"admin", b"*", b"?a", b"#", b"/#", b"/a#b", b"/?a#b", b"http://", b"http:///a", b"http://a b/", b"http://u@a/", b"http://u:p@a/",
            b"http://a:x/", b"http://a\\b/", b"http://a#b", b"ftp://a/", b"file:///etc/passwd", b"javascript:1", b"http:a", b"http:/a", b"://a/", b"a:443",
            b"\\admin", b"/\x7f", b"/\x01", b"/\xff", b"/\xc3\xa9", b"/a\x0bb", b"http://a,b/", b"ws://a/", b"@a", b"http://[::1/", b"http://a:99999/",
            b"http://a:-1/", b"http://%61/",
        )
    ],
    ("the target too long", b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    ("the target too long, unfinished", b"GET /" + b"a" * 40000, 414),
    # -- Host (RFC 9112 §3.2, RFC 9110 §7.2)
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("no Host but another field", b"GET / HTTP/1.1\r\nX: a\r\n\r\n", 400),
    ("Host twice", get(b"Host: a"), 400),
    ("two Hosts", get(b"Host: b"), 400),
    ("two Hosts apart", get(b"X: y", b"HOST: b"), 400),
    ("two Hosts in HTTP/1.0", get(b"Host: b", start=b"GET / HTTP/1.0"), 400),
    ("absolute-form without Host", b"GET http://a/ HTTP/1.1\r\n\r\n", 400),
    *[
        (f"Host {host!r}", get(host=b"Host: " + host), 400)
        for host in (
            b"", b"a b", b"a, b", b"a,b", b"a/b", b"a/", b"/", b"a?b", b"a#b", b"u@a", b"u:p@a", b"a:", b"a:b", b"a:80:80", b"a:-80", b"a:+80", b"a:8 0", b"a:80a", b"a:99999",
            b"a:65536", b"a:123456", b":80", b":", b"[::1", b"::1", b"[::1]x", b"[::1]:", b"[::1]:x", b"[]", b"[g::1]", b"a\\b", b"http://a", b"a;b", b"a<b", b"a>b", b"\"a\"",
            b"'a'", b"a\x00", b"a\x0b", b"\xc3\xa9", b"a%00b", b"a%2fb", b"a\tb", b"*", b"a|b", b"a`b", b"(a)", b"{a}", b"a=b", b"a&b", b"-", b".", b"a" * 300, b"a:0x50",
            b"[1.2.3.4]", b"[a]", b"a:\xb2",
        )
    ],
    # -- Connection, Expect, Upgrade
    ("Connection of no token", get(b"Connection: close, (x)"), 400),
    ("Connection with a quoted name", get(b'Connection: "close"'), 400),
    ("an unknown expectation", post(b"Expect: 200-ok", CL5, body=b"hello"), 417),
    ("an expectation with more", post(b"Expect: 100-continue, x", CL5, body=b"hello"), 417),
    ("an expectation twice", post(b"Expect: 100-continue", b"Expect: 100-continue", CL5, body=b"hello"), 417),
    ("an empty expectation", post(b"Expect:", CL5, body=b"hello"), 417),
    ("an expectation with a parameter", post(b"Expect: 100-continue;x=y", CL5, body=b"hello"), 417),
    # -- empty lines
    ("too many empty lines", b"\r\n" * 3 + OK, 400),
    ("a hundred empty lines", b"\r\n" * 100 + OK, 400),
    ("a bare LF first", b"\n" + OK, 400),
    ("a bare CR first", b"\r" + OK, 400),
    ("a bare LF after CRLF", b"\r\n\n" + OK, 400),
    ("CR CR LF first", b"\r\r\n" + OK, 400),
    # -- sizes
    ("too many fields", get(*[b"X: a"] * 101), 431),
    ("a head too long", get(b"X: " + b"a" * 40000), 431),
    ("a name too long", get(b"X" * 40000 + b": a"), 431),
    ("a head too long, unfinished", b"GET / HTTP/1.1\r\nX: " + b"a" * 40000, 431),
    # -- not HTTP
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ("a response", b"HTTP/1.1 200 OK\r\n\r\n", 400),
    ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400),
    ("SMTP", b"EHLO a\r\nMAIL FROM:<a@b>\r\n\r\n", 400),
    ("PROXY protocol", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + OK, 400),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "status"), REFUSED, ids=[row[0] for row in REFUSED])
def test_is_refused_and_nothing_is_read_after_it(name: str, data: bytes, status: int):
    assert read(data + OK) == [status]


@pytest.mark.parametrize(("name", "data", "status"), REFUSED, ids=[row[0] for row in REFUSED])
def test_is_refused_behind_a_good_request_too(name: str, data: bytes, status: int):
    """The header memo must not let a bad message in that looks like the last good one."""
    if name in ("a bare CR first",):
        data += b"\r\n"
    assert read(OK + OK + data) == [("GET", "/", b""), ("GET", "/", b""), status]


ACCEPTED: list[tuple[str, bytes, list[object]]] = [
    ("plain", OK, [("GET", "/", b"")]),
    ("two of the same", OK * 2, [("GET", "/", b"")] * 2),
    ("five of the same", OK * 5, [("GET", "/", b"")] * 5),
    ("one empty line first", b"\r\n" + OK, [("GET", "/", b"")]),
    ("two empty lines first", b"\r\n\r\n" + OK, [("GET", "/", b"")]),
    ("an empty line between", OK + b"\r\n" + OK, [("GET", "/", b"")] * 2),
    ("a length", post(CL5, body=b"hello"), [("POST", "/", b"hello")]),
    ("a length of 0", post(b"Content-Length: 0") + OK, [("POST", "/", b""), ("GET", "/", b"")]),
    ("leading zeros", post(b"Content-Length: 005", body=b"hello"), [("POST", "/", b"hello")]),
    ("white space around a length", post(b"Content-Length: \t 5 \t", body=b"hello"), [("POST", "/", b"hello")]),
    ("no white space", post(b"Content-Length:5", body=b"hello"), [("POST", "/", b"hello")]),
    ("a length on GET", get(CL5) + b"hello" + OK, [("GET", "/", b"hello"), ("GET", "/", b"")]),
    ("a request as the body", get(b"Content-Length: %d" % len(OK)) + OK, [("GET", "/", OK)]),
    ("chunked", post(CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n") + OK, [("POST", "/", b"hello"), ("GET", "/", b"")]),
    ("chunked, upper case", post(b"TRANSFER-ENCODING: CHUNKED", body=b"0\r\n\r\n"), [("POST", "/", b"")]),
    ("chunked with white space", post(b"Transfer-Encoding: \t chunked", body=b"0\r\n\r\n"), [("POST", "/", b"")]),
    ("chunked on GET", get(CHUNKED) + b"0\r\n\r\n" + OK, [("GET", "/", b"")] * 2),
    ("no body on POST", post() + OK, [("POST", "/", b""), ("GET", "/", b"")]),
    ("HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", [("GET", "/", b"")]),
    ("HTTP/1.0 with Host", get(start=b"GET / HTTP/1.0"), [("GET", "/", b"")]),
    ("OPTIONS *", get(start=b"OPTIONS * HTTP/1.1"), [("OPTIONS", "*", b"")]),
    ("OPTIONS of an authority", get(start=b"OPTIONS http://b HTTP/1.1"), [("OPTIONS", "*", b"")]),
    ("absolute-form", get(start=b"GET http://b/c?d HTTP/1.1"), [("GET", "/c?d", b"")]),
    ("absolute-form, no path", get(start=b"GET http://b HTTP/1.1"), [("GET", "/", b"")]),
    ("absolute-form, only a query", get(start=b"GET http://b?c HTTP/1.1"), [("GET", "/?c", b"")]),
    ("absolute-form, upper case", get(start=b"GET HTTP://B/ HTTP/1.1"), [("GET", "/", b"")]),
    ("absolute-form of https", get(start=b"GET https://b:443/ HTTP/1.1"), [("GET", "/", b"")]),
    ("a target with two slashes", get(start=b"GET //b/c HTTP/1.1"), [("GET", "//b/c", b"")]),
    ("a target with dots", get(start=b"GET /../../a HTTP/1.1"), [("GET", "/../../a", b"")]),
    ("a target with an URL inside", get(start=b"GET /a?u=http://b/ HTTP/1.1"), [("GET", "/a?u=http://b/", b"")]),
    ("percent-encoded", get(start=b"GET /%00%0d%0a%2e HTTP/1.1"), [("GET", "/%00%0d%0a%2e", b"")]),
    ("an own method", get(start=b"PROPFIND / HTTP/1.1"), [("PROPFIND", "/", b"")]),
    ("a method with a dash", get(start=b"M-SEARCH / HTTP/1.1"), [("M-SEARCH", "/", b"")]),
    ("100 fields", get(*[b"X: a"] * 99), [("GET", "/", b"")]),
    ("an empty value", get(b"X:"), [("GET", "/", b"")]),
    ("only white space as a value", get(b"X: \t "), [("GET", "/", b"")]),
    ("a colon in a value", get(b"X: a:b: c"), [("GET", "/", b"")]),
    ("every token character", get(b"!#$%&'*+-.^_`|~09azAZ: x"), [("GET", "/", b"")]),
    ("obs-text in a value", get(b"X: \x80\xff"), [("GET", "/", b"")]),
    ("a tab in a value", get(b"X: a\tb"), [("GET", "/", b"")]),
    ("Expect", post(b"Expect: 100-Continue", CL5, body=b"hello"), [("POST", "/", b"hello")]),
    ("a port", get(host=b"Host: a:8080"), [("GET", "/", b"")]),
    ("port 65535", get(host=b"Host: a:65535"), [("GET", "/", b"")]),
    ("IPv6", get(host=b"Host: [::1]:80"), [("GET", "/", b"")]),
    ("IPv6 with IPv4", get(host=b"Host: [::ffff:1.2.3.4]"), [("GET", "/", b"")]),
    ("IPv4", get(host=b"Host: 127.0.0.1"), [("GET", "/", b"")]),
    ("a dot behind", get(host=b"Host: example.com."), [("GET", "/", b"")]),
    ("an underscore in Host", get(host=b"Host: my_service:80"), [("GET", "/", b"")]),
    ("white space around Host", get(host=b"Host:  \ta \t"), [("GET", "/", b"")]),
    ("upgrade to h2c goes on without", get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMA"), [("GET", "/", b"")]),
    ("only the first byte", b"G", []),
    ("half a head", OK[:-2], []),
    ("half a head with half an end", OK[:-1], []),
    ("half a body", post(CL5, body=b"hel"), [("POST", "/", b"hel")]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "expected"), ACCEPTED, ids=[row[0] for row in ACCEPTED])
def test_is_taken(name: str, data: bytes, expected: list[object]):
    assert read(data) == expected
    assert read(OK + OK + data) == [("GET", "/", b"")] * 2 + expected


def fields_of(data: bytes) -> list[tuple[bytes, bytes]]:
    reader = RequestReader()
    reader.receive(data)
    head = reader.event()
    assert isinstance(head, RequestHead)
    return head.facts.section.pairs


STRIPPED: list[tuple[str, list[bytes], list[bytes]]] = [
    ("hop-by-hop fields", [b"Connection: keep-alive", b"Keep-Alive: timeout=5", b"Proxy-Connection: close", b"TE: trailers", b"X: y"], [b"x"]),
    ("credentials for a proxy", [b"Proxy-Authorization: Basic eA==", b"Proxy-Authenticate: Basic"], []),
    ("what Connection lists", [b"Connection: x-secret, X-Other", b"X-Secret: 1", b"X-Other: 2", b"X: y"], [b"x"]),
    ("lists in two lines", [b"Connection: a", b"A: 1", b"Connection: b", b"B: 2", b"C: 3"], [b"c"]),
    ("empty elements", [b"Connection: , ,a,, ", b"A: 1"], []),
    ("Connection lists Authorization", [b"Connection: authorization", b"Authorization: Bearer x"], []),
    ("Connection never takes out Host", [b"Connection: host, close"], []),
    ("an upgrade", [b"Connection: upgrade", b"Upgrade: websocket"], []),
    ("an upgrade that Connection does not list", [b"Upgrade: websocket"], []),
    ("HTTP/2 settings", [b"Connection: HTTP2-Settings", b"HTTP2-Settings: AAMA"], []),
    ("an expectation", [b"Expect: 100-continue"], []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "lines", "left"), STRIPPED, ids=[row[0] for row in STRIPPED])
def test_what_concerns_the_connection_is_taken_out(name: str, lines: list[bytes], left: list[bytes]):
    assert [name for name, _ in fields_of(get(*lines))] == [b"host", *left]


def test_connection_cannot_take_out_a_length():
    data = post(b"Connection: content-length", CL5, body=b"hello")
    assert (b"content-length", b"5") in fields_of(data)
    assert read(data + OK) == [("POST", "/", b"hello"), ("GET", "/", b"")]


def test_connection_cannot_take_out_the_coding():
    data = post(b"Connection: transfer-encoding", CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n")
    assert read(data + OK) == [("POST", "/", b"hello"), ("GET", "/", b"")]


def test_the_authority_of_an_absolute_target_replaces_host():
    """RFC 9112 §3.2.2: whoever is behind must not see two authorities."""
    assert fields_of(get(b"X: y", start=b"GET http://b:81/ HTTP/1.1")) == [(b"host", b"b:81"), (b"x", b"y")]
    assert fields_of(b"GET http://b/ HTTP/1.0\r\n\r\n") == [(b"host", b"b")]


def test_a_memo_of_an_absolute_target_is_not_used_for_the_next():
    reader = RequestReader()
    hosts = []
    for authority in (b"b", b"c", b"d"):
        reader.receive(get(start=b"GET http://" + authority + b"/ HTTP/1.1"))
        head = reader.event()
        assert isinstance(head, RequestHead)
        hosts.append(head.facts.host)
    reader.receive(OK)
    head = reader.event()
    assert isinstance(head, RequestHead)
    assert [*hosts, head.facts.host] == [b"b", b"c", b"d", b"a"]


@pytest.mark.parametrize(
    ("lines", "version", "keep"),
    [
        ([], b"1.1", True),
        ([b"Connection: close"], b"1.1", False),
        ([b"Connection: Close"], b"1.1", False),
        ([b"Connection: keep-alive, close"], b"1.1", False),
        ([b"Connection: x", b"Connection: close"], b"1.1", False),
        ([b"Connection: keep-alive"], b"1.1", True),
        ([], b"1.0", False),
        ([b"Connection: keep-alive"], b"1.0", True),
        ([b"Connection: Keep-Alive"], b"1.0", True),
        ([b"Connection: keep-alive, close"], b"1.0", False),
        ([b"Proxy-Connection: keep-alive"], b"1.0", False),
    ],
)
def test_whether_the_connection_stays(lines: list[bytes], version: bytes, keep: bool):
    reader = RequestReader()
    reader.receive(get(*lines, start=b"GET / HTTP/" + version))
    head = reader.event()
    assert isinstance(head, RequestHead)
    assert head.keep_alive is keep


def test_the_body_limit_is_for_what_is_announced():
    assert read(post(b"Content-Length: 6", body=b"hello!"), Limits(body=5)) == [413]
    assert read(post(CL5, body=b"hello"), Limits(body=5)) == [("POST", "/", b"hello")]


@pytest.mark.parametrize("size", [31, 32, 33])
def test_the_head_limit_is_exact(size: int):
    data = b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n"
    data = data.replace(b"X: ", b"X: " + b"a" * (size - len(data) + 20))
    limit = len(data) - (size - 32)
    expected: list[object] = [("GET", "/", b"")] if size <= 32 else [431]
    assert read(data, Limits(head=limit)) == expected
    assert read(OK + OK + data, Limits(head=limit)) == [("GET", "/", b"")] * 2 + expected
