"""Hypothesis strategies for what travels through blocks: requests, fields, the pieces in which bytes arrive, faults and when they strike.

``from blocks.testing import strategies``, then ``@given(strategies.requests())``. Needs hypothesis.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from blocks.core.errors import MissingExtra
from blocks.http.message import Headers, Request

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy
except ImportError:
    raise MissingExtra("blocks.testing.strategies", "hypothesis") from None

_TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"  # RFC 9110 §5.6.2
_UNRESERVED = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"  # RFC 3986 §2.3
_VALUE = "".join(map(chr, range(0x21, 0x7F)))
_FRAMING = frozenset(
    ("content-length", "transfer-encoding", "connection", "host", "upgrade", "te", "trailer", "expect")
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SAFE = ("GET", "HEAD", "OPTIONS")  # RFC 9110 §9.2.1


def tokens(max_size: int = 24) -> SearchStrategy[str]:
    """A token: a method, a field name (RFC 9110 §5.6.2)."""
    return st.text(_TOKEN, min_size=1, max_size=max_size)


def field_values(max_size: int = 60) -> SearchStrategy[str]:
    """A field's value: visible characters, with blanks only inside (RFC 9110 §5.5)."""
    words = st.text(_VALUE, min_size=1, max_size=max(1, max_size // 3))
    return st.lists(words, max_size=3).map(" ".join)


def headers(max_size: int = 8) -> SearchStrategy[Headers]:
    """Header fields, repeats and any case among them; none that frames or routes a message."""
    names = tokens().filter(lambda name: name.lower() not in _FRAMING)
    return st.lists(st.tuples(names, field_values()), max_size=max_size).map(Headers)


def paths(max_segments: int = 4) -> SearchStrategy[str]:
    """A path: unreserved characters and percent-encoded bytes, no dot segments (RFC 3986 §3.3)."""
    encoded = st.integers(0x80, 0xFF).map(lambda byte: f"%{byte:02X}")
    segment = st.lists(st.one_of(st.text(_UNRESERVED, min_size=1, max_size=8), encoded), min_size=1, max_size=3)
    whole = segment.map("".join).filter(lambda text: text.strip("."))
    return st.lists(whole, max_size=max_segments).map(lambda segments: "/" + "/".join(segments))


def queries() -> SearchStrategy[str]:
    """A query without its question mark; often empty."""
    pair = st.tuples(st.text(_UNRESERVED, min_size=1, max_size=6), st.text(_UNRESERVED, max_size=8)).map("=".join)
    return st.lists(pair, max_size=4).map("&".join)


def targets() -> SearchStrategy[str]:
    """A path, with a query or without."""
    return st.builds(lambda path, query: f"{path}?{query}" if query else path, paths(), queries())


def bodies(max_size: int = 4096) -> SearchStrategy[bytes]:
    """A body; often none."""
    return st.one_of(st.just(b""), st.binary(max_size=max_size))


def requests(methods: Sequence[str] = METHODS, host: str = "example.test") -> SearchStrategy[Request]:
    """A request that any HTTP/1.1 server must understand; methods without a body have none."""

    def build(method: str, target: str, fields: Headers, body: bytes) -> Request:
        fields["host"] = host
        return Request(method, target, fields, b"" if method in SAFE or method == "DELETE" else body)

    return st.builds(build, st.sampled_from(methods), targets(), headers(), bodies())


def splits(data: bytes, max_pieces: int = 20) -> SearchStrategy[list[bytes]]:
    """``data`` in pieces, as a socket may give it: a machine must not care."""
    if not data:
        return st.just([])

    def cut(places: list[int]) -> list[bytes]:
        edges = [0, *sorted(set(places)), len(data)]
        return [data[start:end] for start, end in pairwise(edges) if start < end]

    return st.lists(st.integers(0, len(data)), max_size=max_pieces - 1).map(cut)


def fault_lines(connections: bool = False) -> SearchStrategy[str]:
    """A fault as ``blocks.testing.faultline.arm`` reads it: ``"next 2: reset"``. Each ends by itself, so that a test can recover."""
    which = st.builds(
        lambda count, skip: f"after {skip}, next {count}" if skip else f"next {count}",
        st.integers(1, 3),
        st.integers(0, 3),
    )
    verbs = [st.sampled_from(("reset", "close", "cut-body 10", "corrupt-body")), st.just("delay 200ms")]
    if not connections:
        verbs += [st.sampled_from(("cut-head", "corrupt-head", "status 503", "status 500", "reorder 1 500ms"))]
    lead = "connections " if connections else ""
    return st.builds(lambda chosen, verb: f"{lead}{chosen}: {verb}", which, st.one_of(verbs))


def schedules(
    lines: SearchStrategy[str] | None = None, within: float = 60.0, max_size: int = 5
) -> SearchStrategy[list[tuple[float, str]]]:
    """When which fault is armed: (seconds from the start, line), the earliest first."""
    moments = st.floats(0.0, within, allow_nan=False).map(lambda at: round(at, 3))
    return st.lists(st.tuples(moments, fault_lines() if lines is None else lines), max_size=max_size).map(sorted)
