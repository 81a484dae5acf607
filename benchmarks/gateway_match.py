"""What a request costs in the gateway itself: matching among 1,000 and 10,000 routes, limits, the whole pass, and Redis decisions.

Medians of seven runs on one pinned core. ``--redis`` starts a redis-server of its own (on another core when there is one).
Run: ``python benchmarks/gateway_match.py [--redis] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable
from random import Random
from typing import Any

from blocks.gateway import Gateway, route
from blocks.gateway.limits import Limit
from blocks.gateway.limits.gcra import Gcra
from blocks.gateway.limits.generations import Generations
from blocks.gateway.limits.window import SlidingWindow
from blocks.gateway.routes import Table
from blocks.http.handler import direct, running
from blocks.http.message import Headers, Request, Response, Section

SECTION = Section([(b"content-type", b"text/plain"), (b"server", b"x")])
RUNS = 7


@direct
async def handler(request: Request) -> Response:
    return Response(200, Headers.of(SECTION), b"hello")


def drive(coroutine: Any) -> Response:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("it waited")


def microseconds(call: Callable[[], Any], number: int = 20_000) -> float:
    times = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        for _ in range(number):
            call()
        times.append((time.perf_counter() - begun) / number * 1e6)
    return round(statistics.median(times), 3)


def matching(number: int) -> dict[str, float]:
    routes = [
        route(text, handler)
        for n in range(number // 4)
        for text in (
            f"/api/v1/r{n}",
            f"/api/v1/r{n}/{{id:int}}",
            f"/api/v1/r{n}/{{id}}/items/{{item}}",
            f"/files{n}/{{rest:path}}",
        )
    ]
    begun = time.perf_counter()
    table = Table(routes, random=Random(1))
    load = time.perf_counter() - begun
    request = Request("GET", "/")
    last = number // 4 - 1
    paths = {
        "static": f"/api/v1/r{last}",
        "int": f"/api/v1/r{last}/12345",
        "deep": f"/api/v1/r{last}/abc/items/xyz",
        "rest": f"/files{last}/a/b/c/d.txt",
        "missing": f"/api/v1/none{last}/x",
    }
    found = {
        f"match {name} us": microseconds(lambda path=path: table.match("GET", "", path, request))
        for name, path in paths.items()
    }
    return {"table of routes s": round(load, 4), **found}


def passes() -> dict[str, float]:
    many = [route(f"/r{n}/{{id:int}}/x", handler) for n in range(1000)]
    request = Request("GET", "/api/users", {"host": "a", "x-key": "k"})
    two: list[Any] = ["100000000/s per ip", "100000000/s per header:x-key"]
    silent = [Limit(rate="100000000/s", per=per, fields=False) for per in ("ip", "header:x-key")]
    apps = {
        "route": Gateway([route("/api/{x}", handler), *many]),
        "route + 2 limits": Gateway([route("/api/{x}", handler, limit=two), *many]),
        "route + 2 limits, fields off": Gateway([route("/api/{x}", handler, limit=silent), *many]),
        "refused": Gateway([route("/api/{x}", handler, limit="1/1000h per ip"), *many]),
    }
    drive(apps["refused"](request))
    bare = microseconds(lambda: drive(handler(request)))
    return {"handler alone us": bare} | {
        f"pass: {name} us": round(
            microseconds(lambda app=app: drive(app(request))) - (0 if name == "refused" else bare), 3
        )
        for name, app in apps.items()
    }


def limits() -> dict[str, float]:
    keys = [f"192.0.{n // 250}.{n % 250}" for n in range(10_000)]
    state = {"n": 0}
    gcra = Gcra(Generations(1000, 1_000_000), 1e9, 1, 1e9)
    window = SlidingWindow(Generations(1000, 1_000_000), 1e12, 1000)

    def decide(own: Any) -> Callable[[], None]:
        def call() -> None:
            n = state["n"] = (state["n"] + 1) % 10_000
            own.attempt(keys[n], 1, 100.0)

        return call

    return {"gcra us": microseconds(decide(gcra)), "sliding window us": microseconds(decide(window))}


async def shared(url: str) -> dict[str, float]:
    limit = [
        Limit(rate="100000000/s", per="ip", store="redis"),
        Limit(rate="100000000/s", per="header:x-key", store="redis"),
    ]
    app = Gateway([route("/", handler, limit=limit)], redis={"url": url, "timeout": 5})
    first = Limit(rate="100000000/s", per="ip", store="redis", sync=0.1)
    near = Gateway([route("/", handler, limit=first)], redis={"url": url, "timeout": 5})

    async def load(which: Gateway, number: int) -> None:
        for _ in range(number):
            request = Request("GET", "/", {"host": "a", "x-key": "k"})
            assert (await which(request)).status == 200

    async def rate(which: Gateway) -> tuple[float, float]:
        rates, cpu = [], []
        for _ in range(RUNS):
            begun, used = time.perf_counter(), time.process_time()
            await asyncio.gather(*[load(which, 100) for _ in range(100)])
            rates.append(10_000 / (time.perf_counter() - begun))
            cpu.append((time.process_time() - used) / 10_000 * 1e6)
        return round(statistics.median(rates)), round(statistics.median(cpu), 2)

    async with running(app, near):
        await load(app, 100)
        far_rate, far_cpu = await rate(app)
        near_rate, near_cpu = await rate(near)
    return {
        "redis: requests with 2 limits /s": far_rate,
        "redis: CPU us a request": far_cpu,
        "local first: requests /s": near_rate,
        "local first: CPU us a request": near_cpu,
    }


@contextlib.contextmanager
def redis(core: int) -> Any:
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("redis-server is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    try:
        time.sleep(0.5)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--redis", action="store_true")
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    figures: dict[str, Any] = {
        "1,000 routes": matching(1000),
        "10,000 routes": matching(10_000),
        "limits": limits(),
        "in process": passes(),
    }
    if arguments.redis:
        import uvloop

        with redis(cores[-1]) as url:
            figures["redis"] = uvloop.run(shared(url))
    for name, rows in figures.items():
        print(name)
        for what, value in rows.items():
            print(f"  {what:40} {value}")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
