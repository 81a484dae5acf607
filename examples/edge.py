"""An edge before an origin that is slow, then fails, then is gone: a hundred readers at once notice nothing of it.

python examples/edge.py [--keep]
"""

import asyncio
import contextlib
import sys
from collections import Counter

from blocks import Edge, Request, Response, Upstream
from blocks.http import Server


class Origin:
    """Takes 50 ms for a page that is fresh for a second, and answers 503 while it is not ``well``."""

    def __init__(self) -> None:
        self.asked = 0
        self.well = True

    async def __call__(self, request: Request) -> Response:
        self.asked += 1
        await asyncio.sleep(0.05)
        if not self.well:
            return Response.text("overloaded", 503)
        fields = {"cache-control": "max-age=1, stale-while-revalidate=1", "cache-tag": "news"}
        return Response.text(f"edition {self.asked}", headers=fields)


async def main() -> None:
    origin = Origin()
    async with Server(origin, "127.0.0.1:0", drain=0) as behind:
        edge = Edge(
            Upstream(behind.url), memory="64MiB", grace="1h", ttl_jitter=0
        )  # grace: how long stale is better than nothing
        async with Server(edge, "127.0.0.1:0") as front, Upstream(front.url, keep=100) as client:

            async def readers(what: str, count: int = 100) -> None:
                before = origin.asked
                requests = [client(Request("GET", "/news", {"host": "news.example"})) for _ in range(count)]
                answers = await asyncio.gather(*requests)
                editions = Counter([(await answer.read()).decode() for answer in answers])
                print(f"{what}: {count} readers, {origin.asked - before} asked of the origin: {dict(editions)}")
                print(f"    {answers[-1].headers['cache-status']}")
                assert {answer.status for answer in answers} == {200}

            await readers("nothing is stored")  # a hundred at once are one fill
            await readers("it is stored")
            print(f"purged: {edge.purge(tag='news')} entry")
            await readers("it was purged")
            await asyncio.sleep(1.2)
            await readers("it is stale for a moment")  # answered at once; the origin is asked in the background
            origin.well = False
            await asyncio.sleep(2.2)
            await readers("the origin fails")
            await behind.stop(0)
            await readers("the origin is gone")
            if "--keep" in sys.argv:
                print(f"still up at {front.url}/news; Ctrl-C ends it")
                await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
