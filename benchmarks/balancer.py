"""CPU µs per request of ``blocks balancer`` beside nginx, Envoy and a plain aiohttp proxy, in turn in one run.

Each proxy is one process on core 0; wrk and the backends (nginx, two ports) are on core 1. A round takes every proxy once; the figures are
medians over the rounds, and the ratios are taken within a round, so that a machine whose speed drifts does not matter.

    python benchmarks/balancer.py [--rounds 5] [--seconds 2] [--rows one-header,twelve-headers] [--peers nginx,envoy,aiohttp]
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from harness import LOAD, PEERS, Processes, Result, arguments, fields, free_port, in_turn, installed, table, wait_for

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


class Bench(Processes):
    """The balancers, and what stands behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.ports = [free_port(), free_port()]

    def backends(self) -> None:
        www = self.folder / "www"
        www.mkdir()
        (www / "1k").write_bytes(b"x" * 1024)
        (www / "1m").write_bytes(os.urandom(1 << 20))
        listen = " ".join(f"listen 127.0.0.1:{port};" for port in self.ports)
        self.nginx(
            LOAD, "backend",
            f"open_file_cache max=10; server {{ {listen} root {www};\n"
            f"location /post {{ client_body_buffer_size 64k; proxy_pass http://127.0.0.1:{self.ports[0]}/sink; }}\n"
            f"location /sink {{ return 200 ok; }} location /health {{ return 200 ok; }} }}",
        )  # fmt: skip
        wait_for(self.ports[0])

    def upstreams(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def start_blocks(self, port: int, *more: str) -> int:
        upstreams = [flag for url in self.upstreams() for flag in ("--upstream", url)]
        return self.blocks("balancer", "--listen", f"127.0.0.1:{port}", "--health-path", "/health", *upstreams, *more)

    def start_blocks_log(self, port: int) -> int:
        return self.start_blocks(port, "--access-log", str(self.folder / "access.log"))

    def start_blocks_bare(self, port: int) -> int:
        return self.start_blocks(port, "--no-forwarded")

    def start_nginx(self, port: int, log: str = "") -> int:
        servers = " ".join(f"server 127.0.0.1:{p};" for p in self.ports)
        return self.nginx(
            PEERS, f"proxy{port}",
            f"upstream b {{ {servers} keepalive 128; keepalive_requests 1000000; }}\n"
            f"server {{ listen 127.0.0.1:{port} backlog=4096; client_body_buffer_size 64k;\n"
            f"location / {{ proxy_pass http://b; proxy_http_version 1.1;\n"
            f'proxy_set_header Connection ""; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;\n'
            f"proxy_set_header X-Forwarded-Proto $scheme; proxy_buffers 16 64k; proxy_buffer_size 16k; proxy_busy_buffers_size 256k; }} }}",
            log=log,
        )  # fmt: skip

    def start_nginx_log(self, port: int) -> int:
        return self.start_nginx(port, f"access_log {self.folder}/nginx-access.log combined buffer=64k flush=1s;")

    def start_envoy(self, port: int) -> int:
        endpoints = "\n".join(
            f"        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {p} }} }} }}"
            for p in self.ports
        )
        return self.envoy("envoy", ENVOY.replace("%PORT%", str(port)).replace("%ENDPOINTS%", endpoints))

    def start_aiohttp(self, port: int) -> int:
        script = str(Path(__file__).with_name("aiohttp_proxy.py"))
        return self.spawn(PEERS, sys.executable, script, str(port), *self.upstreams())

    def measure(self, pid: int, port: int, row: str, seconds: float) -> Result:
        connections, lua = ROWS[row]
        return self.load(pid, port, connections, seconds, lua.replace("%HEADERS%", fields(HEADERS)))[1]


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


def main() -> None:
    parser = arguments(__doc__, ROWS, "nginx,nginx-log,envoy,aiohttp,blocks,blocks-log")
    parser.add_argument("--against", default="nginx")
    options = parser.parse_args()
    peers = installed(options.peers)
    bench = Bench()
    try:
        bench.backends()
        proxies = {peer: bench.start(peer) for peer in peers}
        time.sleep(1)
        for row in options.rows.split(","):
            in_turn(
                peers, 1, lambda peer, row=row: bench.measure(*proxies[peer], row, 1)
            )  # a warm-up that does not count
            measure = lambda peer, row=row: bench.measure(*proxies[peer], row, options.seconds)  # noqa: E731
            table(row, in_turn(peers, options.rounds, measure), options.against)
    finally:
        bench.close()


if __name__ == "__main__":
    main()
