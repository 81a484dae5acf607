"""request_id, trace_context, forwarded: what a request says about itself and its client."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.errors import ConfigError
from blocks.http import Headers, Peer, Request, Response, Section, chain
from blocks.http.filters import forwarded, request_id, trace_context
from blocks.http.filters.addresses import Networks, address_of, element, parse_forwarded, quoted_node
from blocks.http.filters.appended import Appended
from blocks.http.filters.trace_context import Trace, parse_traceparent

LOCAL = ("127.0.0.1", 8080)


class Seen:
    """A handler that keeps the requests it got."""

    direct = True

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        return Response(204)

    @property
    def last(self) -> Request:
        return self.requests[-1]


async def through(filter: Any, headers: Any = None, peer: Peer | None = None, **more: Any) -> Request:
    seen = Seen()
    await chain(filter, to=seen)(Request("GET", "/", headers, peer=peer or Peer(("203.0.113.9", 5), LOCAL), **more))
    return seen.last


# -- appended


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b", b"content-length"]), st.sampled_from([b"1", b"2"]))),
    st.sampled_from([b"a", b"z"]),
)
def test_an_appended_section_is_the_section_with_the_pair(pairs: list[tuple[bytes, bytes]], name: bytes) -> None:
    plain = Section([*pairs, (name, b"x")])
    fast = Appended(Section(pairs), ((name, b"x"),))
    assert fast.wire == plain.wire
    assert fast.index == plain.index
    assert fast.pairs == plain.pairs
    assert fast.has_date == plain.has_date
    assert [fast.has(each) for each in (b"a", b"b", b"z")] == [plain.has(each) for each in (b"a", b"b", b"z")]
    assert all(getattr(fast, slot) == getattr(plain, slot) for slot in Section.__slots__ if not slot.startswith("_"))
    headers = Headers.of(fast)
    headers["a"] = "new"
    assert headers["a"] == "new"


# -- request_id


async def test_each_request_gets_a_name_of_its_own() -> None:
    filter = request_id(prefix=lambda: "p")
    first, second = await through(filter), await through(filter)
    assert (first.headers["x-request-id"], second.headers["x-request-id"]) == ("p-1", "p-2")
    assert first.state["request_id"] == "p-1"
    assert b"X-Request-Id: p-1\r\n" in first.headers.section.wire


async def test_prefixes_differ_between_processes() -> None:
    assert (await through(request_id())).state["request_id"] != (await through(request_id())).state["request_id"]


async def test_a_name_from_outside_is_replaced_unless_it_is_accepted() -> None:
    given = {"x-request-id": "abc-123", "a": "b"}
    assert (await through(request_id(prefix=lambda: "p"), given)).headers.items() == [
        ("a", "b"),
        ("x-request-id", "p-1"),
    ]
    kept = await through(request_id(accept=True), given)
    assert kept.headers["x-request-id"] == kept.state["request_id"] == "abc-123"


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "<script>", 'a"b', "a,b"])
async def test_a_name_that_could_do_harm_is_never_accepted(bad: str) -> None:
    assert (await through(request_id(accept=True, prefix=lambda: "p"), {"x-request-id": bad})).headers[
        "x-request-id"
    ] == "p-1"


async def test_two_names_are_none() -> None:
    got = await through(request_id(accept=True, prefix=lambda: "p"), [("x-request-id", "a"), ("x-request-id", "b")])
    assert got.headers["x-request-id"] == "p-1"


async def test_a_repeated_header_block_still_gets_new_names() -> None:
    section = Headers({"a": "b"}).section
    seen = Seen()
    app = chain(request_id(prefix=lambda: "p", field="X-Trace"), to=seen)
    for _ in range(3):
        await app(Request(headers=Headers.of(section)))
    assert [request.headers["x-trace"] for request in seen.requests] == ["p-1", "p-2", "p-3"]


async def test_the_name_is_echoed_when_asked() -> None:
    response = await chain(request_id(echo=True, prefix=lambda: "p"), to=Seen())(Request())
    assert response.headers["x-request-id"] == "p-1"
    with pytest.raises(ConfigError):
        request_id(field="content-length")


# -- trace_context

VALID = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_valid_trace_goes_on_untouched() -> None:
    got = await through(trace_context(), {"traceparent": VALID, "tracestate": "a=1"})
    assert got.headers.items() == [("traceparent", VALID), ("tracestate", "a=1")]
    assert got.state["trace"] == Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", True)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "x",
        VALID.upper(),
        VALID + "-extra",
        "ff" + VALID[2:],
        VALID.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        VALID.replace("b7ad6b7169203331", "0" * 16),
        VALID[:-1],
        "00-" + "g" * 32 + "-b7ad6b7169203331-01",
    ],
)
async def test_a_bad_trace_is_replaced_and_its_state_dropped(bad: str) -> None:
    got = await through(trace_context(random=Random(1)), {"traceparent": bad, "tracestate": "a=1", "b": "c"})
    assert got.headers["traceparent"] != bad
    assert parse_traceparent(got.headers["traceparent"].encode()) is not None
    assert "tracestate" not in got.headers
    assert got.headers["traceparent"].endswith("-00")


async def test_a_later_version_may_say_more() -> None:
    value = "01" + VALID[2:] + "-what-comes"
    assert (await through(trace_context(), {"traceparent": value})).headers["traceparent"] == value


async def test_strangers_begin_a_trace_of_their_own() -> None:
    got = await through(trace_context(accept=False, sampled=True), {"traceparent": VALID})
    assert got.headers["traceparent"] != VALID
    assert got.headers["traceparent"].endswith("-01")
    twice = await through(trace_context(), [("traceparent", VALID), ("traceparent", VALID)])
    assert twice.headers.get_all("traceparent") != [VALID, VALID]
    assert len(twice.headers.get_all("traceparent")) == 1


# -- forwarded

FORGED = {
    "host": "a.test",
    "X-Forwarded-For": "1.1.1.1",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil",
    "X-Forwarded-Port": "1",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": "for=1.1.1.1",
    "X_Forwarded_For": "1.1.1.1",
    "X-Real-IP": "1.1.1.1",
    "X-Forwarded_Proto": "https",
    "True-Client-IP": "1.1.1.1",
    "X-Client-IP": "1.1.1.1",
    "Accept": "*/*",
}


async def test_what_a_stranger_says_of_itself_is_replaced() -> None:
    got = await through(forwarded(), FORGED)
    assert got.headers.items() == [
        ("host", "a.test"),
        ("accept", "*/*"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "a.test"),
        ("x-forwarded-port", "8080"),
        ("forwarded", "for=203.0.113.9;host=a.test;proto=http"),
        ("via", "1.1 blocks"),
    ]
    assert (got.state["client"], got.state["scheme"]) == ("203.0.113.9", "http")


async def test_a_trusted_proxys_chain_is_continued() -> None:
    peer = Peer(("10.1.2.3", 5), LOCAL)
    headers = {
        "host": "inner",
        "X-Forwarded-For": "6.6.6.6, 198.51.100.7, 10.9.9.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "www.a.test",
        "X-Forwarded-Port": "443",
        "X-Forwarded-Prefix": "/app",
        "via": "1.0 front",
    }
    got = await through(forwarded(["10.0.0.0/8"]), headers, peer)
    assert (got.state["client"], got.state["scheme"]) == ("198.51.100.7", "https")
    assert got.headers["x-forwarded-for"] == "6.6.6.6, 198.51.100.7, 10.9.9.9, 10.1.2.3"
    assert got.headers["x-forwarded-proto"] == "https"
    assert got.headers["x-forwarded-host"] == "www.a.test"
    assert got.headers["x-forwarded-port"] == "443"
    assert got.headers["x-forwarded-prefix"] == "/app"
    assert got.headers["forwarded"] == (
        "for=6.6.6.6;host=www.a.test;proto=https, for=198.51.100.7, for=10.9.9.9, for=10.1.2.3;host=inner;proto=http"
    )
    assert got.headers["via"] == "1.0 front, 1.1 blocks"


async def test_of_two_families_only_the_one_that_the_proxy_sets_is_believed() -> None:
    peer = Peer(("10.1.2.3", 5), LOCAL)
    headers = {"X-Forwarded-For": "1.1.1.1", "Forwarded": 'for="[2001:db8::7]:99";proto=HTTPS;host="b.test:8443"'}
    by_x = await through(forwarded(["private"]), headers, peer)
    assert by_x.state["client"] == "1.1.1.1"
    assert "2001" not in by_x.headers["forwarded"]
    standard = await through(forwarded(["private"], believe="forwarded"), headers, peer)
    assert (standard.state["client"], standard.state["scheme"]) == ("2001:db8::7", "https")
    assert standard.headers["x-forwarded-for"] == "2001:db8::7, 10.1.2.3"
    assert standard.headers["x-forwarded-host"] == "b.test:8443"
    assert standard.headers["forwarded"] == headers["Forwarded"] + ", for=10.1.2.3;proto=http"


@pytest.mark.parametrize(
    ("chain_said", "client"),
    [
        ("", "10.0.0.1"),
        ("8.8.8.8", "8.8.8.8"),
        ("6.6.6.6, 8.8.8.8", "8.8.8.8"),
        ("10.0.0.9, 10.0.0.8", "10.0.0.9"),
        ("8.8.8.8, garbage, 10.0.0.8", "10.0.0.8"),
        ("garbage", "10.0.0.1"),
        ("8.8.8.8:1234", "8.8.8.8"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("::ffff:8.8.8.8", "8.8.8.8"),
        ("6.6.6.6, ::ffff:10.0.0.3", "6.6.6.6"),
        (", ,8.8.8.8,,", "8.8.8.8"),
        ("6.6.6.6," * 100 + "10.0.0.2", "6.6.6.6"),
    ],
)
async def test_the_client_is_the_last_that_no_trusted_proxy_is(chain_said: str, client: str) -> None:
    got = await through(forwarded(["10.0.0.0/8"]), {"x-forwarded-for": chain_said}, Peer(("10.0.0.1", 5), LOCAL))
    assert got.state["client"] == client


async def test_a_unix_socket_is_trusted_by_name_and_has_no_address() -> None:
    peer = Peer(("", 0), ("/run/app.sock", 0))
    stranger = await through(forwarded(), {"x-forwarded-for": "8.8.8.8"}, peer)
    assert (stranger.state["client"], stranger.headers["x-forwarded-for"]) == ("", "unknown")
    assert stranger.headers["forwarded"].startswith("for=unknown")
    trusted = await through(forwarded(["unix"]), {"x-forwarded-for": "8.8.8.8"}, peer)
    assert trusted.state["client"] == "8.8.8.8"


async def test_families_via_and_by_are_chosen() -> None:
    got = await through(forwarded(emit=["forwarded"], via=None, by="_edge"), {"host": "a.test:80"})
    assert got.headers.items() == [
        ("host", "a.test:80"),
        ("forwarded", 'for=203.0.113.9;by=_edge;host="a.test:80";proto=http'),
    ]
    got = await through(forwarded(emit=[], via="cdn-1"), version=10)
    assert got.headers.items() == [("via", "1.0 cdn-1")]


async def test_a_repeated_header_block_is_worked_out_once_for_each_peer() -> None:
    section = Headers({"host": "a"}).section
    filter, seen = forwarded(), Seen()
    app = chain(filter, to=seen)
    one, other = Peer(("1.2.3.4", 1), LOCAL), Peer(("5.6.7.8", 1), LOCAL)
    for peer in (one, one, one, other):
        await app(Request(headers=Headers.of(section), peer=peer))
    first, second, third, last = seen.requests
    assert second.headers.section is third.headers.section
    assert first.headers == second.headers != last.headers
    assert first.headers.section.wire == second.headers.section.wire
    assert (third.state["client"], last.state["client"]) == ("1.2.3.4", "5.6.7.8")


@pytest.mark.parametrize(
    "settings",
    [{"trusted": ["nonsense"]}, {"believe": "x"}, {"emit": ["via"]}, {"via": "a b"}, {"via": "a\r\nb"}, {"by": 'a"b'}],
)
def test_wrong_settings_are_refused(settings: Any) -> None:
    with pytest.raises(ConfigError):
        forwarded(**settings)


def test_networks_know_their_names() -> None:
    networks = Networks(["loopback", "192.0.2.0/24", "2001:db8::/32"])
    assert [
        networks.trusts(host)
        for host in (
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "192.0.2.9",
            "2001:db8::5",
            "fe80::1%eth0",
            "8.8.8.8",
            "x",
            "",
        )
    ] == [
        True,
        True,
        True,
        True,
        True,
        False,
        False,
        False,
        False,
    ]


@given(
    st.lists(
        st.tuples(st.ip_addresses(), st.sampled_from(["", "a.test", "a.test:80"]), st.sampled_from(["http", "https"])),
        min_size=1,
        max_size=5,
    )
)
def test_forwarded_reads_back_what_was_written(hops: list[tuple[Any, str, str]]) -> None:
    elements = parse_forwarded([b", ".join(element(str(address), host, scheme) for address, host, scheme in hops)])
    assert [(address_of(said["for"]), said.get("host", ""), said["proto"]) for said in elements] == [
        (address_of(str(address)), host, scheme) for address, host, scheme in hops
    ]


@given(st.binary(max_size=60))
def test_garbage_in_forwarded_never_breaks(data: bytes) -> None:
    parse_forwarded([data])


@given(st.text(max_size=70))
def test_garbage_in_a_chain_is_no_address_or_a_plain_one(text: str) -> None:
    found = address_of(text)
    assert found is None or address_of(found) == found
    assert quoted_node(found or "unknown")


@pytest.mark.parametrize("bad", ["for", "for=a=b", 'for="a', "for=a;for=b", "for=a for=b", "=a"])
def test_a_malformed_forwarded_says_nothing(bad: str) -> None:
    assert parse_forwarded([bad.encode()]) == []
