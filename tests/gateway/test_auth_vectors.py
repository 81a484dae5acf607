"""Tokens that others have made: the examples of the RFCs are believed, and every way in which Project Wycheproof spoils a token is refused.

``BLOCKS_WYCHEPROOF`` may name a copy of Wycheproof's ``json_web_signature_test.json``, which is then run whole.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, RSAKey

from blocks.core.errors import ConfigError
from blocks.gateway.auth import base64url
from blocks.gateway.auth.jws import InvalidToken, UnknownKey, verify_compact
from blocks.gateway.auth.keys import KeySet

JOE = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
FRODO = base64url.encode(
    "It’s a dangerous business, Frodo, going out your door. You step onto the road, and if you don't keep your feet, "
    "there’s no knowing where you might be swept off to.".encode()
)
BILBO = "bilbo.baggins@hobbiton.example"
RSA_7520 = {
    "kty": "RSA", "kid": BILBO, "use": "sig", "e": "AQAB",
    "n": "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lb"
    "zcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg"
    "_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw",
}  # fmt: skip
RSA_7520_D = (  # the private exponent, as the RFC prints it
    "bWUC9B-EFRIo8kpGfh0ZuyGPvMNKvYWNtB_ikiH9k20eT-O1q_I78eiZkpXxXQ0UTEs2LsNRS-8uJbvQ-A1irkwMSMkK1J3XTGgdrhCku9gRldY7sNA_AKZGh-Q661_42rINLRCe"
    "8W-nZ34ui_qOfkLnK9QWDDqpaIsA-bMwWWSDFu2MUBYwkHTMEzLYGqOe04noqeq1hExBTHBOBdkMXiuFhUq1BU6l-DqEiWxqg82sXt2h-LMnT3046AOYJoRioz75tSUQfGCshWTB"
    "nP5uDjd18kKhyv07lhfSJdrPdM5Plyl21hsFf4L_mHCuoFau7gdsPfHPxxjVOcOpBrQzwQ"
)
VECTORS: dict[str, tuple[dict[str, Any], str]] = {
    "RFC 7515 A.1, HS256": (
        {"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"},
        f"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    ),
    "RFC 7515 A.3, ES256": (
        {"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
        f"eyJhbGciOiJFUzI1NiJ9.{JOE}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    ),
    "RFC 8037 A.4, Ed25519": (
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    ),
    "RFC 7520 4.1, RS256": (
        RSA_7520,
        f"eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{FRODO}."
        "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3"
        "lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12"
        "podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg",
    ),
    "RFC 7520 4.2, PS384": (
        RSA_7520,
        f"eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{FRODO}."
        "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-"
        "UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_"
        "jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw",
    ),
    "RFC 7520 4.3, ES512": (
        {
            "kty": "EC", "kid": BILBO, "use": "sig", "crv": "P-521",
            "x": "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
            "y": "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1",
        },
        f"eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{FRODO}."
        "AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnAMDxXPn7XrT0lw-kvAD890jl8"
        "e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2",
    ),
    "RFC 7520 4.4, HS256": (
        {"kty": "oct", "kid": "018c0ae5-4d9b-471b-bfd6-eef314bc7037", "use": "sig", "alg": "HS256",
         "k": "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg"},
        f"eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9.{FRODO}.s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0",
    ),
}  # fmt: skip
P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # the order of the curve's group


def believed(jwk: dict[str, Any], text: str) -> bool:
    try:
        verify_compact(text, KeySet.from_jwks({"keys": [jwk]}))
    except (InvalidToken, UnknownKey):
        return False
    return True


def spoilt(jwk: dict[str, Any], text: str) -> Iterator[tuple[str, str]]:
    """A good token in all the ways in which a token can be spoilt without its key."""
    head, body, signature = text.split(".")
    header = json.loads(base64url.decode(head))

    def headed(**change: Any) -> str:
        return base64url.encode(json.dumps({**header, **change}).encode())

    first = "A" if signature[0] != "A" else "B"
    yield "modified signature", f"{head}.{body}.{first}{signature[1:]}"
    yield "modified payload", f"{head}.{'X' if body[0] != 'X' else 'Y'}{body[1:]}.{signature}"
    yield "modified header", f"{headed(x=1)}.{body}.{signature}"
    yield "missing signature", f"{head}.{body}."
    yield "missing signature and separator", f"{head}.{body}"
    yield "missing payload", f"{head}..{signature}"
    yield "missing payload and separator", f"{head}.{signature}"
    yield "missing header", f".{body}.{signature}"
    yield "missing header and separator", f"{body}.{signature}"
    yield "missing header and signature", f".{body}."
    yield "payload alone", body
    yield "empty", ""
    yield "extra empty part", f"{text}."
    yield "extra part", f"{text}.foo"
    for none in ("none", "None", "NONE", "nOnE"):
        yield f"alg {none}", f"{headed(alg=none)}.{body}."
        yield f"alg {none}, signed", f"{headed(alg=none)}.{body}.{signature}"
    told = {"payload": body, "signatures": [{"protected": head, "header": {"x": "y"}, "signature": signature}]}
    yield "JSON serialization", json.dumps(told)
    yield "flattened JSON serialization", json.dumps({"payload": body, "protected": head, "signature": signature})
    yield "embedded key", f"{headed(jwk=jwk)}.{body}.{signature}"
    yield "key at a URL", f"{headed(jku='https://evil.example/')}.{body}.{signature}"
    yield "unencoded payload (RFC 7797)", f"{headed(b64=False, crit=['b64'])}.{body}.{signature}"
    yield "padded signature", f"{text}="
    yield "padded header", f"{head}=.{body}.{signature}"
    for place, name in ((0, "header"), (1, "payload"), (2, "signature")):
        parts = [head, body, signature]
        for inserted in (" ", "?", "####", "\n", "%20", "+", "/"):
            for spot in (0, len(parts[place]) // 2, len(parts[place])):
                changed = [*parts]
                changed[place] = parts[place][:spot] + inserted + parts[place][spot:]
                yield f"{inserted!r} in the {name} at {spot}", ".".join(changed)
    yield "a byte more", f"{head}.{body}.{base64url.encode(base64url.decode(signature) + bytes(1))}"
    yield "a byte before", f"{head}.{body}.{base64url.encode(bytes(1) + base64url.decode(signature))}"
    yield "a byte less", f"{head}.{body}.{base64url.encode(base64url.decode(signature)[:-1])}"
    yield "zeros", f"{head}.{body}.{base64url.encode(bytes(len(base64url.decode(signature))))}"
    for alg in (
        "HS256",
        "HS384",
        "HS512",
        "RS256",
        "PS256",
        "PS384",
        "ES256",
        "ES384",
        "ES512",
        "EdDSA",
        "RS1",
        "dir",
        "HS256 ",
    ):
        if alg != header["alg"]:
            yield f"alg {alg}", f"{headed(alg=alg)}.{body}.{signature}"


@pytest.mark.parametrize("name", VECTORS)
def test_the_rfcs_examples_are_believed_and_no_spoilt_one_is(name: str) -> None:
    jwk, text = VECTORS[name]
    assert verify_compact(text, KeySet.from_jwks({"keys": [jwk]})) == base64url.decode(text.split(".")[1])
    assert [what for what, bad in spoilt(jwk, text) if believed(jwk, bad)] == []


def test_an_example_is_not_believed_with_anothers_key() -> None:
    for name, (_, text) in VECTORS.items():
        for other, (jwk, _) in VECTORS.items():
            if other != name and not {other, name} <= {"RFC 7520 4.1, RS256", "RFC 7520 4.2, PS384"}:
                assert not believed(jwk, text)


def test_a_public_key_in_any_encoding_is_no_shared_secret() -> None:
    for jwk, key in ((RSA_7520, RSAKey.import_key(RSA_7520)), (VECTORS["RFC 7515 A.3, ES256"][0], None)):
        found: Any = key or ECKey.import_key(jwk)
        secrets = [found.as_pem(private=False), found.as_der(private=False), json.dumps(jwk).encode()]
        secrets += [base64url.decode(jwk[part]) for part in ("n", "e", "x", "y") if part in jwk] + [b"", b"\0"]
        for secret in secrets:
            for alg, made in (("HS256", hashlib.sha256), ("HS384", hashlib.sha384), ("HS512", hashlib.sha512)):
                head = base64url.encode(
                    json.dumps({"alg": alg, **({"kid": jwk["kid"]} if "kid" in jwk else {})}).encode()
                )
                signature = hmac.digest(secret, f"{head}.{JOE}".encode(), made)
                assert not believed(jwk, f"{head}.{JOE}.{base64url.encode(signature)}")


def test_edge_values_of_ecdsa_signatures_are_refused() -> None:
    jwk, text = VECTORS["RFC 7515 A.3, ES256"]
    head, body, good = text.split(".")
    r, s = (int.from_bytes(base64url.decode(good)[half], "big") for half in (slice(0, 32), slice(32, 64)))
    edges = (0, 1, P256 - 1, P256, 2**256 - 1)
    pairs = [(a, b) for a in edges for b in edges] + [(r, 0), (0, s), (P256 - r, s), (s, r)]
    for a, b in pairs:
        signature = a.to_bytes(32, "big") + b.to_bytes(32, "big")
        assert not believed(jwk, f"{head}.{body}.{base64url.encode(signature)}")
    wide = [part.to_bytes(33, "big") for part in (r, s)], [part.to_bytes(32, "big") for part in (r, s)]
    der = b"\x30\x46" + b"".join(b"\x02\x21" + part for part in wide[0])
    for signature in (b"".join(wide[0]), b"".join(wide[1]) + bytes(64), der, bytes(500)):
        assert not believed(jwk, f"{head}.{body}.{base64url.encode(signature)}")


def test_other_paddings_of_pkcs_1_are_refused() -> None:
    """Bleichenbacher's forgeries need a lax reading of the padding; each of these was signed with the right key."""
    n, d = (int.from_bytes(base64url.decode(text), "big") for text in (RSA_7520["n"], RSA_7520_D))
    head = base64url.encode(b'{"alg":"RS256"}')
    digest = hashlib.sha256(f"{head}.{JOE}".encode()).digest()
    info = bytes.fromhex("3031300d060960864801650304020105000420")

    def padded(encoded: bytes, *, kind: bytes = b"\0\1", fill: bytes = b"\xff", end: bytes = b"\0") -> bytes:
        return kind + fill * (256 - len(kind) - len(end) - len(encoded)) + end + encoded

    def signed(block: bytes) -> str:
        return f"{head}.{JOE}.{base64url.encode(pow(int.from_bytes(block, 'big'), d, n).to_bytes(256, 'big'))}"

    jwk = RSA_7520
    assert believed(jwk, signed(padded(info + digest))), "the construction itself is right"
    short = b"\0\1" + b"\xff" * 8 + b"\0" + info + digest
    for bad in (
        padded(digest), padded(info + digest, kind=b"\0\2"), padded(info + digest, fill=b"\xfe"), padded(info + digest, fill=b"\0"),
        padded(info + digest, end=b"\xff"), padded(info + digest, end=b"\0\0"), short + bytes(256 - len(short)), padded(info + digest + b"\0"),
        padded(bytes.fromhex("302f300b0609608648016503040201") + b"\x04\x20" + digest),  # without the NULL of the algorithm
        padded(bytes.fromhex("3031300d060960864801650304020305000420") + digest),  # says SHA-512
        padded(bytes.fromhex("3021300906052b0e03021a05000414") + digest[:20]),  # SHA-1
        bytes(256), b"\0" * 255 + b"\1",
    ):  # fmt: skip
        assert not believed(jwk, signed(bad))


@pytest.mark.integration
def test_wycheproofs_own_file() -> None:
    path = os.environ.get("BLOCKS_WYCHEPROOF", "")
    if not path:
        pytest.skip("BLOCKS_WYCHEPROOF names no json_web_signature_test.json")
    groups = json.loads(Path(path).read_text())["testGroups"]
    valid = {test["jws"] for group in groups for test in group["tests"] if test["result"] == "valid"}
    wrong: list[tuple[int, str]] = []
    for group in groups:
        jwk = group.get("public") or group["private"]
        for test in group["tests"]:
            said = (
                test["result"] == "valid" and "InvalidCharacter" not in test["comment"]
            )  # two with a "?" are called valid there
            if test["result"] != "valid" and test["jws"] in valid:
                continue  # the same text is valid elsewhere in the file
            try:
                found = believed(jwk, test["jws"])
            except ConfigError:
                found = False
            if found != said:
                wrong.append((test["tcId"], test["comment"]))
    assert wrong == []
