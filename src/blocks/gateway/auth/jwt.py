"""A bearer token is verified once and recognised afterwards; every way to be invalid is a refusal with its own reason.

The order is the cheapest refusal first: cache, size and shape, header, claims, ration, and only then the signature.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from hashlib import sha256
from typing import Any

from blocks.core.clock import SYSTEM, Clock
from blocks.core.errors import ConfigError
from blocks.core.quantities import Rate
from blocks.gateway.consumer import Consumer
from blocks.gateway.context import Context
from blocks.http.message import Request

from . import strict_json
from .allowance import Allowance
from .claims import Rules, check_claims, check_type, lookup, words
from .credentials import Carrier, bearer
from .jws import MAX_TOKEN, InvalidToken, Token, UnknownKey, parse, verify
from .keys import KeySet
from .keysource import FixedKeys, KeySource
from .outcome import Outcome, Refusal, challenge
from .verified import Verified, VerifiedTokens

TTL = 300.0  # seconds that a verified token is believed without looking again; Envoy's jwt_cache has the same order
CACHE = 10_000  # tokens; about 6 MB
FAILURE_UNITS = 20.0  # what a bad signature costs of a client's ration, against one for a good one
CLIENT_RATE = Rate(1000, 1)  # verifications: 50 bad signatures a second and client
TOTAL_RATE = Rate(10_000, 1)  # RS256 costs 50 µs: at most half a core


class Naming:
    """Which claims become the consumer: the first of ``name`` that is a text, and ``scopes``, ``groups``, ``tier`` by dotted path."""

    __slots__ = ("groups", "name", "scopes", "tier")

    def __init__(
        self,
        name: tuple[str, ...] = ("sub", "client_id", "azp"),
        scopes: tuple[str, ...] = ("scope", "scp"),
        groups: tuple[str, ...] = ("groups",),
        tier: str = "tier",
    ) -> None:
        self.name, self.scopes, self.groups, self.tier = name, scopes, groups, tier

    def consumer(self, claims: Mapping[str, Any], known: Mapping[str, Consumer], method: str) -> Consumer:
        """The consumer that the claims speak of; one configured under the same name lends its tier, groups and priority."""
        named = [value for path in self.name if isinstance(value := lookup(claims, path), str) and value]
        name: str = named[0] if named else ""
        tier = lookup(claims, self.tier)
        groups = frozenset[str]().union(*(words(lookup(claims, path)) for path in self.groups))
        scopes = frozenset[str]().union(*(words(lookup(claims, path)) for path in self.scopes))
        entry = known.get(name)
        return Consumer(
            name,
            tier=entry.tier if entry and entry.tier else tier if isinstance(tier, str) else "",
            groups=groups | entry.groups if entry else groups,
            scopes=scopes,
            claims=claims,
            credential=f"{method}:{claims.get('iss', '')}:{name or _mark(claims)}",
            method=method,
            priority=entry.priority if entry else None,
        )


def _mark(claims: Mapping[str, Any]) -> str:
    """Stands for a token that names nobody: two of them are not the same consumer."""
    return "#" + sha256(repr(sorted(claims.items())).encode()).hexdigest()[:16]


class Jwt:
    """The authenticator of JSON Web Tokens signed by a key of ``keys``.

    ``rules`` says what the claims must be; ``carrier`` where the token is; ``client`` and ``total`` ration verifications (None: no ration).
    """

    def __init__(
        self,
        keys: KeySource | KeySet,
        rules: Rules | None = None,
        *,
        carrier: Carrier | None = None,
        naming: Naming | None = None,
        realm: str = "gateway",
        known: Mapping[str, Consumer] | None = None,
        max_token: int = MAX_TOKEN,
        ttl: float = TTL,
        cache: VerifiedTokens | int = CACHE,
        client: Rate | None = CLIENT_RATE,
        total: Rate | None = TOTAL_RATE,
        clock: Clock = SYSTEM,
    ) -> None:
        if ttl < 0 or max_token < 64:
            raise ConfigError("a token cache's ttl must not be negative, and max_token at least 64 bytes")
        self.source: KeySource = FixedKeys(keys) if isinstance(keys, KeySet) else keys
        self.parts = (self.source,)
        self.rules = rules or Rules()
        self.challenge = challenge("Bearer", realm)
        self._carrier = carrier or bearer()
        self._naming = naming or Naming()
        self._realm = realm
        self._known = known or {}
        self._max_token = max_token
        self._ttl = ttl
        self._tokens = cache if isinstance(cache, VerifiedTokens) else VerifiedTokens(cache)
        self._allowance = Allowance(client, total)
        self._clock = clock
        self.refused: dict[str, int] = {}

    def identify(self, request: Request, context: Context) -> Outcome | Awaitable[Outcome]:
        """The consumer of the request's token; awaits only a refetch of keys for an unknown kid."""
        section = request.headers.section
        memo: Verified | None = section.derived.get(self)
        if memo is not None and memo[2] == self.source.keys.generation and memo[1] > context.now:
            if self._carrier.hide:
                self._carrier.strip(request)
            return memo[0]
        text = self._carrier.read(request)
        if text is None:
            return None
        entry = self._tokens.find(text, context.now, self.source.keys.generation)
        if entry is None:
            return self._verify(request, context, text)
        if self._carrier.in_head:
            section.derived[self] = entry
        self._carrier.strip(request)
        return entry[0]

    def figures(self) -> dict[str, int]:
        """Counters for the metrics."""
        refused = {f"refused_{reason.replace('-', '_')}": count for reason, count in self.refused.items()}
        return {
            "cache_hits": self._tokens.hits,
            "cache_misses": self._tokens.misses,
            "rationed": self._allowance.refused,
            **refused,
        }

    def _verify(self, request: Request, context: Context, raw: bytes) -> Outcome | Awaitable[Outcome]:
        try:
            token, claims, until = self._read(raw)
        except InvalidToken as error:
            return self._refusal(error)
        wait = self._allowance.wait(context.client, context.now)
        if wait > 0:
            return Refusal("verifications", "too many tokens to verify", status=429, retry_after=wait)
        try:
            return self._accept(request, context, raw, token, claims, until)
        except UnknownKey:
            return self._after_refetch(request, context, raw, token, claims, until)
        except InvalidToken as error:
            return self._failed(context, error)

    def _read(self, raw: bytes) -> tuple[Token, dict[str, Any], float | None]:
        """The token and its claims as far as they can be judged without a key."""
        if len(raw) > self._max_token:
            raise InvalidToken("too-large", f"the token is longer than {self._max_token} bytes")
        token = parse(raw.decode("latin-1"), limit=self._max_token)
        check_type(token.header, self.rules)
        try:
            claims = strict_json.loads_object(token.payload)
        except ValueError as error:
            raise InvalidToken("malformed", f"the token's claims are malformed: {error}") from None
        return token, claims, check_claims(claims, self.rules, self._clock.wall())

    def _accept(
        self, request: Request, context: Context, raw: bytes, token: Token, claims: dict[str, Any], until: float | None
    ) -> Consumer:
        keys = self.source.keys
        verify(token, keys)
        self._allowance.spend(context.client, context.now)
        consumer = self._naming.consumer(claims, self._known, "jwt")
        life = self._ttl if until is None else min(self._ttl, until + self.rules.leeway - self._clock.wall())
        entry = self._tokens.keep(raw, consumer, context.now + life, keys.generation)
        if self._carrier.in_head:
            request.headers.section.derived[self] = entry
        self._carrier.strip(request)
        return consumer

    async def _after_refetch(
        self, request: Request, context: Context, raw: bytes, token: Token, claims: dict[str, Any], until: float | None
    ) -> Outcome:
        """One bounded refetch, joined by all who wait for one; then the answer is final."""
        await asyncio.get_running_loop().create_task(self._refetch())
        if not self.source.loaded:
            return Refusal("no-keys", "the issuer's keys are not known yet", status=503, retry_after=1.0)
        try:
            return self._accept(request, context, raw, token, claims, until)
        except InvalidToken as error:
            return self._failed(context, error)

    async def _refetch(self) -> bool:
        return await self.source.refetch()

    def _failed(self, context: Context, error: InvalidToken) -> Refusal:
        self._allowance.spend(context.client, context.now, FAILURE_UNITS)
        return self._refusal(error)

    def _refusal(self, error: InvalidToken) -> Refusal:
        self.refused[error.reason] = self.refused.get(error.reason, 0) + 1
        told = challenge("Bearer", self._realm, error="invalid_token", error_description=str(error))
        return Refusal(error.reason, str(error), challenge=told)
