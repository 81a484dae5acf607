"""A name and a password are checked slowly once and remembered under a secret hash for a while (RFC 7617)."""

from __future__ import annotations

import asyncio
import re
import secrets
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Mapping
from hashlib import blake2b

from blocks.core.quantities import Rate
from blocks.gateway.consumer import Consumer
from blocks.gateway.context import Context
from blocks.http.message import Request

from .allowance import Allowance
from .credentials import Carrier, InHeader
from .outcome import Outcome, Refusal, challenge
from .passwords import MAX_PASSWORD, Password, hash_password, read_password
from .verified import VerifiedTokens

TTL = 300.0  # seconds a checked password is believed; htpasswd modules with a cache use 5 min
AT_ONCE = 2  # checks under way; each holds a thread and 16 MiB for a tenth of a second
WAITING = 32  # checks that wait for their turn; more get 503
FAILURES = Rate(10, 60)  # wrong passwords of one client a minute; OWASP's credential-stuffing advice has this order
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class Basic:
    """The authenticator of ``Authorization: Basic``. ``users``: name → (password hashes, consumer); several hashes while rotating."""

    def __init__(
        self,
        users: Mapping[str, tuple[list[str], Consumer]],
        *,
        realm: str = "gateway",
        hide: bool = True,
        ttl: float = TTL,
        failures: Rate | None = FAILURES,
    ) -> None:
        self._users = {
            name: ([read_password(text) for text in hashes], consumer) for name, (hashes, consumer) in users.items()
        }
        self._carrier: Carrier = InHeader("authorization", "Basic", hide=hide)
        self.challenge = challenge("Basic", realm, charset="UTF-8")
        self._ttl = ttl
        self._seen = VerifiedTokens(1024)
        self._secret = secrets.token_bytes(32)  # the cache's hashes cannot be tried out against a list of passwords
        self._allowance = Allowance(failures, None)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._nobody: Password | None = None
        self.refused = 0

    def identify(self, request: Request, context: Context) -> Outcome | Awaitable[Outcome]:
        """The consumer whose password was given; waits for a thread when it was not seen lately."""
        shown = self._carrier.read(request)
        if shown is None:
            return None
        mark = blake2b(shown, key=self._secret, digest_size=32).digest()
        entry = self._seen.find(mark, context.now, b"")
        if entry is not None:
            self._carrier.strip(request)
            return entry[0]
        parts = _split(shown)
        if parts is None:
            return Refusal("basic", "the credentials are malformed", challenge=self.challenge)
        wait = self._allowance.wait(context.client, context.now)
        if wait > 0:
            return Refusal("guessing", "too many wrong passwords", status=429, retry_after=wait)
        if self._waiting >= WAITING:
            return Refusal("busy", "too many passwords to check", status=503, retry_after=1.0)
        return self._check(request, context, mark, *parts)

    async def _check(self, request: Request, context: Context, mark: bytes, name: str, password: bytes) -> Outcome:
        hashes, consumer = self._users.get(name, ([], None))
        self._waiting += 1
        try:
            matched = await asyncio.get_running_loop().create_task(self._derive(hashes, password))
        finally:
            self._waiting -= 1
        if consumer is None or not matched:
            self.refused += 1
            self._allowance.spend(context.client, context.now)
            return Refusal("basic", "the name or the password is wrong", challenge=self.challenge)
        self._seen.keep(mark, consumer, context.now + self._ttl, b"")
        self._carrier.strip(request)
        return consumer

    async def _derive(self, hashes: list[Password], password: bytes) -> bool:
        async with self._turns:
            return await asyncio.get_running_loop().run_in_executor(None, self._matches, hashes, password)

    def _matches(self, hashes: list[Password], password: bytes) -> bool:
        if not hashes:  # an unknown name takes as long as a wrong password
            if self._nobody is None:
                self._nobody = read_password(hash_password(secrets.token_hex(16)))
            self._nobody.matches(password)
            return False
        found = [stored.matches(password) for stored in hashes]  # all of them: the time does not tell which one it was
        return any(found)

    def figures(self) -> dict[str, int]:
        """Counters for the metrics."""
        return {"refused_basic": self.refused, "cache_hits": self._seen.hits, "rationed": self._allowance.refused}


def _split(shown: bytes) -> tuple[str, bytes] | None:
    """Name and password (RFC 7617 §2: without control characters; HMAC would take a password with NULs at its end for the same)."""
    try:
        whole = b64decode(shown, validate=True)
        name, colon, password = whole.partition(b":")
        text = name.decode("utf-8")
    except (Base64Error, ValueError):
        return None
    if not colon or len(password) > MAX_PASSWORD or _CONTROL.search(whole) or b64encode(whole) != shown:
        return None
    return text, password
