"""The memory store keeps within its bytes, keeps what is hot, and survives scans."""

from __future__ import annotations

from collections import OrderedDict
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.edge.entry import Entry
from blocks.edge.store.memory import MemoryStore


def entry(key: str, size: int = 500) -> Entry:
    return Entry(key, 200, b"", bytes(size), born=0.0, lifetime=60.0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "get", "remove"]), st.integers(0, 30), st.integers(0, 2000)), max_size=300
    )
)
def test_bytes_are_counted_and_bounded_whatever_is_done(actions: list[tuple[str, int, int]]) -> None:
    gone: list[Entry] = []
    store = MemoryStore(60_000, gone.append)
    put = 0
    for action, number, size in actions:
        key = f"k{number}"
        if action == "put":
            put += store.put(entry(key, size))
        elif action == "get":
            store.get(key)
        else:
            store.remove(key)
        assert store.bytes == sum(each.size for each in store)
        assert store.bytes <= store.capacity
        assert len(store) == put - len(gone)


def test_what_is_above_the_twentieth_part_is_not_kept() -> None:
    store = MemoryStore(100_000)
    assert store.put(entry("small", 4000))
    assert not store.put(entry("large", 5000))
    assert store.get("large") is None


def test_a_replacement_that_is_too_large_takes_the_old_one_out() -> None:
    store = MemoryStore(100_000)
    store.put(entry("a", 100))
    assert not store.put(entry("a", 9000))
    assert store.get("a") is None
    assert store.bytes == 0


def test_what_is_hot_survives_a_scan() -> None:
    store = MemoryStore(200_000)
    hot = [f"hot{place}" for place in range(50)]
    for _ in range(4):
        for key in hot:
            if store.get(key) is None:
                store.put(entry(key))
    for place in range(5000):
        store.put(entry(f"scan{place}"))
        if place % 20 == 0:
            for key in hot:
                store.get(key)
    assert sum(store.get(key) is not None for key in hot) == 50


def test_places_of_what_was_removed_are_given_back() -> None:
    store = MemoryStore(10_000_000)
    for place in range(5000):
        store.put(entry(f"k{place % 10}"))
    assert len(store._small) + len(store._main) < 200


def hit_ratio(trace: list[str], capacity: int) -> tuple[float, float]:
    """(S3-FIFO's, LRU's) over a trace of equal objects."""
    store = MemoryStore(capacity)
    lru: OrderedDict[str, None] = OrderedDict()
    most = capacity // entry("x" * 8).size
    hits = lru_hits = 0
    for key in trace:
        if store.get(key) is not None:
            hits += 1
        else:
            store.put(entry(key))
        if key in lru:
            lru.move_to_end(key)
            lru_hits += 1
        else:
            lru[key] = None
            if len(lru) > most:
                lru.popitem(last=False)
    return hits / len(trace), lru_hits / len(trace)


def test_it_beats_lru_where_one_hit_wonders_come_between() -> None:
    random = Random(1)
    weights = [1 / (place + 1) for place in range(2000)]
    popular = random.choices(range(2000), weights, k=20_000)
    trace = [f"p{number:07}" if random.random() < 0.6 else f"w{place:07}" for place, number in enumerate(popular)]
    ours, lru = hit_ratio(trace, 200 * 1024)
    assert ours > lru + 0.03
