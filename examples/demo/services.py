"""The shop's own code, each a process of its own: the catalog, the taking of orders, and the workers behind the broker.

python services.py catalog PORT NAME PRICES | orders PORT NAME BROKER | worker GROUP BROKER
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from blocks import Request, Response, connect
from blocks.core.errors import BlocksError
from blocks.core.messaging import Delivery
from blocks.http import Handler, Server


def say(line: str) -> None:
    print(line, flush=True)


async def told_to_stop() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


async def serving(handler: Handler, port: str) -> None:
    async with Server(handler, f"127.0.0.1:{port}", drain=1.0) as server:
        say(server.url)
        await told_to_stop()


async def catalog(port: str, name: str, prices: str) -> None:
    """Items may be remembered for an hour, since a change is purged; what is in stock must be asked each time."""

    def price() -> str:  # the database's, shared by all catalogs
        return Path(prices).read_text()

    async def handler(request: Request) -> Response:
        kind, _, number = request.path.strip("/").partition("/")
        if kind == "healthz":
            return Response(204)
        await asyncio.sleep(0.002)  # the database's time
        if kind == "items":
            fields = {"cache-control": "max-age=3600", "surrogate-key": f"items item-{number}", "x-by": name}
            return Response.json({"item": number, "price": price()}, headers=fields)
        return Response.json({"item": number, "left": 7}, headers={"cache-control": "no-store", "x-by": name})

    await serving(handler, port)


async def orders(port: str, name: str, broker: str) -> None:
    """An order is accepted when the broker has it on disk, never before. Its key makes a repetition harmless."""
    async with connect(broker, name=name) as client:

        async def handler(request: Request) -> Response:
            if request.path == "/healthz":
                return Response(204)
            number = request.headers["idempotency-key"]
            payload = await request.read()
            say(request.headers["x-try"])
            try:
                async with asyncio.timeout(2):
                    await client.publish("orders.created", payload, id=number)
            except (TimeoutError, BlocksError):
                return Response.text("not now\n", 503)
            return Response.json({"order": number}, 202, headers={"x-by": name})

        await serving(handler, port)


async def worker(group: str, broker: str) -> None:
    """Handles each order once, or again if the broker never heard that it was done."""
    async with (
        connect(broker, name=group) as client,
        client.subscribe("orders.*", group=group, start="earliest", prefetch=20) as messages,
    ):
        say("ready")
        handling = asyncio.create_task(handle(messages))
        await told_to_stop()
        handling.cancel()


async def handle(messages: AsyncIterator[Delivery]) -> None:
    async for message in messages:
        await asyncio.sleep(0.001)  # the work
        say(message.payload.decode())
        await message.ack()


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    asyncio.run({"catalog": catalog, "orders": orders, "worker": worker}[kind](*arguments))
