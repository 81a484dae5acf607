"""When survivors of a garbage collection are set aside, and when they are looked at again."""

from __future__ import annotations

import gc

import pytest

from blocks.http.garbage import LONG, PERIOD, Keeper, kept_short


class Collector:
    """Stands for ``gc`` and its clock; notes what is done."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.done: list[str] = []
        self.keeper = Keeper(lambda: self.done.append("freeze"), lambda: self.done.append("unfreeze"), lambda: self.now)

    def collect(self, took: float, generation: int = 2) -> None:
        self.keeper("start", {"generation": generation})
        self.now += took
        self.keeper("stop", {"generation": generation, "collected": 0, "uncollectable": 0})


@pytest.mark.parametrize(
    ("took", "generation", "done"),
    [(LONG / 2, 2, []), (LONG * 1.1, 2, ["freeze"]), (1.0, 1, []), (1.0, 0, [])],
)
def test_only_a_long_full_collection_sets_its_survivors_aside(took: float, generation: int, done: list[str]):
    collector = Collector()
    collector.collect(took, generation)
    assert collector.done == done


def test_once_an_hour_everything_is_looked_at():
    collector = Collector()
    collector.collect(1.0)
    collector.collect(0.0)
    collector.now += PERIOD
    collector.collect(1.0)
    collector.collect(0.0)
    assert collector.done == ["freeze", "unfreeze", "freeze"]


def test_nothing_is_looked_at_again_that_was_not_set_aside():
    collector = Collector()
    collector.now += 2 * PERIOD
    collector.collect(0.0)
    assert collector.done == []


def test_what_a_process_is_full_of_is_set_aside():
    with kept_short() as keeper:
        try:
            held = [[number] for number in range(1_000_000)]
            gc.collect()
            assert keeper.set_aside >= 1
            assert gc.get_freeze_count() > len(held) // 2
        finally:
            gc.unfreeze()
    assert keeper not in gc.callbacks
