"""The keys of an issuer are fetched before they are needed, kept while it is down, and fetched anew for an unknown kid, boundedly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self

from blocks.core.backoff import Backoff
from blocks.core.clock import SYSTEM, Clock

from .keys import KeySet

REFRESH = 600.0  # seconds; Envoy's remote_jwks cache_duration
COOLDOWN = 30.0  # seconds between fetches that unknown kids may cause; PyJWKClient and jose default to 30
_NOTHING = KeySet(())


class KeySource(Protocol):
    """Where a verifier has its keys from. ``loaded`` is False until there were keys once."""

    keys: KeySet
    loaded: bool

    async def refetch(self) -> bool:
        """Look for newer keys, if that is allowed now; whether the keys have changed."""
        ...


class FixedKeys:
    """Keys that were given and never change."""

    def __init__(self, keys: KeySet) -> None:
        self.keys = keys
        self.loaded = True

    async def refetch(self) -> bool:
        """Nothing newer can be had."""
        return False


class RefreshedKeys:
    """Keys from ``load``, which raises what it likes: then the last good ones stay.

    As an async context manager it loads at once (a failure is not fatal: tokens get 503 until keys are there) and again every ``refresh``
    seconds, after a failure sooner. ``refetch`` is one flight for all who wait, at most one each ``cooldown`` seconds.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[KeySet]],
        *,
        refresh: float = REFRESH,
        cooldown: float = COOLDOWN,
        clock: Clock = SYSTEM,
        keys: KeySet | None = None,
    ) -> None:
        self.keys = keys or _NOTHING
        self.loaded = keys is not None
        self.error: Exception | None = None
        self.fetches = self.failures = 0
        self._load = load
        self._refresh = refresh
        self._cooldown = cooldown
        self._clock = clock
        self._fetched = float("-inf")
        self._flight: asyncio.Task[bool] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._users = 0

    async def __aenter__(self) -> Self:
        self._users += 1
        if self._keeper is None:
            await self.fetch()
            self._keeper = asyncio.get_running_loop().create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._users -= 1
        if self._users == 0:
            tasks = [task for task in (self._keeper, self._flight) if task is not None]
            self._keeper = self._flight = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def refetch(self) -> bool:
        """Fetch unless that was done within the cooldown; whether the keys have changed. A flight under way is joined."""
        if self._flight is None and self._clock.monotonic() - self._fetched < self._cooldown:
            return False
        return await self.fetch()

    async def fetch(self) -> bool:
        """Fetch now; whether the keys have changed."""
        if self._flight is None:
            self._fetched = self._clock.monotonic()
            self._flight = asyncio.get_running_loop().create_task(self._fly())
        return await asyncio.shield(self._flight)

    async def _fly(self) -> bool:
        self.fetches += 1
        try:
            keys = await self._load()
        except Exception as error:
            self.error = error
            self.failures += 1
            return False
        finally:
            self._flight = None
        self.error = None
        changed = keys.generation != self.keys.generation or not self.loaded
        if changed:
            self.keys = keys
        self.loaded = True
        return changed

    async def _keep(self) -> None:
        backoff = Backoff(first=1.0, cap=min(60.0, self._refresh), floor=min(1.0, self._refresh))
        while True:
            if self.error is None:
                backoff.reset()
                await asyncio.sleep(self._refresh)
            else:
                await asyncio.sleep(backoff.next())
            await self.fetch()
