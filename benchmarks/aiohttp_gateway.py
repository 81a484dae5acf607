"""The gateway that a Python team writes today: aiohttp, pyjwt and ``limits`` on uvloop. A peer in ``gateway.py``.

``python aiohttp_gateway.py PORT BACKEND PEM [cached]``; ``cached`` remembers verified tokens until they expire, as a careful team does.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import aiohttp
import jwt
import uvloop
from aiohttp import web
from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
    "content-length",
    "proxy-authorization",
}


def main() -> None:
    port, backend, pem = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_bytes()
    cache: dict[str, dict] | None = {} if "cached" in sys.argv[4:] else None
    key = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).prepare_key(pem)
    limits = [parse("100000000/second"), parse("1000000000/hour")]

    def verify(token: str) -> dict:
        if cache is not None:
            known = cache.get(token)
            if known is not None and known["exp"] > time.time():
                return known
        claims = jwt.decode(token, key, algorithms=["RS256"], audience="shop", issuer="bench")
        if cache is not None:
            if len(cache) >= 10_000:
                cache.pop(next(iter(cache)))
            cache[token] = claims
        return claims

    async def session(app: web.Application):
        app["session"] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)
        app["limiter"] = FixedWindowRateLimiter(MemoryStorage())
        yield
        await app["session"].close()

    async def proxy(request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        try:
            claims = verify(token)
        except jwt.PyJWTError:
            return web.json_response({"title": "Unauthorized"}, status=401, headers={"WWW-Authenticate": "Bearer"})
        if scheme.lower() != "bearer" or "read" not in claims.get("scope", "").split():
            return web.json_response({"title": "Forbidden"}, status=403)
        for limit in limits:
            if not await request.app["limiter"].hit(limit, claims["sub"]):
                return web.json_response({"title": "Too Many Requests"}, status=429, headers={"Retry-After": "1"})
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        body = await request.read() if request.can_read_body else None
        async with request.app["session"].request(
            request.method, backend + request.raw_path, headers=headers, data=body, allow_redirects=False
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    app = web.Application(client_max_size=1 << 30)
    app.cleanup_ctx.append(session)
    for number in range(1000):
        app.router.add_route("*", f"/r{number}/{{id:[0-9]+}}", proxy)
    app.router.add_route("*", "/{file}", proxy)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main()
