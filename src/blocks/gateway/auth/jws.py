"""A compact JWS is read strictly before any cryptography sees it; what is left is signed by a key that may sign it, or refused.

Source: RFC 7515, RFC 8725 (JWT best current practices). The signature itself is checked by joserfc (extra ``jwt``).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from . import base64url, strict_json
from .keys import Key, KeySet

MAX_TOKEN = 8192  # bytes; nginx's and Envoy's usual room for one header line
MAX_TRIES = 4  # keys tried for a token that names none; each try is a signature check
_SHORT = 512  # characters of a header that may be remembered: 256 of them are at most 1 MiB
_POINTERS = frozenset({"jwk", "jku", "x5u", "x5c"})  # a token must not say which key to believe (RFC 8725 §3.10)


class InvalidToken(ValueError):
    """A token is refused; ``reason`` is a short constant for metrics, the message is fit for error_description (RFC 6750 §3)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnknownKey(InvalidToken):
    """No key of the set fits the token: perhaps the issuer has rotated its keys."""


class Token:
    """A compact JWS in its parts, well-formed but not verified.

    ``header`` is the protected header, ``payload`` the decoded payload, ``signed`` the bytes that ``signature`` is over.
    """

    __slots__ = ("algorithm", "header", "kid", "payload", "signature", "signed")

    def __init__(self, signed: bytes, header: dict[str, Any], payload: bytes, signature: bytes) -> None:
        self.signed = signed
        self.signature = signature
        self.header = header
        self.payload = payload
        self.algorithm: str = header["alg"]
        self.kid: str | None = header.get("kid")


def parse(text: str, *, limit: int = MAX_TOKEN) -> Token:
    """``text`` as a token. Raises ``InvalidToken`` for what is not one exactly: size, parts, base64url, JSON, header members."""
    if len(text) > limit:
        raise InvalidToken("too-large", f"the token is longer than {limit} bytes")
    parts = text.split(".")
    if len(parts) != 3:
        raise InvalidToken("malformed", "the token does not have three parts")
    try:
        header = _header(parts[0]) if len(parts[0]) <= _SHORT else strict_json.loads_object(base64url.decode(parts[0]))
        payload, signature = base64url.decode(parts[1]), base64url.decode(parts[2])
    except ValueError as error:
        raise InvalidToken("malformed", f"the token is malformed: {error}") from None
    if not signature:
        raise InvalidToken("unsigned", "the token has no signature")
    _check_header(header)
    return Token(text.rpartition(".")[0].encode("ascii"), header, payload, signature)


@lru_cache(256)
def _header(text: str) -> dict[str, Any]:
    """A protected header, read but not judged. An issuer's tokens have the same one, and nobody changes it."""
    return strict_json.loads_object(base64url.decode(text))


def _check_header(header: dict[str, Any]) -> None:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or not algorithm or algorithm.lower() == "none":
        raise InvalidToken("algorithm", "the token's alg is missing or none")
    if not isinstance(header.get("kid", ""), str):
        raise InvalidToken("malformed", "the token's kid is not a string")
    if "crit" in header or "b64" in header:
        raise InvalidToken("crit", "the token demands an extension that is not understood (RFC 7515 §4.1.11)")
    if not _POINTERS.isdisjoint(header):
        raise InvalidToken("embedded-key", "the token names its own key")
    if "enc" in header or "zip" in header:
        raise InvalidToken("malformed", "the token is encrypted or compressed")


def candidates(token: Token, keys: KeySet) -> Iterable[Key]:
    """The keys that may have signed ``token``: of its kid, or of no kid; of its algorithm. kid is compared, never looked up elsewhere."""
    found = keys.named(token.kid) if token.kid is not None else keys.keys
    return [key for key in found if token.algorithm in key.algorithms][:MAX_TRIES]


def verify(token: Token, keys: KeySet) -> bytes:
    """The payload, signed by a key of ``keys``. Raises ``InvalidToken``, ``UnknownKey`` when no key fits it."""
    fitting = list(candidates(token, keys))
    if not fitting:
        if token.kid is not None and keys.has_named(token.kid):
            raise InvalidToken("algorithm", "the token's alg is not allowed for its key")
        raise UnknownKey("unknown-key", "no known key fits the token")
    for key in fitting:
        if key.signed(token.signed, token.signature, token.algorithm):
            return token.payload
    raise InvalidToken("signature", "the token's signature is wrong")


def verify_compact(text: str, keys: KeySet, *, limit: int = MAX_TOKEN) -> bytes:
    """The payload of the compact JWS ``text`` when a key of ``keys`` signed it; else raises ``InvalidToken``. No claims are looked at."""
    return verify(parse(text, limit=limit), keys)
