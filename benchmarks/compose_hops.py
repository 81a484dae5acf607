"""``Edge(Gateway(LoadBalancer))`` in one process, against the balancer alone, and against the same three joined over loopback.

Pass-through settings: a route without steps, nothing that is stored. Real sockets and processes as in ``balancer.py``; CPU is that of all
processes of a contender together.

    python benchmarks/compose_hops.py [--rounds 5] [--seconds 2] [--rows one-header,twelve-headers]
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time

from balancer import Bench, Result, free_port, table, wait_for

STACK = """
[servers.public]
listen = "127.0.0.1:{port}"
handler = "front"
[edges.front]
origin = "door"
[[gateways.door.routes]]
path = "/"
service = "backends"
[balancers.backends]
upstreams = {upstreams}
health = "/health"
"""
GATEWAY = """
[services.backends]
url = "{url}"
[[routes]]
path = "/"
service = "backends"
"""


class Compositions(Bench):
    """The balancer alone, the three in one process, and the three in one process each."""

    def backends(self) -> None:
        www = self.folder / "www"
        www.mkdir()
        (www / "1k").write_bytes(b"x" * 1024)
        listen = " ".join(f"listen 127.0.0.1:{port};" for port in self.ports)
        uncached = "add_header Cache-Control no-store;"  # or the edge would answer from what it remembers
        server = f"server {{ {listen} root {www}; {uncached} location /health {{ return 200 ok; }} }}"
        self.nginx(1, "backend", f"open_file_cache max=10; {server}")
        wait_for(self.ports[0])

    def start_composed(self, port: int) -> int:
        path = self.folder / "stack.toml"
        path.write_text(STACK.format(port=port, upstreams=json.dumps(self.upstreams())))
        return self.spawn(0, sys.executable, "-m", "blocks", "run", str(path))

    def start_joined(self, port: int) -> int:
        door, backends = free_port(), free_port()
        path = self.folder / "gateway.toml"
        path.write_text(GATEWAY.format(url=f"http://127.0.0.1:{backends}"))
        pid = self.spawn(
            0, sys.executable, __file__, "--join", *map(str, (port, door, backends, path)), *self.upstreams()
        )
        for one in (door, backends):
            wait_for(one)
        return pid


def join(port: str, door: str, backends: str, config: str, *upstreams: str) -> None:
    """A process with the three as its children, so that they are counted and ended together."""
    flags = [flag for url in upstreams for flag in ("--upstream", url)]
    commands = (
        ("balancer", "--listen", f"127.0.0.1:{backends}", "--health-path", "/health", *flags),
        ("gateway", "--listen", f"127.0.0.1:{door}", "--config", config),
        ("edge", "--listen", f"127.0.0.1:{port}", "--origin", f"http://127.0.0.1:{door}"),
    )
    stop = {signal.SIGTERM}
    children = [subprocess.Popen([sys.executable, "-m", "blocks", *command]) for command in commands]
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)  # after the children: they would inherit it
    signal.sigwait(stop)
    for child in children:
        child.terminate()
    for child in children:
        child.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rows", default="one-header,twelve-headers")
    options = parser.parse_args()
    contenders = ("blocks", "composed", "joined")
    bench = Compositions()
    try:
        bench.backends()
        running = {name: bench.start(name) for name in contenders}
        time.sleep(1)
        for row in options.rows.split(","):
            results: dict[str, list[Result]] = {name: [] for name in contenders}
            for name in contenders:
                bench.measure(*running[name], row, 1)
            for _ in range(options.rounds):
                for name in contenders:
                    results[name].append(bench.measure(*running[name], row, options.seconds))
            table(row, results, "blocks")
            saved = [one.cpu / three.cpu for one, three in zip(results["composed"], results["joined"], strict=True)]
            print(f"\ncomposed costs {sorted(saved)[len(saved) // 2]:.2f} of joined")
    finally:
        bench.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--join"]:
        join(*sys.argv[2:])
    else:
        main()
