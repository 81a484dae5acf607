"""What a consumer may is said on the route: all of its scopes, one of its groups, every one of its claims. What is not said is not asked.

Source: RFC 6750 §3.1 (insufficient_scope).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from blocks.core.config.complaint import below
from blocks.core.errors import ConfigError
from blocks.gateway.consumer import Consumer
from blocks.gateway.context import Context
from blocks.http.message import Request, Response

from .claims import lookup
from .outcome import Refusal, challenge, refuse

if TYPE_CHECKING:
    from blocks.gateway.site import Site


class Authorize:
    """The step that lets a consumer pass who has all ``scopes``, is in one of ``groups``, and whose ``claims`` are as asked.

    A claim is asked to be a value, or one of a list; a claim that is a list passes when it holds one of them.
    """

    name = "authorize"

    def __init__(
        self,
        *,
        scopes: frozenset[str] = frozenset(),
        groups: frozenset[str] = frozenset(),
        claims: Mapping[str, tuple[Any, ...]] | None = None,
    ) -> None:
        self.scopes = scopes
        self.groups = groups
        self.claims = dict(claims or {})
        self.refused = 0

    def fresh(self) -> Authorize:
        """The same step for another route."""
        twin = Authorize.__new__(Authorize)
        twin.__dict__.update(self.__dict__)
        twin.refused = 0
        return twin

    def check(self, request: Request, context: Context) -> Response | None:
        """None, or 403; 401 for nobody."""
        consumer = context.consumer
        if consumer is None:
            self.refused += 1
            return refuse(Refusal("anonymous", "this route asks for a consumer"))
        if not self.scopes <= consumer.scopes:
            self.refused += 1
            missing = " ".join(sorted(self.scopes))
            told = challenge("Bearer", "gateway", error="insufficient_scope", scope=missing)
            return refuse(Refusal("scope", f"the scopes {missing} are needed", status=403, challenge=told))
        if self.groups and self.groups.isdisjoint(consumer.groups):
            self.refused += 1
            return refuse(Refusal("group", "the consumer is in none of the groups that may", status=403))
        for path, wanted in self.claims.items():
            if not _meets(lookup(consumer.claims, path), wanted):
                self.refused += 1
                return refuse(Refusal("claim", f"the claim {path} does not allow this", status=403))
        return None

    def allows(self, consumer: Consumer) -> bool:
        """Whether the consumer may; for ``explain``."""
        return (
            self.scopes <= consumer.scopes
            and (not self.groups or not self.groups.isdisjoint(consumer.groups))
            and all(_meets(lookup(consumer.claims, path), wanted) for path, wanted in self.claims.items())
        )

    def figures(self) -> dict[str, int]:
        """Counters for the metrics."""
        return {"refused": self.refused}


def _meets(value: Any, wanted: tuple[Any, ...]) -> bool:
    if isinstance(value, list):
        return any(_same(item, one) for item in value for one in wanted)
    return any(_same(value, one) for one in wanted)


def _same(value: Any, wanted: Any) -> bool:
    """Equal and of one kind: the number 1 is not ``true``."""
    return value is not None and isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


def _texts(value: Any, what: str) -> frozenset[str]:
    found = value.split() if isinstance(value, str) else value
    if (
        not isinstance(found, list | tuple | set | frozenset)
        or not found
        or not all(isinstance(item, str) and item for item in found)
    ):
        raise ConfigError(f"{what} are a list of names, or one text of names with spaces between")
    return frozenset(found)


def step(settings: Any, site: Site) -> Authorize:
    """The step of a route's ``scopes``, ``groups`` and ``claims``. Raises ``ConfigError``."""
    claims = settings.get("claims") or {}
    with below("claims"):
        if not isinstance(claims, Mapping):
            raise ConfigError("claims are a table of claim = value, or claim = [values]")
    with below("scopes"):
        scopes = _texts(settings["scopes"], "scopes") if settings.get("scopes") else frozenset()
    with below("groups"):
        groups = _texts(settings["groups"], "groups") if settings.get("groups") is not None else frozenset()
    return Authorize(
        scopes=scopes,
        groups=groups,
        claims={path: tuple(value) if isinstance(value, list | tuple) else (value,) for path, value in claims.items()},
    )
