"""An edge's settings, as people write them, made into what it works with. Each raises ``ConfigError`` for what makes no sense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from blocks.core.clock import Clock
from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds
from blocks.http.handler import Handler

from .store import Store

if TYPE_CHECKING:
    from pathlib import Path


def origins_of(origin: Handler | Sequence[Handler]) -> tuple[Handler, ...]:
    """One origin or several, as a tuple that is not empty."""
    origins = tuple(origin) if isinstance(origin, Sequence) else (origin,)
    if not origins:
        raise ConfigError("an edge needs an origin; give a handler such as Upstream('http://127.0.0.1:9000')")
    return origins


def store_of(store: Store | str | Path | None, capacity: int, clock: Clock) -> Store | None:
    """The second tier: itself, or one of ``capacity`` bytes in that folder."""
    if store is None or hasattr(store, "holds"):
        return store  # type: ignore[return-value]  # it has the methods
    from .store.disk import DiskStore  # a memory-only edge does not pay for it

    return DiskStore(store, size=capacity, clock=clock)  # type: ignore[arg-type,no-any-return,unused-ignore]  # a path


def share_of(value: float | str, name: str) -> float:
    """0.1 from ``0.1`` or ``"10%"``, from 0 to 0.9."""
    try:
        share = float(value[:-1]) / 100 if isinstance(value, str) and value.endswith("%") else float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 0.9:
        raise ConfigError(f"{name}={value!r} is not a share; write it like 10% (0% to 90%)")
    return share


def lifetimes_of(negative: dict[int, float | str] | None) -> dict[int, float]:
    """Seconds by status."""
    return {status: seconds(value) for status, value in (negative or {}).items()}
