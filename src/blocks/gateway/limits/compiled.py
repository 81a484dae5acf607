"""A limit made ready for one route: its key, its cost, and an algorithm for each tier, over state that survives a reload by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds
from blocks.http.message import Request, field_name

from ..context import Context
from ..site import Site
from .concurrency import Concurrency, Places
from .fields import label_of, policy_of
from .gcra import Gcra
from .generations import Generations
from .keys import key_of
from .ledger import Ledger, LocalFirst
from .quota import Quota
from .rule import Amount, Limit, amount_of
from .window import SlidingWindow


class Algorithm(Protocol):
    """Decides for keys. ``attempt`` and ``wait`` answer seconds: 0.0 is yes. See ``gcra`` for the words."""

    @property
    def amount(self) -> float: ...  # noqa: D102  # as in gcra
    @property
    def burst(self) -> float: ...  # noqa: D102  # as in gcra
    @property
    def period(self) -> float: ...  # noqa: D102  # as in gcra
    def attempt(self, key: str, cost: float, now: float) -> float: ...  # noqa: D102  # as in gcra
    def wait(self, key: str, cost: float, now: float) -> float: ...  # noqa: D102  # as in gcra
    def take(self, key: str, cost: float, now: float) -> None: ...  # noqa: D102  # as in gcra
    def charge(self, key: str, cost: float, now: float) -> None: ...  # noqa: D102  # as in gcra
    def standing(self, key: str, now: float) -> tuple[float, float]: ...  # noqa: D102  # as in gcra


class Tier:
    """An algorithm and what clients are told of it."""

    __slots__ = ("amount", "own", "policy")

    def __init__(self, own: Algorithm, label: bytes, amount: Amount) -> None:
        self.own = own
        self.policy = policy_of(label, own)
        self.amount = amount


class Rule:
    """One limit, shared by routes that say the same. ``state`` names its state: the table's name, or the route's and its place there."""

    __slots__ = (
        "concurrent", "cost", "cost_of", "default", "fields", "key", "label", "learn", "limit", "name", "state", "sync", "tiers",
    )  # fmt: skip

    def __init__(self, limit: Limit, name: str, state: str, site: Site) -> None:
        self.limit = limit
        self.name = name
        self.state = state
        self.label = label_of(name)
        self.fields = limit.fields
        self.learn = field_name(limit.learn) if limit.learn else None
        self.cost_of: Callable[[Request, Context], float] | None = limit.cost if callable(limit.cost) else None
        self.cost: float = 1 if self.cost_of else limit.cost
        self.concurrent = limit.kind == "concurrency"
        self.sync = seconds(limit.sync)
        _check(limit)
        self.key = key_of(limit.per, site, site.addresses)
        build = _Builder(limit, state, site)
        self.default = build.tier(limit.rate, self.label)
        self.tiers = {tier: build.tier(text, self.label) for tier, text in limit.tiers.items()}
        build.settle()
        if self.cost_of is None:
            for tier in (self.default, *self.tiers.values()):
                if tier is not None and self.cost > tier.own.burst:
                    raise ConfigError(f"the cost {self.cost} is more than may ever pass at once ({tier.own.burst:g})")

    def tier_of(self, context: Context) -> Tier | None:
        """The tier that holds for a request, None when the consumer is not limited."""
        if not self.tiers or context.consumer is None:
            return self.default
        return self.tiers.get(context.consumer.tier, self.default)


def _check(limit: Limit) -> None:
    kind = limit.kind
    if limit.burst is not None and (kind != "gcra" or limit.burst < 1):
        raise ConfigError("burst is a number from 1 up, of the gcra algorithm")
    if not callable(limit.cost):
        if isinstance(limit.cost, bool) or not isinstance(limit.cost, int | float) or not 0 < limit.cost < 1e9:
            raise ConfigError(f"cost is {limit.cost!r}; it must be a number above 0")
        if kind != "gcra" and limit.cost != int(limit.cost):
            raise ConfigError(f"cost is {limit.cost!r}; {kind} counts whole units")
    if limit.max_keys < 2:
        raise ConfigError("max_keys must be at least 2")
    if limit.learn and kind == "concurrency":
        raise ConfigError("learn does not go with a limit of how many at once")
    if limit.store == "redis" and kind == "concurrency":
        raise ConfigError("how many at once is counted by each gateway: store = 'redis' does not go with it")
    if limit.sync and (limit.store != "redis" or kind != "gcra"):
        raise ConfigError("sync is for limits with store = 'redis' and the gcra algorithm")
    if limit.early and str(limit.per).startswith(("key", "consumer", "claim")):
        raise ConfigError(f"an early limit cannot be per {limit.per!r}: nobody is known yet")


class _Builder:
    """Makes the algorithms of one limit over one table."""

    def __init__(self, limit: Limit, state: str, site: Site) -> None:
        self._limit = limit
        self._state = state
        self._site = site
        self._lives: dict[int, tuple[Generations, float]] = {}

    def tier(self, text: str, label: bytes) -> Tier | None:
        amount = amount_of(text, self._limit)
        return None if amount is None else Tier(self._algorithm(amount), label, amount)

    def settle(self) -> None:
        """Tables live as long as the longest tier needs."""
        for memory, life in self._lives.values():
            memory.life = life
            memory.max_keys = self._limit.max_keys

    def _algorithm(self, amount: Amount) -> Algorithm:
        kind = self._limit.kind
        if kind == "concurrency":
            return Concurrency(self._site.kept(("limit", self._state, kind), Places), amount.amount)
        if kind == "quota":
            memory = self._memory(kind, amount.unit)
            return Quota(memory, amount.amount, amount.unit, self._site.clock.wall, self._zone())
        if kind == "window":
            own: Gcra | SlidingWindow = SlidingWindow(
                self._memory(kind, str(amount.period)), amount.amount, amount.period
            )
        else:
            burst = self._limit.burst if self._limit.burst is not None else max(amount.amount, 1.0)
            own = self._gcra(amount, burst)
        memory = own.memory
        longest = max(own.life, self._lives.get(id(memory), (memory, 0.0))[1])
        self._lives[id(memory)] = (memory, longest)
        return own

    def _gcra(self, amount: Amount, burst: float) -> Gcra:
        limit = self._limit
        memory = self._memory("gcra", "")
        sync = seconds(limit.sync)
        if limit.store == "memory" or not sync:
            return Gcra(memory, amount.amount, amount.period, burst)
        link = self._site.redis()
        prefix = f"{link.prefix}limit:{self._state}:"
        key = ("ledger", self._state, sync, id(link))
        ledger = self._site.kept(key, lambda: Ledger(link, prefix, sync, self._site.clock.monotonic))
        return LocalFirst(memory, amount.amount, amount.period, burst, ledger)

    def _memory(self, kind: str, span: str) -> Generations:
        return self._site.kept(("limit", self._state, kind, span), lambda: Generations(1.0, self._limit.max_keys))

    def _zone(self) -> Any:
        try:
            return ZoneInfo(self._limit.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(
                f"zone = {self._limit.zone!r} is not a time zone; write it like UTC or Europe/Berlin"
            ) from error
