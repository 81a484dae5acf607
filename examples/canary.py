"""A new version of a service is tried on a tenth of the customers, watched, and then gets everybody.

python examples/canary.py [--keep]
"""

import asyncio
import contextlib
import sys
from collections import Counter

from blocks import Gateway, Request, Response, Upstream, route
from blocks.http import Server


def service(version: str) -> Server:
    async def answer(request: Request) -> Response:
        return Response.text(version)

    return Server(answer, "127.0.0.1:0")


def shop(old: Upstream, new: Upstream, share: float) -> Gateway:
    # Who gets the new one is a hash of the customer: it sticks, and a growing share only ever adds customers.
    return Gateway(
        [route("/shop", old, canary={"service": new, "share": share, "header": "x-canary"})], trusted=["127.0.0.1"]
    )


async def ask(client: Upstream, field: str, value: str) -> str:
    response = await client(Request("GET", "/shop", {"host": "shop.example", field: value}))
    return (await response.read()).decode()


async def main() -> None:
    async with service("old") as old, service("new") as new, Upstream(old.url) as first, Upstream(new.url) as second:
        before: set[str] = set()
        for share in (0.1, 0.5, 1.0):
            async with Server(shop(first, second, share), "127.0.0.1:0") as front, Upstream(front.url) as client:
                customers = [f"10.0.{number // 250}.{number % 250}" for number in range(1000)]
                versions = {customer: await ask(client, "x-forwarded-for", customer) for customer in customers}
                chosen = {customer for customer, version in versions.items() if version == "new"}
                print(f"share {share:4.0%}: {dict(sorted(Counter(versions.values()).items()))}")
                assert before <= chosen, "a customer was sent back to the old version"
                before = chosen
                if share < 1:
                    # Testers choose for themselves.
                    assert await ask(client, "x-canary", "always") == "new"
                    assert await ask(client, "x-canary", "never") == "old"
                elif "--keep" in sys.argv:
                    print(f"still up at {front.url}/shop; Ctrl-C ends it")
                    await asyncio.Event().wait()
        print("everybody has the new version, and nobody went back and forth")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
