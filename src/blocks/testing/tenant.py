"""A broker that dies with the power of its disk, and starts again on what is left."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blocks.broker import Broker


class Tenant:
    """``broker`` as the user of a disk: ``crash`` cuts its connections, ``restart`` starts the same object on the same port."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    async def crash(self) -> None:
        """End at once; the disk lets nothing more through."""
        if self.broker.server is not None:
            self.broker.server.cut()
        if self.broker.engine.failure is None:
            self.broker.engine.fail(OSError(errno.EIO, "the power is out"))
        await self.broker.stop()

    async def restart(self) -> None:
        """Recover, and listen where clients look for it."""
        await self.broker.start()
