"""Records in Redis, shared by all gateways; each operation is one round trip, and Redis forgets by itself."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

from blocks.core.errors import Failure

from .contract import StoreDown

_ADD = """
local there = redis.call('GET', KEYS[1])
if there then return there end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
"""
_SWAP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
_DROP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class Link(Protocol):
    """A connection to Redis: sends one command, brings its answer, raises ``Failure`` when Redis is down."""

    def call(self, *words: bytes | str | int | float) -> Awaitable[Any]:
        """The answer to one command."""
        ...


class SharedRecords:
    """Keeps records under ``prefix`` in the Redis behind ``link``."""

    def __init__(self, link: Link, *, prefix: str = "blocks:records:") -> None:
        self._link = link
        self._prefix = prefix.encode()

    async def add(self, key: bytes, value: bytes, ttl: float) -> bytes | None:
        """See ``Records.add``."""
        return _bytes(await self._call("EVAL", _ADD, 1, self._prefix + key, value, _milliseconds(ttl)))

    async def get(self, key: bytes) -> bytes | None:
        """See ``Records.get``."""
        return _bytes(await self._call("GET", self._prefix + key))

    async def swap(self, key: bytes, old: bytes, new: bytes, ttl: float) -> bool:
        """See ``Records.swap``."""
        return bool(await self._call("EVAL", _SWAP, 1, self._prefix + key, old, new, _milliseconds(ttl)))

    async def drop(self, key: bytes, old: bytes) -> bool:
        """See ``Records.drop``."""
        return bool(await self._call("EVAL", _DROP, 1, self._prefix + key, old))

    async def _call(self, *words: bytes | str | int | float) -> Any:
        try:
            return await self._link.call(*words)
        except Failure as error:
            raise StoreDown(f"Redis cannot be asked: {error}") from error


def _milliseconds(ttl: float) -> int:
    return max(1, int(ttl * 1000))


def _bytes(value: Any) -> bytes | None:
    if value is None or value is False:
        return None
    return value.encode() if isinstance(value, str) else bytes(value)
