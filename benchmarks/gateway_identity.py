"""Prices of the gateway's steps about identity, bodies and composition, one process, one core. Prints microseconds a call, medians of 5.

python benchmarks/gateway_identity.py
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, cast

from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from blocks.gateway.auth import ApiKeys, Authenticate, Jwt, KeySet, Rules, hash_key
from blocks.gateway.compose import compose
from blocks.gateway.context import NO_PARAMS, STATE_KEY, Context
from blocks.gateway.idempotency import Idempotency, Settings
from blocks.gateway.records import MemoryRecords
from blocks.gateway.validate import Settings as Described
from blocks.gateway.validate import step as validate
from blocks.http.message import Request, Response

ROUNDS = 5
KEYS: dict[str, Any] = {
    "RS256": RSAKey.generate_key(2048),
    "ES256": ECKey.generate_key("P-256"),
    "Ed25519": OKPKey.generate_key("Ed25519"),
    "HS256": OctKey.generate_key(256),
}


def context(now: float = 0.0) -> Context:
    return Context(cast(Any, None), NO_PARAMS, "/", "192.0.2.1", now)


def price(call: Callable[[], Any], count: int) -> float:
    runs = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(count):
            call()
        runs.append((time.perf_counter() - began) / count * 1e6)
    return statistics.median(runs)


def row(name: str, microseconds: float) -> None:
    print(f"{name:<52} {microseconds:9.2f} µs")


def tokens(algorithm: str, count: int) -> list[Request]:
    claims = {"exp": time.time() + 3600, "aud": "api", "scope": "read write", "iss": "https://id.example"}
    key = KEYS[algorithm]
    made = [
        jws.serialize_compact(
            {"alg": algorithm}, json.dumps({**claims, "sub": f"user-{n}"}), key, algorithms=list(KEYS)
        )
        for n in range(count)
    ]
    return [Request("GET", "/", {"authorization": f"Bearer {text}"}) for text in made]


def jwt(algorithm: str) -> Jwt:
    keys = KeySet.from_jwks({"keys": [KEYS[algorithm].as_dict(private=algorithm == "HS256")]})
    return Jwt(keys, Rules(audiences=frozenset({"api"})), client=None, total=None)


def identity() -> None:
    for algorithm in KEYS:
        requests = tokens(algorithm, 400)
        runs = []
        for _ in range(ROUNDS):
            scheme, now = jwt(algorithm), context()
            for request in requests:
                request.headers.section.derived.clear()
            began = time.perf_counter()
            for request in requests:
                scheme.identify(request, now)
            runs.append((time.perf_counter() - began) / len(requests) * 1e6)
        row(f"{algorithm} token, never seen", statistics.median(runs))
    scheme, now = jwt("RS256"), context()
    request = tokens("RS256", 1)[0]
    scheme.identify(request, now)
    section = request.headers.section

    def other_connection() -> None:
        section.derived.clear()
        scheme.identify(request, now)

    row("token seen before, on another connection", price(other_connection, 50_000))
    guard = Authenticate((scheme,))
    row("token seen before, on the same connection (the step)", price(lambda: guard.check(request, now), 100_000))
    keys = ApiKeys({hash_key("k"): "robot"})
    row("API key", price(lambda: keys.find(b"k"), 100_000))


def bodies() -> None:
    schema = {
        "type": "object",
        "required": ["items"],
        "properties": {"items": {"type": "array", "items": {"type": "object", "required": ["id"]}}},
    }
    body = json.dumps({"items": [{"id": n, "name": "x" * 20} for n in range(22)]}).encode()
    step = validate(Described(schema=schema), cast(Any, None))
    request = Request("POST", "/", {"content-type": "application/json"}, body)
    now = context()
    row(f"JSON Schema on a body of {len(body)} bytes, decoding too", price(lambda: step.check(request, now), 20_000))


async def whole(call: Callable[[], Any], count: int) -> float:
    runs = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(count):
            await call()
        runs.append((time.perf_counter() - began) / count * 1e6)
    return statistics.median(runs)


async def services() -> None:
    answer = json.dumps({"id": 1, "name": "x" * 1000}).encode()

    async def service(request: Request) -> Response:
        return Response(200, {"content-type": "application/json"}, answer)

    request = Request("GET", "/", {"host": "api"})
    request.state[STATE_KEY] = context()
    for kind, settings in (("spliced", {}), ("decoded and filtered", {"keep": ["id"]})):
        made = compose({name: {"service": service, "path": f"/{name}", **settings} for name in ("a", "b", "c")})
        row(f"composition of three 1 KiB answers, {kind}", await whole(lambda made=made: made(request), 1000))
    step = Idempotency(Settings(), MemoryRecords(), "r")
    posted = Request("POST", "/", {"idempotency-key": "k"}, b"{}")
    await step.around(posted, context(), service)
    row("idempotency: a replayed answer", await whole(lambda: step.around(posted, context(), service), 5000))
    number = 0

    async def fresh() -> None:
        nonlocal number
        number += 1
        await step.around(Request("POST", "/", {"idempotency-key": f"k{number}"}, b"{}"), context(), service)

    row("idempotency: a new key, in memory", await whole(fresh, 2000))


if __name__ == "__main__":
    identity()
    bodies()
    asyncio.run(services())
