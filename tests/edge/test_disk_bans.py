"""Purges on disk: one dictionary entry each, exact by name and generation, short in the journal, bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.errors import ConfigError
from blocks.edge.store.disk.bans import CLEAR, Bans, Scopes, Verdict

HARD, SOFT = Verdict(True, False), Verdict(False, True)


def scopes(key: str = "http://a.test/dir/x?q=1", *tags: str) -> Scopes:
    return Scopes.of(key, tags)


@pytest.mark.parametrize(
    ("kind", "value", "hit"),
    [
        ("url", "http://a.test/dir/x?q=1", True),
        ("url", "/dir/x?q=1", True),
        ("url", "/dir/x", False),
        ("prefix", "http://a.test/d", True),
        ("prefix", "/dir/", True),
        ("prefix", "/", True),
        ("prefix", "/other", False),
        ("host", "a.test", True),
        ("host", "test", False),
        ("tag", "t", True),
        ("tag", "T", False),
    ],
)
def test_a_ban_takes_what_it_names_and_is_older(kind: str, value: str, hit: bool) -> None:
    bans = Bans()
    before = bans.generation
    bans.add(kind, value)
    assert bans.verdict(scopes("http://a.test/dir/x?q=1", "t"), before) == (HARD if hit else CLEAR)
    assert bans.verdict(scopes("http://a.test/dir/x?q=1\0br", "t"), before) == (HARD if hit else CLEAR)
    assert bans.verdict(scopes("http://a.test/dir/x?q=1", "t"), bans.generation) == CLEAR


def test_hard_and_soft_are_told_apart() -> None:
    bans = Bans()
    bans.add("tag", "t", soft=True)
    assert bans.verdict(scopes("http://a.test/", "t"), 1) == SOFT
    bans.add("host", "a.test")
    assert bans.verdict(scopes("http://a.test/", "t"), 1) == Verdict(True, True)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ConfigError, match="url, prefix"):
        Bans().add("zone", "x")


BAN = st.tuples(st.sampled_from(["url", "prefix", "host", "tag"]), st.text(max_size=8), st.booleans())


@given(st.lists(BAN, max_size=30), st.text(max_size=8))
def test_a_journal_says_the_same_as_the_bans(made: list[tuple[str, str, bool]], key: str) -> None:
    bans = Bans()
    journal = b"".join([bans.add(kind, value, soft=soft) for kind, value, soft in made])
    for source in (journal, bans.snapshot()):
        again = Bans()
        assert again.replay(source) == 0
        for generation in range(1, bans.generation + 1):
            named = Scopes.of(f"http://{key}/{key}", [key])
            assert again.verdict(named, generation) == bans.verdict(named, generation)


@given(st.binary(max_size=60), st.integers(0, 200))
def test_a_torn_or_foreign_journal_is_read_as_far_as_it_is_true(noise: bytes, cut: int) -> None:
    bans = Bans()
    first = bans.add("host", "a.test")
    torn = first + bans.add("host", "b.test")[: cut % 20] + b"\n" + noise.replace(b"\n", b"")
    again = Bans()
    assert again.replay(torn) <= 2
    assert again.verdict(scopes(), 1) == HARD


def test_what_is_older_than_every_entry_is_forgotten() -> None:
    bans = Bans()
    bans.add("prefix", "/a")
    bans.add("prefix", "/b")
    bans.forget(2)
    assert len(bans) == 1
    assert bans.verdict(scopes("http://x/b"), 2) == HARD
    assert bans.verdict(scopes("http://x/a"), 2) == CLEAR


def test_too_many_become_one_that_purges_more_never_less() -> None:
    bans = Bans(limit=100)
    for n in range(500):
        bans.add("url", f"/{n}")
    assert len(bans) <= 101
    for n in range(500):
        assert bans.verdict(scopes(f"http://x/{n}"), n + 1).hard
    assert bans.verdict(scopes("http://x/other"), bans.generation) == CLEAR
