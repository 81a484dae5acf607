"""Clients that ask as often as they like, and a limit that must never be exceeded, in any stretch of time."""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import rule

from blocks.core.quantities import rate
from blocks.http.message import Request
from blocks.http.upstream import Upstream

from ..origin import Origin
from .machine import Machine


class LimitMachine(Machine):
    """Subclass it, say the ``rate`` and ``burst`` that are promised to one client, and override ``build`` if it is not a gateway of ours.

    Held to: in every stretch of ``t`` seconds a client gets at most ``burst + rate * t`` requests through to the origin; a client that
    asks no more often than the rate is never refused, whatever the others do. Who a client is, the header ``x-client`` says.
    """

    rate: ClassVar[str] = "10/min"
    burst: ClassVar[float | None] = None  # as many as the rate names, by default
    clients: ClassVar[int] = 3

    async def build(self, origin: Origin) -> Any:
        """What limits, before the origin: it has a ``url``."""
        from blocks.gateway import route

        limit = {"rate": self.rate, "per": "header:x-client"}
        return await self.blocks.gateway(route("/", self.blocks.upstream(origin), limit=limit))

    async def setup(self) -> None:
        """An origin, and the limit before it."""
        self.origin = await self.blocks.origin()
        self.front = await self.build(self.origin)
        self.upstream = await self.blocks.enter(Upstream(self.front.url, name="client"))
        self.passed: dict[str, list[float]] = {}
        self.asked: dict[str, float] = {}
        promised = rate(self.rate)
        self.per_second = promised.per_second
        self.most = float(self.burst if self.burst is not None else promised.amount)

    @rule(client=st.integers(0, 7), count=st.sampled_from((1, 2, 5, 30)))
    def ask(self, client: int, count: int) -> None:
        """A client asks so many times in a row."""
        self.run(self._ask(f"client-{client % self.clients}", count))

    @rule(client=st.integers(0, 7), seconds=st.floats(0.1, 120.0))
    def ask_after_a_while(self, client: int, seconds: float) -> None:
        """Time passes, and a client asks."""
        self.time_passes(seconds)
        self.run(self._ask(f"client-{client % self.clients}", 1))

    async def _ask(self, client: str, count: int) -> None:
        host = self.front.url.partition("://")[2]
        for _ in range(count):
            before, now = self.origin.journal.total, self.now
            response = await self.upstream(Request("GET", "/", {"host": host, "x-client": client}))
            await response.read()
            through = self.origin.journal.total > before
            self.blocks.timeline.note(client, f"asks -> {response.status}")
            if through != (response.status == 200):
                self.fail(
                    f"{client} was told {response.status}, and the request {'passed' if through else 'did not pass'}"
                )
            rested = self.asked.get(client)
            if not through and (rested is None or now - rested >= self.most / self.per_second):
                self.fail(f"{client} was refused, and had not asked since {rested}")
            self.asked[client] = now
            if through:
                self._charge(client, now)

    def _charge(self, client: str, now: float) -> None:
        passed = self.passed.setdefault(client, [])
        passed.append(now)
        for place, began in enumerate(passed):
            allowed = self.most + self.per_second * (now - began) + 1e-6
            if len(passed) - place > allowed:
                self.fail(f"{client} got {len(passed) - place} in {now - began:g} s, and {allowed:g} are allowed")
