"""What can happen to a request or a connection: ``fault.next(2).reset()``. Which ones: see ``rules``; ``gate`` and ``origin`` do it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from blocks.core.errors import ConfigError
from blocks.core.quantities import rate as rate_of
from blocks.core.quantities import seconds, size

from .rules import Armed, Effect, Rules, Which

PACE = 0.05  # seconds between two pieces of a limited bandwidth: 20 a second look smooth to a client and cost little


# what can happen to a connection before anything is said on it; a request has its turn at all the rest
OF_CONNECTIONS = frozenset({"reset", "close", "hang", "half-open", "delay", "pace", "cut-body", "corrupt-body"})


class Choice(Which):
    """Says which requests, and then, with a verb, what happens to them. Each verb arms the rule and returns it, an ``Armed``."""

    def matching(
        self,
        predicate: Callable[[Any], bool] | None = None,
        *,
        method: str | None = None,
        path: str | None = None,
        header: str | None = None,
    ) -> Choice:
        """Those for which all that is given holds; ``path`` is a prefix, ``header`` a name that must be there.

        Of connections only a predicate can be asked: of the client's (host, port).
        """
        if self._rules.about == "connections" and (method, path, header) != (None, None, None):
            raise ConfigError(
                "a connection has no method, path or header; give a function of the client's (host, port)"
            )

        def match(subject: Any) -> bool:
            return (
                (predicate is None or predicate(subject))
                and (method is None or subject.method == method)
                and (path is None or subject.path.startswith(path))
                and (header is None or header in subject.headers)
            )

        return self._with(match=match)

    def arm(self, effect: Effect) -> Armed:
        """Arm any effect. Raises ``ConfigError`` for one that connections cannot have."""
        if self._rules.about == "connections" and effect.kind not in OF_CONNECTIONS:
            raise ConfigError(
                f"{effect.kind} is for requests; connections know reset, close, hang, half_open, delay, trickle, bandwidth, "
                "cut_body and corrupt_body"
            )
        return super().arm(effect)

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
        """The answer comes ``time`` later; for a connection: each byte of it does."""
        return self.arm(Effect("delay", delay=seconds(time)))

    def reorder(self, by: int = 1, within: float | str = "1s") -> Armed:
        """The answer waits until ``by`` requests that came later were answered, ``within`` at most: answers overtake each other.

        Answers on one HTTP/1.1 connection keep their order by definition: there it only waits.
        """
        if by < 1:
            raise ConfigError(f"reorder(by={by!r}) means nothing; give 1 or more")
        return self.arm(Effect("reorder", delay=seconds(within), size=by))

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
        """One byte in the first piece of the body is wrong; for a connection: of what is sent on it."""
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
    """The armed rules of one origin or link. Verbs without a choice are ``always``: ``fault.delay("1s")``.

    They are about requests; without ``requests``, as of what speaks plain TCP, they are the very rules of ``connections``.
    """

    def __init__(self, random: Random | None = None, *, requests: bool = True) -> None:
        super().__init__(Rules(random, "requests" if requests else "connections"))
        self.connections = Faults(self._rules.random, requests=False) if requests else self
        """For connections, when they are accepted: reset, close, hang, half-open, delay, trickle, bandwidth, cut_body, corrupt_body."""

    def _with(self, **more: Any) -> Choice:  # type: ignore[override]  # a choice among these, not more rules
        return Choice(self._rules, **{**self._chosen, **more})

    @property
    def rules(self) -> list[Armed]:
        """What is armed, in order."""
        return self._rules.armed

    @property
    def seen(self) -> int:
        """How many requests (or connections) have come."""
        return self._rules.seen

    @property
    def log(self) -> deque[tuple[int, Effect]]:
        """(number, effect) of every hit, for ``replay``."""
        return self._rules.log

    def clear(self) -> None:
        """Disarm everything."""
        self._rules.clear()

    def decide(self, subject: Any) -> Effect | None:
        """What happens to this one, the next in order of arrival; None for nothing."""
        return self._rules.decide(subject)

    def replay(self, log: Iterable[tuple[int, Effect]]) -> None:
        """Arm what another run's ``log`` holds: the same numbers meet the same effects, counted from the first request here."""
        self._rules.replay(log)
