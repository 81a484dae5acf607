"""What the edge itself costs for what it does not have, CPU µs a request in process: `python benchmarks/edge_miss.py [--rounds 25]`.

The origin is a function that answers at once with one header section, as a connection hands it on whose heads repeat, or with another
one each time. What it costs itself is taken off. Best of the rounds, as the rest is other work on the machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Coroutine, Iterator
from itertools import count
from typing import Any

from blocks.edge import Edge
from blocks.http import Headers, Request, Response
from blocks.http.message import Pair, Section

EACH = 2000  # requests a round
BODY = b"x" * 1024
ASKED = Request("GET", "/", [
    ("host", "example.com"), ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"), ("accept", "text/html,application/xhtml+xml"),
    ("accept-encoding", "gzip, deflate, br, zstd"), ("accept-language", "en-GB,en;q=0.9"),
]).headers  # fmt: skip
DATE = (b"date", b"Mon, 23 Nov 2026 03:45:23 GMT")
NO_STORE, PRIVATE = (b"cache-control", b"no-store"), (b"cache-control", b"private, no-store")
YEAR = (b"cache-control", b"max-age=31536000")
VARY = (b"vary", b"Accept-Encoding")
Ask = Callable[[Request], Coroutine[Any, Any, Response]]


def section(number: int, *more: Pair) -> Section:
    kind, request_id = (b"content-type", b"text/html; charset=utf-8"), (b"x-request-id", b"%08d" % number)
    return Section([(b"server", b"origin"), DATE, kind, (b"content-length", b"1024"), request_id, *more])


def origin(repeats: bool, *more: Pair) -> Ask:
    numbers, kept = count(), section(0, *more)

    async def answer(request: Request) -> Response:
        return Response(200, Headers.of(kept if repeats else section(next(numbers), *more)), BODY)

    answer.direct = True  # type: ignore[attr-defined]  # it never waits
    return answer


def once(handler: Ask, requests: list[Request]) -> float:
    """CPU µs a request."""
    began = time.process_time()
    for request in requests:
        try:
            handler(request).send(None)
        except StopIteration:
            continue
        raise AssertionError("the handler waited")
    return (time.process_time() - began) / len(requests) * 1e6


def targets(other: bool) -> Iterator[list[Request]]:
    for number in count():
        yield [Request("GET", f"/{number}/{place}" if other else "/same", ASKED) for place in range(EACH)]


ROWS: dict[str, tuple[bool, bool, tuple[Pair, ...]]] = {  # (another URL each time, heads repeat, what is in them)
    "no freshness, one URL": (False, True, ()),
    "no-store, one URL": (False, True, (PRIVATE,)),
    "no-store, one URL, another head each time": (False, False, (PRIVATE,)),
    "no-store, another URL each time": (True, True, (NO_STORE,)),
    "stored": (True, True, (YEAR,)),
    "stored, another head each time": (True, False, (YEAR,)),
    "stored, varies": (True, True, (YEAR, VARY)),
}


def main(rounds: int) -> None:
    print("| a miss | CPU µs of the edge |\n| --- | --- |")
    for name, (other, repeats, more) in ROWS.items():
        edge, plain = Edge(origin(repeats, *more), "64MiB"), origin(repeats, *more)
        asked = targets(other)
        spent = min(once(edge, next(asked)) for _ in range(rounds)) - min(
            once(plain, next(asked)) for _ in range(rounds)
        )
        print(f"| {name} | {spent:.1f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    main(parser.parse_args().rounds)
