"""HTTP to broker to Server-Sent Events: an order that is posted once appears on every screen, also on one that was away.

python examples/live_orders.py [--keep]
"""

import asyncio
import contextlib
import json
import sys
import tempfile

from blocks import Broker, Gateway, Request, Stream, Upstream, route
from blocks.gateway.messages.publish import publish
from blocks.gateway.messages.subscribe import subscribe
from blocks.http import Server


def front_door(broker: Broker) -> Gateway:
    return Gateway(
        [
            # 202 is answered when the order is on disk; under an Idempotency-Key it is there once, however often it is sent.
            route("/orders/{region}", publish(broker, "orders.{region}", key="{body.customer}"), methods="POST"),
            route("/live/{region}", subscribe(broker, "orders.{region}"), methods="GET"),
        ]
    )


async def watch(url: str, count: int, last: str = "") -> tuple[str, list[str]]:
    """What a screen shows: the next ``count`` orders, and the id of the last of them."""
    fields = {"host": "shop.example", "accept": "text/event-stream", **({"last-event-id": last} if last else {})}
    async with Upstream(url) as client:
        response = await client(Request("GET", "/live/eu", fields))
        assert isinstance(response.body, Stream)
        orders: list[str] = []
        text = b""
        async for chunk in response.body:
            text += chunk
            *events, text = text.split(b"\n\n")
            for event in events:
                parts = dict(line.split(": ", 1) for line in event.decode().splitlines() if ": " in line)
                if "data" in parts:
                    last = parts["id"]
                    orders.append(json.loads(parts["data"])["what"])
            if len(orders) >= count:
                break
        return last, orders


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Broker(folder) as broker,
            Server(front_door(broker), "127.0.0.1:0") as server,
            Upstream(server.url) as client,
        ):

            async def order(number: int, what: str) -> None:
                fields = {
                    "host": "shop.example",
                    "content-type": "application/json",
                    "idempotency-key": f"order-{number}",
                }
                body = json.dumps({"customer": 7, "what": what}).encode()
                receipt = await client(Request("POST", "/orders/eu", fields, body))
                told = json.loads(await receipt.read())
                print(
                    f"posted {what}: {receipt.status}, offset {told['offset']}{' (again)' if told['duplicate'] else ''}"
                )

            await order(0, "tea")
            screens = [asyncio.create_task(watch(server.url, 2)) for _ in range(2)]
            await asyncio.sleep(0.3)  # both look
            await order(1, "shoes")
            await order(1, "shoes")  # its customer pressed the button twice
            await order(2, "hats")
            for number, screen in enumerate(screens, 1):
                last, orders = await screen
                print(f"screen {number} shows {orders}")
                assert orders == ["shoes", "hats"]
            await order(3, "socks")  # while no screen looks
            _, missed = await watch(server.url, 1, last)
            print(f"a screen that comes back shows what it missed: {missed}")
            assert missed == ["socks"]
            if "--keep" in sys.argv:
                print(f"still up: curl -N {server.url}/live/eu; Ctrl-C ends it")
                await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
