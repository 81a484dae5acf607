"""CPU µs per request of ``blocks gateway`` beside nginx, Envoy and a gateway of aiohttp, pyjwt and ``limits``, in turn in one run.

RS256 token and scope checked, two limits per key, 1,001 routes, proxied to 1 KiB of a keep-alive backend. Each gateway is one process on
core 0, wrk and the backend on core 1; a round takes each once, figures are medians over the rounds. nginx checks no token (two limit_req
zones by Authorization); Envoy has jwt_authn with its cache and a local limit, no scope check; it asks its routes in order, so ``envoy``
has the route first and ``envoy-last`` last of the 1,001.

    python benchmarks/gateway.py [--rounds 5] [--seconds 2] [--rows one-token,distinct-tokens,refused] [--peers …]

``distinct-tokens``: 20,000 tokens in turn, more than any cache holds. ``refused``: the peers' limits are reached: all answers are 429.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from harness import PEERS, Result, arguments, in_turn, installed, median, ratio

import balancer

TOKENS = 20_000
PLAIN = 'request = function() return wrk.format("GET", "/1k") end'
DISTINCT = """
local tokens = {}
for line in io.lines("%FILE%") do tokens[#tokens + 1] = "Bearer " .. line end
local n = 0
request = function() n = n % #tokens + 1; wrk.headers["Authorization"] = tokens[n]; return wrk.format("GET", "/1k") end
"""


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Bench(balancer.Bench):
    """The gateways, and the keys and tokens that they are shown."""

    def prepare(self, distinct: bool) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        public = self.key.public_key()
        self.pem = self.folder / "key.pem"
        self.pem.write_bytes(
            public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        numbers = public.public_numbers()
        self.jwk = {"kty": "RSA", "alg": "RS256", "kid": "k", "n": encode(numbers.n.to_bytes(256, "big")), "e": "AQAB"}
        tokens = self.folder / "tokens"
        tokens.write_text("\n".join(self.token(number) for number in range(TOKENS if distinct else 1)) + "\n")
        first = f'wrk.headers["Authorization"] = "Bearer {self.token(0)}"\n'
        balancer.ROWS["one-token"] = (32, first + PLAIN)
        balancer.ROWS["refused"] = (32, first + PLAIN)
        balancer.ROWS["distinct-tokens"] = (32, DISTINCT.replace("%FILE%", str(tokens)))

    def token(self, number: int) -> str:
        now = int(time.time())
        claims = {
            "iss": "bench",
            "aud": "shop",
            "sub": f"user{number % 1000}",
            "exp": now + 3600,
            "iat": now,
            "jti": str(number),
            "scope": "read",
        }
        head = {"alg": "RS256", "typ": "JWT", "kid": "k"}
        signed = ".".join(encode(json.dumps(part).encode()) for part in (head, claims))
        return signed + "." + encode(self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))

    def start_blocks(self, port: int, *more: str, rate: str = "100000000/s") -> int:
        routes = "".join(
            f'[[routes]]\npath = "/r{number}/{{id:int}}"\nservice = "b"\nauth = "main"\nscopes = ["read"]\nlimit = ["burst", "hourly"]\n'
            for number in range(1000)
        )
        path = self.folder / f"gateway{port}.toml"
        path.write_text(
            f'[services.b]\nurl = "{self.upstreams()[0]}"\n'
            f'[auth.main]\ntype = "jwt"\npem = "{self.pem}"\nalgorithms = ["RS256"]\naudience = "shop"\nissuer = "bench"\n'
            f'verifications = "1000000/s"\nverifications_total = "1000000/s"\n'
            f'[limits.burst]\nrate = "{rate}"\nper = "consumer"\n[limits.hourly]\nrate = "1000000000/h"\nper = "consumer"\n'
            '[[routes]]\npath = "/{file}"\nservice = "b"\nauth = "main"\nscopes = ["read"]\nlimit = ["burst", "hourly"]\n'
            + routes
        )
        return self.blocks("gateway", "--config", str(path), "--listen", f"127.0.0.1:{port}", *more)

    def start_blocks_log(self, port: int) -> int:
        return self.start_blocks(port, "--access-log", str(self.folder / "access.log"))

    def start_blocks_refusing(self, port: int) -> int:
        return self.start_blocks(port, rate="1/1000h")

    def start_nginx(self, port: int, log: str = "") -> int:
        limits = "limit_req zone=one burst=100000 nodelay; limit_req zone=two burst=100000 nodelay;"
        proxied = f'proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; {limits}'
        locations = "\n".join(f"location /r{number}/ {{ {proxied} }}" for number in range(1000))
        return self.nginx(
            PEERS, f"gateway{port}",
            f"limit_req_zone $http_authorization zone=one:10m rate=1000000r/s;\n"
            f"limit_req_zone $http_authorization zone=two:10m rate=900000r/s;\n"
            f"upstream b {{ server 127.0.0.1:{self.ports[0]}; keepalive 128; keepalive_requests 1000000; }}\n"
            f"server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ {proxied} }}\n{locations} }}",
            log=log,
        )  # fmt: skip

    def start_nginx_log(self, port: int) -> int:
        return self.start_nginx(port, f"access_log {self.folder}/nginx-access.log combined buffer=64k flush=1s;")

    def start_envoy_last(self, port: int) -> int:
        return self.start_envoy(port, last=True)

    def start_envoy(self, port: int, last: bool = False) -> int:
        routes = "".join(
            f'\n              - {{ match: {{ prefix: "/r{number}/" }}, route: {{ cluster: b }} }}'
            for number in range(1000)
        )
        own = '\n              - { match: { path: "/1k" }, route: { cluster: b } }'
        routes = (routes + own if last else own + routes).lstrip("\n")
        keys = json.dumps({"keys": [self.jwk]}).replace("'", "''")
        config = ENVOY.replace("%PORT%", str(port)).replace("%BACKEND%", str(self.ports[0]))
        return self.envoy(f"gateway{port}", config.replace("%JWKS%", keys).replace("%ROUTES%", routes))

    def start_aiohttp(self, port: int, *more: str) -> int:
        script = str(Path(__file__).with_name("aiohttp_gateway.py"))
        return self.spawn(PEERS, sys.executable, script, str(port), self.upstreams()[0], str(self.pem), *more)

    def start_aiohttp_cached(self, port: int) -> int:
        return self.start_aiohttp(port, "cached")


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
            virtual_hosts:
            - name: v
              domains: ["*"]
              routes:
%ROUTES%
          http_filters:
          - name: envoy.filters.http.jwt_authn
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
              providers:
                main:
                  issuer: bench
                  audiences: [shop]
                  forward: true
                  local_jwks: { inline_string: '%JWKS%' }
                  jwt_cache_config: { jwt_cache_size: 10000 }
              rules: [{ match: { prefix: "/" }, requires: { provider_name: main } }]
          - name: envoy.filters.http.local_ratelimit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
              stat_prefix: l
              token_bucket: { max_tokens: 1000000000, tokens_per_fill: 1000000000, fill_interval: 1s }
              filter_enabled: { default_value: { numerator: 100, denominator: HUNDRED } }
              filter_enforced: { default_value: { numerator: 100, denominator: HUNDRED } }
          - name: envoy.filters.http.router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
  clusters:
  - name: b
    type: STATIC
    load_assignment:
      cluster_name: b
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: %BACKEND% } } } }] }]
"""


def table(row: str, results: Mapping[str, list[Result]]) -> None:
    print(f"\n### {row}\n\n| gateway | requests/s | CPU µs a request | p99 ms | blocks' CPU / its | not 2xx |")
    print("| --- | --- | --- | --- | --- | --- |")
    for peer, rounds in results.items():
        figures = f"{median(rounds, 'rate'):,.0f} | {median(rounds, 'cpu'):.1f} | {median(rounds, 'p99'):.2f}"
        times = f"{ratio(results['blocks'], rounds):.2f}" if "blocks" in results else "-"
        print(f"| {peer} | {figures} | {times} | {sum(result.failed for result in rounds)} |", flush=True)


def taking_part(row: str, peers: list[str]) -> list[str]:
    """nginx checks no token, so that it says nothing of distinct ones."""
    if row == "refused":
        return ["blocks", "blocks-refusing"]
    return [peer for peer in peers if not (row == "distinct-tokens" and "nginx" in peer)]


def main() -> None:
    peers = "nginx,nginx-log,envoy,envoy-last,aiohttp,aiohttp-cached,blocks,blocks-log"
    options = arguments(__doc__, ("one-token", "distinct-tokens", "refused"), peers).parse_args()
    rows = options.rows.split(",")
    bench = Bench()
    try:
        bench.prepare("distinct-tokens" in rows)
        bench.backends()
        here = {row: taking_part(row, installed(options.peers)) for row in rows}
        gateways = {peer: bench.start(peer) for peer in sorted({peer for those in here.values() for peer in those})}
        time.sleep(1)
        for row, those in here.items():
            in_turn(
                those, 1, lambda peer, row=row: bench.measure(*gateways[peer], row, 1)
            )  # a warm-up that does not count
            measure = lambda peer, row=row: bench.measure(*gateways[peer], row, options.seconds)  # noqa: E731
            table(row, in_turn(those, options.rounds, measure))
    finally:
        bench.close()


if __name__ == "__main__":
    main()
