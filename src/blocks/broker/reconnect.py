"""A keeper holds one link to the broker, and makes a new one whenever it is lost, until told to stop or out of patience.

Waits between tries grow and are spread (``core.backoff``) up to a second, so that clients that lost their broker together are back
within two seconds of its return, and do not return as one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Protocol

from blocks.core.backoff import Backoff
from blocks.core.logging import events

from .errors import BrokerError, Closed, Denied
from .link import Link

FIRST, CAP = 0.05, 1.0  # seconds between tries; nats.py waits 2 s
STEADY = 5.0  # seconds that a link has held when the waits begin anew: a broker that drops us at once is not hammered


class Holder(Protocol):
    """Who uses the link that a keeper holds."""

    def attached(self, link: Link) -> None:
        """There is a link: send what is due."""
        ...

    def still_away(self, now: float) -> None:
        """Another try failed at ``now``."""
        ...

    def given_up(self, error: BrokerError) -> None:
        """There will be no link any more."""
        ...


class Keeper:
    """Keeps a link open in a task of its own. ``give_up_after`` seconds without one, or a refusal of who we are, end it."""

    __slots__ = ("_backoff", "_gone", "_holder", "_open", "_patience", "_since", "_task", "link", "reconnects")

    def __init__(
        self, holder: Holder, open_link: Callable[[], Awaitable[Link]], give_up_after: float, random: Random
    ) -> None:
        self._holder = holder
        self._open = open_link
        self._patience = give_up_after
        self._backoff = Backoff(FIRST, CAP, random=random)
        self._gone: asyncio.Event = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.link: Link | None = None
        self.reconnects = 0
        self._since = 0.0  # when the link was made

    async def start(self) -> None:
        """Connect, and keep connected from then on. Raises what the first try raises."""
        self.link = await self._open()
        self._since = asyncio.get_running_loop().time()
        self._holder.attached(self.link)
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="broker-client")

    def lost(self, link: Link, error: BrokerError) -> None:
        """``link`` is over: make a new one."""
        if link is self.link:
            events().warning("broker-link-lost", error=str(error))
            self.link = None
            if asyncio.get_running_loop().time() - self._since > STEADY:
                self._backoff.reset()
            self._gone.set()

    async def stop(self) -> None:
        """Make no new link, and close the one there is."""
        task, self._task = self._task, None
        link, self.link = self.link, None
        if link is not None:
            link.close()
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if link is not None:
            await link.gone(1.0)

    async def _keep(self) -> None:
        while True:
            await self._gone.wait()
            self._gone.clear()
            if self.link is not None:
                continue
            try:
                await self._reconnect()
            except BrokerError as error:
                self._holder.given_up(error)
                return

    async def _reconnect(self) -> None:
        """Try until there is a link. Raises ``Closed`` when patience is out, ``Denied`` when the broker does not want us."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        while True:
            await asyncio.sleep(self._backoff.next())
            try:
                self.link = await self._open()
            except Denied:
                raise
            except (OSError, BrokerError) as error:
                now = loop.time()
                self._holder.still_away(now)
                if now - since > self._patience:
                    raise Closed(f"no broker for {self._patience:.0f} s: {error}") from error
                continue
            self._since = loop.time()
            self.reconnects += 1
            events().info("broker-reconnected", after=round(loop.time() - since, 3))
            self._holder.attached(self.link)
            return
