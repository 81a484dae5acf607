"""An opaque token is what its issuer says it is, asked once and remembered for a short while (RFC 7662)."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from blocks.core.clock import SYSTEM, Clock
from blocks.core.errors import ConfigError
from blocks.core.quantities import Rate
from blocks.gateway.consumer import Consumer
from blocks.gateway.context import Context
from blocks.http.message import Request

from . import strict_json
from .allowance import Allowance
from .claims import ANY, Rules, check_claims
from .credentials import Carrier, bearer
from .fetch import FetchError, checked_url, fetch, origin
from .jws import MAX_TOKEN, InvalidToken
from .jwt import Naming
from .outcome import Outcome, Refusal, challenge
from .verified import VerifiedTokens

TTL = 60.0  # seconds that "active" is believed: how long a revoked token still works; Kong's and Apigee's usual choice
TTL_INACTIVE = 10.0  # seconds that "inactive" is believed
AT_ONCE = 32  # questions under way
CLIENT_RATE = Rate(50, 1)  # questions that one client may cause

Ask = Callable[[bytes], Awaitable[bytes]]


class Introspection:
    """The authenticator of opaque bearer tokens. ``ask`` takes a token to the issuer and brings its answer, or raises ``FetchError``.

    The issuer being down is 503, never "inactive": nobody is told that a good token is bad.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        rules: Rules | None = None,
        carrier: Carrier | None = None,
        naming: Naming | None = None,
        realm: str = "gateway",
        known: Mapping[str, Consumer] | None = None,
        ttl: float = TTL,
        client: Rate | None = CLIENT_RATE,
        clock: Clock = SYSTEM,
    ) -> None:
        self._ask = ask
        self._rules = rules or Rules(audiences=frozenset({ANY}), required=())
        self._carrier = carrier or bearer()
        self._naming = naming or Naming(name=("username", "sub", "client_id"))
        self._realm = realm
        self.challenge = challenge("Bearer", realm)
        self._known = known or {}
        self._ttl = ttl
        self._clock = clock
        self._active = VerifiedTokens(10_000)
        self._inactive = VerifiedTokens(1_000)
        self._allowance = Allowance(client, None)
        self._flights: dict[bytes, asyncio.Task[Outcome]] = {}
        self.refused = 0

    def identify(self, request: Request, context: Context) -> Outcome | Awaitable[Outcome]:
        """The consumer of the request's token; awaits the issuer when the token was not seen lately."""
        shown = self._carrier.read(request)
        if shown is None:
            return None
        entry = self._active.find(shown, context.now, b"")
        if entry is not None:
            self._carrier.strip(request)
            return entry[0]
        if not 0 < len(shown) <= MAX_TOKEN or any(not 0x21 <= byte <= 0x7E for byte in shown):
            return self._refuse("the token is malformed")
        if self._inactive.find(shown, context.now, b"") is not None:
            return self._refuse("the token is not active")
        wait = self._allowance.wait(context.client, context.now)
        if wait > 0:
            return Refusal("verifications", "too many tokens to verify", status=429, retry_after=wait)
        if len(self._flights) >= AT_ONCE:
            return Refusal("busy", "too many tokens to verify", status=503, retry_after=1.0)
        self._allowance.spend(context.client, context.now)
        return self._joined(request, shown, context.now)

    def figures(self) -> dict[str, int]:
        """Counters for the metrics."""
        return {
            "refused_introspection": self.refused,
            "cache_hits": self._active.hits,
            "rationed": self._allowance.refused,
        }

    async def _joined(self, request: Request, shown: bytes, now: float) -> Outcome:
        """The answer to one question for all who ask it at the same time."""
        mark = sha256(shown).digest()
        flight = self._flights.get(mark)
        if flight is None:
            flight = self._flights[mark] = asyncio.get_running_loop().create_task(self._question(shown, now))
            flight.add_done_callback(lambda _: self._flights.pop(mark, None))
        outcome = await asyncio.shield(flight)
        if isinstance(outcome, Consumer):
            self._carrier.strip(request)
        return outcome

    async def _question(self, shown: bytes, now: float) -> Outcome:
        try:
            claims = strict_json.loads_object(await self._ask(shown))
        except (FetchError, ValueError):
            return Refusal("introspection", "the token cannot be verified now", status=503, retry_after=1.0)
        return self._judge(shown, claims, now)

    def _judge(self, shown: bytes, claims: dict[str, Any], now: float) -> Outcome:
        if claims.get("active") is not True:
            self._inactive.keep(shown, Consumer(""), now + TTL_INACTIVE, b"")
            return self._refuse("the token is not active")
        try:
            until = check_claims(claims, self._rules, self._clock.wall())
        except InvalidToken as error:
            return self._refuse(str(error))
        consumer = self._naming.consumer(claims, self._known, "introspection")
        life = self._ttl if until is None else min(self._ttl, until - self._clock.wall())
        self._active.keep(shown, consumer, now + life, b"")
        return consumer

    def _refuse(self, detail: str) -> Refusal:
        self.refused += 1
        told = challenge("Bearer", self._realm, error="invalid_token", error_description=detail)
        return Refusal("introspection", detail, challenge=told)


def endpoint(url: str, client_id: str, client_secret: str, *, timeout: float, insecure: bool = False) -> Ask:
    """Asks the introspection endpoint ``url`` as the client of that id (HTTP Basic, RFC 6749 §2.3.1). Raises ``ConfigError``."""
    checked_url(url, insecure=insecure)
    if not client_id or not client_secret:
        raise ConfigError("an introspection endpoint is asked with client_id and client_secret (RFC 7662 §2.1)")
    basic = b64encode(f"{quote(client_id, safe='')}:{quote(client_secret, safe='')}".encode()).decode()
    trusted = frozenset({origin(url)})

    async def ask(token: bytes) -> bytes:
        form = {"token": token.decode("ascii"), "token_type_hint": "access_token"}
        return await fetch(
            url, trusted=trusted, form=form, headers={"authorization": f"Basic {basic}"}, limit=65536, timeout=timeout
        )

    return ask
