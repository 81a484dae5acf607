"""What a store of records promises, whichever it is."""

from __future__ import annotations

from typing import Protocol

from blocks.core.errors import Failure, Fault


class StoreDown(Failure):
    """The store cannot be asked, or has no room: the promise that it carries cannot be kept now (503)."""

    fault = Fault.OURSELVES
    status = 503
    reason = "store-down"


class Records(Protocol):
    """Values by key, each for a time (``ttl``, seconds). Every operation is atomic and may raise ``StoreDown``."""

    async def add(self, key: bytes, value: bytes, ttl: float) -> bytes | None:
        """Put ``value`` where there is none, and return None; else return what is there."""
        ...

    async def get(self, key: bytes) -> bytes | None:
        """What is there, or None."""
        ...

    async def swap(self, key: bytes, old: bytes, new: bytes, ttl: float) -> bool:
        """Put ``new`` where ``old`` is; False when something else, or nothing, is there."""
        ...

    async def drop(self, key: bytes, old: bytes) -> bool:
        """Take ``old`` out; False when something else, or nothing, is there."""
        ...
