"""A broker whose power is cut and whose network fails: what was acknowledged is delivered, and what was done stays done."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import rule

from blocks.core.errors import BlocksError

from ..link import Link
from .machine import Machine

TOPIC, GROUP = "machine", "workers"


class QueueMachine(Machine):
    """Subclass it and override ``build`` and ``connect`` for a broker of your own settings, and ``process`` for your own consumer.

    Held to: at the end every message whose publish returned was delivered at least once, and nothing was that nobody sent; a message
    whose ack was waited for is not delivered again, whatever happened in between: power cuts, resets, stalls, leases that ended.
    """

    lease: ClassVar[str] = "30s"

    async def build(self) -> Any:
        """A broker on ``self.disk``."""
        return await self.blocks.broker(disk=self.disk)

    async def connect(self, link: Link) -> Any:
        """A client that comes over the link."""
        from blocks.broker import connect

        return await self.blocks.enter(connect("blocks://{}:{}".format(*link.address)))

    async def setup(self) -> None:
        """A disk, a broker on it, a link, a client."""
        self.disk = self.blocks.disk()
        self.broker = await self.build()
        self.link = await self.blocks.link(self.broker)
        self.client = await self.connect(self.link)
        self.sent: set[bytes] = set()
        self.promised: set[bytes] = set()
        self.seen: set[bytes] = set()
        self.done: set[bytes] = set()
        self.serial = 0

    @rule(count=st.integers(1, 5))
    def publish(self, count: int) -> None:
        """Messages are sent; those whose receipt comes are promised."""
        self.run(self._publish(count))

    async def _publish(self, count: int) -> None:
        for _ in range(count):
            self.serial += 1
            payload = b"%d" % self.serial
            self.sent.add(payload)
            try:
                async with asyncio.timeout(20):
                    await self.client.publish(TOPIC, payload)
            except (BlocksError, TimeoutError, OSError):
                continue  # it may be stored or not: nobody promised it
            self.promised.add(payload)

    @rule(count=st.integers(1, 6), verb=st.sampled_from(("ack", "nack", "leave", "ack and leave")))
    def consume(self, count: int, verb: str) -> None:
        """A worker takes up to so many, and settles them so."""
        self.run(self._consume(count, verb))

    async def _consume(self, count: int, verb: str) -> None:
        try:
            async with asyncio.timeout(120):
                async with self.client.subscribe(
                    TOPIC, group=GROUP, start="earliest", lease=self.lease, max_deliveries=1_000_000
                ) as messages:
                    await self._work(messages, count, verb)
        except (BlocksError, TimeoutError, OSError):
            pass  # the worker is gone, as workers go; what it held comes again

    async def _work(self, messages: Any, count: int, verb: str) -> None:
        for _ in range(count):
            try:
                async with asyncio.timeout(2):
                    message = await anext(messages)
            except TimeoutError:
                return
            payload = bytes(message.payload)
            self.blocks.timeline.note("worker", f"gets {payload!r}, attempt {message.attempt}")
            if payload not in self.sent:
                self.fail(f"{payload!r} was never sent")
            if payload in self.done:
                self.fail(f"{payload!r} was done, and comes again")
            self.seen.add(payload)
            if verb == "nack":
                await message.nack()
            elif verb.startswith("ack"):
                await message.ack(wait=True)
                self.done.add(payload)

    @rule(keep=st.sampled_from(("synced", "torn", "some")), seconds=st.sampled_from((0.0, 2.0)))
    def power_cut(self, keep: Any, seconds: float) -> None:
        """The broker's machine loses power, and has it again after so many seconds."""
        self.run(self._power_cut(keep, seconds))

    async def _power_cut(self, keep: Any, seconds: float) -> None:
        await self.disk.power_cut(keep)
        await asyncio.sleep(seconds)
        await self.disk.power_on()

    @rule()
    def cut_connections(self) -> None:
        """Every connection is reset."""
        self.link.crash()
        self.run(self.link.recover())

    @rule(direction=st.sampled_from(("to-client", "to-server")), seconds=st.sampled_from((1.0, 10.0, 60.0)))
    def stall(self, direction: Any, seconds: float) -> None:
        """Nothing passes in one direction for so long."""
        self.link.stall(direction)
        self.time_passes(seconds)
        self.link.flow()

    async def finish(self) -> None:
        """Everything that was promised has been delivered, or is now."""
        self.link.flow()
        for _ in range(200):
            await self._consume(1000, "ack")
            if not self.broker.topic(TOPIC).lag(GROUP):
                break
            await asyncio.sleep(1)
        lost = self.promised - self.seen
        if lost:
            self.fail(f"acknowledged and never delivered: {sorted(lost)}")
