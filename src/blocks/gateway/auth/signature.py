"""A request signed with a shared secret is who it says, unchanged, fresh, and seen for the first time.

Source: RFC 9421 (HTTP Message Signatures, hmac-sha256) and RFC 9530 (Content-Digest). The clients' side is ``sign``.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Mapping
from hashlib import sha256, sha512

from blocks.core.clock import SYSTEM, Clock
from blocks.core.config.suggest import suggestion
from blocks.core.errors import ConfigError
from blocks.gateway.consumer import Consumer
from blocks.gateway.context import Context
from blocks.gateway.records import Records, StoreDown
from blocks.http.body import Stream
from blocks.http.message import Request

from .outcome import Outcome, Refusal, challenge
from .signature_base import DERIVED, SignatureInput, parse_input, parse_signature, signature_base

WINDOW = 300.0  # seconds that a signature's date may differ from now; AWS Signature Version 4 and Kong's clock_skew
COVERED = ("@method", "@authority", "@path", "@query")
MAX_BODY = 1024 * 1024  # bytes; the body of a signed request is held while its digest is checked
MAX_SEEN = 200_000  # signatures remembered for the window; when full, new ones are refused, not old ones forgotten
_DIGESTS = {"sha-256": sha256, "sha-512": sha512}


class Seen:
    """Which signatures were used within the window: a second use is a replay."""

    __slots__ = ("_until", "room")

    def __init__(self, room: int = MAX_SEEN) -> None:
        self.room = room
        self._until: dict[bytes, float] = {}

    def claim(self, mark: bytes, now: float, until: float) -> bool | None:
        """Whether ``mark`` is seen for the first time; None when there is no room to remember it."""
        if self._until.get(mark, 0.0) > now:
            return False
        if len(self._until) >= self.room:
            self._sweep(now)
            if len(self._until) >= self.room:
                return None
        self._until.pop(mark, None)
        self._until[mark] = until
        return True

    def _sweep(self, now: float) -> None:
        gone = [mark for mark, until in self._until.items() if until <= now]
        for mark in gone:
            del self._until[mark]


class Signatures:
    """The authenticator of HMAC signatures. ``secrets``: keyid → (secret, consumer); ``covered`` must all be signed.

    A request with a body must also sign Content-Digest, and the digest must be the body's. What was used is remembered in ``seen``, by this
    process, or in ``records``, by all gateways that share them.
    """

    def __init__(
        self,
        secrets: Mapping[str, tuple[bytes, Consumer]],
        *,
        covered: tuple[str, ...] = COVERED,
        window: float = WINDOW,
        max_body: int = MAX_BODY,
        realm: str = "gateway",
        seen: Seen | None = None,
        records: Records | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        for keyid, (secret, _) in secrets.items():
            checked_secret(keyid, secret)
        self._secrets = secrets
        self._covered = frozenset(checked_component(one) for one in covered)
        self._window = window
        self._max_body = max_body
        self.challenge = challenge("Signature", realm)
        self._seen = seen or Seen()
        self._records = records
        self.parts = (records,) if records is not None else ()
        self._clock = clock
        self.refused = 0

    def identify(self, request: Request, context: Context) -> Outcome | Awaitable[Outcome]:
        """The consumer that signed the request; awaits its body where there is one."""
        field = request.headers.find(b"signature-input")
        signature = request.headers.find(b"signature")
        if field is None and signature is None:
            return None
        if field is None or signature is None:
            return self._refuse("malformed", "Signature and Signature-Input belong together")
        try:
            asked = parse_input(field)
            shown = parse_signature(signature, asked.label)
            consumer = self._signer(request, asked, shown)
            self._fresh(asked)
        except ValueError as error:
            return self._refuse("signature", str(error))
        if isinstance(request.body, Stream) or request.body:
            return self._with_body(request, asked, shown, consumer)
        return self._first(asked, shown, consumer)

    def figures(self) -> dict[str, int]:
        """Counters for the metrics."""
        return {"refused_signature": self.refused}

    def _signer(self, request: Request, asked: SignatureInput, shown: bytes) -> Consumer:
        if asked.parameters.get("alg", "hmac-sha256") != "hmac-sha256":
            raise ValueError("the signature's alg is not hmac-sha256")
        missing = sorted(self._covered.difference(asked.components))
        if missing:
            raise ValueError(f"the signature must cover {', '.join(missing)}")
        base = signature_base(request, asked.components, asked.text)
        secret, consumer = self._secrets.get(str(asked.parameters.get("keyid")), (b"\0" * 32, None))
        right = hmac.compare_digest(hmac.digest(secret, base, "sha256"), shown)
        if consumer is None or not right:
            raise ValueError("the signature is wrong")
        return consumer

    def _fresh(self, asked: SignatureInput) -> None:
        now = self._clock.wall()
        created, expires = asked.parameters.get("created"), asked.parameters.get("expires")
        if not isinstance(created, int):
            raise ValueError("the signature has no created")
        if abs(now - created) > self._window:
            raise ValueError("the signature is too old, or from the future")
        if expires is not None and not (isinstance(expires, int) and now < expires):
            raise ValueError("the signature has expired")

    async def _with_body(self, request: Request, asked: SignatureInput, shown: bytes, consumer: Consumer) -> Outcome:
        if "content-digest" not in asked.components:
            if not isinstance(request.body, Stream) or await request.read(self._max_body):
                return self._refuse("digest", "the signature of a request with a body must cover content-digest")
        elif not matches_digest(request.headers.find(b"content-digest") or b"", await request.read(self._max_body)):
            return self._refuse("digest", "Content-Digest is not the body's")
        outcome = self._first(asked, shown, consumer)
        return outcome if outcome is None or isinstance(outcome, Consumer | Refusal) else await outcome

    def _first(self, asked: SignatureInput, shown: bytes, consumer: Consumer) -> Outcome | Awaitable[Outcome]:
        created = asked.parameters["created"]
        assert isinstance(created, int)
        mark = sha256(shown + str(asked.parameters.get("keyid")).encode()).digest()[:16]
        now = self._clock.wall()
        until = created + self._window + 1
        if self._records is not None:
            return self._first_of_all(self._records, mark, until - now, consumer)
        first = self._seen.claim(mark, now, until)
        if first is None:
            return Refusal("busy", "too many signed requests to remember", status=503, retry_after=self._window)
        return consumer if first else self._refuse("replay", "the signature was used before")

    async def _first_of_all(self, records: Records, mark: bytes, left: float, consumer: Consumer) -> Outcome:
        """Among all gateways that share the records."""
        try:
            there = await records.add(mark, b"1", left)
        except StoreDown:
            return Refusal(
                "store-down", "whether the signature was used before cannot be known now", status=503, retry_after=1.0
            )
        return consumer if there is None else self._refuse("replay", "the signature was used before")

    def _refuse(self, reason: str, detail: str) -> Refusal:
        self.refused += 1
        return Refusal(reason, detail, challenge=self.challenge)


def matches_digest(field: bytes, body: bytes) -> bool:
    """Whether every known digest of a Content-Digest field is the body's, and one is known (RFC 9530 §2)."""
    known = 0
    for member in field.decode("latin-1").split(","):
        name, equals, value = member.strip().partition("=")
        hash = _DIGESTS.get(name)
        if not equals or not (len(value) > 2 and value[0] == value[-1] == ":"):
            return False
        if hash is None:
            continue
        try:
            given = b64decode(value[1:-1], validate=True)
        except Base64Error:
            return False
        if not hmac.compare_digest(given, hash(body).digest()):
            return False
        known += 1
    return known > 0


def sign(
    request: Request,
    keyid: str,
    secret: bytes,
    created: int,
    *,
    nonce: str = "",
    components: tuple[str, ...] = COVERED,
    label: str = "sig",
) -> None:
    """Sign a request whose body is bytes, as a client does: sets Content-Digest (with a body), Signature-Input and Signature.

    Two equal requests within one second need different ``nonce``\\ s, else the second is a replay.
    """
    if isinstance(request.body, Stream):
        raise ValueError("only a body that is whole can be signed")
    if request.body:
        request.headers["content-digest"] = f"sha-256=:{b64encode(sha256(request.body).digest()).decode()}:"
        components = (*components, "content-digest")
    listed = " ".join(f'"{name}"' for name in components)
    text = f'({listed});created={created};keyid="{keyid}";alg="hmac-sha256"' + (f';nonce="{nonce}"' if nonce else "")
    made = hmac.digest(secret, signature_base(request, components, text), "sha256")
    request.headers["signature-input"] = f"{label}={text}"
    request.headers["signature"] = f"{label}=:{b64encode(made).decode()}:"


def checked_secret(keyid: str, secret: bytes) -> bytes:
    """The secret. Raises ``ConfigError`` for one that is shorter than the hash."""
    if len(secret) < 32:
        raise ConfigError(f"the secret of {keyid!r} is shorter than 32 bytes (RFC 9421 §3.3.3: as long as the hash)")
    return secret


def checked_component(name: str) -> str:
    """What a signature must cover: a field or one of ``DERIVED``. Raises ``ConfigError``: no request could be signed so."""
    if name.startswith("@") and name not in DERIVED:
        raise ConfigError(f"{name!r} is no part of a request that can be covered{suggestion(name, DERIVED)}")
    if name != name.lower():
        raise ConfigError(f"{name!r} must be in lower case (RFC 9421 §2.1)")
    return name
