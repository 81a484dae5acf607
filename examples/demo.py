"""The main job on real traffic: a load balancer before three backends, one of which is killed and another drained. ``make demo`` runs it.

Four processes (the balancer is ``blocks balancer``), an open load that does not wait for slow answers, and a report at the end: rates,
percentiles counted from the intended start of each request, what happened when, and whether anything was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field

from blocks import Request, Response, Upstream
from blocks.core.histogram import Histogram

RATE = 1000  # requests a second
SECONDS = 25
POSTS = 10  # one request in so many is a POST, which must never be sent twice


def backend(port: int, name: str) -> None:
    """A backend's whole process: answers 1 KiB, says who it is, and counts the POSTs that it has seen by their number."""
    from blocks import serve

    body = (f"{name} " * 200).encode()[:1024]

    async def app(request: Request) -> Response:
        if request.method == "POST":
            await request.read()
            print(request.headers["x-number"], flush=True)
        await asyncio.sleep(0.002)
        return Response(200, {"content-type": "text/plain", "x-backend": name}, body)

    asyncio.run(serve(app, f"127.0.0.1:{port}", drain=1.0))


@dataclass
class Tally:
    """What the load has seen."""

    latency: Histogram = field(default_factory=Histogram)
    by_second: dict[int, list[int]] = field(default_factory=dict)  # second: [answered, failed]
    by_backend: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    posts: set[str] = field(default_factory=set)
    unanswered_posts: set[str] = field(default_factory=set)
    sent: int = 0
    slowest: float = 0.0


class Show:
    """The demo's clock and its tape of what happened when."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.tape: list[tuple[float, str]] = []

    def at(self) -> float:
        return time.monotonic() - self.began

    def say(self, text: str) -> None:
        self.tape.append((self.at(), text))
        print(f"  {self.at():5.1f} s  {text}", flush=True)


class Backend:
    """A backend process on a port that stays its own, so that it can be killed and come back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.posts: list[str] = []
        self.process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.port = self.port or free_port()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--backend", str(self.port), self.name, stdout=asyncio.subprocess.PIPE
        )
        self._reader = asyncio.create_task(self._read())
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return

    async def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.posts.append(line.decode().strip())

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(how)
            await self.process.wait()
        if self._reader is not None:
            await self._reader


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def start_balancer(backends: list[Backend]) -> tuple[asyncio.subprocess.Process, dict[str, str]]:
    flags = [flag for backend in backends for flag in ("--upstream", backend.url)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "blocks", "balancer", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
        "--health-path", "/", "--health-interval", "500ms", *flags,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    return process, json.loads(await process.stdout.readline())


async def load(url: str, show: Show, tally: Tally, seconds: float) -> None:
    """Send ``RATE`` requests a second, each at its time, however the others fare."""
    tasks: set[asyncio.Task[None]] = set()
    async with Upstream(url, timeout=10) as target:
        start = time.monotonic()
        for number in range(int(RATE * seconds)):
            intended = start + number / RATE
            wait = intended - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(one(target, number, intended, show, tally))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks, timeout=15)


async def one(target: Upstream, number: int, intended: float, show: Show, tally: Tally) -> None:
    post = number % POSTS == 0
    headers = {"host": "demo", "x-number": str(number)}
    request = Request("POST", "/orders", headers, b"x" * 200) if post else Request("GET", f"/items/{number}", headers)
    tally.sent += 1
    second = tally.by_second.setdefault(int(show.at()), [0, 0])
    try:
        response = await target(request)
        await response.read()
        error = "" if response.status == 200 else f"status {response.status}"
    except Exception as failure:
        error = type(failure).__name__
    spent = time.monotonic() - intended
    tally.latency.record(spent)
    tally.slowest = max(tally.slowest, spent)
    if error:
        second[1] += 1
        tally.errors[f"{request.method} {error}"] = tally.errors.get(f"{request.method} {error}", 0) + 1
        if post:
            tally.unanswered_posts.add(str(number))
        return
    second[0] += 1
    name = response.headers["x-backend"]
    tally.by_backend[name] = tally.by_backend.get(name, 0) + 1
    if post:
        tally.posts.add(str(number))


async def ask(admin: str, method: str, path: str, body: dict[str, str] | None = None) -> None:
    async with Upstream(admin) as door:
        data = json.dumps(body).encode() if body else b""
        response = await door(Request(method, path, {"content-type": "application/json"}, data))
        await response.read()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status}")


async def story(backends: list[Backend], admin: str, show: Show, seconds: float) -> None:
    """What is done to the backends while the load goes on, in parts of the ``seconds`` that it lasts."""
    a, b, _ = backends
    await asyncio.sleep(0.24 * seconds)
    show.say(f"kill -9 {a.name}, with requests under way on it")
    await a.stop(signal.SIGKILL)
    await asyncio.sleep(0.24 * seconds)
    await a.start()
    show.say(f"{a.name} is started again; health checks bring it back")
    await asyncio.sleep(0.16 * seconds)
    await ask(admin, "POST", "/v1/upstreams/drain", {"name": b.url})
    show.say(f"{b.name} is drained through the admin API: it finishes what it has, and gets nothing new")
    await asyncio.sleep(0.12 * seconds)
    await ask(admin, "POST", "/v1/upstreams/restore", {"name": b.url})
    show.say(f"{b.name} is back in service")


def report(tally: Tally, backends: list[Backend], show: Show, cpu: float, seconds: float) -> bool:
    """Print what was promised and what was seen; whether the promises were kept."""
    bars = " ▁▂▃▄▅▆▇█"
    rates = [tally.by_second.get(second, [0, 0]) for second in range(int(seconds))]
    top = max((good for good, _ in rates), default=1) or 1
    line = "".join(bars[min(8, round(8 * good / top))] for good, _ in rates)
    quantile = tally.latency.quantile
    seen = [number for backend in backends for number in backend.posts]
    twice = len(seen) - len(set(seen))
    lost_gets = sum(count for name, count in tally.errors.items() if name.startswith("GET"))
    missing = tally.posts - set(seen)
    shares = ", ".join(f"{name} {count:,}" for name, count in sorted(tally.by_backend.items()))
    percentiles = "  ".join(f"p{q * 100:g} {quantile(q) * 1000:.1f} ms" for q in (0.5, 0.9, 0.99, 0.999))
    print(f"\n  answered a second  {line}  (peak {top}/s, intended {RATE}/s)")
    print(f"  requests           {tally.sent:,} sent, {sum(tally.by_backend.values()):,} answered: {shares}")
    print(f"  latency            {percentiles}  max {tally.slowest * 1000:.1f} ms")
    print(f"  balancer           {cpu / max(1, tally.sent) * 1e6:.0f} µs of CPU a request\n")
    checks = [
        (
            lost_gets == 0,
            f"no idempotent request failed: {lost_gets} of {tally.sent - len(tally.posts) - len(tally.unanswered_posts):,} did",
        ),
        (twice == 0, f"no POST was sent twice: {twice} of {len(seen):,} were"),
        (not missing, f"every POST that was answered had arrived: {len(missing)} had not"),
    ]
    if tally.unanswered_posts:
        print(
            f"  note: {len(tally.unanswered_posts)} POSTs under way on the killed backend got an honest 502: it may have acted on them"
        )
    for kept, text in checks:
        print(f"  {'kept  ' if kept else 'BROKEN'} {text}")
    return all(kept for kept, _ in checks)


async def main(keep: bool, seconds: float) -> int:
    show, tally = Show(), Tally()
    backends = [Backend(name) for name in ("alder", "birch", "cedar")]
    balancer: asyncio.subprocess.Process | None = None
    print(
        "blocks demo: one load balancer, three backends, open load; one backend is killed, one is drained\n", flush=True
    )
    try:
        await asyncio.gather(*(backend.start() for backend in backends))
        balancer, line = await start_balancer(backends)
        show.say(f"the balancer is ready at {line['url']}, its admin API at {line['admin']}")
        show.began = time.monotonic()
        doing = asyncio.create_task(story(backends, line["admin"], show, seconds))
        await load(line["url"], show, tally, seconds)
        await doing
        cpu = cpu_seconds(balancer.pid)
        if keep:
            print(f"\n  Still up at {line['url']} (admin {line['admin']}/v1/balancer). Ctrl-C ends it.", flush=True)
            stop = asyncio.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            await stop.wait()
    finally:
        if balancer is not None and balancer.returncode is None:
            balancer.terminate()
            await balancer.wait()
        for process in backends:
            await process.stop()
    return 0 if report(tally, backends, show, cpu, seconds) else 1


def cpu_seconds(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0  # no /proc here: the figure is left at zero
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="stay up afterwards")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long the load lasts")
    parser.add_argument("--backend", nargs=2, metavar=("PORT", "NAME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.backend:
        backend(int(arguments.backend[0]), arguments.backend[1])
    else:
        sys.exit(asyncio.run(main(arguments.keep, arguments.seconds)))
