"""What is not kept any longer is removed: by age, size or count of a topic, and all but the last value of a key."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from .log.disk import Disk

if TYPE_CHECKING:
    from .engine import Engine


class Retention:
    """Runs every ``INTERVAL`` seconds."""

    def __init__(self, engine: Engine, disk: Disk, random: Random) -> None:
        self._engine = engine
        self._disk = disk
        self._random = random
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin."""

    async def stop(self) -> None:
        """End."""
