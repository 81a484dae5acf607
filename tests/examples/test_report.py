"""Each promise of the demo is said to be broken when it is: the report judges what was seen, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from demo import customers, report, story

    yield SimpleNamespace(report=report, customers=customers, story=story)
    for name in [name for name in sys.modules if name == "demo" or name.startswith("demo.")]:
        del sys.modules[name]


class Case:
    """Half a minute in which everything went well."""

    def __init__(self, demo: Any) -> None:
        from blocks.testing import Result

        look, turns = demo.customers.Look, demo.story.Turns
        seen = self.seen = demo.customers.Seen()
        for kind in ("items", "stock", "pages", "orders", "greedy"):
            result = seen.results[kind] = Result()
            result.duration = 2.0
            seen.starts[kind] = 0.0
            for number in range(10):
                result.record(number / 10, 0.001, 202 if kind == "orders" else 200, "", 1)
        seen.items += [look(1.0, 1.1, "1"), look(1.9, 2.3, "2"), look(3.0, 3.1, "2", True)]
        seen.pages += [look(1.0, 1.1, "v1"), look(3.0, 3.1, "v2")]
        seen.accepted |= {str(number) for number in range(10)}
        seen.passed["greedy"], seen.refused["greedy"] = 150, 40
        orders = [str(number) for number in range(10)]
        self.tries = [f"{number}.0" for number in orders]
        self.billing, self.notification = list(orders), list(orders)
        self.stored = 10
        self.changed = turns(2.0, 2.5)
        self._report = demo.report

    def judge(self) -> list[bool]:
        lines = {"billing": [self.billing], "orders": [self.tries]}
        shop = SimpleNamespace(
            **{name: [SimpleNamespace(lines=one) for one in said] for name, said in lines.items()},
            notification=SimpleNamespace(lines=self.notification),
        )
        story = SimpleNamespace(shop=shop, price=self.changed, release=self.changed)
        return [kept for kept, _ in self._report.promises(self.seen, story, self.stored)]


def fail_a_get(case: Case) -> None:
    case.seen.results["stock"].record(1.0, 0.1, 0, "Unexpected", 0)


def show_an_old_price(case: Case) -> None:
    case.seen.items[-1].version = "1"


def show_a_page_too_early(case: Case) -> None:
    case.seen.pages[0].version = "v2"


def let_the_greedy_pass(case: Case) -> None:
    case.seen.passed["greedy"] = 1000


def refuse_another(case: Case) -> None:
    case.seen.refused["ann"] = 1


def lose_an_order_at_the_door(case: Case) -> None:
    case.seen.accepted.discard("3")


def send_a_post_twice(case: Case) -> None:
    case.tries.append("3.0")


def store_an_order_twice(case: Case) -> None:
    case.stored = 11


def lose_an_order_behind(case: Case) -> None:
    case.notification.remove("3")


BREAKS = [
    fail_a_get, show_an_old_price, show_a_page_too_early, let_the_greedy_pass, refuse_another, lose_an_order_at_the_door,
    send_a_post_twice, store_an_order_twice, lose_an_order_behind,
]  # fmt: skip


def test_all_is_kept_when_all_went_well(demo):
    assert Case(demo).judge() == [True] * len(BREAKS)


@pytest.mark.parametrize("broken", range(len(BREAKS)), ids=[one.__name__ for one in BREAKS])
def test_a_broken_promise_is_said_to_be_broken(demo, broken: int):
    case = Case(demo)
    how: Callable[[Case], None] = BREAKS[broken]
    how(case)
    assert case.judge() == [number != broken for number in range(len(BREAKS))]


def test_an_order_that_comes_again_breaks_nothing(demo):
    case = Case(demo)
    case.billing.append("3")
    assert all(case.judge())
