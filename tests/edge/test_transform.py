"""Transforms: negotiated by weight, right in ETag and Vary, the original wherever something fails."""

from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.errors import ConfigError
from blocks.edge.transform import Compression, Minification
from blocks.http.message import Headers, Pair, Section

HTML = [(b"content-type", b"text/html"), (b"etag", b'"v1"')]
BODY = b"hello world " * 200


def decoded(coding: str, body: bytes) -> bytes:
    if coding == "gzip":
        return zlib.decompress(body, 31)
    if coding == "br":
        import brotli

        return bytes(brotli.decompress(body))
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj().decompress(body)


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_coded_twin_decodes_to_the_original_and_names_itself(coding: str) -> None:
    made = Compression().apply(coding, [*HTML, (b"repr-digest", b"sha-256=:x:"), (b"accept-ranges", b"bytes")], BODY)
    assert made is not None
    pairs, body = made
    assert decoded(coding, body) == BODY
    headers = Headers.of(Section(pairs))
    assert headers["content-encoding"] == coding
    assert headers["etag"] == 'W/"v1"'
    assert headers["vary"] == "Accept-Encoding"
    assert "repr-digest" not in headers


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (None, ""),
        (b"", ""),
        (b"gzip", "gzip"),
        (b"gzip, br", "br"),
        (b"gzip;q=1, br;q=0.5", "gzip"),
        (b"br;q=0, gzip;q=0.1", "gzip"),
        (b"*", "br"),
        (b"*;q=0", ""),
        (b"zstd;q=0.9, br;q=0.8", "zstd"),
        (b"identity, gzip;q=0.5", ""),
        (b"deflate, compress", ""),
        (b"GZIP", "gzip"),
    ],
)
def test_the_coding_is_chosen_by_weight(accepted: bytes | None, coding: str) -> None:
    assert Compression().choose(accepted) == coding


@pytest.mark.parametrize(
    ("pairs", "status", "may"),
    [
        (HTML, 200, True),
        ([(b"content-type", b"image/png")], 200, False),
        ([*HTML, (b"content-encoding", b"gzip")], 200, False),
        ([*HTML, (b"cache-control", b"public, no-transform")], 200, False),
        (HTML, 206, False),
        ([], 200, False),
    ],
)
def test_only_what_may_be_coded_is(pairs: list[Pair], status: int, may: bool) -> None:
    assert Compression().variants(Section(pairs), status) is may


def test_small_and_incompressible_bodies_stay() -> None:
    import os

    assert Compression().apply("gzip", HTML, b"short") is None
    assert Compression().apply("gzip", HTML, os.urandom(2000)) is None


def test_vary_is_named_once_on_the_plain_form() -> None:
    assert Compression().vary([(b"vary", b"Origin")]) == [(b"vary", b"Origin, Accept-Encoding")]
    assert Compression().vary([(b"vary", b"accept-encoding")]) == [(b"vary", b"accept-encoding")]


def test_unknown_codings_and_kinds_are_refused() -> None:
    with pytest.raises(ConfigError):
        Compression(["lzma"])
    with pytest.raises(ConfigError):
        Compression("gzip")
    with pytest.raises(ConfigError, match="kinds are"):
        Minification(["svg"])


SOURCES = {
    b"text/javascript": (b"function  add( a, b ) {\n  // sum\n  return a + b;\n}\nlet s = `keep   this`;\n", b"keep   this"),
    b"text/css": (b"a {\n  color : red ;\n}\n/* note */\nb { margin : 0 0 }\n", b"a{color:red}"),
    b"text/html; charset=UTF-8": (
        b"<!doctype html>\n<html>\n<body>\n  <!-- note -->\n  <p>hi   there</p>\n</body>\n</html>\n",
        b"<p>hi there</p>",
    ),
    b"application/json": (
        b'{\n  "a b": [1.50, 12345678901234567890],\n  "c": "x  \\" y"\n}\n',
        b'{"a b":[1.50,12345678901234567890],"c":"x  \\" y"}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("content_type", SOURCES)
def test_what_people_read_goes_and_the_meaning_stays(content_type: bytes) -> None:
    source, kept = SOURCES[content_type]
    made = Minification().minify(
        [(b"content-type", content_type), (b"etag", b'"x"'), (b"content-length", b"9")], source
    )
    assert made is not None
    pairs, body = made
    assert kept in body
    assert len(body) < len(source)
    assert b"note" not in body
    assert (b"etag", b'W/"x"') in pairs
    assert all(name != b"content-length" for name, _ in pairs)


@pytest.mark.parametrize(
    ("pairs", "body"),
    [
        ([(b"content-type", b"application/json")], b'{"broken":   '),
        ([(b"content-type", b"text/html; charset=iso-8859-1")], b"<p>  \xe9  </p>"),
        ([(b"content-type", b"text/css")], b"a { content: '\xff' }"),
        ([(b"content-type", b"text/css"), (b"content-encoding", b"gzip")], b"a {  }"),
        ([(b"content-type", b"text/css"), (b"cache-control", b"no-transform")], b"a {  }"),
        ([(b"content-type", b"text/plain")], b"a   b"),
        ([], b"a   b"),
        ([(b"content-type", b"text/css")], b""),
        ([(b"content-type", b"text/css")], b"a{b:c}"),
        ([(b"content-type", b"text/css")], b"/* */ " * 200_000),
    ],
)
def test_the_original_stays_where_something_is_in_the_way(pairs: list[Pair], body: bytes) -> None:
    assert Minification().minify(pairs, body) is None


@given(st.binary(max_size=500), st.sampled_from(list(SOURCES)))
def test_no_bytes_of_an_origin_make_it_fail(body: bytes, content_type: bytes) -> None:
    Minification().minify([(b"content-type", content_type)], body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_minified_json_is_the_same_value(value: object) -> None:
    source = json.dumps(value, indent=4).encode()
    made = Minification(["json"]).minify([(b"content-type", b"application/json")], source)
    assert json.loads(made[1] if made else source) == value
