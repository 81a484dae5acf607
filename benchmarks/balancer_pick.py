"""What a balancer adds to a request in process: pick, count, await the endpoint, count, measure. Prints µs, medians of 7 runs.

python benchmarks/balancer_pick.py
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from random import Random
from statistics import median
from typing import Any

from blocks.balancer import Endpoint, LoadBalancer
from blocks.balancer.policies import POLICIES
from blocks.http import Request, Response, direct

CALLS = 20_000
RUNS = 7
ANSWER = Response(200, {"content-type": "text/plain"}, b"ok")


@direct
async def answer(request: Request) -> Response:
    return ANSWER


def drive(coroutine: Coroutine[Any, Any, Response]) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("a direct handler over direct handlers does not wait")


def per_call(call: Callable[[], object]) -> float:
    """Median µs a call."""
    times = []
    for _ in range(RUNS):
        began = time.process_time()
        for _ in range(CALLS):
            call()
        times.append((time.process_time() - began) / CALLS * 1e6)
    return median(times)


def balancer(policy: str, many: int, *, even: bool = True) -> LoadBalancer:
    endpoints = [Endpoint(answer, name=str(n), weight=1.0 if even else 1.0 + n % 3) for n in range(many)]
    return LoadBalancer(endpoints, policy=policy, random=Random(1))


def main() -> None:
    request = Request("GET", "/", {"host": "example.org"})
    bare = per_call(lambda: drive(answer(request)))
    print(f"{'policy':18} {'endpoints':>9} {'pick µs':>8} {'request µs':>11} {'balancer adds µs':>17}")
    for policy in POLICIES:
        for many in (2, 10, 100):
            for even in (True, False) if policy == "round-robin" else (True,):
                lb = balancer(policy, many, even=even)
                first, now = lb._first, time.monotonic()
                pick = per_call(lambda first=first, now=now: first(request, now))
                whole = per_call(lambda lb=lb: drive(lb(request)))
                label = policy if even else f"{policy}, uneven"
                print(f"{label:18} {many:9} {pick:8.2f} {whole:11.2f} {whole - bare:17.2f}")


if __name__ == "__main__":
    main()
