"""Field syntax: structured fields (RFC 9651), HTTP dates, directives, tags, Cache-Status, as functions of bytes."""

# a row of a table is a line

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from blocks.edge import cache_status
from blocks.edge.dates import format_date, parse_date
from blocks.edge.directives import parse_directives, parse_targeted, seconds_of
from blocks.edge.search import parse_no_vary_search
from blocks.edge.structured import (
    Date,
    Display,
    Inner,
    Item,
    NotStructured,
    Token,
    parse_dictionary,
    parse_item,
    parse_list,
    string,
    token_or_string,
)
from blocks.edge.tags import groups_of, tags_of
from blocks.edge.vary import parse_qualities, preferred_language, selecting_values
from blocks.http import Section


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42), ("-42", -42), ("007", 7), ("999999999999999", 999999999999999), ("4.5", 4.5), ("-0.25", -0.25), ("0.5", 0.5),
        ('"a b"', "a b"), (r'"a\"\\b"', 'a"\\b'), ('""', ""), ("tok", Token("tok")), ("*foo/1:2", Token("*foo/1:2")),
        (":aGk=:", b"hi"), ("::", b""), ("?1", True), ("?0", False), ("@1659578233", Date(1659578233)), ('%"f%c3%bc"', Display("fü")),
    ],
)  # fmt: skip
def test_items_are_read(text: str, value: object) -> None:
    item = parse_item(text)
    assert item.value == value
    assert type(item.value) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "", "&", "1.", "1.2345", "1234567890123456", "1234567890123.1", "-", "--1", '"a', '"\x7f"', r'"\a"', "'a'", "?2", "?", ":a", ":é:", "@1.5",
        '%"%C3%BC"', '%"%c3"', "1 2", "tok,", "a;", "a;A=1", "é",
    ],
)  # fmt: skip
def test_what_is_no_item_is_refused(text: str) -> None:
    with pytest.raises(NotStructured):
        parse_item(text)


def test_lists_and_dictionaries_are_read_with_their_parameters() -> None:
    members = parse_list('sugar;a;b=2 , ("x" y;q=1.5);z=?0,42')
    assert members == [
        Item(Token("sugar"), {"a": True, "b": 2}),
        Inner([Item("x", {}), Item(Token("y"), {"q": 1.5})], {"z": False}),
        Item(42, {}),
    ]
    assert parse_list("") == []
    assert parse_dictionary("a=1, b;x, a=3, c=(1 2)") == {
        "b": Item(True, {"x": True}), "a": Item(3, {}), "c": Inner([Item(1, {}), Item(2, {})], {}),
    }  # fmt: skip
    assert list(parse_dictionary("a=1, b, a=3")) == ["b", "a"]


@pytest.mark.parametrize(
    "text", ["a,", "a,,b", ",a", "a b", "(a", "(a,b)", "(a)b", "A=1", "a=1 b=2", "a=", "a =1", "a= 1"]
)
def test_malformed_lists_and_dictionaries_are_refused(text: str) -> None:
    if text not in ("A=1", "a=1 b=2", "a=", "a =1", "a= 1"):
        with pytest.raises(NotStructured):
            parse_list(text)
    with pytest.raises(NotStructured):
        parse_dictionary(text)


@given(st.text(max_size=60))
@example("%" + '"' + "%ff" + '"')
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_item, parse_list, parse_dictionary):
        try:
            parse(text)
        except NotStructured:
            pass


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_a_string_comes_back(text: str) -> None:
    assert parse_item(string(text)).value == text
    assert str(parse_item(token_or_string(text)).value) == text


@given(st.integers(0, 253402300799))
def test_dates_are_those_of_the_mail_library(when: int) -> None:
    text = formatdate(when, usegmt=True).encode()
    assert format_date(when) == text
    assert parse_date(text, 0.0) == when


@given(st.binary(max_size=40))
def test_no_bytes_break_the_reading_of_dates_and_directives(value: bytes) -> None:
    parse_date(value, 0.0)
    parse_directives(value)
    parse_targeted(value)


def test_the_century_of_an_rfc_850_year_depends_on_now() -> None:
    in_2026 = 1_780_000_000.0
    assert parse_date(b"Sunday, 06-Nov-94 08:49:37 GMT", in_2026) == 784111777
    assert parse_date(b"Tuesday, 06-Nov-40 08:49:37 GMT", in_2026) == parse_date(b"Tue, 06 Nov 2040 08:49:37 GMT", 0)


def test_a_hostile_directive_list_is_read_in_time_that_grows_with_it() -> None:
    assert parse_directives(b'a="' * 2000) is not None
    assert parse_directives(b"," * 100_000 + b"max-age=1") == {}
    assert seconds_of(parse_directives(b"max-age=" + b"9" * 4000), "max-age") == 2**31


def test_tags_are_read_from_three_fields() -> None:
    section = Section([(b"surrogate-key", b"a b"), (b"cache-tag", b"c, d e,"), (b"cache-groups", b'"g", "h"')])
    assert tags_of(section, "http://x") == ("a", "b", "c", "d e", "g", "http://x g", "h", "http://x h")
    assert groups_of(Section([(b"cache-groups", b'"g", bad, &')]), b"cache-groups") == []
    assert len(tags_of(Section([(b"surrogate-key", b" ".join(b"%d" % n for n in range(9999)))]), "")) == 256


def test_cache_status_members() -> None:
    assert cache_status.hit("blocks", 3.9) == "blocks; hit; ttl=3"
    assert cache_status.hit("my edge", -1.5, "stale") == '"my edge"; hit; ttl=-2; detail=stale'
    assert cache_status.forwarded(
        "b", cache_status.STALE, 304, stored=True, collapsed=True, ttl=5.5, key="k", detail="x y"
    ) == ('b; fwd=stale; fwd-status=304; stored; collapsed; ttl=5; key="k"; detail="x y"')
    for member in (cache_status.hit("a b", 1), cache_status.forwarded("b", "miss", key='a"b', detail="é")):
        assert len(parse_list(member)) == 1


def test_qualities_and_languages() -> None:
    assert parse_qualities(b"de, en;q=0.5, fr;q=x, ,it ; q = 0") == [("de", 1.0), ("en", 0.5), ("fr", 1.0), ("it", 0.0)]
    for value, best in (
        (b"fr;q=0.5, de", b"de"),
        (b"de, en", b""),
        (b"*", b""),
        (b"de;q=0", b""),
        (b"DE-at, en;q=0.1", b"de-at"),
    ):
        assert preferred_language(Section([(b"accept-language", value)])) == best
    assert preferred_language(Section([])) == b""


def test_an_absent_selecting_field_is_not_an_empty_one() -> None:
    assert selecting_values((b"a",), Section([])) != selecting_values((b"a",), Section([(b"a", b"")]))
    assert selecting_values((b"a",), Section([])) != selecting_values((b"a",), Section([(b"a", b"-")]))


@pytest.mark.parametrize(
    ("field", "one", "other", "same"),
    [
        (b'params=("a")', "a=1&b=2", "b=2&a=9", True), (b'params=("a")', "b=1", "b=2", False), (b"params", "a=1", "z=9", True),
        (b'params, except=("id")', "id=1&x=2", "id=1", True), (b'params, except=("id")', "id=1", "id=2", False),
        (b"key-order", "a=1&b=2", "b=2&a=1", True), (b'params=("a")', "b=%20", "b=+", True), (b'params=("%C3%A9")', "%c3%a9=1", "", True),
    ],
)  # fmt: skip
def test_no_vary_search(field: bytes, one: str, other: str, same: bool) -> None:
    variance = parse_no_vary_search(field)
    assert variance is not None
    assert (variance.canonical(one) == variance.canonical(other)) is same


@pytest.mark.parametrize(
    "field",
    [
        b"",
        b"params=?0",
        b'params="a"',
        b"params=(a)",
        b'except=("a")',
        b'params=("a"), except=("b")',
        b"key-order=1",
        b"&",
    ],
)
def test_a_no_vary_search_that_says_nothing(field: bytes) -> None:
    assert parse_no_vary_search(field) is None
