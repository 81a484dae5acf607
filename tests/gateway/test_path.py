from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.gateway.path import BadPath, host_name, normalise


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/", "/a/"),
        ("//a///b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/%61dmin", "/admin"),
        ("/a/%2e%2e/b", "/b"),
        ("/%2E/a", "/a"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/100%25", "/100%25"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a%3bb", "/a%3Bb"),
    ],
)
def test_spellings_of_one_path_become_one(raw: str, canonical: str) -> None:
    assert normalise(raw) == canonical


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "a",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a\\b",
        "/a%00",
        "/a%0d%0aX",
        "/a\x00",
        "/a b",
        "/a%",
        "/a%zz",
        "/%252e%252e/a",
        "/a;x=1",
        "/..;/admin",
        "/../a",
        "/a/../../b",
        "/é",
        "/a?",
        "/a#b",
        "/x" * 129,
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(raw: str) -> None:
    with pytest.raises(BadPath):
        normalise(raw)


def test_encoded_slashes_and_semicolons_stay_opaque_where_allowed() -> None:
    assert normalise("/p/group%2fproject", encoded_slash=True) == "/p/group%2Fproject"
    assert normalise("/a;v=1/b", semicolon=True) == "/a;v=1/b"
    with pytest.raises(BadPath):
        normalise("/..;/admin", semicolon=True)
    with pytest.raises(BadPath):
        normalise("/a%5cb", encoded_slash=True)


@given(st.text(alphabet="/.%2eEfF5cab;\\ 0\x00é", max_size=24))
def test_a_canonical_path_is_a_fixed_point(text: str) -> None:
    try:
        path = normalise("/" + text, encoded_slash=True, semicolon=True)
    except BadPath:
        return
    assert normalise(path, encoded_slash=True, semicolon=True) == path
    assert "//" not in path
    assert not {".", ".."} & {segment.partition(";")[0] for segment in path.split("/")}


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("example.com:8080", "example.com"),
        ("[::1]:80", "[::1]"),
        ("a", "a"),
    ],
)
def test_a_host_has_one_name(raw: str, name: str) -> None:
    assert host_name(raw) == name


@pytest.mark.parametrize("raw", ["a..b", "a b", "a/b", "a:b", "-a", "", "..", "a@b", "[::1]x", "a..", "[zz]"])
def test_what_is_no_host_is_refused(raw: str) -> None:
    with pytest.raises(BadPath):
        host_name(raw)


@pytest.mark.parametrize(
    "path",
    [
        "/a/..%3B/b",
        "/a/..%2fb",
        "/a/x%2F..%2F..%2Fb",
        "/a/%2e%2E%2Fb",
        "/a/b%2F.",
        "/a/.%3bx/b",
        "/a/%c0%ae%C0%ae/b",
        "/a%c0%af..",
        "/a%c1%9cb",
    ],
)
def test_what_lax_services_take_for_dots_and_slashes_is_refused(path: str) -> None:
    with pytest.raises(BadPath):
        normalise(path, semicolon=True, encoded_slash=True)
