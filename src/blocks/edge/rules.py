"""Rules by route: which paths are kept how."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds

from .freshness import Policy


@dataclass(frozen=True, slots=True)
class Rule:
    """How paths that match ``path`` are stored; the first rule that matches counts.

    ``path`` is a prefix, or a pattern when it has ``*`` or ``?`` (``*.css``). ``ttl`` overrules the origin's freshness;
    ``default_ttl`` holds where the origin gives none. ``negative`` maps statuses to lifetimes for errors without their own
    (``{404: "10s"}``; nginx: proxy_cache_valid 404 10s). ``grace``, ``cookies`` (store responses with Set-Cookie) and
    ``authorization`` (store responses to requests with Authorization) overrule the edge's. ``store=False``: always to the origin.
    """

    path: str
    ttl: float | str | None = None
    default_ttl: float | str | None = None
    negative: dict[int, float | str] = field(default_factory=dict)
    grace: float | str | None = None
    cookies: bool | None = None
    authorization: bool | None = None
    store: bool = True

    def matches(self, path: str) -> bool:
        """Whether the rule is for that path (as it stands in the target, undecoded)."""
        if "*" in self.path or "?" in self.path:
            return fnmatchcase(path, self.path)
        return path.startswith(self.path)


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """What a rule comes to. Two are never equal: what was ruled by one is kept under it."""

    policy: Policy
    grace: float
    store: bool = True


def route_of(rule: Rule, policy: Policy, grace: float) -> Route:
    """The rule over the edge's own settings. Raises ``ConfigError``."""
    for status in rule.negative:
        if not 300 <= status <= 599:
            raise ConfigError(
                f"negative={{{status}: …}} on {rule.path!r}: give statuses from 300 to 599, like {{404: '10s'}}"
            )
    return Route(
        Policy(
            default_ttl=policy.default_ttl if rule.default_ttl is None else seconds(rule.default_ttl),
            ttl=policy.ttl if rule.ttl is None else seconds(rule.ttl),
            negative={**policy.negative, **{status: seconds(value) for status, value in rule.negative.items()}},
            jitter=policy.jitter,
            heuristic=policy.heuristic,
            heuristic_limit=policy.heuristic_limit,
            cookies=policy.cookies if rule.cookies is None else rule.cookies,
            authorization=policy.authorization if rule.authorization is None else rule.authorization,
            rfc=policy.rfc,
            targets=policy.targets,
        ),
        grace if rule.grace is None else seconds(rule.grace),
        rule.store,
    )
