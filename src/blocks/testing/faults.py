"""Which request or connection gets which fault: exact, armed in one step, seeded, and written down so that it can be replayed.

``fault.next(2).reset()`` hits two requests, not a probability: the rule is looked at once for each request in the order in which they
arrive, and a rule that has done its work is gone. No I/O here; ``gate.py`` and ``origin.py`` do what was decided.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from blocks.core.errors import ConfigError
from blocks.core.quantities import rate as rate_of
from blocks.core.quantities import seconds, size

RULES = 10_000  # each is looked at for each request; a replay of more faults than that is no test
LOG = 100_000  # decisions kept for a replay
PACE = 0.05  # seconds between two pieces of a limited bandwidth: 20 a second look smooth to a client and cost little


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
    """A rule at work. ``hits`` are the numbers (from 1, in order of arrival) of the requests that it hit."""

    effect: Effect
    match: Callable[[Any], bool] | None = None
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


class Choice:
    """Says which ones, and then, with a verb, what happens to them. Each verb arms the rule and returns it, an ``Armed``."""

    def __init__(self, faults: Faults, **chosen: Any) -> None:
        self._faults = faults
        self._chosen = chosen

    def _with(self, **more: Any) -> Choice:
        return Choice(self._faults, **{**self._chosen, **more})

    def next(self, count: int = 1) -> Choice:
        """The next ``count`` of them, and no other."""
        if count < 1:
            raise ConfigError(f"next({count!r}) would hit nothing; give 1 or more")
        return self._with(left=count)

    def after(self, count: int) -> Choice:
        """Let ``count`` pass first."""
        return self._with(skip=count)

    def every(self, step: int) -> Choice:
        """Every ``step``-th of them."""
        if step < 1:
            raise ConfigError(f"every({step!r}) means nothing; give 1 or more")
        return self._with(step=step)

    def chance(self, share: float) -> Choice:
        """Each with the probability ``share`` (0..1), drawn from the kit's seed."""
        if not 0 < share <= 1:
            raise ConfigError(f"a chance is over 0 and at most 1, not {share!r}")
        return self._with(share=share)

    def matching(
        self,
        predicate: Callable[[Any], bool] | None = None,
        *,
        method: str | None = None,
        path: str | None = None,
        header: str | None = None,
    ) -> Choice:
        """Those for which all that is given holds; ``path`` is a prefix, ``header`` a name that must be there."""

        def match(subject: Any) -> bool:
            return (
                (predicate is None or predicate(subject))
                and (method is None or subject.method == method)
                and (path is None or subject.path.startswith(path))
                and (header is None or header in subject.headers)
            )

        return self._with(match=match)

    def arm(self, effect: Effect) -> Armed:
        """Arm any effect."""
        return self._faults.add(Armed(effect, **self._chosen))

    def reset(self) -> Armed:
        """The connection is reset (RST) in place of an answer."""
        return self.arm(Effect("reset"))

    def close(self) -> Armed:
        """The connection is closed in order (FIN) in place of an answer."""
        return self.arm(Effect("close"))

    def hang(self) -> Armed:
        """No answer ever comes; the connection stays open."""
        return self.arm(Effect("hang"))

    def half_open(self) -> Armed:
        """The peer is gone without a word: nothing is read, nothing comes, no FIN, whatever the other side does."""
        return self.arm(Effect("half-open"))

    def delay(self, time: float | str) -> Armed:
        """The answer comes ``time`` later."""
        return self.arm(Effect("delay", delay=seconds(time)))

    def trickle(self, pieces: int | str = 1, every: float | str = "100ms") -> Armed:
        """The answer, head and all, comes ``pieces`` bytes at a time."""
        return self.arm(Effect("pace", delay=seconds(every), size=max(1, size(pieces))))

    def bandwidth(self, rate: str) -> Armed:
        """The answer comes at ``rate``, as in "10kB/s"."""
        return self.arm(Effect("pace", delay=PACE, size=max(1, int(rate_of(rate).per_second * PACE))))

    def cut_head(self, after: int | None = None) -> Armed:
        """The connection closes inside the answer's head: after ``after`` bytes, by default in its middle."""
        return self.arm(Effect("cut-head", size=after))

    def cut_body(self, after: int | str = 0) -> Armed:
        """The connection closes after the head and ``after`` bytes of the body as it is on the wire."""
        return self.arm(Effect("cut-body", size=size(after)))

    def corrupt_head(self) -> Armed:
        """One byte of the status line is wrong."""
        return self.arm(Effect("corrupt-head"))

    def corrupt_body(self) -> Armed:
        """One byte in the first piece of the body is wrong."""
        return self.arm(Effect("corrupt-body"))

    def duplicate(self) -> Armed:
        """The answer comes twice on the connection."""
        return self.arm(Effect("duplicate"))

    def status(self, status: int, headers: dict[str, str] | None = None, body: bytes | str = b"") -> Armed:
        """The origin is not asked: this answer is given."""
        from blocks.http.message import Response

        content = body.encode() if isinstance(body, str) else body
        return self.arm(Effect(f"status-{status}", answer=Response(status, headers, content)))


class Faults(Choice):
    """The armed rules of one origin or link, looked at in the order in which they were armed; the first that takes a request has it."""

    def __init__(self, random: Random | None = None, *, connections: bool = True) -> None:
        super().__init__(self)
        self._random = random or Random(0)
        self.rules: list[Armed] = []
        self.seen = 0
        self.log: deque[tuple[int, Effect]] = deque(maxlen=LOG)
        self.connections = Faults(self._random, connections=False) if connections else self
        """The same for connections, decided when they are accepted: reset, close, hang, half-open, trickle, bandwidth, cut_body."""

    def always(self) -> Choice:
        """Every one, until the rule is disarmed."""
        return self._with()

    def add(self, rule: Armed) -> Armed:
        """Arm a rule behind the others. Raises ``ConfigError`` beyond 10,000 at once."""
        if len(self.rules) >= RULES:
            raise ConfigError(f"{RULES} rules are armed already; clear() disarms them")
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """Disarm everything."""
        for rule in self.rules:
            rule.disarm()
        self.rules.clear()

    def decide(self, subject: Any) -> Effect | None:
        """What happens to this one, the next in order of arrival; None for nothing."""
        self.seen += 1
        for rule in self.rules:
            if not rule.spent and rule.takes(subject, self.seen, self._random):
                effect = rule.effect
                if effect.kind.startswith("corrupt") and not effect.seed:
                    effect = Effect(effect.kind, seed=self._random.randrange(1, 1 << 31))
                rule.hits.append(self.seen)
                self.log.append((self.seen, effect))
                if rule.left == 0:
                    self.rules.remove(rule)
                return effect
        return None

    def replay(self, log: Iterable[tuple[int, Effect]]) -> None:
        """Arm what another run's ``log`` holds: the same numbers meet the same effects, counted from the first request here."""
        for number, effect in log:
            self.add(Armed(effect, exact=frozenset({number})))
