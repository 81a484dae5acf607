"""Two backends behind a balancer; one is stopped under load, and no request is lost.

python examples/failover.py
"""

import asyncio
from collections import Counter

from blocks import LoadBalancer, Request, Response, Upstream
from blocks.http import Server


def backend(name: str):
    async def answer(request: Request) -> Response:
        await asyncio.sleep(0.001)
        return Response.text(name)

    return answer


async def main() -> None:
    a = Server(backend("a"), "127.0.0.1:0")
    b = Server(backend("b"), "127.0.0.1:0")
    seen: Counter[tuple[int, str]] = Counter()
    async with b:
        await a.__aenter__()
        lb = LoadBalancer([a.url, b.url], health="100ms", on_event=lambda event: print("  event:", event))
        async with Server(lb, "127.0.0.1:0") as front, Upstream(front.url) as client:
            print(f"balancing over {a.url} and {b.url} on {front.url}")

            async def load(requests: int) -> None:
                for _ in range(requests):
                    response = await client(Request("GET", "/"))
                    seen[response.status, (await response.read()).decode()] += 1

            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(load(100))
                await asyncio.sleep(0.1)
                print("stopping a")
                await a.__aexit__(None, None, None)
    for (status, name), count in sorted(seen.items()):
        print(f"{count:5} answers {status} from {name}")
    assert sum(seen.values()) == 2000
    assert {status for status, _ in seen} == {200}, "a request was lost"


if __name__ == "__main__":
    asyncio.run(main())
