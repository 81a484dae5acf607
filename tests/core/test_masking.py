"""What an operator may see of the settings, and what not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.config.read import read
from blocks.core.masking import MASK, is_secret, masked

SECRET = [
    "token",
    "admin_token",
    "password",
    "PASSWD",
    "client_secret",
    "secrets",
    "DB_PASSWORD",
    "api_key",
    "private_key",
    "Authorization",
    "keys",
]
OPEN = [
    "token_file",
    "key",
    "tls_key",
    "token_url",
    "token_header",
    "session_cookie",
    "token_ttl",
    "listen",
    "url",
    "secret_path",
    "keep",
    "policy",
]


@pytest.mark.parametrize("key", SECRET)
def test_a_key_that_says_so_is_masked(key: str):
    assert is_secret(key)
    assert masked({key: "abc"}) == {key: MASK}
    assert masked({"a": [{key: ["abc"]}]}) == {"a": [{key: MASK}]}


@pytest.mark.parametrize("key", OPEN)
def test_where_a_secret_is_or_how_long_it_lives_is_none(key: str):
    assert masked({key: "abc"}) == {key: "abc"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://me:pw@host:6379/0", "redis://***@host:6379/0"),
        ("blocks+tls://T0k3n@host", "blocks+tls://***@host"),
        ("http://host/hook?token=abc&x=1", "http://host/hook?token=***&x=1"),
        ("Bearer abc.def", "Bearer ***"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("someone@example.com", "someone@example.com"),
    ],
)
def test_texts_that_carry_a_secret_show_the_rest(text: str, shown: str):
    assert masked([text]) == [shown]


def test_switches_and_what_is_empty_are_told():
    assert masked({"authorization": True, "token": None, "secret": ""}) == {
        "authorization": True,
        "token": None,
        "secret": "",
    }


def test_a_table_of_secrets_tells_their_names_only():
    assert masked({"signed": {"secrets": {"1": "sixteen bytes", "2": ""}, "prefixes": ["/"]}}) == {
        "signed": {"secrets": {"1": "***", "2": ""}, "prefixes": ["/"]}
    }


def test_what_files_and_secret_variables_gave_is_masked_wherever_it_stands(tmp_path: Path):
    (tmp_path / "pin").write_text("hush-hush\n")
    (tmp_path / "c.toml").write_text(
        'url = "http://h/${file:pin}/x"\nmore = "${UPSTREAM_TOKEN}!"\nport = "${PORT:-8080}"\nplain = "it is $$5"\n'
    )
    source = read(tmp_path / "c.toml", {"UPSTREAM_TOKEN": "s3cret"})
    assert source.tables["url"] == "http://h/hush-hush/x"
    assert source.secrets == {"hush-hush", "s3cret"}
    assert masked(source.tables, source.secrets) == {
        "url": "http://h/***/x",
        "more": "***!",
        "port": "8080",
        "plain": "it is $5",
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
        max_leaves=12,
    )
)
def test_masking_twice_is_masking_once(value: object):
    once = masked(value, ["abcd"])
    assert masked(once, ["abcd"]) == once
