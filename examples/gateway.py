"""A gateway that knows its customers by tokens and keys, lets them do what they may, and as often as they may.

python examples/gateway.py [--keep]                      needs blocks[jwt]
"""

import asyncio
import contextlib
import json
import sys
import time

from joserfc import jws
from joserfc.jwk import ECKey

from blocks import Gateway, Request, Response, Upstream, route
from blocks.gateway import context_of
from blocks.gateway.auth import ApiKeys, Jwt, KeySet, Rules, new_key
from blocks.gateway.limits import Limit
from blocks.http import Server

ISSUER = ECKey.generate_key("P-256", {"kid": "2026"})  # the issuer's; the gateway has the public half only


def token(name: str, scope: str, tier: str) -> str:
    claims = {
        "iss": "https://id.example",
        "aud": "shop",
        "sub": name,
        "scope": scope,
        "tier": tier,
        "exp": time.time() + 600,
    }
    return jws.serialize_compact({"alg": "ES256", "kid": "2026"}, json.dumps(claims), ISSUER)


async def orders(request: Request) -> Response:
    who = context_of(request).consumer  # a service in this process may look; one behind a URL is told by fields
    return Response.text(f"{who.name if who else 'nobody'}'s orders")


def front_door(robots: ApiKeys) -> Gateway:
    people = Jwt(
        KeySet.from_jwks({"keys": [ISSUER.as_dict(private=False)]}),
        Rules(issuers=frozenset({"https://id.example"}), audiences=frozenset({"shop"})),
    )
    fair = Limit(rate="5/s", per="consumer", tiers={"gold": "50/s"}, name="fair")
    return Gateway(
        [
            route("/orders", orders, methods="GET", auth=[people, robots], limit=fair),
            route("/orders/all", orders, methods="GET", auth=people, scopes=["orders:all"]),
            route("/healthz", orders, auth="anonymous"),
        ],
        auth="deny",  # a route that does not say who may use it is closed
    )


async def main() -> None:
    key, known = new_key()  # the key is shown once; its hash is kept
    async with Server(front_door(ApiKeys({known: "nightly"})), "127.0.0.1:0") as server, Upstream(server.url) as client:

        async def ask(path: str, credential: dict[str, str] | None = None) -> Response:
            response = await client(Request("GET", path, {"host": "shop.example", **(credential or {})}))
            await response.read()
            return response

        robot = {"x-api-key": key}
        ann = {"authorization": f"Bearer {token('ann', 'orders:read', 'plain')}"}
        gita = {"authorization": f"Bearer {token('gita', 'orders:read orders:all', 'gold')}"}
        forged = {"authorization": ann["authorization"][:-6] + "AAAAAA"}
        print("nobody          ", (await ask("/orders")).status)
        print("a forged token  ", (await ask("/orders", forged)).status)
        print("ann             ", (await (await ask("/orders", ann)).read()).decode())
        print("ann, all orders ", (await ask("/orders/all", ann)).status)
        print("gita, all orders", (await ask("/orders/all", gita)).status)
        print("a robot         ", (await (await ask("/orders", robot)).read()).decode())
        for name, credential in (("ann", ann), ("gita", gita)):
            answers = [await ask("/orders", credential) for _ in range(20)]
            refused = [answer for answer in answers if answer.status == 429]
            later = refused[0].headers["retry-after"] if refused else "0"
            print(f"{name}, 20 at once: {len(refused)} refused, to try again after {later} s")
        if "--keep" in sys.argv:
            print(f"still up: curl -i -H 'x-api-key: {key}' {server.url}/orders; Ctrl-C ends it")
            await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
