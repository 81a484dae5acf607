"""The whole shop in one process: edge → gateway → two balancers → services, orders through the broker to two kinds of workers.

python examples/shop.py [--keep]                         the same from a file: blocks run examples/shop.toml
"""

import asyncio
import contextlib
import sys
import tempfile

from blocks import Broker, Edge, Gateway, LoadBalancer, Request, Response, Upstream, route
from blocks.http import Server


def catalog(name: str) -> Server:
    async def item(request: Request) -> Response:
        return Response.json({"path": request.path, "by": name}, headers={"cache-control": "max-age=60"})

    return Server(item, "127.0.0.1:0")


def orders(name: str, broker: Broker) -> Server:
    async def take(request: Request) -> Response:
        key = request.headers.get("idempotency-key")  # the same order sent twice is stored once
        receipt = await broker.publish("orders.created", await request.read(), id=key)
        return Response.json({"order": receipt.offset, "by": name}, 202)  # 202: it is on disk

    return Server(take, "127.0.0.1:0")


async def worker(broker: Broker, group: str, done: asyncio.Queue[str]) -> None:
    async with broker.subscribe("orders.*", group=group, start="earliest") as messages:
        async for message in messages:
            done.put_nowait(f"{group} of order {message.payload.decode()}")
            await message.ack()


def shop(catalogs: list[Server], takers: list[Server]) -> Edge:
    """One handler: nothing between the edge and the services' own ports goes over a socket."""
    return Edge(
        Gateway(
            [
                route("/items", LoadBalancer([one.url for one in catalogs], health="1s"), methods="GET"),
                route(
                    "/orders",
                    LoadBalancer([one.url for one in takers], health="1s"),
                    methods="POST",
                    limit="5/min per ip",
                ),
            ]
        )
    )


async def main() -> None:
    done: asyncio.Queue[str] = asyncio.Queue()
    with tempfile.TemporaryDirectory() as folder:
        async with Broker(folder) as broker, catalog("alder") as a, catalog("birch") as b, orders("oak", broker) as c:
            app = shop([a, b], [c])
            async with Server(app, "127.0.0.1:0") as front, Upstream(front.url) as client:
                workers = [asyncio.create_task(worker(broker, group, done)) for group in ("billing", "notification")]
                for path in ("/items/7", "/items/7", "/items/8"):
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
