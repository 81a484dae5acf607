"""RFC 9111, 9110, 5861, 8246, 9211, 9213 as conversations: what is stored, for how long it is used, and what is asked again."""

# a row of a table is a line

from __future__ import annotations

import pytest

from edge.conversation import Turn, cached, origin, perform, validated

DAY = 86400
FRESH = (("cache-control", "max-age=3600"), ("date", 0))
Row = tuple[str, list[Turn]]


def stored(row: str, *give: tuple[str, object], **more: object) -> Row:
    """Used again 3 s later."""
    return row, [origin(*give, **more), cached(pause=3.0)]


def not_stored(row: str, *give: tuple[str, object], **more: object) -> Row:
    """Asked again 3 s later."""
    return row, [origin(*give, **more), origin(pause=3.0)]


FRESHNESS: list[Row] = [
    not_stored("§4.2.2: nothing to go by"),
    stored("§5.2.2.1: max-age", ("cache-control", "max-age=3600")),
    ("§4.2: max-age is over", [origin(("cache-control", "max-age=2")), origin(pause=3.0)]),
    not_stored("max-age=0", ("cache-control", "max-age=0")),
    stored("max-age 2**31-1", ("cache-control", "max-age=2147483647")),
    stored("§1.2.2: max-age 2**31", ("cache-control", "max-age=2147483648")),
    stored("§1.2.2: max-age 2**31+1", ("cache-control", "max-age=2147483649")),
    stored("§1.2.2: max-age overflows", ("cache-control", "max-age=99999999999")),
    not_stored("Age is over max-age", ("date", 0), ("cache-control", "max-age=3600"), ("age", "7200")),
    not_stored("§4.2.3: apparent age", ("date", -7200), ("cache-control", "max-age=3600")),
    stored("max-age beats a past Expires", ("cache-control", "max-age=3600"), ("expires", -7200), ("date", 0)),
    stored("max-age beats an invalid Expires", ("cache-control", "max-age=3600"), ("expires", "0"), ("date", 0)),
    not_stored("max-age=0 beats a future Expires", ("cache-control", "max-age=0"), ("expires", 3600), ("date", 0)),
    stored("an extension beside it", ("cache-control", "foobar, max-age=3600")),
    stored("case of max-age", ("cache-control", "MaX-aGe=3600")),
    not_stored("negative max-age", ("cache-control", "max-age=-3600")),
    stored("s-maxage", ("cache-control", "s-maxage=3600")),
    not_stored("short s-maxage beats max-age", ("cache-control", "max-age=3600, s-maxage=1")),
    not_stored("short s-maxage beats max-age, reversed", ("cache-control", "s-maxage=1, max-age=3600")),
    not_stored(
        "short s-maxage beats max-age, two lines", ("cache-control", "max-age=3600"), ("cache-control", "s-maxage=1")
    ),
    stored("long s-maxage beats max-age", ("cache-control", "max-age=1, s-maxage=3600")),
    stored(
        "long s-maxage beats max-age=0 and Expires", ("expires", -10), ("cache-control", "max-age=0, s-maxage=3600")
    ),
]
EXPIRES: list[Row] = [
    stored("§5.3: future", ("expires", 30 * DAY), ("date", 0)),
    not_stored("past", ("expires", -30 * DAY), ("date", 0)),
    ("present", [origin(("expires", 0), ("date", 0)), origin()]),
    not_stored("older than Date, both fast", ("expires", 300), ("date", 400)),
    not_stored("invalid: 0", ("expires", "0"), ("date", 0)),
    ("Date is invalid", [origin(("date", "foo"), ("expires", 10)), cached()]),
    ("Age over Expires minus Date, Date slow", [origin(("date", -10), ("expires", 10), ("age", "25")), origin()]),
    ("Age over Expires minus Date, Date fast", [origin(("date", 10), ("expires", 20), ("age", "15")), origin()]),
    *[
        stored(f"RFC 9110 §5.6.7: {value}", ("expires", value), ("date", 0))
        for value in (
            "Tue, 19 Jan 2038 14:14:08 GMT",
            "Sun, 21 Nov 2286 04:46:39 GMT",
            "Thursday, 18-Aug-50 02:01:18 GMT",
            "Thu Aug  8 02:01:18 2050",
            "THU, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 AUG 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18 gMT",
        )
    ],
    *[
        not_stored(f"no date: {value}", ("expires", value), ("date", 0))
        for value in (
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 18 Aug 2050 25:01:18 GMT",
            "Thu, 32 Aug 2050 02:01:18 GMT",
            "-1",
            "",
        )
    ],
    not_stored(
        "two lines",
        ("expires", "Thu, 18 Aug 2050 02:01:18 GMT"),
        ("expires", "Thu, 18 Aug 2050 02:01:19 GMT"),
        ("date", 0),
    ),
]
PARSING: list[Row] = [
    *[
        not_stored(f"max-age: {value}", ("cache-control", value))
        for value in (
            'extension="max-age=3600", max-age=1',
            'max-age=1, extension="max-age=3600"',
            "max-age='3600'",
            "max-age =3600",
            "max-age= 3600",
            "max-age=3600.5",
            "max-age=a3600",
            "max-age=3600a",
            "max-age=1800, max-age=1",
            "max-age=1, max-age=1800",
            'ext="a\\", max-age=3600, ", max-age=1',
        )
    ],
    *[
        stored(f"max-age: {value}", ("cache-control", value))
        for value in (
            "max-age=003600",
            'max-age="3600"',
            "max-age=3600, max-age=3600",
            ",, max-age=3600 ,",
            'a="x, no-store", max-age=3600',
        )
    ],
]
AGE: list[Row] = [
    *[
        stored(f"§5.1: Age {value!r}", *FRESH, ("age", value))
        for value in ("abc", "-7200", "7200.0", "0, 7200", "0, 0", "")
    ],
    *[
        not_stored(f"§5.1: Age {value!r}", *FRESH, ("age", value))
        for value in ("2147483647", "2147483648", "2147483649", "7200, 0", "9" * 40)
    ],
    not_stored("first of two lines is old", *FRESH, ("age", "7200"), ("age", "0")),
    stored("first of two lines is 0", *FRESH, ("age", "0"), ("age", "7200")),
    stored("two lines of 0", *FRESH, ("age", "0"), ("age", "0")),
    stored("twice not old", ("date", 0), ("cache-control", "max-age=10000"), ("age", "3600"), ("age", "3600")),
    ("§4: Age is generated", [origin(*FRESH), cached(pause=3.0, sees=(("age", "3"),))]),
    ("§5.1: Age goes on", [origin(*FRESH, ("age", "30")), cached(pause=3.0, sees=(("age", "33"),))]),
    (
        "Age goes on with Expires",
        [origin(("expires", 30 * DAY), ("date", 0), ("age", "30")), cached(pause=3.0, sees=(("age", "33"),))],
    ),
    ("a miss passes Age on", [origin(*FRESH, ("age", "15"), sees=(("age", "15"),))]),
]
DIRECTIVES: list[Row] = [
    not_stored("§5.2.2.7: private", ("cache-control", "private, max-age=3600")),
    not_stored("§5.2.2.5: no-store", ("cache-control", "no-store")),
    not_stored("case of no-store", ("cache-control", "No-StOrE")),
    not_stored("no-store beats max-age and Expires", ("cache-control", "max-age=10000, no-store"), ("expires", 10000), ("date", 0)),
    ("§5.2.2.4: no-cache", [origin(("cache-control", "max-age=10000, no-cache"), ("expires", 10000), ("date", 0)), origin()]),
    ("case of no-cache", [origin(("cache-control", "max-age=10000, No-CaChE")), origin()]),
    ("no-cache is stored and validated", [origin(("cache-control", "no-cache"), ("etag", '"a"')), validated(("etag", '"a"'))]),
    ("no-cache with max-age", [origin(("cache-control", "max-age=10000, no-cache"), ("etag", '"a"')), validated(("etag", '"a"'))]),
    ("no-cache of a field", [
        origin(("cache-control", 'no-cache="a, b", max-age=3600'), ("a", "1"), ("b", "2"), ("c", "3"), sees=(("a", "1"),)),
        cached(sees=(("c", "3"),), misses=("a", "b")),
    ]),
    ("private of a field", [origin(("cache-control", 'private="a", max-age=3600'), ("a", "1")), cached(misses=("a",))]),
    ("§5.2.2.2: must-revalidate while fresh", [origin(("cache-control", "max-age=10000, must-revalidate"), ("etag", '"a"')), cached()]),
    ("must-revalidate when stale", [
        origin(("cache-control", "max-age=2, must-revalidate"), ("etag", '"a"')), cached(), validated(("etag", '"a"'), pause=3.0),
    ]),
    ("§5.2.2.3: must-understand a known status", [origin(("cache-control", "max-age=3600, no-store, must-understand")), cached()]),
    ("must-understand an unknown status", [origin(("cache-control", "max-age=3600, no-store, must-understand"), status=599), origin(status=599)]),
    ("RFC 8246: immutable, reload", [origin(("cache-control", "max-age=3600, immutable"), ("etag", '"a"')), cached(("cache-control", "no-cache"))]),
    ("RFC 8246: immutable, stale", [origin(("cache-control", "max-age=2, immutable"), ("etag", '"a"')), validated(pause=3.0)]),
    ("§5.4: Pragma is nothing", [origin(*FRESH, ("pragma", "no-cache")), cached(("pragma", "no-cache"))]),
]  # fmt: skip
REQUESTS: list[Row] = [
    *[
        (f"§5.2.1: {value}", [origin(*FRESH), origin(ask=(("cache-control", value),), pause=3.0)])
        for value in ("max-age=0", "max-age=1", "min-fresh=4000", "no-cache", "no-store")
    ],
    ("max-age of an aged one", [origin(*FRESH, ("age", "1800")), origin(ask=(("cache-control", "max-age=600"),))]),
    ("max-stale allows", [origin(("cache-control", "max-age=1")), cached(("cache-control", "max-stale=1000"), pause=3.0)]),
    ("max-stale without a number", [origin(("cache-control", "max-age=1")), cached(("cache-control", "max-stale"), pause=3.0)]),
    ("max-stale is over", [origin(("cache-control", "max-age=1")), origin(ask=(("cache-control", "max-stale=1"),), pause=3.0)]),
    ("max-stale against must-revalidate", [
        origin(("cache-control", "max-age=1, must-revalidate"), ("etag", '"a"')), validated(ask=(("cache-control", "max-stale"),), pause=3.0),
    ]),
    ("no-cache validates by date", [
        origin(("cache-control", "max-age=3600"), ("last-modified", -10000), ("date", 0)), validated(ask=(("cache-control", "no-cache"),)),
    ]),
    ("no-cache validates by tag", [
        origin(*FRESH, ("etag", '"a"')), validated(("etag", '"a"'), ask=(("cache-control", "no-cache"),), sent=(("if-none-match", '"a"'),)),
    ]),
    ("only-if-cached without one", [Turn("any", ask=(("cache-control", "only-if-cached"),), sees_status=504)]),
    ("only-if-cached with one", [origin(*FRESH), cached(("cache-control", "only-if-cached"))]),
    ("unknown directives are nothing", [origin(*FRESH), cached(("cache-control", "nothing-to-see-here"), ("pragma", "foo"))]),
]  # fmt: skip
TARGETED: list[Row] = [
    *[
        stored(f"RFC 9213: {value}", ("cdn-cache-control", value))
        for value in ("max-age=3600", "max-age=2147483648", "max-age=99999999999", "foobar, max-age=3600")
    ],
    not_stored("Age is over its max-age", ("date", 0), ("cdn-cache-control", "max-age=3600"), ("age", "7200")),
    not_stored("space before =", ("cache-control", "max-age=1"), ("cdn-cache-control", "max-age =100")),
    not_stored("space after =", ("cache-control", "max-age=1"), ("cdn-cache-control", "max-age= 100")),
    not_stored("upper case", ("cache-control", "max-age=1"), ("cdn-cache-control", "MaX-aGe=3600")),
    not_stored("max-age=0", ("cdn-cache-control", "max-age=0")),
    stored("past Expires", ("cdn-cache-control", "max-age=3600"), ("expires", -10000), ("date", 0)),
    stored("invalid Expires", ("cdn-cache-control", "max-age=3600"), ("expires", "0"), ("date", 0)),
    not_stored("max-age=0 and a future Expires", ("cdn-cache-control", "max-age=0"), ("expires", 10000), ("date", 0)),
    stored("long beats a short Cache-Control", ("cache-control", "max-age=1"), ("cdn-cache-control", "max-age=3600")),
    not_stored("short beats a long Cache-Control", ("cache-control", "max-age=3600"), ("cdn-cache-control", "max-age=1")),
    *[
        not_stored(f"{value} beats Cache-Control and Expires", ("cdn-cache-control", value), ("cache-control", "max-age=10000"), ("expires", 9999))
        for value in ("private", "no-cache", "no-store")
    ],
    stored("fresh beats no-store", ("cache-control", "no-store"), ("cdn-cache-control", "max-age=10000")),
    not_stored("unknown type: ignored", ("cdn-cache-control", "max-age=10000, &&&&&"), ("cache-control", "no-store")),
    not_stored("wrong type: ignored", ("cdn-cache-control", 'max-age="10000"'), ("cache-control", "no-store")),
    stored("empty: ignored", ("cdn-cache-control", ""), ("cache-control", "max-age=3600")),
    ("it is passed on", [origin(*FRESH, ("cdn-cache-control", "foo, max-age=9")), cached(sees=(("cdn-cache-control", "foo, max-age=9"),))]),
]  # fmt: skip
HEURISTIC_STATUSES = [(200, True), (201, False), (202, False), (203, True), (204, True), (403, False), (404, True), (405, True), (410, True), (414, True), (501, True), (502, False), (503, False), (504, False), (599, False)]  # fmt: skip
HEURISTIC: list[Row] = [
    *[
        (f"§4.2.2: {status}", [origin(("last-modified", -DAY), ("date", 0), status=status), (cached if good else origin)(status=status)])
        for status, good in HEURISTIC_STATUSES
    ],
    ("599 and public", [origin(("last-modified", -DAY), ("date", 0), ("cache-control", "public"), status=599), cached()]),
    ("a tenth of the time", [
        origin(("last-modified", -1000), ("date", 0)), cached(pause=90.0), validated(pause=20.0),
    ]),
    ("at most a day", [origin(("last-modified", -1000 * DAY), ("date", 0)), cached(pause=DAY - 1.0), validated(pause=2.0)]),
]  # fmt: skip
STATUSES = (200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599)
STATUS: list[Row] = [
    *[
        (f"§3: {status} with freshness", [origin(*FRESH, status=status), cached(sees_status=status)])
        for status in STATUSES
    ],
    *[
        (
            f"§3: {status} stored stale",
            [origin(("expires", -5000), ("last-modified", -100000), ("date", 0), status=status), origin(pause=3.0)],
        )
        for status in STATUSES
    ],
]
AUTH = ("authorization", "x")
AUTHORIZATION: list[Row] = [
    (
        "§3.5: not even with freshness",
        [origin(("expires", 30 * DAY), ("date", 0), ask=(AUTH,), sent=(AUTH,)), origin()],
    ),
    *[
        (f"§3.5: {value}", [origin(("cache-control", value), ask=(AUTH,)), cached()])
        for value in ("max-age=3600, public", "max-age=3600, must-revalidate", "s-maxage=3600")
    ],
    ("a stored one answers it", [origin(*FRESH), cached(AUTH)]),
]
ROWS = {
    "freshness": FRESHNESS,
    "expires": EXPIRES,
    "parsing": PARSING,
    "age": AGE,
    "directives": DIRECTIVES,
    "requests": REQUESTS,
    "targeted": TARGETED,
    "heuristic": HEURISTIC,
    "status": STATUS,
    "authorization": AUTHORIZATION,
}
ALL = [pytest.param(turns, id=f"{table}: {row}") for table, rows in ROWS.items() for row, turns in rows]


@pytest.mark.parametrize("profile", ["safe", "rfc"])
@pytest.mark.parametrize("turns", ALL)
async def test_conversation(turns: list[Turn], profile: str) -> None:
    await perform(turns, profile)
