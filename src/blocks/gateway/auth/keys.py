"""A verification key is bound to the algorithms it may be used with; a key too weak for them is no key.

Source: RFC 7517 (JWK), RFC 7518 §3 (sizes), RFC 8725 §3.1 (one key, one algorithm), RFC 9864 (Ed25519, Ed448).
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from blocks.core.errors import ConfigError, MissingExtra

from . import base64url, strict_json

MAX_KEYS = 64  # in one set; issuers publish two to five
_MIN_RSA_BITS = 2048  # RFC 7518 §3.3
_MAX_RSA_BITS = 16384  # OpenSSL's own bound; a larger key is an attack on the verifier's CPU
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("EC", "secp256k1"): frozenset({"ES256K"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA", "Ed25519"}),
    ("OKP", "Ed448"): frozenset({"EdDSA", "Ed448"}),
}
_HMAC = {"HS256": 32, "HS384": 48, "HS512": 64}  # a key as long as the hash, RFC 7518 §3.2
_PUBLIC = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y"), "OKP": ("kty", "crv", "x"), "oct": ("kty", "k")}
_ED_CURVES = frozenset({"Ed25519", "Ed448"})


class Key:
    """One verification key: ``kid`` or None, and the ``algorithms`` it may be used with."""

    __slots__ = ("_key", "algorithms", "kid", "print")

    def __init__(self, key: Any, kid: str | None, algorithms: frozenset[str], print: str) -> None:
        self._key = key
        self.kid = kid
        self.algorithms = algorithms
        self.print = print

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any], *, algorithms: Iterable[str] | None = None, remote: bool = False) -> Key:
        """The key of a JWK; ``algorithms`` narrows what it may sign. ``remote``: it was fetched, so a shared secret is refused.

        Private members are dropped. Raises ``ConfigError`` for a key that is weak, not for signatures, or malformed.
        """
        kid = jwk.get("kid")
        if kid is not None and not isinstance(kid, str):
            raise ConfigError("a JWK's kid must be a string")
        _check_use(jwk)
        kind = jwk.get("kty")
        if not isinstance(kind, str) or kind not in _PUBLIC:
            raise ConfigError(f"a JWK of kty {kind!r} cannot verify signatures")
        if kind == "oct" and remote:
            raise ConfigError("a fetched key set must not hold shared secrets")
        members = {name: _member(jwk, name) for name in _PUBLIC[kind]}
        allowed = _fitting(kind, members)
        if jwk.get("alg") is not None:
            allowed &= _declared(jwk["alg"], members)
        if algorithms is not None:
            allowed &= frozenset(algorithms)
        if not allowed:
            raise ConfigError(f"the JWK {kid!r} is too weak for, or not meant for, any allowed signature algorithm")
        canonical = json.dumps([members, sorted(allowed), kid], sort_keys=True).encode()
        return cls(_import(members), kid, allowed, hashlib.sha256(canonical).hexdigest())

    @classmethod
    def from_pem(cls, pem: str | bytes, *, kid: str | None = None, algorithms: Iterable[str] | None = None) -> Key:
        """The public key of a PEM (SubjectPublicKeyInfo, certificate or private key). Raises ``ConfigError``."""
        jose = _joserfc()
        raw = pem.encode() if isinstance(pem, str) else pem
        for kind in (jose.RSAKey, jose.ECKey, jose.OKPKey):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    jwk = kind.import_key(raw).as_dict(private=False)
            except Exception:  # joserfc raises what the PEM parser of each kind happens to raise
                continue
            return cls.from_jwk({**jwk, **({"kid": kid} if kid else {})}, algorithms=algorithms)
        raise ConfigError("the PEM holds no RSA, EC or Ed25519/Ed448 key")

    @classmethod
    def from_secret(
        cls, secret: str | bytes, *, kid: str | None = None, algorithms: Iterable[str] | None = None
    ) -> Key:
        """A shared secret for HS256 (≥ 32 bytes), HS384 (≥ 48) and HS512 (≥ 64). Raises ``ConfigError`` when it is too short."""
        raw = secret.encode() if isinstance(secret, str) else secret
        if raw.lstrip().startswith(b"-----BEGIN"):
            raise ConfigError("a PEM is a public key, not a shared secret; give it as pem")
        jwk: dict[str, Any] = {"kty": "oct", "k": base64url.encode(raw)}
        if kid:
            jwk["kid"] = kid
        return cls.from_jwk(jwk, algorithms=algorithms)

    def signed(self, data: bytes, signature: bytes, algorithm: str) -> bool:
        """Whether this key made ``signature`` over ``data`` by ``algorithm``, which must be one of ``algorithms``."""
        if algorithm not in self.algorithms:
            return False
        try:
            return bool(_joserfc().algorithms[algorithm].verify(data, signature, self._key))
        except Exception:  # joserfc and cryptography raise many types; whatever it was, the signature did not verify
            return False


class KeySet:
    """Keys that never change; ``generation`` differs whenever the keys do, so that a cache of verified tokens can be tied to it."""

    __slots__ = ("_by_kid", "_unnamed", "generation", "keys")

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self.keys = tuple(keys)
        if len(self.keys) > MAX_KEYS:
            raise ConfigError(f"a key set of {len(self.keys)} keys is over the limit of {MAX_KEYS}")
        self._by_kid: dict[str, list[Key]] = {}
        self._unnamed = [key for key in self.keys if key.kid is None]
        for key in self.keys:
            if key.kid is not None:
                self._by_kid.setdefault(key.kid, []).append(key)
        self.generation = hashlib.sha256("".join(sorted(key.print for key in self.keys)).encode()).digest()

    def named(self, kid: str) -> list[Key]:
        """The keys of that kid, then those that have none."""
        return [*self._by_kid.get(kid, ()), *self._unnamed]

    def has_named(self, kid: str) -> bool:
        """Whether a key of that kid is there."""
        return kid in self._by_kid

    @classmethod
    def from_jwks(
        cls, document: bytes | Mapping[str, Any], *, algorithms: Iterable[str] | None = None, remote: bool = False
    ) -> KeySet:
        """The usable keys of a JWK set; keys for encryption, of unknown kinds and weak ones are left out (RFC 7517 §5).

        Raises ``ConfigError`` when the document is no JWK set, holds more than ``MAX_KEYS`` or not one usable key.
        """
        try:
            value = strict_json.loads_object(document) if isinstance(document, bytes) else document
        except ValueError as error:
            raise ConfigError(f"the key set is not JSON: {error}") from None
        listed = value.get("keys")
        if not isinstance(listed, list) or not all(isinstance(jwk, dict) for jwk in listed):
            raise ConfigError("a JWK set is an object with a list of keys (RFC 7517 §5)")
        if len(listed) > MAX_KEYS:
            raise ConfigError(f"a key set of {len(listed)} keys is over the limit of {MAX_KEYS}")
        keys, problems = [], []
        for jwk in listed:
            try:
                keys.append(Key.from_jwk(jwk, algorithms=algorithms, remote=remote))
            except ConfigError as error:
                problems.append(str(error))
        if not keys:
            raise ConfigError("the key set has no usable key" + (f": {problems[0]}" if problems else ""))
        return cls(keys)


def _check_use(jwk: Mapping[str, Any]) -> None:
    if jwk.get("use", "sig") != "sig":
        raise ConfigError("a JWK whose use is not sig cannot verify signatures")
    operations = jwk.get("key_ops")
    if operations is not None and not (
        isinstance(operations, list) and {"verify", "sign"} & {str(o) for o in operations}
    ):
        raise ConfigError("a JWK whose key_ops lack verify cannot verify signatures")


def _member(jwk: Mapping[str, Any], name: str) -> str:
    value = jwk.get(name)
    if not isinstance(value, str):
        raise ConfigError(f"a JWK lacks its member {name!r}")
    if name not in ("kty", "crv"):
        try:
            base64url.decode(value)
        except ValueError as error:
            raise ConfigError(f"a JWK's member {name!r} is {error}") from None
    return value


def _fitting(kind: str, members: Mapping[str, str]) -> frozenset[str]:
    """The algorithms for which the key is of the right kind and strong enough."""
    if kind == "RSA":
        modulus = int.from_bytes(base64url.decode(members["n"]), "big")
        exponent = int.from_bytes(base64url.decode(members["e"]), "big")
        if not _MIN_RSA_BITS <= modulus.bit_length() <= _MAX_RSA_BITS:
            raise ConfigError(
                f"an RSA key of {modulus.bit_length()} bits is refused: {_MIN_RSA_BITS} at least (RFC 7518 §3.3)"
            )
        if exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > 64 or modulus % 2 == 0:
            raise ConfigError("an RSA key with that exponent or modulus is refused")
        return _RSA
    if kind == "oct":
        length = len(base64url.decode(members["k"]))
        fitting = frozenset(name for name, least in _HMAC.items() if length >= least)
        if not fitting:
            raise ConfigError(f"a shared secret of {length} bytes is refused: 32 at least (RFC 7518 §3.2)")
        return fitting
    found = _CURVES.get((kind, members["crv"]))
    if found is None:
        raise ConfigError(f"a JWK on the curve {members['crv']!r} cannot verify signatures")
    return found


def _declared(algorithm: Any, members: Mapping[str, str]) -> frozenset[str]:
    if algorithm == "EdDSA" or (algorithm in _ED_CURVES and algorithm == members.get("crv")):
        return frozenset({"EdDSA", *_ED_CURVES})  # one algorithm under its old and its new name (RFC 9864)
    return frozenset({algorithm} if isinstance(algorithm, str) else ())


class _Jose:
    """The parts of joserfc that are used, looked up once."""

    __slots__ = ("ECKey", "OKPKey", "RSAKey", "algorithms", "import_key")

    def __init__(self) -> None:
        from joserfc import jwk, jws

        self.import_key = jwk.import_key
        self.algorithms: dict[str, Any] = jws.JWSRegistry.algorithms
        self.RSAKey, self.ECKey, self.OKPKey = jwk.RSAKey, jwk.ECKey, jwk.OKPKey


_jose: _Jose | None = None


def _joserfc() -> _Jose:
    global _jose
    if _jose is None:
        try:
            _jose = _Jose()
        except ImportError:
            raise MissingExtra("checking JSON Web Tokens", "jwt") from None
    return _jose


def _import(members: dict[str, str]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _joserfc().import_key(dict(members))
    except MissingExtra:
        raise
    except Exception as error:  # a point off its curve, a number out of range: many types
        raise ConfigError(f"a JWK is not a valid key: {error}") from None
