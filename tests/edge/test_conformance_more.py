"""Vary, conditions, ranges, 304, HEAD, POST, invalidation, stale: the conversations in which a request is more than a URL."""

# a row of a table is a line

from __future__ import annotations

import pytest

from edge.conversation import Fields, Turn, cached, origin, perform, validated

Row = tuple[str, list[Turn]]
FRESH: Fields = (("cache-control", "max-age=3600"), ("date", 0))
TAGGED: Fields = (*FRESH, ("etag", '"abcdef"'))


def vary(value: str, *give: tuple[str, object]) -> Fields:
    return (("cache-control", "max-age=5000"), ("last-modified", -3000), ("date", 0), ("vary", value), *give)


def asks(**fields: str) -> Fields:
    return tuple((name.replace("_", "-"), value) for name, value in fields.items())


VARY: list[Row] = [
    ("§4.1: match", [origin(*vary("Foo"), ask=asks(foo="1")), cached(*asks(foo="1"))]),
    ("no match", [origin(*vary("Foo"), ask=asks(foo="1")), origin(ask=asks(foo="2"))]),
    ("the stored one had none", [origin(*vary("Foo")), origin(ask=asks(foo="1"))]),
    ("this one has none", [origin(*vary("Foo"), ask=asks(foo="1")), origin()]),
    ("two variants stay", [
        origin(*vary("Foo"), ask=asks(foo="1"), body=b"one"), origin(*vary("Foo"), ask=asks(foo="2"), body=b"two"),
        cached(*asks(foo="1"), sees_body=b"one"), cached(*asks(foo="2"), sees_body=b"two"),
    ]),
    ("others do not select", [origin(*vary("Foo"), ask=asks(foo="1", other="2")), cached(*asks(foo="1", other="3"))]),
    ("two fields match", [origin(*vary("Foo, Bar"), ask=asks(foo="1", bar="abc")), cached(*asks(foo="1", bar="abc"))]),
    ("two fields differ", [origin(*vary("Foo, Bar"), ask=asks(foo="1", bar="abc")), origin(ask=asks(foo="2", bar="abc"))]),
    ("two fields, none", [origin(*vary("Foo, Bar"), ask=asks(foo="1", bar="abc")), origin()]),
    ("three fields match in another order", [
        origin(*vary("Foo, Bar, Baz"), ask=asks(foo="1", bar="abc", baz="789")), cached(*asks(baz="789", foo="1", bar="abc")),
    ]),
    ("three fields differ", [
        origin(*vary("Foo, Bar, Baz"), ask=asks(foo="1", bar="abc", baz="789")), origin(ask=asks(foo="1", baz="789", bar="abcde")),
    ]),
    ("both omit one", [origin(*vary("Foo, Bar, Baz"), ask=asks(foo="1", baz="789")), cached(*asks(foo="1", baz="789"))]),
    *[
        (f"RFC 9110 §12.5.5: {value!r} never matches", [origin(*vary(value), ask=asks(foo="1")), origin(ask=asks(foo="1"))])
        for value in ("*", "*, *", ", *", "*, Foo", "Foo, *", "foo,*")
    ],
    ("* on a second line", [origin(*vary(""), ("vary", "*")), origin()]),
    ("lines are combined", [origin(*vary("Foo"), ask=asks(foo="1, 2")), cached(("foo", "1"), ("foo", "2"))]),
    ("space is nothing", [origin(*vary("Foo"), ask=asks(foo="1,2")), cached(*asks(foo=" 1, 2 "))]),
    *[
        (f"languages: {value!r}", [origin(*vary("Accept-Language"), ask=asks(accept_language="en, de")), cached(("accept-language", value))])
        for value in ("de, en", "eN, De", " en ,   de", "en;q=1.0, de")
    ],
    ("qualities of languages count", [
        origin(*vary("Accept-Language"), ask=asks(accept_language="en, de;q=0.5")), origin(ask=asks(accept_language="de, en;q=0.5")),
    ]),
    ("the language that is there is chosen", [
        origin(*vary("Accept-Language", ("content-language", "de")), ask=asks(accept_language="en, de")),
        cached(("accept-language", "fr;q=0.5, de;q=1.0")),
    ]),
    ("codings are a set", [
        origin(*vary("Accept-Encoding"), ask=asks(accept_encoding="gzip, br")), cached(("accept-encoding", "br,gzip")),
    ]),
    ("the variant's tag validates it", [
        origin(("expires", 1), ("etag", '"a"'), ("date", 0), ("vary", "Abc"), ask=asks(abc="123")),
        validated(("etag", '"a"'), ask=asks(abc="123"), pause=3.0, sent=(("abc", "123"), ("if-none-match", '"a"'))),
    ]),
    ("Vary changes", [
        origin(*vary("Foo"), ask=asks(foo="1")), origin(*vary("Bar"), ask=asks(foo="2", bar="1")), cached(*asks(bar="1", foo="9")),
    ]),
]  # fmt: skip
CONDITIONS: list[Row] = [
    *[
        (f"§4.3.2: {value}", [origin(*TAGGED), cached(("if-none-match", value), sees_status=304, sees=(("etag", '"abcdef"'),), sees_body=b"")])
        for value in ('"abcdef"', 'W/"abcdef"', '"abcdef", "1234", "5678"', '"1234", "abcdef", "5678"', '"1234","abcdef"', "*")
    ],
    ("no match", [origin(*TAGGED), cached(("if-none-match", '"other"'), sees_status=200)]),
    ("weak stored", [origin(*FRESH, ("etag", 'W/"a"')), cached(("if-none-match", 'W/"a"'), sees_status=304)]),
    ("tag goes before date", [
        origin(*TAGGED, ("last-modified", -5000)), cached(("if-none-match", '"abcdef"'), ("if-modified-since", -9999), sees_status=304),
        cached(("if-none-match", '"x"'), ("if-modified-since", 0), sees_status=200),
    ]),
    ("date matches", [origin(*FRESH, ("last-modified", -3000)), cached(("if-modified-since", -3000), sees_status=304)]),
    ("date is later", [origin(*FRESH, ("last-modified", -3000)), cached(("if-modified-since", -2000), sees_status=304)]),
    ("date is earlier", [origin(*FRESH, ("last-modified", -3000)), cached(("if-modified-since", -4000), sees_status=200)]),
    ("no Last-Modified: Date counts", [origin(*FRESH), cached(("if-modified-since", -3000), sees_status=200)]),
    ("no Last-Modified, later than Date", [origin(*FRESH), cached(("if-modified-since", 30), sees_status=304, pause=3.0)]),
    ("RFC 850 date", [
        origin(*FRESH, ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")),
        cached(("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT"), sees_status=304),
    ]),
    ("stale is validated, then 304", [
        origin(("cache-control", "max-age=2"), ("last-modified", -3000), ("date", 0)),
        validated(ask=(("if-modified-since", -3000),), sees_status=304, pause=3.0),
    ]),
    ("a miss takes the condition off", [
        origin(*TAGGED, ask=(("if-none-match", '"abcdef"'),), sent=(("if-none-match", None),), sees_status=304), cached(sees_status=200),
    ]),
    ("and looks at it when it is not stored", [
        origin(("etag", '"a"'), ("cache-control", "no-store"), ask=(("if-none-match", '"a"'),), sees_status=304), origin(sees_status=200),
    ]),
    ("an error is no 304", [origin(*TAGGED, status=404), cached(("if-none-match", '"abcdef"'), sees_status=404)]),
    ("§4.3.2: If-Match is the origin's", [origin(*TAGGED), origin(ask=(("if-match", '"abcdef"'),), sent=(("if-match", '"abcdef"'),))]),
    *[
        (f"§4.3.1: {tag} is sent", [
            origin(("cache-control", "max-age=2"), ("etag", tag)), validated(("etag", tag), pause=3.0, sent=(("if-none-match", tag),), sees_status=200),
        ])
        for tag in ('"abcdef"', 'W/"abcdef"')
    ],
    ("a 304 about another tag is no answer", [
        origin(("cache-control", "max-age=1"), ("etag", '"a"'), body=b"old"),
        Turn("any", give=(("etag", '"b"'), ("cache-control", "max-age=9")), status=304, pause=3.0),
    ]),
]  # fmt: skip


def updates(name: str, one: str, two: str, *, kept: bool = False) -> Row:
    """A field of a 304 replaces the stored one, in this answer and in the next."""
    first: Fields = (("date", 0), (name, one), ("etag", '"e"'))
    second: Fields = (("date", 0), (name, two), ("etag", '"e"'))
    if name != "cache-control":
        first, second = (*first, ("cache-control", "max-age=2")), (*second, ("cache-control", "max-age=2"))
    now = one if kept else two
    return f"§3.2: {name}", [
        origin(*first),
        validated(*second, pause=3.0, sees=((name, now),)),
        cached(sees=((name, now),)),
    ]


FRESHENING: list[Row] = [
    ("§4.3.4: what the 304 omits stays", [
        origin(("cache-control", "max-age=2"), ("last-modified", "Wed, 01 Jan 2020 00:00:00 GMT"), ("date", 0), ("test-header", "a")),
        validated(("last-modified", "Wed, 01 Jan 2020 00:00:00 GMT"), ("date", 0), pause=3.0, sees=(("test-header", "a"),)),
    ]),
    updates("test-header", "a", "b"), updates("x-test-header", "a", "b"), updates("content-foo", "a", "b"),
    updates("cache-control", "max-age=1", "max-age=3600"), updates("content-security-policy", "default-src 'self'", "default-src x"),
    updates("x-frame-options", "deny", "sameorigin"), updates("clear-site-data", "cache", "cookies"), updates("content-location", "/foo", "/bar"),
    updates("expires", "Fri, 01 Jan 2038 01:01:01 GMT", "Mon, 11 Jan 2038 11:11:11 GMT"), updates("content-md5", "a", "b"),
    updates("content-encoding", "a", "b", kept=True), updates("content-range", "a", "b", kept=True),
    ("Content-Length is the body's", [
        origin(("date", 0), ("etag", '"e"'), ("cache-control", "max-age=2")),
        validated(("content-length", "99"), ("etag", '"e"'), ("cache-control", "max-age=2"), pause=3.0, misses=("content-length",)),
        cached(misses=("content-length",), sees_body=b"body"),
    ]),
    ("the age begins anew", [
        origin(("cache-control", "max-age=2"), ("etag", '"e"'), ("date", 0)), validated(("etag", '"e"'), ("date", 0), pause=3.0),
        cached(pause=1.0, sees=(("age", "1"),)), validated(("etag", '"e"'), pause=3.0),
    ]),
    ("a 304 that forbids storing", [
        origin(("cache-control", "max-age=2"), ("etag", '"e"')), validated(("cache-control", "no-store"), pause=3.0), origin(),
    ]),
]  # fmt: skip
LISTED = (
    "test-header", "content-encoding", "content-location", "content-md5", "content-range", "content-security-policy", "clear-site-data",
    "public-key-pins", "set-cookie2", "x-frame-options", "x-xss-protection", "strict-transport-security",
)  # fmt: skip
NEVER = (
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "upgrade",
)
FIELDS: list[Row] = [
    *[(f"§3.1: {name} is kept", [origin(*FRESH, (name, "v")), cached(sees=((name, "v"),), pause=3.0)]) for name in LISTED],
    *[(f"§3.1: {name} is not", [origin(*FRESH, (name, "v")), cached(misses=(name,), pause=3.0)]) for name in NEVER],
    ("§4: Date is the origin's", [origin(("expires", 9999), ("date", "Tue, 14 Nov 2023 22:13:20 GMT")),
        cached(sees=(("date", "Tue, 14 Nov 2023 22:13:20 GMT"),), pause=3.0)]),
    ("RFC 9110 §6.6.1: a missing Date is made", [origin(("cache-control", "max-age=99")), cached(sees=(("date", "Tue, 14 Nov 2023 22:13:20 GMT"),), pause=3.0)]),
    ("the query is in the key", [origin(*FRESH, target="/x?a=1"), origin(target="/x?a=2"), cached(target="/x?a=1")]),
    ("Cookie in the request", [origin(*FRESH), cached(("cookie", "a=b"))]),
    ("Content-Disposition", [origin(*FRESH, ("content-disposition", "attachment")), cached()]),
]  # fmt: skip
BYTES = b"0123456789A"
PARTIAL: list[Row] = [
    *[
        (f"RFC 9110 §14: {value}", [origin(*FRESH, body=BYTES), cached(("range", value), sees_status=206, sees_body=body, sees=(("content-range", said),))])
        for value, body, said in (
            ("bytes=0-1", b"01", "bytes 0-1/11"), ("bytes=1-", b"123456789A", "bytes 1-10/11"), ("bytes=-1", b"A", "bytes 10-10/11"),
            ("bytes=9-99", b"9A", "bytes 9-10/11"), ("bytes=-99", BYTES, "bytes 0-10/11"), ("bytes=0-0,1-1", b"01", "bytes 0-1/11"),
            ("Bytes=2-3", b"23", "bytes 2-3/11"), ("bytes= 2-3 , ", b"23", "bytes 2-3/11"),
        )
    ],
    *[
        (f"ignored: {value}", [origin(*FRESH, body=BYTES), cached(("range", value), sees_status=200, sees_body=BYTES)])
        for value in ("lines=1-2", "bytes=x-1", "bytes=3-1", "bytes=", "bytes=--1", "bytes=" + ",".join(["0-0"] * 40))
    ],
    ("416", [origin(*FRESH, body=BYTES), cached(("range", "bytes=99-"), sees_status=416, sees=(("content-range", "bytes */11"),))]),
    ("-0 is none", [origin(*FRESH, body=BYTES), cached(("range", "bytes=-0"), sees_status=416)]),
    ("If-Range holds", [origin(*TAGGED, body=BYTES), cached(("range", "bytes=0-1"), ("if-range", '"abcdef"'), sees_status=206)]),
    ("If-Range fails", [origin(*TAGGED, body=BYTES), cached(("range", "bytes=0-1"), ("if-range", '"x"'), sees_status=200, sees_body=BYTES)]),
    ("If-Range is never weak", [origin(*FRESH, ("etag", 'W/"a"'), body=BYTES), cached(("range", "bytes=0-1"), ("if-range", 'W/"a"'), sees_status=200)]),
    ("304 goes before 206", [origin(*TAGGED, body=BYTES), cached(("range", "bytes=0-1"), ("if-none-match", '"abcdef"'), sees_status=304)]),
    ("a 404 has no parts", [origin(*FRESH, body=BYTES, status=404), cached(("range", "bytes=0-1"), sees_status=404)]),
]  # fmt: skip


def piece(said: str, body: bytes, *give: tuple[str, object], asked: str = "bytes=-5", **more: object) -> Turn:
    """The origin answers a range with 206."""
    return origin(
        *FRESH,
        ("content-range", said),
        *give,
        status=206,
        body=body,
        ask=(("range", asked),),
        sent=(("range", asked),),
        sees_status=206,
        **more,
    )  # type: ignore[arg-type]


STORED_PARTS: list[Row] = [
    ("§3.3: the same part", [piece("bytes 5-9/10", b"01234"), cached(("range", "bytes=-5"), sees_status=206, sees_body=b"01234", sees=(("content-range", "bytes 5-9/10"),))]),
    ("part of a part", [piece("bytes 5-9/10", b"01234"), cached(("range", "bytes=6-8"), sees_status=206, sees_body=b"123")]),
    ("open end", [piece("bytes 5-9/10", b"01234"), cached(("range", "bytes=6-"), sees_status=206, sees_body=b"1234")]),
    ("suffix", [piece("bytes 5-9/10", b"01234"), cached(("range", "bytes=-1"), sees_status=206, sees_body=b"4")]),
    ("not here", [piece("bytes 5-9/10", b"01234"), origin(ask=(("range", "bytes=0-5"),), sent=(("range", "bytes=0-5"),))]),
    ("§3.4: two parts make the whole", [
        piece("bytes 0-4/10", b"01234", ("etag", '"a"'), asked="bytes=0-4"), piece("bytes 5-9/10", b"56789", ("etag", '"a"'), asked="bytes=5-"),
        cached(sees_status=200, sees_body=b"0123456789", misses=("content-range",)),
    ]),
    ("not with a weak tag", [
        piece("bytes 0-4/10", b"01234", ("etag", 'W/"a"'), asked="bytes=0-4"), piece("bytes 5-9/10", b"56789", ("etag", 'W/"a"'), asked="bytes=5-"),
        Turn("origin", give=FRESH),
    ]),
    ("the hole is asked for", [
        piece("bytes 0-4/10", b"01234", ("etag", '"a"'), asked="bytes=0-4"),
        origin(*FRESH, ("etag", '"a"'), ("content-range", "bytes 5-9/10"), status=206, body=b"56789",
               sent=(("range", "bytes=5-"), ("if-range", '"a"')), sees_status=200, sees_body=b"0123456789"),
        cached(sees_body=b"0123456789"),
    ]),
    ("the hole without a tag", [piece("bytes 0-4/10", b"01234"), origin(sent=(("range", "bytes=5-"),), sees_status=200, sees_body=b"body")]),
    ("it changed meanwhile", [
        piece("bytes 0-4/10", b"01234", ("etag", '"a"'), asked="bytes=0-4"),
        origin(*FRESH, ("etag", '"b"'), body=b"whole and new", sees_status=200, sees_body=b"whole and new"), cached(sees_body=b"whole and new"),
    ]),
    ("several parts go as they are", [
        origin(*FRESH, ("content-type", "multipart/byteranges; boundary=x"), status=206, body=b"--x", ask=(("range", "bytes=0-0,5-5"),)),
        cached(("range", "bytes=0-0,5-5"), sees_status=206, sees_body=b"--x"),
    ]),
    ("a 206 that lies is only for its own range", [
        piece("bytes 4-9/10", b"01234"), cached(("range", "bytes=-5"), sees_status=206, sees_body=b"01234"), origin(ask=(("range", "bytes=6-8"),)), origin(),
    ]),
]  # fmt: skip
UNSAFE = ("POST", "PUT", "DELETE", "PATCH", "M-SEARCH")
INVALIDATION: list[Row] = [
    *[(f"§4.4: {method}", [origin(*FRESH), origin(method=method, upload=b"abc"), origin()]) for method in UNSAFE],
    *[(f"§4.4: failed {method}", [origin(*FRESH), origin(method=method, upload=b"abc", status=500), cached()]) for method in UNSAFE],
    *[
        (f"§4.4: {field} of {method}", [
            origin(*FRESH, target="/d/target"), origin((field, "target"), method=method, target="/d/x", status=201), origin(target="/d/target"),
        ])
        for method in UNSAFE for field in ("location", "content-location")
    ],
    ("§4.4: not on another host", [
        origin(*FRESH, target="/t"), origin(("location", "http://other/t"), method="POST", target="/x"), cached(target="/t"),
    ]),
    ("OPTIONS changes nothing", [origin(*FRESH), origin(method="OPTIONS"), cached()]),
    ("RFC 9110 §9.3.3: a POST for GET", [
        origin(("expires", 9999), ("content-location", "/x"), ("date", 0), method="POST", upload=b"12345", body=b"made"), cached(sees_body=b"made"),
    ]),
    ("a POST without freshness", [origin(("content-location", "/x"), ("etag", '"a"'), method="POST", upload=b"1"), origin()]),
    ("a POST about something else", [origin(*FRESH, ("content-location", "/y"), method="POST", upload=b"1"), origin()]),
    ("RFC 9875: groups", [
        origin(*FRESH, ("cache-groups", '"scripts", "all"'), target="/a"), origin(*FRESH, ("cache-groups", '"css"'), target="/b"),
        origin(("cache-group-invalidation", '"scripts"'), method="POST", target="/c"), origin(target="/a"), cached(target="/b"),
    ]),
]  # fmt: skip
STALE: list[Row] = [
    ("§4.2.4: the origin is gone", [origin(("cache-control", "max-age=2")), cached(pause=3.0, fails=True, sees_status=200, sees=(("age", "3"),))]),
    ("the origin answers 503", [origin(("cache-control", "max-age=2")), Turn("origin", status=503, pause=3.0, sees_status=200)]),
    ("stale-if-error and gone", [origin(("cache-control", "max-age=2, stale-if-error=60")), cached(pause=3.0, fails=True, sees_status=200)]),
    ("stale-if-error and 500", [origin(("cache-control", "max-age=0, stale-if-error=3600")), Turn("origin", status=500, sees_status=200)]),
    ("stale-if-error is over", [origin(("cache-control", "max-age=0, stale-if-error=1")), Turn("origin", status=500, pause=3.0, sees_status=500)]),
    *[
        (f"forbidden by {value}", [origin(("cache-control", f"max-age=2, {value}"), ("etag", '"a"')), Turn("any", pause=3.0, fails=True, sees_status=504)])
        for value in ("must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=2")
    ],
    ("s-maxage with stale-while-revalidate", [
        origin(("cache-control", "s-maxage=1, stale-while-revalidate=60"), ("etag", '"a"')), Turn("any", pause=3.0, sees_status=200, sees=(("age", "3"),)),
    ]),
    ("s-maxage with stale-if-error, and gone", [origin(("cache-control", "s-maxage=1, stale-if-error=60")), cached(pause=3.0, fails=True, sees_status=200)]),
    ("s-maxage with stale-if-error has no grace", [
        origin(("cache-control", "s-maxage=1, stale-if-error=60")), Turn("any", pause=90.0, fails=True, sees_status=504),
    ]),
    ("grace is over", [origin(("cache-control", "max-age=2")), Turn("any", pause=3700.0, fails=True, sees_status=504)]),
    ("nothing stored", [Turn("any", fails=True, sees_status=502)]),
    ("an error is not served for an error", [origin(("cache-control", "max-age=2"), status=503), Turn("origin", status=500, pause=3.0, sees_status=500)]),
    ("the error is not kept in its place", [
        origin(("cache-control", "max-age=2")), Turn("origin", status=503, give=FRESH, pause=3.0, sees_status=200), Turn("origin", give=FRESH, sees_status=200), cached(),
    ]),
]  # fmt: skip
HEAD: list[Row] = [
    ("§4.3.5: HEAD is answered from GET", [origin(*FRESH), cached(method="HEAD", sees=(("content-length", "4"),), sees_body=b"")]),
    ("HEAD goes through as HEAD", [origin(("cache-control", "max-age=2"), ("template-a", "1")), origin(method="HEAD", pause=3.0)]),
    ("and freshens", [
        origin(("cache-control", "max-age=2"), ("template-a", "1")), origin(("cache-control", "max-age=1000"), ("template-a", "2"), method="HEAD", pause=3.0),
        cached(sees=(("template-a", "2"),), sees_body=b"body"),
    ]),
    ("or invalidates", [origin(("cache-control", "max-age=2")), origin(("cache-control", "max-age=1000"), ("content-length", "9"), method="HEAD", pause=3.0), origin()]),
    ("HEAD is not stored for GET", [origin(*FRESH, method="HEAD"), origin()]),
]  # fmt: skip
ROWS = {
    "vary": VARY, "conditions": CONDITIONS, "freshening": FRESHENING, "fields": FIELDS, "ranges": PARTIAL, "stored parts": STORED_PARTS,
    "invalidation": INVALIDATION, "stale": STALE, "head": HEAD,
}  # fmt: skip
ALL = [pytest.param(turns, id=f"{table}: {row}") for table, rows in ROWS.items() for row, turns in rows]


@pytest.mark.parametrize("profile", ["safe", "rfc"])
@pytest.mark.parametrize("turns", ALL)
async def test_conversation(turns: list[Turn], profile: str) -> None:
    await perform(turns, profile)
