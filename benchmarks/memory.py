"""What a balancer process holds: idle, with 10,000 idle clients, with a client that does not read; and its CPU once all have gone.

python benchmarks/memory.py [--connections 10000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from blocks import Request, Response
from blocks.http import Server, Stream


def rss(pid: int) -> float:
    """Resident memory in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return float(line.split()[1])
    raise ValueError(pid)


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def backend(request: Request) -> Response:
    if request.path != "/big":
        return Response(200, {"content-type": "text/plain"}, b"x" * 1024)

    async def chunks():
        block = b"z" * 65536
        for _ in range(4096):
            yield block

    return Response(200, None, Stream.of(chunks(), 256 << 20))


async def connect_many(port: int, number: int, talk: bool) -> list[asyncio.StreamWriter]:
    writers = []
    for _ in range(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2048)
        if talk:
            writer.write(b"GET /a HTTP/1.1\r\nHost: bench\r\n\r\n")
            await reader.readuntil(b"x" * 1024)
        writers.append(writer)
    return writers


async def close(writers: list[asyncio.StreamWriter], abort: bool) -> None:
    for writer in writers:
        if abort:
            writer.transport.abort()
        else:
            writer.close()
    await asyncio.sleep(1)


async def main(connections: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    async with Server(backend, "127.0.0.1:0") as server:
        with tempfile.TemporaryDirectory() as folder:
            ports = Path(folder, "ports")
            process = subprocess.Popen(
                [sys.executable, "-m", "blocks", "balancer", "--listen", "127.0.0.1:0", "--upstream", server.url,
                 "--ports-file", str(ports), "--idle-timeout", "10m", "--head-timeout", "10m"],
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                while not ports.exists():
                    await asyncio.sleep(0.05)
                port = json.loads(ports.read_text())["port"]
                await measure(process.pid, port, connections)
            finally:
                process.terminate()
                process.wait()


async def measure(pid: int, port: int, connections: int) -> None:
    print("| what | figure |\n| --- | --- |")
    await close(await connect_many(port, 10, True), False)
    idle, fds = rss(pid), descriptors(pid)
    print(f"| RSS of an idle worker | {idle / 1024:.1f} MiB |")
    writers = await connect_many(port, connections, True)
    print(f"| RSS for each of {connections:,} idle keep-alive clients | {(rss(pid) - idle) / connections:.1f} KiB |")
    await close(writers[: connections // 2], True)
    await close(writers[connections // 2 :], False)
    await close(await connect_many(port, 1000, False), True)
    print(f"| descriptors before, and after all have gone | {fds}, {descriptors(pid)} |")
    await asyncio.sleep(1)
    before, began = ticks(pid), time.monotonic()
    await asyncio.sleep(5)
    spent = (ticks(pid) - before) / os.sysconf("SC_CLK_TCK")
    print(f"| CPU of the idle process after that | {spent / (time.monotonic() - began) * 100:.2f} % |")
    base = rss(pid)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=65536)
    writer.write(b"GET /big HTTP/1.1\r\nHost: bench\r\n\r\n")
    peak, got, began = 0.0, 0, time.monotonic()
    while time.monotonic() - began < 5:  # a slow reader: 64 KiB every 20 ms
        got += len(await reader.read(65536))
        await asyncio.sleep(0.02)
        peak = max(peak, rss(pid) - base)
    print(f"| growth while 256 MiB go to a slow reader ({got >> 20} MiB taken) | {peak / 1024:.1f} MiB |")
    writer.transport.abort()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10000)
    asyncio.run(main(parser.parse_args().connections))
