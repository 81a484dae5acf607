"""Local-first limits: each gateway decides by itself, at once, and tells Redis a moment later what it let pass.

Every ``sync`` seconds the ledger charges what passed here to the shared bucket and takes over how far that has gone. So no
request waits for Redis, and with N gateways at most ``(N - 1) * (burst + rate * sync)`` requests of a key pass beyond what one
gateway would let pass; what passed too many is owed, and paid before anything else passes (up to ``DEBT`` bursts).
While Redis is away each gateway holds its own limit, and what passed is charged when Redis is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from blocks.core.errors import Unavailable

from ..redis import Link, RedisRefused
from .gcra import Gcra
from .generations import Generations
from .script import SCRIPT, SHA

DEBT = 8.0  # bursts that are remembered as owed: enough for eight gateways that all began at once
BATCH = 200  # keys in one question, so that Redis is not held for long
MAX_KEYS = 100_000  # keys that wait to be told; more are not told, each gateway then holds its own limit for them


class Ledger:
    """What passed here and was not told yet, by key."""

    def __init__(self, link: Link, prefix: str, sync: float, now: Callable[[], float]) -> None:
        self._link = link
        self._prefix = prefix
        self._now = now
        self._passed: dict[str, tuple[float, LocalFirst]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.sync = sync
        self.untold = 0  # keys that found no room

    def note(self, key: str, cost: float, own: LocalFirst) -> None:
        """``cost`` passed for ``key``."""
        known = self._passed.get(key)
        if known is not None:
            self._passed[key] = (known[0] + cost, own)
        elif len(self._passed) < MAX_KEYS:
            self._passed[key] = (cost, own)
        else:
            self.untold += 1
        if self._timer is None and self._task is None:
            self._timer = asyncio.get_running_loop().call_later(self.sync, self._begin)

    async def __aenter__(self) -> Ledger:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Tell what is left, once."""
        self._rest()
        if self._task is not None:
            await asyncio.wait([self._task])
        if self._passed and self._link.up:
            await self._tell()
        self._rest()

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        self._timer = None
        self._task = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        passed, self._passed = self._passed, {}
        entries = list(passed.items())
        try:
            while entries:
                await self._charge(entries[:BATCH])
                del entries[:BATCH]
        except Unavailable:
            pass
        finally:
            for key, (cost, own) in entries:  # not told: kept for the next time
                known = self._passed.get(key)
                self._passed[key] = (cost + (known[0] if known else 0), own)
            self._task = None
            if self._passed and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self.sync, self._begin)

    async def _charge(self, entries: list[tuple[str, tuple[float, LocalFirst]]]) -> None:
        keys = [self._prefix + key for key, _ in entries]
        arguments: list[str | float] = []
        for _, (cost, own) in entries:
            arguments += ("g", cost, 1, 0, own.interval, own.span, own.span * DEBT, 0)
        try:
            answer = await self._link.call("EVALSHA", SHA, len(keys), *keys, *arguments)
        except RedisRefused as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
            answer = await self._link.call("EVAL", SCRIPT, len(keys), *keys, *arguments)
        now = self._now()
        for place, (key, (_, own)) in enumerate(entries):
            own.reach(key, now + answer[place * 3 + 2] / 1e6, now)


class LocalFirst(Gcra):
    """A GCRA that notes what it lets pass, and is told how far the others have gone."""

    __slots__ = ("ledger",)

    def __init__(self, memory: Generations, amount: float, period: float, burst: float, ledger: Ledger) -> None:
        super().__init__(memory, amount, period, burst)
        self.ledger = ledger

    @property
    def life(self) -> float:
        """Long enough for the greatest debt."""
        return max((DEBT + 1) * self.span, 1.0)

    def attempt(self, key: str, cost: float, now: float) -> float:
        """As ``Gcra.attempt``."""
        wait = super().attempt(key, cost, now)
        if not wait:
            self.ledger.note(key, cost, self)
        return wait

    def take(self, key: str, cost: float, now: float) -> None:
        """As ``Gcra.take``."""
        super().take(key, cost, now)
        self.ledger.note(key, cost, self)

    def charge(self, key: str, cost: float, now: float) -> None:
        """As ``Gcra.charge``."""
        super().charge(key, cost, now)
        self.ledger.note(key, cost, self)

    def reach(self, key: str, tat: float, now: float) -> None:
        """All gateways together have gone as far as ``tat``."""
        self.memory.young[key] = max(self._tat(key, now), tat)
