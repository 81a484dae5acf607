"""Limits that many gateways share: one atomic question to Redis for all of them, and a stated answer when Redis gives none.

``on_error``: ``open`` lets the request pass uncounted, ``closed`` answers 503, ``local`` lets this gateway decide by itself, in memory.
"""

from __future__ import annotations

from math import inf
from typing import Any

from blocks.core.errors import Unavailable
from blocks.http.message import Request, Response

from ..context import Context
from ..problem import problem
from ..redis import Link, RedisRefused
from ..site import Site
from ..steps import Answer
from .compiled import Rule, Tier
from .fields import Refusals, item, standing_of
from .ledger import LocalFirst
from .question import ask, words_of
from .standing import tell
from .step import Limits, counted, learnt

Asked = tuple[Rule, Tier, str, float]


class SharedLimits:
    """A route's limits when one of them is in Redis. Memory limits are decided first and get back what they took on a refusal."""

    name = "limit"

    def __init__(self, rules: list[Rule], site: Site) -> None:
        self._link: Link = site.redis()
        near = [rule for rule in rules if rule.limit.store == "memory" or rule.sync]
        self.rules = rules
        self.counts = dict.fromkeys(rules, 0)
        self._rules = tuple(rule for rule in rules if rule not in near)
        self._near = Limits(near) if near else None
        local = [rule for rule in self._rules if rule.limit.on_error == "local" and not rule.limit.dry_run]
        self._fallback = Limits(local) if local else None
        self._closed = any(rule.limit.on_error == "closed" and not rule.limit.dry_run for rule in self._rules)
        self._refusals = Refusals()
        self._learnt = tuple(rule.limit.learn for rule in rules if rule.learn is not None)
        tiers = [tier for rule in near for tier in (rule.default, *rule.tiers.values()) if tier is not None]
        ledgers = {id(tier.own.ledger): tier.own.ledger for tier in tiers if isinstance(tier.own, LocalFirst)}
        self.parts = (self._link, *ledgers.values())
        self.errors = 0

    def check(self, request: Request, context: Context) -> Answer:
        """None or 429 from memory, or the coroutine that asks Redis."""
        before = len(context.charged or ())
        if self._near is not None:
            refused = self._near.check(request, context)
            if refused is not None:
                return refused
        asked: list[Asked] = []
        for rule in self._rules:
            tier = rule.tier_of(context)
            if tier is not None:
                cost = rule.cost if rule.cost_of is None else rule.cost_of(request, context)
                asked.append((rule, tier, rule.key(request, context), cost))
        return self._ask(request, context, asked, before) if asked else None

    async def _ask(self, request: Request, context: Context, asked: list[Asked], before: int) -> Response | None:
        try:
            answer = await ask(self._link, asked)
        except Unavailable as error:
            return self._without(request, context, error)
        refused: list[tuple[Rule, Tier, float]] = []
        told: list[tuple[Rule, Tier, int, int]] = []
        for place, (rule, tier, _, _) in enumerate(asked):
            wait, left, reset = answer[place * 3 : place * 3 + 3]
            if rule.limit.dry_run:
                if wait:
                    self.counts[rule] += 1
                    context.notes.setdefault("would_limit", []).append(rule.name)
            elif wait:
                refused.append((rule, tier, inf if wait < 0 else wait / 1e6))
            else:
                told.append((rule, tier, left, reset))
        if not refused:
            context.notes["shared_limits"] = (asked, told)
            return None
        for _, tier, key, cost in (context.charged or [])[before:]:
            if tier.own.period:  # places of a concurrency limit come back at the end of the request
                tier.own.charge(key, -cost, context.now)
        for rule, _, _ in refused:
            self.counts[rule] += 1
        context.charged = None
        context.limited = next(key for rule, _, key, _ in asked if rule is refused[0][0])
        return self._refusals.refuse(
            [(rule.name, rule.label, tier.policy if rule.fields else b"", wait) for rule, tier, wait in refused]
        )

    def _without(self, request: Request, context: Context, error: Unavailable) -> Response | None:
        """Redis gave no answer: what ``on_error`` says. One that is closed closes the route."""
        self.errors += 1
        context.notes["limiter"] = error.reason if not isinstance(error, RedisRefused) else str(error)
        if self._closed:
            detail = "the limiter cannot be asked"
            return problem(503, "Service Unavailable", detail, headers=((b"retry-after", b"1"),))
        if self._fallback is not None:
            return self._fallback.check(request, context)  # type: ignore[return-value]  # memory limits answer at once
        return None

    def after(self, request: Request, response: Response, context: Context) -> Response:
        """Charge learnt costs, and tell the client where it stands, by all limits in one pair of fields."""
        asked, told = context.noted.get("shared_limits", ((), ()))
        if self._learnt:
            self._charge(asked, response)
        near = context.charged
        context.charged = None
        policies = [tier.policy for rule, tier, _, _ in told if rule.fields]
        items = [
            item(rule.label, min(left, tier.own.amount), reset / 1e6) for rule, tier, left, reset in told if rule.fields
        ]
        for rule, tier, key, cost in near or ():
            real = learnt(rule, response) if rule.learn is not None else None
            if real is not None and real != cost:
                tier.own.charge(key, real - cost, context.now)
            if rule.fields:
                policies.append(tier.policy)
                items.append(standing_of(rule.label, tier.own, key, context.now))
        if items:
            tell(response, b", ".join(policies), b", ".join(items))
        for field in self._learnt:
            response.headers.remove(field)
        return response

    def _charge(self, asked: Any, response: Response) -> None:
        changes: list[Asked] = []
        for rule, tier, key, cost in asked:
            real = learnt(rule, response) if rule.learn is not None else None
            if real is not None and real != cost:
                changes.append((rule, tier, key, real - cost))
        if changes:
            try:
                self._link.call(
                    *words_of(self._link, changes, force=True)
                )  # nobody waits for it: the answer is on its way
            except Unavailable:
                self.errors += 1

    def figures(self) -> dict[str, int]:
        """Refusals by limit, and how often Redis gave no answer."""
        numbers = dict(self.counts)
        for inner in (self._near, self._fallback):
            for rule, number in inner.counts.items() if inner is not None else ():
                numbers[rule] += number
        return {**counted(numbers), "redis errors": self.errors}
