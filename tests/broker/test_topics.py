from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.broker.errors import BadTopic
from blocks.broker.topics import Names, Patterns, check_pattern, check_topic, covers, matches

words = st.sampled_from(["a", "b", "c", "$x"])
names = st.lists(words, min_size=1, max_size=4).map(".".join)
heads = st.lists(st.sampled_from(["a", "b", "c", "*", "$x"]), min_size=1, max_size=4)
patterns = st.tuples(heads, st.booleans()).map(lambda pair: ".".join(pair[0] + ([">"] if pair[1] else [])))


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        (">", "a.b.c", True),
        ("*", "a", True),
        (">", "$dead.a", False),
        ("*.a", "$dead.a", False),
        ("$dead.>", "$dead.a", True),
    ],
)
def test_a_pattern_stands_for_the_names_that_the_rules_say(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


@pytest.mark.parametrize(
    "name", ["", ".", "a.", ".a", "a..b", "a b", "a\n", "a.*", ">", "a>b", "x" * 256, "a." * 40 + "a", 7]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(BadTopic):
        check_topic(name)


@pytest.mark.parametrize("pattern", ["", "a.>.b", ">.a", "a*", "a.b*.c", "a..b", "a b", "x" * 256])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(BadTopic):
        check_pattern(pattern)


@given(st.lists(patterns, max_size=12), names)
def test_the_trie_finds_what_the_rule_says(held: list[str], name: str) -> None:
    trie: Patterns[str] = Patterns(cache=4)
    for pattern in held:
        trie.add(pattern, pattern)
    assert sorted(trie.match(name)) == sorted({p for p in held if matches(p, name)})
    assert trie.match(name) is trie.match(name)
    for pattern in held[: len(held) // 2]:
        trie.discard(pattern, pattern)
    left = set(held) - set(held[: len(held) // 2])
    assert set(trie.match(name)) == {p for p in left if matches(p, name)}
    for pattern in left:
        trie.discard(pattern, pattern)
    assert len(trie) == 0
    assert not trie._root.children


@given(st.lists(names, max_size=12), patterns)
def test_the_names_of_a_pattern_are_those_that_match(held: list[str], pattern: str) -> None:
    trie = Names()
    for name in held:
        trie.add(name)
    assert sorted(trie.select(pattern)) == sorted({n for n in held if matches(pattern, n)})
    for name in held:
        trie.discard(name)
    assert len(trie) == 0
    assert not trie._root.children


@given(patterns, patterns, names)
def test_a_pattern_that_covers_another_matches_all_of_its_names(wide: str, narrow: str, name: str) -> None:
    if covers(wide, narrow) and matches(narrow, name):
        assert matches(wide, name)


def test_a_full_cache_starts_again_and_stays_right() -> None:
    trie: Patterns[int] = Patterns(cache=10)
    trie.add("a.*", 1)
    for number in range(100):
        assert trie.match(f"a.{number}") == (1,)
    assert len(trie._cache) <= 10
