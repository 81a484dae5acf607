"""Which one gets which fault: exact, armed in one step, seeded, and written down so that it can be replayed.

``next(2)`` hits two, not a probability: a rule is looked at once for each request (or connection, or call of a disk) in the order in which
they arrive, and a rule that has done its work is gone. No I/O here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Self

from blocks.core.errors import ConfigError

RULES = 10_000  # each is looked at for each request; a replay of more faults than that is no test
LOG = 100_000  # decisions kept for a replay

Match = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Effect:
    """What happens to one request: ``kind``, and what that kind needs.

    ``delay`` is in seconds, ``size`` in bytes; ``seed`` makes a corruption repeatable; ``answer`` replaces the origin's own.
    """

    kind: str
    delay: float = 0.0
    size: int | None = None
    seed: int = 0
    answer: Any = None

    def __str__(self) -> str:
        words = [self.kind]
        if self.delay:
            words.append(f"{self.delay:g}s")
        if self.size is not None:
            words.append(f"{self.size}B")
        return " ".join(words)


@dataclass(eq=False, slots=True)
class Armed:
    """A rule at work. ``hits`` are the numbers (from 1, in order of arrival) of those that it hit."""

    effect: Effect
    match: Match | None = None
    left: int | None = None
    step: int = 1
    skip: int = 0
    share: float = 1.0
    exact: frozenset[int] | None = None
    hits: list[int] = field(default_factory=list)
    matched: int = 0
    disarmed: bool = False

    @property
    def spent(self) -> bool:
        """Whether it will hit no more."""
        return self.disarmed or self.left == 0

    def disarm(self) -> None:
        """Hit nothing more."""
        self.disarmed = True

    def takes(self, subject: Any, number: int, random: Random) -> bool:
        """Whether this one is hit; counts it when it matches."""
        if self.exact is not None:
            return number in self.exact
        if self.match is not None and not self.match(subject):
            return False
        self.matched += 1
        if self.matched <= self.skip or (self.matched - self.skip) % self.step:
            return False
        if self.share < 1.0 and random.random() >= self.share:
            return False
        if self.left is not None:
            self.left -= 1
        return True


class Rules:
    """The armed rules of one place, looked at in the order in which they were armed; the first that takes one has it.

    ``about`` says what they are asked of: requests, connections, or the calls of a disk.
    """

    def __init__(self, random: Random | None = None, about: str = "requests") -> None:
        self.random = random or Random(0)
        self.about = about
        self.armed: list[Armed] = []
        self.seen = 0
        self.log: deque[tuple[int, Effect]] = deque(maxlen=LOG)

    def add(self, rule: Armed) -> Armed:
        """Arm a rule behind the others. Raises ``ConfigError`` beyond 10,000 at once."""
        if len(self.armed) >= RULES:
            raise ConfigError(f"{RULES} rules are armed already; clear() disarms them")
        self.armed.append(rule)
        return rule

    def clear(self) -> None:
        """Disarm everything."""
        for rule in self.armed:
            rule.disarm()
        self.armed.clear()

    def decide(self, subject: Any) -> Effect | None:
        """What happens to this one, the next in order of arrival; None for nothing."""
        self.seen += 1
        for rule in self.armed:
            if not rule.spent and rule.takes(subject, self.seen, self.random):
                effect = rule.effect
                if effect.kind.startswith("corrupt") and not effect.seed:
                    effect = Effect(effect.kind, seed=self.random.randrange(1, 1 << 31))
                rule.hits.append(self.seen)
                self.log.append((self.seen, effect))
                if rule.left == 0:
                    self.armed.remove(rule)
                return effect
        return None

    def replay(self, log: Iterable[tuple[int, Effect]]) -> None:
        """Arm what another run's ``log`` holds: the same numbers meet the same effects, counted from the first one here."""
        for number, effect in log:
            self.add(Armed(effect, exact=frozenset({number})))


class Which:
    """Says which ones; a verb of a subclass then says what happens to them, arms the rule and returns it, an ``Armed``."""

    def __init__(self, rules: Rules, **chosen: Any) -> None:
        self._rules = rules
        self._chosen = chosen

    def _with(self, **more: Any) -> Self:
        return type(self)(self._rules, **{**self._chosen, **more})

    def next(self, count: int = 1) -> Self:
        """The next ``count`` of them, and no other."""
        if count < 1:
            raise ConfigError(f"next({count!r}) would hit nothing; give 1 or more")
        return self._with(left=count)

    def after(self, count: int) -> Self:
        """Let ``count`` pass first."""
        return self._with(skip=count)

    def every(self, step: int) -> Self:
        """Every ``step``-th of them."""
        if step < 1:
            raise ConfigError(f"every({step!r}) means nothing; give 1 or more")
        return self._with(step=step)

    def chance(self, share: float) -> Self:
        """Each with the probability ``share`` (0..1), drawn from the kit's seed."""
        if not 0 < share <= 1:
            raise ConfigError(f"a chance is over 0 and at most 1, not {share!r}")
        return self._with(share=share)

    def always(self) -> Self:
        """Every one, until the rule is disarmed."""
        return self._with()

    def arm(self, effect: Effect) -> Armed:
        """Arm any effect."""
        return self._rules.add(Armed(effect, **self._chosen))
