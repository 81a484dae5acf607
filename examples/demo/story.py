"""What is done to the shop while its customers use it."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field

from .customers import Seen
from .shop import Shop


@dataclass
class Tape:
    """What happened when, told as it happens. Moments are the customers' clock."""

    seen: Seen
    marks: list[tuple[float, str]] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.marks.append((self.seen.now(), text))
        print(f"  {self.seen.now():5.1f} s  {text}", flush=True)

    async def until(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - self.seen.now()))


@dataclass
class Turns:
    """When something was switched: who asked before ``began`` saw the old, who asks after ``ended`` must see the new."""

    began: float = 0.0
    ended: float = 0.0


@dataclass
class Story:
    """Runs for ``seconds``; ``price`` and ``release`` tell when those were changed."""

    shop: Shop
    tape: Tape
    seconds: float
    price: Turns = field(default_factory=Turns)
    release: Turns = field(default_factory=Turns)

    async def run(self) -> None:
        steps = (
            (0.08, self.kill_a_catalog),
            (0.20, self.start_the_catalog),
            (0.28, self.change_the_prices),
            (0.36, self.release_the_pages),
            (0.68, self.kill_the_broker),
            (0.78, self.drain_a_catalog),
            (0.84, self.kill_a_worker_and_the_orders),
            (0.92, self.start_them),
        )
        for part, step in steps:
            await self.tape.until(part * self.seconds)
            await step()

    async def kill_a_catalog(self) -> None:
        victim = self.shop.catalog[0]
        self.tape.say(f"kill -9 {victim.name}, a catalog, with requests under way on it")
        await victim.stop(signal.SIGKILL)

    async def start_the_catalog(self) -> None:
        await self.shop.catalog[0].start()
        self.tape.say(f"{self.shop.catalog[0].name} is started again; health checks bring it back")

    async def change_the_prices(self) -> None:
        self.price.began = self.tape.seen.now()
        self.shop.prices.write_text("2")
        count = await self.shop.purge("items")
        self.price.ended = self.tape.seen.now()
        self.tape.say(f"all prices change, and the tag “items” is purged from the edge: {count} entries")

    async def release_the_pages(self) -> None:
        await self.shop.push("v2")
        self.release.began = self.tape.seen.now()
        await self.shop.activate("v2")
        self.release.ended = self.tape.seen.now()
        self.tape.say("release v2 of the pages is pushed and activated")

    async def kill_the_broker(self) -> None:
        self.tape.say("kill -9 the broker, with orders on their way to the disk")
        await self.shop.broker.stop(signal.SIGKILL)
        await asyncio.sleep(0.5)
        await self.shop.broker.start()
        self.tape.say("the broker is started again on the same folder")

    async def drain_a_catalog(self) -> None:
        await self.shop.drain(self.shop.catalog[1])
        self.tape.say(f"{self.shop.catalog[1].name}, a catalog, is drained by the admin API, as for a deployment")

    async def kill_a_worker_and_the_orders(self) -> None:
        worker, other = self.shop.billing
        self.tape.say(f"kill -9 {worker.name}; what it holds goes to {other.name}")
        await worker.stop(signal.SIGKILL)
        self.tape.say(f"kill -9 {self.shop.orders[0].name}, which takes orders: those on their way are sent again")
        await self.shop.orders[0].stop(signal.SIGKILL)

    async def start_them(self) -> None:
        await self.shop.drain(self.shop.catalog[1], "restore")
        await asyncio.gather(self.shop.orders[0].start(), self.shop.billing[0].start())
        self.tape.say("all of them are back in service")
