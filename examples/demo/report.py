"""What was promised, and what was seen."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from blocks.testing import Result

from .customers import GREEDY_RATE, RATES, Look, Seen
from .shop import BURST, CUSTOMERS, GREEDY, RATE, Shop
from .story import Story, Turns

BARS = " ▁▂▃▄▅▆▇█"
AFTER = 2.0  # seconds after an event in which its effect is looked for


@dataclass
class Handled:
    """What the workers said: orders by group, and how many came more than once."""

    billing: Counter[str] = field(default_factory=Counter)
    notification: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, shop: Shop) -> Handled:
        billing = Counter(line for worker in shop.billing for line in worker.lines)
        return cls(billing, Counter(shop.notification.lines))

    def missing(self, accepted: set[str]) -> int:
        return len(accepted - self.billing.keys()) + len(accepted - self.notification.keys())

    @property
    def again(self) -> int:
        return sum(count - 1 for group in (self.billing, self.notification) for count in group.values())


def figures(seen: Seen, shop: Shop, seconds: float) -> None:
    """Print the rates, the percentiles and who answered."""
    print(f"\n  requests a second    {_line(seen, seconds)}\n")
    print("                       requests  errors       p50       p90       p99     p99.9       max")
    for kind, result in seen.results.items():
        quantiles = "".join(f"{result.quantile(q) * 1000:8.1f}ms" for q in (0.5, 0.9, 0.99, 0.999))
        print(f"  {kind:<20} {result.requests:8,} {result.errors:7,}{quantiles}{result.max * 1000:8.1f}ms")
    hits = sum(look.hit for look in seen.items)
    shares = ", ".join(f"{name} {count:,}" for name, count in sorted(seen.answered_by.items()))
    total = sum(result.requests for result in seen.results.values())
    cpu = ", ".join(f"{block.name} {block.cpu:.1f} s" for block in shop.blocks)
    print(f"\n  answered by          {shares}; {hits / max(1, len(seen.items)):.0%} of the items were hits in the edge")
    print(f"  CPU                  {cpu}, for {total:,} requests")
    late = max(result.late for result in seen.results.values())
    if late > 0.1:
        print(f"  note: this machine is busy: the load itself was up to {late * 1000:.0f} ms behind its schedule")


def _line(seen: Seen, seconds: float) -> str:
    counts = Counter(int(moment) for moment, _ in seen.latencies())
    rates = [counts[second] for second in range(int(seconds))]
    top = max(rates, default=1) or 1
    return (
        "".join(BARS[round(8 * rate / top)] for rate in rates)
        + f"  peak {top} (customers {sum(RATES.values())}, greedy {GREEDY_RATE})"
    )


def timeline(story: Story) -> None:
    """Print what happened when, and what the customers felt of it."""
    print(f"\n  {'when':>8}  {'p99':>9}  {'slowest':>9}  of the {AFTER:g} s after it")
    for at, text in story.tape.marks:
        near = Result()
        near.latencies = array("d", [took for moment, took in story.tape.seen.latencies() if at <= moment < at + AFTER])
        print(f"  {at:6.1f} s  {near.quantile(0.99) * 1000:6.0f} ms  {near.max * 1000:6.0f} ms  {text}")


def promises(seen: Seen, story: Story, stored: int) -> list[tuple[bool, str]]:
    """(kept, what was promised and what was seen)."""
    results = seen.results
    handled = Handled.of(story.shop)
    tries = [line for service in story.shop.orders for line in service.lines]
    twice = len(tries) - len(set(tries))
    reads = {kind: results[kind] for kind in ("items", "stock", "pages")}
    failed = sum(result.errors for result in reads.values())
    why = f" ({', '.join(f'{name} ×{count}' for name, count in seen.unexpected.items())})" if seen.unexpected else ""
    sent = results["orders"].requests
    return [
        (failed == 0, f"no GET fails: {failed} of {sum(r.requests for r in reads.values()):,} did{why}"),
        _switched("no old price after the purge", "2", seen.items, story.price),
        _switched("no old page after the activation", "v2", seen.pages, story.release),
        _greedy(seen),
        _others(seen),
        (len(seen.accepted) == sent, f"every order is accepted in the end: {len(seen.accepted):,} of {sent:,} were"),
        (twice == 0, f"no POST is sent twice by anybody but the customer: {twice} of {len(tries):,} were"),
        (stored == sent, f"orders are stored once, though {seen.repeated} were sent again: {stored:,} are on disk"),
        (
            handled.missing(seen.accepted) == 0,
            f"every accepted order reaches billing and notification: {handled.missing(seen.accepted)} did not"
            f" ({handled.again} came again, as at-least-once may)",
        ),
    ]


def _switched(promise: str, new: str, looks: list[Look], turns: Turns) -> tuple[bool, str]:
    old = sum(look.version != new for look in looks if look.asked > turns.ended)
    early = sum(look.version == new for look in looks if look.answered < turns.began)
    after = sum(look.asked > turns.ended for look in looks)
    kept = old == 0 and early == 0 and 0 < after < len(looks)
    return kept, f"{promise}, no new one before it: {old} of {after:,}, {early} of {len(looks) - after:,}"


def _greedy(seen: Seen) -> tuple[bool, str]:
    result = seen.results[GREEDY]
    allowed = BURST + RATE * (result.duration + 1)
    passed, refused = seen.passed[GREEDY], seen.refused[GREEDY]
    text = f"a customer with {GREEDY_RATE}/s is held to {RATE}/s and a burst of {BURST}: {passed} passed, {refused} got 429"
    return passed <= allowed and refused > 0, text


def _others(seen: Seen) -> tuple[bool, str]:
    refused = sum(seen.refused[customer] for customer in CUSTOMERS)
    begin = seen.starts[GREEDY]
    stock = seen.results["stock"]
    pairs = list(zip(stock.moments, stock.latencies, strict=True))
    before = p99(took for moment, took in pairs if moment < begin)
    beside = p99(took for moment, took in pairs if begin <= moment < begin + seen.results[GREEDY].duration)
    text = f"the {len(CUSTOMERS)} others are not: {refused} of their requests got 429"
    return refused == 0, f"{text} (p99 of the same pages {beside * 1000:.0f} ms, before {before * 1000:.0f} ms)"


def p99(latencies: Iterable[float]) -> float:
    """In seconds."""
    result = Result()
    result.latencies = array("d", latencies)
    return result.quantile(0.99)
