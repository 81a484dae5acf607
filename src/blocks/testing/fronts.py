"""What each kind of block shows of its state when it stands behind a server of the kit: the real objects, read and not kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blocks.core.errors import ConfigError

from .front import Front
from .reading import Reading

if TYPE_CHECKING:
    from blocks.balancer import LoadBalancer  # noqa: F401  # named in the text of a base class
    from blocks.balancer.endpoint import Endpoint
    from blocks.edge import Edge  # noqa: F401  # as above
    from blocks.gateway import Gateway
    from blocks.gateway.limits.compiled import Rule


class BalancerFront(Front["LoadBalancer"]):
    """A load balancer and its server."""

    @property
    def healthy(self) -> Reading:
        """How many endpoints may get requests: ``await until(lb.healthy == 1)``."""
        return Reading(lambda: sum(endpoint.usable for endpoint in self.block.endpoints))

    def endpoint(self, member: Any) -> Endpoint:
        """The endpoint of an origin, a block, a URL or a name: ``lb.endpoint(a).state``, ``.usable``, ``.active``, ``.requests``.

        Raises ``ConfigError`` when the balancer has none such.
        """
        wanted = {member} if isinstance(member, str) else {getattr(member, "name", None), getattr(member, "url", None)}
        for endpoint in self.block.endpoints:
            handler = endpoint.handler
            if handler is member or wanted & {endpoint.name, getattr(handler, "name", ""), getattr(handler, "url", "")}:
                return endpoint
        raise ConfigError(f"{member!r} is not in {self.name}: {[endpoint.name for endpoint in self.block.endpoints]}")


@dataclass(frozen=True, slots=True)
class Stored:
    """What an edge holds for a URL at this moment. Times are seconds, ``size`` is bytes."""

    age: float
    lifetime: float
    status: int
    size: int
    tags: tuple[str, ...]

    @property
    def fresh(self) -> bool:
        """Whether it is served without asking the origin."""
        return self.age < self.lifetime


class EdgeFront(Front["Edge"]):
    """An edge and its server. A path stands for the URL that the kit's clients ask for."""

    def entry(self, url: str) -> Stored | None:
        """What memory holds for a URL or path: ``edge.entry("/page").age``."""
        entry = self.block.entry(self._whole(url))
        if entry is None:
            return None
        age = entry.age(self.block.clock.monotonic())
        return Stored(age, entry.lifetime, entry.status, entry.size, tuple(entry.tags))

    def has(self, url: str) -> bool:
        """Whether memory or disk hold something for a URL or path, fresh or stale."""
        whole = self._whole(url)
        if self.block.entry(whole) is not None:
            return True
        store = self.block.store
        return store is not None and any(store.holds(key) for key in self.block.library.keys_of(whole))

    def _whole(self, url: str) -> str:
        return self.url + url if url.startswith("/") else url


class Limiter:
    """One limit of a gateway: ``level`` says what may still pass for a key."""

    def __init__(self, rule: Rule, steps: list[Any], gateway: Gateway) -> None:
        self._rule = rule
        self._steps = steps
        self._gateway = gateway

    def level(self, key: str = "") -> float:
        """How much may pass now for the key (an address, a header's value, …; "" for a limit that all share)."""
        return round(self._standing(key)[0], 6)  # the algorithms allow for rounding, which nobody wants to read

    def full_in(self, key: str = "") -> float:
        """Seconds until as much may pass as ever may."""
        return self._standing(key)[1]

    @property
    def refusals(self) -> int:
        """Requests that it has refused, on all its routes."""
        return sum(int(step.figures().get(self._rule.name, 0)) for step in self._steps)

    def _standing(self, key: str) -> tuple[float, float]:
        from blocks.gateway.limits.keys import short

        shared = self._rule.limit.per == "all"
        if shared == bool(key):
            said = (
                "is one for all: ask for level()"
                if shared
                else f"is per {self._rule.limit.per}: say which, as in level('ann')"
            )
            raise ConfigError(f"the limit {self._rule.name!r} {said}")
        tier = self._rule.default
        if tier is None:
            raise ConfigError(f"the limit {self._rule.name!r} is none for those without a tier")
        return tier.own.standing(short(key), self._gateway.clock.monotonic())


class GatewayFront(Front["Gateway"]):
    """A gateway and its server."""

    def limiter(self, name: str = "") -> Limiter:
        """The limit of that name, or the only one there is. Raises ``ConfigError``."""
        steps = [
            step for lane in self.block.snapshot.lanes.values() for step in lane.plan.steps if hasattr(step, "rules")
        ]
        rules = [(rule, step) for step in steps for rule in step.rules]
        found = [(rule, step) for rule, step in rules if not name or rule.name == name]
        if len({rule.state for rule, _ in found}) != 1:
            raise ConfigError(f"there is not one limit {name!r} in {self.name}, but {[rule.name for rule, _ in rules]}")
        return Limiter(found[0][0], [step for _, step in found], self.block)
