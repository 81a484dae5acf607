"""The step that decides all limits of a route together: everything is asked first, and only then is anything taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.core.errors import ConfigError
from blocks.http.message import Request, Response

from ..context import Context
from ..site import Site
from ..steps import Answer
from .compiled import Rule, Tier
from .fields import Refusals, standing_of
from .rule import Limit, limits_of
from .standing import tell

Settings = Limit
Charged = tuple[Rule, Tier, str, float]
MAX_LEARNT = 1e9  # a service that says a request cost more than that is not believed


class Limits:
    """All memory limits of a route that are decided at one place of its steps."""

    name = "limit"

    def __init__(self, rules: list[Rule]) -> None:
        self.rules = rules
        self.counts = dict.fromkeys(rules, 0)  # refusals; of a dry run those that it would have made
        self._dry = tuple(rule for rule in rules if rule.limit.dry_run)
        self._rules = tuple(rule for rule in rules if not rule.limit.dry_run)
        self._only = self._rules[0] if len(self._rules) == 1 and not self._dry else None
        self._refusals = Refusals()
        self._places = any(rule.concurrent for rule in rules)
        self._learnt = tuple(rule.limit.learn for rule in rules if rule.learn is not None)
        if not any(rule.fields or rule.learn for rule in self._rules) and not any(rule.learn for rule in self._dry):
            self.after = None  # type: ignore[assignment,method-assign]  # nothing to tell: the plan leaves it out

    def fresh(self) -> Limits:
        """The same step for another route."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.counts = dict.fromkeys(self.rules, 0)
        return twin

    def check(self, request: Request, context: Context) -> Answer:
        """None when all limits let the request pass; it is then counted in each. Else 429."""
        rule = self._only
        if rule is None:
            return self._decide(request, context)
        tier = rule.default if not rule.tiers else rule.tier_of(context)
        if tier is None:
            return None
        key = rule.key(request, context)
        cost = rule.cost if rule.cost_of is None else rule.cost_of(request, context)
        wait = tier.own.attempt(key, cost, context.now)
        if wait:
            return self._refuse([(rule, tier, key, wait)], context)
        self._taken(context, [(rule, tier, key, cost)])
        return None

    def _decide(self, request: Request, context: Context) -> Response | None:
        charged: list[Charged] = []
        refused: list[Charged] = []
        now = context.now
        for rule in self._rules:
            tier = rule.default if not rule.tiers else rule.tier_of(context)
            if tier is None:
                continue
            key = rule.key(request, context)
            cost = rule.cost if rule.cost_of is None else rule.cost_of(request, context)
            wait = tier.own.wait(key, cost, now)
            if wait:
                refused.append((rule, tier, key, wait))
            else:
                charged.append((rule, tier, key, cost))
        if refused:
            return self._refuse(refused, context)
        for rule in self._dry:
            self._dry_run(rule, request, context)
        for _, tier, key, cost in charged:
            tier.own.take(key, cost, now)
        self._taken(context, charged)
        return None

    def _dry_run(self, rule: Rule, request: Request, context: Context) -> None:
        tier = rule.tier_of(context)
        if tier is None:
            return
        key = rule.key(request, context)
        cost = rule.cost if rule.cost_of is None else rule.cost_of(request, context)
        if tier.own.attempt(key, cost, context.now):
            self.counts[rule] += 1
            context.notes.setdefault("would_limit", []).append(rule.name)
        elif rule.concurrent:
            context.at_end(lambda response: tier.own.charge(key, -cost, 0.0))

    def _taken(self, context: Context, charged: list[Charged]) -> None:
        if context.charged is None:
            context.charged = charged
        else:
            context.charged = context.charged + charged
        if self._places:
            for rule, tier, key, cost in charged:
                if rule.concurrent:
                    _give_back_at_end(context, tier, key, cost)

    def _refuse(self, refused: list[Charged], context: Context) -> Response:
        for rule, _, _, _ in refused:
            self.counts[rule] += 1
        context.limited = refused[0][2]
        context.charged = None  # only the limits that refuse are told
        return self._refusals.refuse(
            [(rule.name, rule.label, tier.policy if rule.fields else b"", wait) for rule, tier, _, wait in refused]
        )

    def after(self, request: Request, response: Response, context: Context) -> Response:
        """Charge what the service says the request cost, and tell the client where it stands."""
        charged = context.charged
        if not charged:
            return response
        now = context.now
        policies: list[bytes] = []
        items: list[bytes] = []
        if self._learnt:
            for rule, tier, key, cost in charged:
                if rule.learn is not None:
                    learn(rule, tier, key, cost, response, now)
        for rule, tier, key, _ in charged:
            if rule.fields:
                policies.append(tier.policy)
                items.append(standing_of(rule.label, tier.own, key, now))
        context.charged = None  # told once, also where early and late limits meet
        if items:
            tell(response, b", ".join(policies), b", ".join(items))
        for field in self._learnt:
            response.headers.remove(field)
        return response

    def figures(self) -> dict[str, int]:
        """Refusals by limit, and those that a dry run would have made."""
        return counted(self.counts)


def counted(counts: Mapping[Rule, int]) -> dict[str, int]:
    """Refusals by the names that the metrics know."""
    return {f"{rule.name} (dry run)" if rule.limit.dry_run else rule.name: number for rule, number in counts.items()}


def _give_back_at_end(context: Context, tier: Tier, key: str, cost: float) -> None:
    context.at_end(lambda response: tier.own.charge(key, -cost, 0.0))


def learn(rule: Rule, tier: Tier, key: str, cost: float, response: Response, now: float) -> None:
    """Charge the difference between the cost that was taken and the one that the response states."""
    real = learnt(rule, response)
    if real is not None and real != cost:
        tier.own.charge(key, real - cost, now)


def learnt(rule: Rule, response: Response) -> float | None:
    """The cost that the response states for a rule, None when it states none that can be believed."""
    assert rule.learn is not None
    value = response.headers.find(rule.learn)
    if value is None:
        return None
    try:
        real = float(value)
    except ValueError:
        return None
    if not 0 <= real <= MAX_LEARNT:
        return None
    return real if rule.limit.kind == "gcra" else float(int(real))


def step(settings: Any, site: Site) -> Any:
    """The step for a route's limits that are not early."""
    return build(settings, site, early=False)


def build(settings: Any, site: Site, *, early: bool) -> Any:
    """The step for the limits of one place, or None when there are none. Raises ``ConfigError`` with the limit's place."""
    rules: list[Rule] = []
    elsewhere = False  # some are decided at the other place
    several = isinstance(settings, list | tuple)
    pairs = limits_of(settings, site.tables.get("limits", {}))
    for place, (name, given) in enumerate(pairs):
        try:
            limit = _limit(name, given, site)
            if limit.early is early:
                shown = name or limit.name or ("default" if len(pairs) == 1 else f"limit-{place + 1}")
                shared = name or limit.name
                state = f"limits/{shared}" if shared else f"{site.route.name}#{place}"
                rules.append(Rule(limit, shown, state, site))
            else:
                elsewhere = True
        except ConfigError as error:
            if several:
                error.at = (place, *getattr(error, "at", ()))  # type: ignore[attr-defined]  # where in the list
            raise
    if not rules:
        return None
    if any(rule.limit.store == "redis" for rule in rules):
        from .shared import SharedLimits

        return SharedLimits(rules, site)
    from .cells import Cells, are_cells

    return Cells(rules) if are_cells(rules) and not elsewhere else Limits(rules)


def _limit(name: str, given: Any, site: Site) -> Limit:
    if isinstance(given, Limit):
        return given
    if isinstance(given, str):
        if not name and given and not given[0].isdigit():
            raise ConfigError(
                f"there is no limit named {given!r}, and it is none itself; write one like '100/s per key'"
            )
        return Limit.of(given)
    if isinstance(given, Mapping):
        return site.decode(Limit, given)
    raise ConfigError(f"{given!r} is not a limit; write one like '100/s per key', or a table")
