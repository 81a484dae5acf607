"""API keys are kept as SHA-256 hashes; a consumer has several, each for a time, so that keys are rotated without a gap.

A generated key holds 256 random bits, so a fast hash is enough (nothing can be guessed); the comparison takes the same time for every key.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest
from math import inf

from blocks.core.clock import SYSTEM, Clock
from blocks.core.errors import ConfigError
from blocks.gateway.consumer import Consumer
from blocks.gateway.context import Context
from blocks.http.message import Request

from . import base64url
from .consumers import ConsumerSettings, KeySettings, epoch
from .credentials import Carrier, InHeader
from .outcome import Outcome, Refusal, challenge

MAX_KEY = 512  # bytes; nobody's keys are longer, and hashing is not free
_BUCKET = 8  # bytes of the hash that choose where to look; they tell nothing of the key


class ApiKey:
    """One key at rest: ``digest`` (32 bytes), whose it is, and from when until when (epoch seconds) it is good."""

    __slots__ = ("consumer", "digest", "since", "until")

    def __init__(self, digest: bytes, consumer: Consumer, since: float = -inf, until: float = inf) -> None:
        self.digest = digest
        self.consumer = consumer
        self.since = since
        self.until = until


def new_key(prefix: str = "bk") -> tuple[str, str]:
    """A fresh key, shown once, and the hash to keep: ``("bk_…", "sha256:…")``. The prefix lets scanners find leaked keys."""
    key = f"{prefix}_{base64url.encode(secrets.token_bytes(32))}"
    return key, hash_key(key)


def hash_key(key: str) -> str:
    """The hash of a key as configurations hold it."""
    return "sha256:" + sha256(key.encode()).hexdigest()


def read_hash(text: str) -> bytes:
    """The 32 bytes of ``sha256:…``. Raises ``ConfigError``; a key in clear is not accepted, and not repeated in the message."""
    kind, _, digits = text.partition(":")
    try:
        digest = bytes.fromhex(digits) if kind == "sha256" and digits.isascii() else b""
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise ConfigError(
            "an API key is kept as sha256:… with 64 hex digits (blocks gateway keys makes one), never in clear"
        )
    return digest


def keys_of(consumers: Mapping[str, ConsumerSettings]) -> list[ApiKey]:
    """Every key of the configured consumers. Raises ``ConfigError``, also for a key that two consumers share."""
    keys: list[ApiKey] = []
    owners: dict[bytes, str] = {}
    for name, settings in consumers.items():
        for given in settings.keys:
            entry = KeySettings(hash=given) if isinstance(given, str) else given
            digest = read_hash(entry.hash)
            if owners.setdefault(digest, name) != name:
                raise ConfigError(f"consumers {owners[digest]!r} and {name!r} have the same API key")
            ident = entry.id or digest.hex()[:8]
            consumer = settings.consumer(name, method="api-key", credential=f"key:{ident}", scopes=entry.scopes)
            keys.append(ApiKey(digest, consumer, epoch(entry.since, -inf), epoch(entry.until, inf)))
    return keys


class ApiKeys:
    """The authenticator of API keys; by default in ``X-API-Key``, which the service behind does not get to see."""

    def __init__(
        self,
        keys: Iterable[ApiKey] | Mapping[str, Consumer | str],
        *,
        carriers: Iterable[Carrier] = (),
        realm: str = "gateway",
        clock: Clock = SYSTEM,
    ) -> None:
        if isinstance(keys, Mapping):
            keys = [ApiKey(read_hash(text), _consumer(owner, text)) for text, owner in keys.items()]
        self._buckets: dict[bytes, list[ApiKey]] = {}
        for key in keys:
            self._buckets.setdefault(key.digest[:_BUCKET], []).append(key)
        self._carriers = tuple(carriers) or (InHeader("x-api-key", hide=True),)
        self._clock = clock
        self._realm = realm
        self.challenge = challenge("ApiKey", realm)
        self.refused = 0

    def identify(self, request: Request, context: Context) -> Outcome:
        """The consumer of the request's key."""
        for carrier in self._carriers:
            shown = carrier.read(request)
            if shown is None:
                continue
            consumer = self.find(shown)
            if consumer is None:
                self.refused += 1
                return Refusal("api-key", "the API key is not valid", challenge=self.challenge)
            carrier.strip(request)
            return consumer
        return None

    def find(self, shown: bytes) -> Consumer | None:
        """The consumer of a key, if there is one and the key is good now."""
        if not 0 < len(shown) <= MAX_KEY:
            return None
        digest = sha256(shown).digest()
        for key in self._buckets.get(digest[:_BUCKET], ()):
            if compare_digest(key.digest, digest) and key.since <= self._clock.wall() < key.until:
                return key.consumer
        return None

    def figures(self) -> dict[str, int]:
        """Counters for the metrics."""
        return {"refused_api_key": self.refused}


def _consumer(owner: Consumer | str, text: str) -> Consumer:
    if isinstance(owner, Consumer):
        return owner
    return Consumer(owner, credential=f"key:{text.partition(':')[2][:8]}", method="api-key")
