"""The broker beside its peers on the same machine in the same run: medians of several rounds, and ratios.

    python benchmarks/broker.py [--rounds 5] [--messages 20000] [--only redis,nats] [--json]

Every peer runs as a process of its own over a fresh directory, with its asyncio Python client in this process; a peer
that is not installed is named and left out. Rounds of the peers alternate, so that a slow minute hits all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

WINDOW = 1000
SMALL, KIB, BIG = b"x" * 100, b"y" * 1024, b"z" * 16384
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}


class Peer(Protocol):
    name: str
    pid: int

    async def start(self, folder: Path) -> None: ...
    async def stop(self) -> None: ...


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def family(pid: int) -> list[int]:
    """``pid`` and the processes that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def cpu(pid: int) -> float:
    ticks = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def answering(port: int, limit: float = 60.0) -> None:
    async with asyncio.timeout(limit):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


class Process:
    name = ""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.serial = 0

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def fresh(self) -> str:
        """A topic that nobody has used."""
        self.serial += 1
        return f"bench.{self.serial}"

    def end(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()


class Blocks(Process):
    name = "blocks fsync"

    async def start(self, folder: Path) -> None:
        from blocks.broker import connect

        command = [
            sys.executable,
            "-c",
            "from blocks.broker.cli import broker; broker()",
            "--listen",
            "127.0.0.1:0",
            "--data",
            str(folder),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT)
        assert self.process.stdout is not None
        self.url = json.loads(await asyncio.to_thread(self.process.stdout.readline))["url"]
        self.client = await connect(self.url).__aenter__()

    async def stop(self) -> None:
        await self.client.close()
        self.end()

    async def publish_window(self, topic: str, payload: bytes, count: int, window: int) -> None:
        for _ in range(count // window):
            await self.client.publish_many(topic, [payload] * window)

    async def publish_each(self, topic: str, payload: bytes, count: int, workers: int) -> None:
        async def work() -> None:
            for _ in range(count // workers):
                await self.client.publish(topic, payload)

        await asyncio.gather(*(work() for _ in range(workers)))

    async def publish_one(self, topic: str, payload: bytes) -> None:
        await self.client.publish(topic, payload)

    async def drain(self, topic: str, count: int) -> None:
        async with self.client.subscribe(topic, group="g", start="earliest", prefetch=4 * WINDOW) as messages:
            for _ in range(count - 1):
                await (await anext(messages)).ack()
            await (await anext(messages)).ack(wait=True)

    async def live(self, topic: str, count: int) -> None:
        await asyncio.gather(self.drain(topic, count), self.publish_window(topic, SMALL, count, WINDOW))

    async def live_each(self, topic: str, count: int) -> None:
        await asyncio.gather(self.drain(topic, count), self.publish_each(topic, SMALL, count, WINDOW))

    async def replay(self, topic: str, count: int) -> None:
        async with self.client.subscribe(topic, mode="browse", start="earliest", prefetch=4 * WINDOW) as messages:
            for _ in range(count):
                await anext(messages)


class Redis(Process):
    name = "redis always"
    fsync = "always"

    async def start(self, folder: Path) -> None:
        import redis.asyncio

        port = free_port()
        command = [
            "redis-server",
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(folder),
            "--save",
            "",
            "--appendonly",
            "yes",
        ]
        self.process = subprocess.Popen([*command, "--appendfsync", self.fsync], stdout=subprocess.DEVNULL)
        await answering(port)
        self.client = redis.asyncio.Redis(port=port)
        self.reader = redis.asyncio.Redis(port=port)

    async def stop(self) -> None:
        await self.client.aclose()
        await self.reader.aclose()
        self.end()

    async def publish_window(self, topic: str, payload: bytes, count: int, window: int) -> None:
        for _ in range(count // window):
            pipe = self.client.pipeline(transaction=False)
            for _ in range(window):
                pipe.xadd(topic, {"p": payload})
            await pipe.execute()

    async def publish_one(self, topic: str, payload: bytes) -> None:
        await self.client.xadd(topic, {"p": payload})

    async def _group(self, topic: str) -> None:
        await self.reader.xgroup_create(topic, "g", id="0", mkstream=True)

    async def _consume(self, topic: str, count: int) -> None:
        while count > 0:
            for _, rows in await self.reader.xreadgroup("g", "c", {topic: ">"}, count=WINDOW, block=5000):
                await self.reader.xack(topic, "g", *[ident for ident, _ in rows])
                count -= len(rows)

    async def drain(self, topic: str, count: int) -> None:
        await self._group(topic)
        await self._consume(topic, count)

    async def live(self, topic: str, count: int) -> None:
        await self._group(topic)
        await asyncio.gather(self._consume(topic, count), self.publish_window(topic, SMALL, count, WINDOW))

    async def replay(self, topic: str, count: int) -> None:
        last = "-"
        while count > 0:
            rows = await self.reader.xrange(topic, min=last, count=WINDOW)
            count -= len(rows)
            last = "(" + rows[-1][0].decode()


class Nats(Process):
    name = "nats default"
    sync = ""

    async def start(self, folder: Path) -> None:
        import nats

        port = free_port()
        config = folder / "nats.conf"
        config.write_text(f'port: {port}\nhost: "127.0.0.1"\njetstream {{ store_dir: "{folder}"\n{self.sync} }}\n')
        program = (
            shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or "nats-server"
        )
        self.process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
        await answering(port)
        self.connection = await nats.connect(f"nats://127.0.0.1:{port}")
        self.stream = self.connection.jetstream()
        await self.stream.add_stream(name="bench", subjects=["bench.*"])

    async def stop(self) -> None:
        await self.connection.close()
        self.end()

    async def publish_window(self, topic: str, payload: bytes, count: int, window: int) -> None:
        for _ in range(count // window):
            await asyncio.gather(*(self.stream.publish(topic, payload) for _ in range(window)))

    async def publish_each(self, topic: str, payload: bytes, count: int, workers: int) -> None:
        async def work() -> None:
            for _ in range(count // workers):
                await self.stream.publish(topic, payload)

        await asyncio.gather(*(work() for _ in range(workers)))

    async def publish_one(self, topic: str, payload: bytes) -> None:
        await self.stream.publish(topic, payload)

    async def drain(self, topic: str, count: int) -> None:
        pull = await self.stream.pull_subscribe(topic, durable=topic.replace(".", "-"))
        while count > 0:
            for message in await pull.fetch(min(count, WINDOW), timeout=5):
                await message.ack()
                count -= 1


class NatsAlways(Nats):
    name = "nats sync always"
    sync = "sync_interval: always"


class Rabbit(Process):
    name = "rabbitmq quorum"

    async def start(self, folder: Path) -> None:
        import aio_pika

        port = free_port()
        environment = {
            **os.environ,
            "RABBITMQ_NODENAME": f"bench{port}@localhost",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(folder),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "env"),
            "HOME": str(folder),
        }
        program = "/usr/lib/rabbitmq/bin/rabbitmq-server"
        self.process = subprocess.Popen(
            [program], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        await answering(port)
        async with asyncio.timeout(60):
            while True:
                try:
                    self.connection = await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{port}/")
                    break
                except Exception:
                    await asyncio.sleep(0.5)
        self.channel = await self.connection.channel(publisher_confirms=True)
        await self.channel.set_qos(prefetch_count=WINDOW)
        self.queues: dict[str, Any] = {}

    async def stop(self) -> None:
        await self.connection.close()
        self.end()

    async def _queue(self, topic: str) -> Any:
        if topic not in self.queues:
            self.queues[topic] = await self.channel.declare_queue(
                topic, durable=True, arguments={"x-queue-type": "quorum"}
            )
        return self.queues[topic]

    async def publish_window(self, topic: str, payload: bytes, count: int, window: int) -> None:
        import aio_pika

        await self._queue(topic)
        exchange = self.channel.default_exchange
        for _ in range(count // window):
            await asyncio.gather(
                *(
                    exchange.publish(aio_pika.Message(payload, delivery_mode=2), routing_key=topic)
                    for _ in range(window)
                )
            )

    async def drain(self, topic: str, count: int) -> None:
        async with (await self._queue(topic)).iterator() as messages:
            async for message in messages:
                await message.ack()
                count -= 1
                if not count:
                    return


Row = tuple[str, str, Callable[[Any, int], Awaitable[float]], float]


async def timed(work: Awaitable[Any]) -> float:
    start = time.perf_counter()
    await work
    return time.perf_counter() - start


async def row_window(peer: Any, count: int) -> float:
    return count / await timed(peer.publish_window(peer.fresh(), SMALL, count, WINDOW))


async def row_each(peer: Any, count: int) -> float:
    return count / await timed(peer.publish_each(peer.fresh(), SMALL, count, WINDOW))


async def row_live(peer: Any, count: int) -> float:
    return count / await timed(peer.live(peer.fresh(), count))


async def row_drain(peer: Any, count: int) -> float:
    topic = peer.fresh()
    await peer.publish_window(topic, SMALL, count, WINDOW)
    return count / await timed(peer.drain(topic, count))


async def row_replay(peer: Any, count: int) -> float:
    topic = peer.fresh()
    await peer.publish_window(topic, KIB, count, WINDOW)
    return count * len(KIB) / 1e6 / await timed(peer.replay(topic, count))


async def row_big(peer: Any, count: int) -> float:
    return count * len(BIG) / 1e6 / await timed(peer.publish_window(peer.fresh(), BIG, count, 64))


async def row_cpu(peer: Any, count: int) -> float:
    before = cpu(peer.pid)
    await peer.publish_window(peer.fresh(), SMALL, count, WINDOW)
    return max(0.01, (cpu(peer.pid) - before) / count * 1e6)  # the clock ticks in 10 ms


async def latencies(peer: Any, seconds: float) -> list[float]:
    """Milliseconds from the intended start to the receipt, at 300 a second."""
    topic, taken = peer.fresh(), []
    await peer.publish_one(topic, SMALL)

    async def one(due: float) -> None:
        await peer.publish_one(topic, SMALL)
        taken.append((time.perf_counter() - due) * 1e3)

    begin = time.perf_counter()
    tasks = []
    for number in range(int(seconds * 300)):
        due = begin + number / 300
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    return sorted(taken)


async def row_p50(peer: Any, count: int) -> float:
    return statistics.median(await latencies(peer, 2.0))


async def row_p99(peer: Any, count: int) -> float:
    found = await latencies(peer, 2.0)
    return found[int(len(found) * 0.99)]


# name, unit, how, share of the messages that the row takes (slow peers take a tenth of that)
ROWS: list[Row] = [
    ("publish, window 1000, 100 B", "/s", row_window, 1.0),
    ("publish, 1,000 coroutines, 100 B", "/s", row_each, 1.0),
    ("live publish, deliver, ack", "/s", row_live, 1.0),
    ("drain with ack", "/s", row_drain, 1.0),
    ("replay, 1 KiB", "MB/s", row_replay, 1.0),
    ("publish, 16 KiB, window 64", "MB/s", row_big, 0.1),
    ("server CPU a message, windowed", "µs", row_cpu, 1.0),
    ("ack latency at 300/s, p50", "ms", row_p50, 1.0),
    ("ack latency at 300/s, p99", "ms", row_p99, 1.0),
]
NEEDS = {
    row_window: "publish_window", row_each: "publish_each", row_live: "live", row_drain: "drain", row_replay: "replay",
    row_big: "publish_window", row_cpu: "publish_window", row_p50: "publish_one", row_p99: "publish_one",
}  # fmt: skip
ONLY_NATS_DEFAULT = {row_each}
PEERS: dict[str, type[Process]] = {"redis": Redis, "nats": Nats, "nats-always": NatsAlways, "rabbitmq": Rabbit}
SLOW = {"nats sync always": 0.05, "rabbitmq quorum": 0.1, "nats default": 0.25}


async def measure(rounds: int, messages: int, only: list[str]) -> dict[str, dict[str, list[float]]]:
    peers: list[Any] = []
    root = Path(tempfile.mkdtemp(prefix="bench-broker-"))
    found: dict[str, dict[str, list[float]]] = {}
    try:
        for kind in [Blocks, *(PEERS[name] for name in only)]:
            peer = kind()
            folder = root / kind.__name__
            folder.mkdir()
            try:
                await peer.start(folder)  # type: ignore[attr-defined]
            except (ImportError, OSError, TimeoutError) as error:
                print(f"{kind.name} is left out: {error!r}", file=sys.stderr)
                peer.end()
                continue
            peers.append(peer)
        for number in range(rounds + 1):
            for title, _, row, share in ROWS:
                for peer in peers:
                    if not hasattr(peer, NEEDS[row]):
                        continue
                    count = max(WINDOW, int(messages * share * SLOW.get(peer.name, 1.0)) // WINDOW * WINDOW)
                    try:
                        async with asyncio.timeout(120):
                            value = await row(peer, count)
                    except Exception as error:
                        print(f"{peer.name}: {title}: {error!r}", file=sys.stderr)
                        continue
                    if number:  # the first round warms up
                        found.setdefault(title, {}).setdefault(peer.name, []).append(value)
            print(f"round {number} of {rounds}", file=sys.stderr)
    finally:
        for peer in peers:
            await peer.stop()
        shutil.rmtree(root, ignore_errors=True)
    return found


async def idle_subscribers(count: int) -> float:
    """KiB of the server's memory for each of ``count`` connected subscribers that get nothing."""
    import resource

    from blocks.broker import connect

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="bench-broker-") as folder:
        peer = Blocks()
        await peer.start(Path(folder))
        await asyncio.sleep(0.2)
        before = rss(peer.pid)
        clients: list[Any] = []
        for start in range(0, count, 100):
            batch = [connect(peer.url) for _ in range(min(100, count - start))]
            await asyncio.gather(*(client.__aenter__() for client in batch))
            for number, client in enumerate(batch):
                subscription = client.subscribe("idle", group=f"g{start + number}")
                await subscription.__aenter__()
            clients += batch
        taken = (rss(peer.pid) - before) / count / 1024
        await asyncio.gather(*(client.close(0.0) for client in clients))
        await peer.stop()
    return taken


def table(found: dict[str, dict[str, list[float]]]) -> str:
    lines = ["| | blocks | " + " | ".join(kind.name for kind in PEERS.values()) + " |"]
    lines.append("| --- " * (len(PEERS) + 2) + "|")
    for title, unit, _, _ in ROWS:
        values = found.get(title, {})
        ours = statistics.median(values[Blocks.name]) if Blocks.name in values else None
        cells = [f"{ours:,.1f} {unit}" if ours is not None and ours < 1000 else f"{ours or 0:,.0f} {unit}"]
        for kind in PEERS.values():
            if kind.name not in values or ours is None:
                cells.append("")
                continue
            theirs = statistics.median(values[kind.name])
            cells.append(f"{theirs:,.{1 if theirs < 1000 else 0}f} ({ours / theirs:.2f}x)")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--only", default=",".join(PEERS), help="peers, by name")
    parser.add_argument(
        "--idle", type=int, default=0, metavar="N", help="measure the memory of N idle subscribers instead"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        import uvloop

        run: Any = uvloop.run
    except ImportError:
        run = asyncio.run
    if options.idle:
        print(f"{run(idle_subscribers(options.idle)):.1f} KiB for each of {options.idle} idle subscribers")
        return
    found = run(measure(options.rounds, options.messages, [name for name in options.only.split(",") if name]))
    print(json.dumps(found) if options.json else table(found))


if __name__ == "__main__":
    main()
