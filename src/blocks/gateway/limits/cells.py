"""Limits that are all buckets in memory, which most are, decided in one pass of arithmetic: one look-up and one store for each.

The same answers as ``step.Limits`` gives; what it does not know (tiers, learnt costs, dry runs, other algorithms, limits that
are decided at two places) is left to that.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from blocks.http.message import Request, Response

from ..context import Context
from ..steps import Answer
from .compiled import Rule, Tier
from .gcra import Gcra
from .generations import Generations
from .keys import Key
from .standing import known_of
from .step import Charged, Limits


class Cell(NamedTuple):
    """One limit: its key, its table, how far a request moves its arrival time and how far that may be ahead, and what is told of it."""

    key: Key
    memory: Generations
    charge: float
    slack: float
    interval: float  # 0.0: clients are not told
    most: float
    refused: tuple[Rule, Tier, float]


class Cells(Limits):
    """The memory limits of a route when each is one GCRA of a fixed cost."""

    def __init__(self, rules: list[Rule]) -> None:
        super().__init__(rules)
        cells = []
        for rule in rules:
            tier, own = rule.default, _bucket(rule)
            assert tier is not None
            assert own is not None
            interval = own.interval if rule.fields else 0.0
            refused = (rule, tier, own.span)
            cells.append(Cell(rule.key, own.memory, rule.cost * own.interval, own.slack, interval, own.amount, refused))
        self._cells = tuple(cells)
        told = [cell.refused for cell in cells if cell.interval]
        self._policy = b", ".join([tier.policy for _, tier, _ in told])
        self._form = b", ".join([rule.label.replace(b"%", b"%%") + b";r=%d;t=%d" for rule, _, _ in told])

    def check(self, request: Request, context: Context) -> Answer:
        """None when all limits let the request pass; it is then counted in each. Else 429."""
        now = context.now
        taken = []
        standing: list[float] = []
        refused: list[Charged] = []
        last = key = None
        for of, memory, charge, slack, interval, most, about in self._cells:
            if of is not last:
                last = of
                key = of(request, context)
            assert key is not None
            if now >= memory.turn:
                memory.advance(now)
            tat = memory.young.get(key)
            if tat is None:
                tat = memory.recall(key)
            tat = (now if tat is None or tat < now else tat) + charge
            used = tat - now
            if used > slack:
                rule, tier, span = about
                refused.append((rule, tier, key, used - span))
                continue
            taken.append((memory, key, tat))
            if interval:
                left = (slack - used) // interval
                standing += (left if left < most else most, ceil(used))
        if refused:
            return self._refuse(refused, context)
        for memory, key, tat in taken:
            memory.young[key] = tat
        if standing:
            context.charged = standing
        return None

    def after(self, request: Request, response: Response, context: Context) -> Response:
        """Tell the client where it stood when this request was counted."""
        standing = context.charged
        if standing is not None:
            context.charged = None
            headers = response.headers
            known = known_of(headers.section, self._policy)
            if known.numbers == standing:
                headers.section = known.last
            else:
                headers.section = known.say(self._form % tuple(standing), standing)
        return response


def _bucket(rule: Rule) -> Gcra | None:
    own = rule.default.own if rule.default is not None else None
    return own if type(own) is Gcra else None  # what is more than a GCRA (a ledger) wants to be asked


def are_cells(rules: list[Rule]) -> bool:
    """Whether ``Cells`` can decide these limits."""
    return all(
        _bucket(rule) is not None
        and not (rule.tiers or rule.cost_of or rule.learn or rule.limit.dry_run or rule.limit.early)
        for rule in rules
    )
