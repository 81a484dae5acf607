"""A password is kept as a slow, salted hash that says how it was made: ``scrypt$n$r$p$salt$hash`` or ``pbkdf2-sha256$rounds$salt$hash``.

Source: OWASP Password Storage Cheat Sheet (scrypt n=2^14, r=8, p=5; PBKDF2-HMAC-SHA256 with 600,000 rounds); RFC 7914, RFC 8018.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from hashlib import pbkdf2_hmac, scrypt
from hmac import compare_digest

from blocks.core.errors import ConfigError

from . import base64url

N, R, P = 2**14, 8, 5
MAX_PASSWORD = 256  # bytes; PBKDF2 and scrypt hash first what is longer, but nobody types it
_MAX_MEMORY = 128 * 1024 * 1024


class Password:
    """A stored password; ``matches`` takes the CPU 30–300 ms, so it belongs in a thread."""

    __slots__ = ("_derive", "_hash")

    def __init__(self, derive: Callable[[bytes], bytes], hash: bytes) -> None:
        self._derive = derive
        self._hash = hash

    def matches(self, password: bytes) -> bool:
        """Whether this is the password; the comparison takes the same time for all."""
        return compare_digest(self._derive(password), self._hash)


def hash_password(password: str) -> str:
    """The hash to keep of a password, by scrypt with a fresh salt."""
    salt = secrets.token_bytes(16)
    made = scrypt(password.encode(), salt=salt, n=N, r=R, p=P, maxmem=_MAX_MEMORY, dklen=32)
    return f"scrypt${N}${R}${P}${base64url.encode(salt)}${base64url.encode(made)}"


def read_password(text: str) -> Password:
    """A stored hash. Raises ``ConfigError`` for a password in clear, an unknown form, or one too weak or too dear to check."""
    kind, *parts = text.split("$")
    try:
        if kind == "scrypt" and len(parts) == 5:
            n, r, p = (int(part) for part in parts[:3])
            return _scrypt(n, r, p, base64url.decode(parts[3]), base64url.decode(parts[4]))
        if kind == "pbkdf2-sha256" and len(parts) == 3:
            return _pbkdf2(int(parts[0]), base64url.decode(parts[1]), base64url.decode(parts[2]))
    except ValueError as error:
        raise ConfigError(f"a password's hash is malformed: {error}") from None
    raise ConfigError("a password is kept as scrypt$n$r$p$salt$hash or pbkdf2-sha256$rounds$salt$hash, never in clear")


def _scrypt(n: int, r: int, p: int, salt: bytes, hash: bytes) -> Password:
    if not (
        2**13 <= n <= 2**18
        and n & (n - 1) == 0
        and 1 <= r <= 16
        and 1 <= p <= 16
        and len(salt) >= 8
        and len(hash) >= 16
    ):
        raise ValueError("scrypt needs n of 2^13 to 2^18, r and p of 1 to 16, 8 bytes of salt and 16 of hash")
    if 128 * n * r * p > 8 * _MAX_MEMORY or 128 * n * r > _MAX_MEMORY - 1024 * 1024:
        raise ValueError("scrypt with these figures takes too long")
    return Password(lambda given: scrypt(given, salt=salt, n=n, r=r, p=p, maxmem=_MAX_MEMORY, dklen=len(hash)), hash)


def _pbkdf2(rounds: int, salt: bytes, hash: bytes) -> Password:
    if not (100_000 <= rounds <= 5_000_000 and len(salt) >= 8 and len(hash) >= 16):
        raise ValueError("pbkdf2 needs 100,000 to 5,000,000 rounds, 8 bytes of salt and 16 of hash")
    return Password(lambda given: pbkdf2_hmac("sha256", given, salt, rounds, len(hash)), hash)
