"""The whole shop in one process: edge → gateway → two balancers → services, orders through the broker to two kinds of workers.

python examples/shop.py [--keep]                         the same from a file: blocks run examples/shop.toml
"""

import asyncio
import contextlib
import sys
import tempfile

from blocks import Broker, Edge, Gateway, LoadBalancer, Request, Response, Upstream, route
from blocks.gateway.messages.publish import publish
from blocks.http import Server


def service(name: str, cache: str) -> Server:
    async def answer(request: Request) -> Response:
        return Response.json({"path": request.path, "by": name}, headers={"cache-control": cache})

    return Server(answer, "127.0.0.1:0")


async def worker(broker: Broker, group: str, done: asyncio.Queue[str]) -> None:
    async with broker.subscribe("orders.*", group=group, start="earliest") as messages:
        async for message in messages:
            done.put_nowait(f"{group} of order {message.payload.decode()}")
            await message.ack()


def shop(catalog: list[str], stock: list[str], broker: Broker) -> Edge:
    """One handler over the URLs of services: nothing inside it goes over a socket."""
    routes = [
        route("/items", LoadBalancer(catalog, health="1s"), methods="GET"),
        route("/stock", LoadBalancer(stock, health="1s"), methods="GET"),
        # 202 is answered when the order is on disk; under an Idempotency-Key it is there once, however often it is sent.
        route("/orders", publish(broker, "orders.created"), methods="POST", limit="5/min per ip"),
    ]
    return Edge(Gateway(routes))


async def main() -> None:
    done: asyncio.Queue[str] = asyncio.Queue()
    with tempfile.TemporaryDirectory() as folder:
        async with (
            service("alder", "max-age=60") as a,
            service("birch", "max-age=60") as b,
            service("cedar", "no-store") as c,
            Broker(folder) as broker,
        ):
            app = shop([a.url, b.url], [c.url], broker)
            async with Server(app, "127.0.0.1:0") as front, Upstream(front.url) as client:
                workers = [asyncio.create_task(worker(broker, group, done)) for group in ("billing", "notification")]
                for path in ("/items/7", "/items/7", "/items/8", "/stock/7", "/stock/7"):
                    response = await client(Request("GET", path, {"host": "shop.example"}))
                    print((await response.read()).decode(), response.headers["cache-status"])
                for number in (1, 2, 2, 3, 4, 5, 6):
                    fields = {"host": "shop.example", "idempotency-key": f"order-{number}"}
                    response = await client(Request("POST", "/orders", fields, b"%d" % number))
                    print(f"order {number}: {response.status}, {response.headers['ratelimit']}")
                print(", ".join(sorted([await done.get() for _ in range(8)])))
                if "--keep" in sys.argv:
                    print(f"still up at {front.url}; Ctrl-C ends it")
                    await asyncio.Event().wait()
                for task in workers:
                    task.cancel()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
