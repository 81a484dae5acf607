from __future__ import annotations

import base64
import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws as jose
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from blocks.core.errors import ConfigError
from blocks.gateway.auth import base64url, strict_json
from blocks.gateway.auth.claims import Rules, check_claims, check_type, lookup, words
from blocks.gateway.auth.jws import InvalidToken, UnknownKey, parse, verify_compact
from blocks.gateway.auth.keys import Key, KeySet

NOW = 1_700_000_000.0
EVERY = [
    "HS256",
    "HS384",
    "HS512",
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "Ed25519",
    "ES256K",
]
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
KEYS: dict[str, Any] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), RSA),
    **{name: OctKey.generate_key(size * 8, {"kid": name}) for name, size in (("HS256", 32), ("HS384", 48), ("HS512", 64))},
    **{name: ECKey.generate_key(curve, {"kid": name}) for name, curve in
       (("ES256", "P-256"), ("ES384", "P-384"), ("ES512", "P-521"), ("ES256K", "secp256k1"))},
    "Ed25519": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
}  # fmt: skip


def token(alg: str = "ES256", payload: bytes = b"foo", **header: Any) -> str:
    return str(jose.serialize_compact({"alg": alg, **header}, payload, KEYS[alg], algorithms=EVERY))


def keyset(*algorithms: str) -> KeySet:
    return KeySet.from_jwks({"keys": [KEYS[name].as_dict(private=name.startswith("HS")) for name in algorithms]})


def raw(header: bytes | dict[str, Any], payload: bytes = b"foo", signature: bytes = b"x" * 64) -> str:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return ".".join(base64url.encode(part) for part in (head, payload, signature))


@pytest.mark.parametrize("alg", EVERY)
def test_every_algorithm_is_accepted_with_its_key_and_a_changed_bit_is_not(alg: str) -> None:
    keys, text = keyset(alg), token(alg)
    assert verify_compact(text, keys) == b"foo"
    head, body, signature = text.split(".")
    broken = bytearray(base64url.decode(signature))
    broken[len(broken) // 2] ^= 1
    for bad in (f"{head}.{body}.{base64url.encode(bytes(broken))}", f"{head}.{base64url.encode(b'fop')}.{signature}"):
        with pytest.raises(InvalidToken) as caught:
            verify_compact(bad, keys)
        assert caught.value.reason == "signature"


def test_eddsa_goes_by_its_old_name_too() -> None:
    key = KEYS["Ed25519"]
    head = base64url.encode(b'{"alg":"EdDSA","kid":"ed"}') + "." + base64url.encode(b"foo")
    signature = key.private_key.sign(head.encode())
    assert verify_compact(f"{head}.{base64url.encode(signature)}", keyset("Ed25519")) == b"foo"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "malformed"), ("a.b", "malformed"), ("a.b.c.d", "malformed"), ("..", "malformed"),
        (raw({"alg": "none"}, signature=b"x"), "algorithm"), (raw({"alg": "NoNe"}), "algorithm"), (raw({}), "algorithm"),
        (raw({"alg": ["ES256"]}), "algorithm"), (raw({"alg": "ES256"}, signature=b""), "unsigned"),
        (raw(b'{"alg":"ES256","alg":"HS256"}'), "malformed"), (raw(b'["alg"]'), "malformed"), (raw(b'{"alg":"ES256"'), "malformed"),
        (raw(b'{"alg":"ES256","x":NaN}'), "malformed"), (raw(b"[" * 3000), "malformed"), (raw(b'\xff{"alg":"ES256"}'), "malformed"),
        (raw({"alg": "ES256", "crit": ["exp"], "exp": 1}), "crit"), (raw({"alg": "ES256", "crit": []}), "crit"),
        (raw({"alg": "ES256", "b64": False}), "crit"),
        (raw({"alg": "ES256", "jwk": {"kty": "oct", "k": ""}}), "embedded-key"), (raw({"alg": "ES256",
        "jku": "http://169.254.169.254/"}), "embedded-key"),
        (raw({"alg": "ES256", "x5u": "file:///etc/passwd"}), "embedded-key"), (raw({"alg": "ES256", "x5c": []}), "embedded-key"),
        (raw({"alg": "ES256", "kid": 7}), "malformed"), (raw({"alg": "dir", "enc": "A128GCM"}), "malformed"),
        ("x" * 9000, "too-large"),
    ],
)  # fmt: skip
def test_what_is_no_token_is_refused_before_any_cryptography(text: str, reason: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        parse(text)
    assert caught.value.reason == reason


@pytest.mark.parametrize("change", [lambda t: t + "=", lambda t: t.replace(".", "=.", 1), lambda t: t.replace(".", " .", 1),
lambda t: t + "\n",
                                    lambda t: t.replace(".", "?.", 1), lambda t: "+" + t[1:], lambda t: t + "."])  # fmt: skip
def test_a_second_spelling_of_a_good_token_is_refused(change: Any) -> None:
    with pytest.raises(InvalidToken):
        verify_compact(change(token()), keyset("ES256"))


def test_left_over_bits_make_a_second_spelling_too() -> None:
    text = token()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]
    with pytest.raises(InvalidToken, match="canonical"):
        verify_compact(twin, keyset("ES256"))


def test_a_public_key_is_not_a_shared_secret_and_one_algorithm_not_another() -> None:
    public = RSA.as_pem(private=False)
    forged = str(
        jose.serialize_compact(
            {"alg": "HS256", "kid": "rsa"}, b"foo", OctKey.import_key(b"k" * 64), algorithms=["HS256"]
        )
    )
    with pytest.raises(InvalidToken) as caught:
        verify_compact(forged, keyset("RS256"))
    assert caught.value.reason == "algorithm"
    with pytest.raises(ConfigError, match="PEM"):
        Key.from_secret(public)
    declared = KeySet.from_jwks({"keys": [{**RSA.as_dict(private=False), "alg": "RS256"}]})
    with pytest.raises(InvalidToken):
        verify_compact(token("PS256"), declared)
    assert verify_compact(token("RS256"), declared) == b"foo"


@pytest.mark.parametrize(
    "kid", ["../../dev/null", "' OR 1=1 --", "http://169.254.169.254/", "\x00", "k" * 4000, "nobody"]
)
def test_a_kid_is_compared_and_nothing_else(kid: str) -> None:
    with pytest.raises(InvalidToken):
        verify_compact(token("ES256", kid=kid), keyset("ES256", "RS256"))


def test_an_unknown_kid_says_that_newer_keys_may_help() -> None:
    with pytest.raises(UnknownKey):
        verify_compact(token("ES256", kid="next-year"), keyset("ES256"))


def test_a_token_without_kid_tries_few_keys() -> None:
    assert verify_compact(token("ES256"), keyset("RS256", "ES384", "ES256")) == b"foo"
    assert (
        verify_compact(token("ES256", kid="anything"), KeySet([Key.from_pem(KEYS["ES256"].as_pem(private=False))]))
        == b"foo"
    )


@pytest.mark.parametrize("jwk", [
    {"kty": "oct", "k": base64url.encode(b"short")},
    {"kty": "oct", "k": base64url.encode(b"k" * 32), "alg": "HS512"},
    {"kty": "oct", "k": base64url.encode(b"k" * 32) + "="},
    {"kty": "RSA", "n": base64url.encode(b"\xc1" * 128), "e": "AQAB"},
    {"kty": "RSA", "n": RSA.as_dict(private=False)["n"], "e": "AQ"},
    {"kty": "EC", "crv": "P-256", "x": base64url.encode(b"\1" * 32), "y": base64url.encode(b"\2" * 32)},
    {"kty": "EC", "crv": "P-192", "x": "AQ", "y": "AQ"},
    {"kty": "OKP", "crv": "X25519", "x": base64url.encode(b"\1" * 32)},
    {**KEYS["ES256"].as_dict(private=False), "use": "enc"},
    {**KEYS["ES256"].as_dict(private=False), "key_ops": ["encrypt"]},
    {**RSA.as_dict(private=False), "alg": "RSA-OAEP"},
    {"kty": "RSA", "n": 5, "e": "AQAB"}, {"kty": ["RSA"]}, {},
])  # fmt: skip
def test_weak_and_foreign_keys_are_refused(jwk: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Key.from_jwk(jwk)
    good = KEYS["ES384"].as_dict(private=False)
    assert len(KeySet.from_jwks({"keys": [jwk, good]}).keys) == 1


def test_a_fetched_key_set_holds_no_secrets_and_has_an_end() -> None:
    secret = {"kty": "oct", "k": base64url.encode(b"k" * 64)}
    with pytest.raises(ConfigError, match="shared secrets"):
        KeySet.from_jwks({"keys": [secret]}, remote=True)
    with pytest.raises(ConfigError, match="over the limit"):
        KeySet.from_jwks({"keys": [secret] * 65})
    for bad in (b"{}", b"[]", b'{"keys":[1]}', b'{"keys":[],"keys":[]}', b"\xff", b'{"keys":[]}'):
        with pytest.raises(ConfigError):
            KeySet.from_jwks(bad)


def test_the_generation_follows_the_keys_and_not_their_order() -> None:
    assert keyset("ES256", "RS256").generation == keyset("RS256", "ES256").generation
    assert keyset("ES256").generation != keyset("ES384").generation


GOOD = {"exp": NOW + 60, "iss": "https://issuer", "aud": "api", "sub": "alice"}
RULES = Rules(issuers=frozenset({"https://issuer"}), audiences=frozenset({"api"}), leeway=5)


@pytest.mark.parametrize(("claims", "reason"), [
    ({"exp": NOW - 5}, "expired"), ({"exp": NOW - 4.9}, ""), ({"exp": str(NOW + 60)}, "claim-type"), ({"exp": True}, "claim-type"),
    ({"exp": None}, "claim-type"), ({"exp": 1e300}, "claim-type"), ({"exp": 10**400}, "claim-type"), ({"exp": -1}, "claim-type"),
    ({"exp": [1]}, "claim-type"),
    ({"nbf": NOW + 5.1}, "not-yet"), ({"nbf": NOW + 5}, ""), ({"nbf": "1"}, "claim-type"),
    ({"iat": NOW + 6}, "not-yet"), ({"iat": NOW - 1e6}, ""), ({"iat": {}}, "claim-type"),
    ({"iss": "https://issuer/"}, "issuer"), ({"iss": "HTTPS://issuer"}, "issuer"), ({"iss": ["https://issuer"]}, "claim-type"),
    ({"aud": "API"}, "audience"), ({"aud": ["x", "api"]}, ""), ({"aud": []}, "audience"), ({"aud": ["api", 1]}, "claim-type"),
    ({"aud": {"api": 1}}, "claim-type"),
    ({"sub": 7}, "claim-type"), ({"jti": 7}, "claim-type"),
])  # fmt: skip
def test_claims(claims: dict[str, Any], reason: str) -> None:
    whole = {**GOOD, **claims}
    if not reason:
        assert check_claims(whole, RULES, NOW) == whole["exp"]
        return
    with pytest.raises(InvalidToken) as caught:
        check_claims(whole, RULES, NOW)
    assert caught.value.reason == reason


def test_missing_claims_and_the_audience_that_nobody_configured() -> None:
    for missing, rules, reason in (
        ("exp", RULES, "claim-missing"),
        ("iss", RULES, "issuer"),
        ("aud", RULES, "audience"),
    ):
        with pytest.raises(InvalidToken) as caught:
            check_claims({name: value for name, value in GOOD.items() if name != missing}, rules, NOW)
        assert caught.value.reason == reason
    with pytest.raises(InvalidToken):
        check_claims(GOOD, Rules(), NOW)
    assert check_claims(GOOD, Rules(audiences=frozenset({"*"})), NOW)
    assert check_claims({"exp": NOW + 1}, Rules(), NOW)
    assert check_claims({}, Rules(required=()), NOW) is None


def test_a_token_of_another_type_is_refused() -> None:
    for good in ({}, {"typ": "JWT"}, {"typ": "jwt"}, {"typ": "at+jwt"}, {"typ": "application/at+jwt"}):
        check_type(good, RULES)
    for bad in ({"typ": "logout+jwt"}, {"typ": 1}, {"cty": "JWT"}):
        with pytest.raises(InvalidToken):
            check_type(bad, RULES)


def test_scopes_are_words_and_claims_have_paths() -> None:
    assert words("a b  a") == words(["a", "b", 3]) == {"a", "b"}
    assert words({"a": 1}) == words(None) == frozenset()
    claims = {"realm_access": {"roles": ["x"]}, "https://a.b/c": 1}
    assert lookup(claims, "realm_access.roles") == ["x"]
    assert lookup(claims, "https://a.b/c") == 1
    assert lookup(claims, "realm_access.roles.x") is lookup(claims, "no") is None


@given(st.binary(max_size=40))
def test_base64url_has_one_spelling(data: bytes) -> None:
    assert base64url.decode(base64url.encode(data)) == data


@given(st.text(alphabet="ABab01-_=+/ \n", max_size=8))
def test_what_decodes_is_what_encodes(text: str) -> None:
    try:
        data = base64url.decode(text)
    except ValueError:
        return
    assert base64url.encode(data) == text


@given(
    st.text(max_size=200)
    | st.builds(lambda a, b, c: f"{a}.{b}.{c}", *(st.text(alphabet="eyJhbGciOiJ0-_", max_size=30),) * 3)
)
def test_no_text_does_more_than_be_refused(text: str) -> None:
    with pytest.raises(InvalidToken):
        parse(text)


def test_strict_json() -> None:
    assert strict_json.loads(b' {"a": [1, {"b": null}]} ') == {"a": [1, {"b": None}]}
    for bad in (
        b'{"a":1,"a":2}',
        b'[{"a":1,"a":1}]',
        b"NaN",
        b"[Infinity]",
        b"1 2",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        os.urandom(3) + b"\x00",
    ):
        with pytest.raises(ValueError):
            strict_json.loads(bad)


@given(st.binary(max_size=64), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
def test_base64url_takes_the_one_spelling_and_no_other(data: bytes, last: str) -> None:
    text = base64url.encode(data)
    assert base64url.decode(text) == data
    other = text[:-1] + last
    if text and other != text:
        try:
            assert base64url.encode(base64url.decode(other)) == other
        except ValueError:
            assert base64url.encode(base64.urlsafe_b64decode(other + "=" * (-len(other) % 4))) != other
