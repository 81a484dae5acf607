"""Three backends behind a balancer under load: one crashes, one is drained, and no request is lost.

python examples/balancer.py [--keep]
"""

import asyncio
import contextlib
import sys
from collections import Counter

from blocks import LoadBalancer, Request, Response, Upstream
from blocks.balancer import Endpoint, Health
from blocks.http import Server


def backend(name: str) -> Server:
    async def answer(request: Request) -> Response:
        await asyncio.sleep(0.001)
        return Response.text(name)

    return Server(answer, "127.0.0.1:0", drain=0)


async def load(front: str, seen: Counter[str], requests: int) -> None:
    """Ten customers who ask one thing after another."""

    async def customer(client: Upstream) -> None:
        for _ in range(requests // 10):
            response = await client(Request("GET", "/"))
            assert response.status == 200, "a request was lost"
            seen[(await response.read()).decode()] += 1

    async with Upstream(front) as client, asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(customer(client))


async def main() -> None:
    async with backend("a") as a, backend("b") as b, backend("c") as c:
        balancer = LoadBalancer(
            # b takes twice as much as the others; a URL alone would do for an endpoint without settings of its own
            [a.url, Endpoint(Upstream(b.url), weight=2), c.url],
            policy="round-robin",
            health=Health("/", interval="200ms"),
            on_event=lambda event: print("  event:", event),
        )
        async with Server(balancer, "127.0.0.1:0") as front:
            for what in ("all three", "a crashes", "c is drained"):
                seen: Counter[str] = Counter()
                loading = asyncio.create_task(load(front.url, seen, 1000))
                await asyncio.sleep(0.05)
                if what == "a crashes":
                    await a.stop(0)  # at once, with requests under way on it: they are tried elsewhere
                elif what == "c is drained":
                    await balancer.drain(c.url, "5s")  # it finishes what it has, and gets nothing new
                await loading
                print(f"{what}: {seen.total()} answers: {dict(sorted(seen.items()))}")
            if "--keep" in sys.argv:
                print(f"still up at {front.url}; Ctrl-C ends it")
                await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
