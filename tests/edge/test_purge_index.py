"""The purge index finds what a scan over all keys would find."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.edge.purge import PurgeIndex
from blocks.edge.store import Purge

segments = st.lists(st.sampled_from(["a", "b", "ab", "c", ""]), max_size=4)
keys = st.builds(
    lambda scheme, host, path, tail: f"{scheme}://{host}/{'/'.join(path)}{tail}",
    st.sampled_from(["http", "https"]), st.sampled_from(["one", "two"]), segments, st.sampled_from(["", "?q=1/2", "\0v", "?q\0v/w"]),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(keys, st.sets(st.sampled_from(["t", "u"]))), max_size=60),
    st.lists(st.integers(0, 59), max_size=20),
    keys,
    st.integers(0, 20),
)
def test_every_purge_finds_what_it_means(
    added: list[tuple[str, set[str]]], removed: list[int], asked: str, cut: int
) -> None:
    index = PurgeIndex()
    known: dict[str, tuple[str, ...]] = {}
    for key, tags in added:
        if key not in known:
            known[key] = tuple(tags)
            index.add(key, tags)
    for place in removed:
        if place < len(added) and added[place][0] in known:
            index.discard(added[place][0], known.pop(added[place][0]))
    prefix = asked[: 7 + cut]
    for purge in (Purge("prefix", prefix), Purge("url", asked), Purge("host", "one"), Purge("tag", "t")):
        expected = {key for key, tags in known.items() if purge.matches(key, tags)}
        assert set(index.find(purge)) & set(known) == expected, purge


def test_many_keys_in_one_folder_and_in_many() -> None:
    index = PurgeIndex()
    flat = [f"http://h/img/{place}.png" for place in range(1000)]
    deep = [f"http://h/item/{place}/view" for place in range(1000)]
    for key in flat + deep:
        index.add(key)
    assert set(index.find(Purge("prefix", "http://h/img/"))) == set(flat)
    assert set(index.find(Purge("prefix", "http://h/item/7/"))) == {"http://h/item/7/view"}
    assert len(index.find(Purge("prefix", "http://h/item/7"))) == 111
    assert len(index.find(Purge("host", "h"))) == 2000
    for key in flat + deep:
        index.discard(key)
    assert index.find(Purge("host", "h")) == []
    assert index.bases() == []
