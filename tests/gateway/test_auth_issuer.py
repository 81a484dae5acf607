from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws as jose
from joserfc.jwk import ECKey

from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError
from blocks.gateway.auth import Authenticate, hash_key, hash_password, make, sign
from blocks.gateway.auth.fetch import FetchError, checked_url, fetch, is_inner, origin
from blocks.gateway.auth.issuer import discovered, from_url
from blocks.gateway.consumer import Consumer
from blocks.gateway.site import Site
from blocks.http.body import Stream
from blocks.http.handler import running
from blocks.http.message import Peer, Request, Response
from blocks.http.server import Server
from gateway.gateway_kit import context, passes, until

OLD, NEW = (ECKey.generate_key("P-256", {"kid": kid}) for kid in ("old", "new"))
CLOCK = FakeClock()


def jwks(*keys: ECKey) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


def token(key: ECKey = OLD, **claims: Any) -> str:
    whole = {"exp": CLOCK.wall() + 60, "sub": "alice", **claims}
    return str(jose.serialize_compact({"alg": "ES256", "kid": key.kid}, json.dumps(whole), key))


class Issuer:
    """An issuer over real sockets, which answers as a test says."""

    def __init__(self) -> None:
        self.pages: dict[str, Any] = {"/jwks": jwks(OLD)}
        self.asked: list[Request] = []
        self.url = ""

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        await request.read()
        page = self.pages.get(request.path, Response(404))
        if callable(page):
            page = await page()
        return page if isinstance(page, Response) else Response(200, {"content-type": "application/json"}, page)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    made = Issuer()
    async with Server(made, "127.0.0.1:0", drain=0.1) as server:
        made.url = server.url
        yield made


async def take(url: str, **settings: Any) -> bytes:
    return await fetch(url, trusted=frozenset({origin(url)}), **settings)


async def test_a_document_is_fetched_and_nothing_is_followed(issuer: Issuer) -> None:
    assert await take(issuer.url + "/jwks") == jwks(OLD)
    assert issuer.asked[0].headers["accept-encoding"] == "identity"
    issuer.pages["/moved"] = Response(302, {"location": "/jwks"})
    issuer.pages["/inside"] = Response(301, {"location": "http://169.254.169.254/latest/meta-data"})
    issuer.pages["/coded"] = Response(200, {"content-encoding": "gzip"}, b"x")
    for path in ("/moved", "/inside", "/coded", "/nothing"):
        with pytest.raises(FetchError):
            await take(issuer.url + path)
    assert len(issuer.asked) == 5


async def test_size_and_time_have_ends(issuer: Issuer) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 10_000
            await asyncio.sleep(0)

    async def huge() -> Response:
        return Response(200, {}, Stream.of(endless()))

    async def slow() -> Response:
        await asyncio.sleep(30)
        return Response()

    issuer.pages.update({"/huge": huge, "/slow": slow, "/large": b"x" * 1001})
    for path, settings in (("/huge", {"limit": 100_000}), ("/slow", {"timeout": 0.05}), ("/large", {"limit": 1000})):
        with pytest.raises(FetchError):
            await take(issuer.url + path, **settings)


@pytest.mark.parametrize("url", [
    "http://127.0.0.1:9/jwks", "https://127.0.0.1:9/", "https://[::1]:9/", "https://localhost:9/", "https://10.0.0.1/",
    "https://169.254.169.254/",
    "https://[::ffff:10.0.0.1]/", "http://keys.example/", "file:///etc/passwd", "https://user@keys.example/", "gopher://x/",
])  # fmt: skip
async def test_a_url_out_of_a_document_never_leads_inside(url: str) -> None:
    with pytest.raises(FetchError):
        await fetch(url, trusted=frozenset({("https", "issuer.example", 443)}))


def test_inner_addresses() -> None:
    for inner in ("127.0.0.1", "10.1.1.1", "192.168.0.1", "169.254.1.1", "::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1",
    "64:ff9b::a00:1", "2002:a00:1::",
                  "0.0.0.0", "224.0.0.1", "100.64.0.1"):  # fmt: skip
        assert is_inner(inner), inner
    for outer in ("8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"):
        assert not is_inner(outer), outer
    for bad in ("http://keys.example/", "https://", "ftp://x", "https://a@b/", "https://x:0/", "https://[bad"):
        with pytest.raises(ConfigError):
            checked_url(bad)
    assert checked_url("http://keys.example/", insecure=True)


async def test_discovery_finds_the_keys_and_checks_whose_they_are(issuer: Issuer) -> None:
    place = "/.well-known/openid-configuration"
    document = {"issuer": issuer.url, "jwks_uri": issuer.url + "/jwks"}
    issuer.pages[place] = json.dumps(document).encode()
    assert len((await discovered(issuer.url)()).keys) == 1
    for change in (
        {"issuer": issuer.url + "/"},
        {"jwks_uri": "http://127.0.0.1:1/jwks"},
        {"jwks_uri": "https://192.168.0.1/"},
        {"jwks_uri": 7},
        {"issuer": None},
    ):
        issuer.pages[place] = json.dumps({**document, **change}).encode()
        with pytest.raises(FetchError):
            await discovered(issuer.url)()
    issuer.pages[place] = json.dumps(document).encode()
    scheme: Any = make({"type": "jwt", "discovery": True, "issuer": issuer.url}, site())
    async with running(scheme):
        assert (await status(scheme, bearer(token(iss=issuer.url))))[0] == 0
    issuer.pages[place] = b"<html>"
    with pytest.raises(ValueError):
        await discovered(issuer.url)()
    issuer.pages["/jwks"] = json.dumps({"keys": [{"kty": "oct", "k": "A" * 64}]}).encode()
    with pytest.raises(ConfigError):
        await from_url(issuer.url + "/jwks")()


def site(path: Path | None = None, **consumers: Any) -> Site:
    return Site(clock=CLOCK, base=path, tables={"consumers": consumers})


async def status(scheme: Any, request: Request, **more: Any) -> tuple[int, Consumer | None]:
    given = context(**more)
    answer = await passes(Authenticate((scheme,)), request, given)
    return (answer.status if answer else 0), given.consumer


def bearer(text: str) -> Request:
    return Request("GET", "/", {"authorization": f"Bearer {text}"})


async def test_a_table_makes_an_authenticator_that_follows_its_issuers_keys(issuer: Issuer) -> None:
    table = {
        "type": "jwt",
        "jwks": issuer.url + "/jwks",
        "audience": "api",
        "issuer": "me",
        "cooldown": "1s",
        "lend": True,
    }
    place = site(alice={"tier": "gold", "groups": ["staff"], "priority": 3})
    scheme: Any = make(table, place)
    async with running(scheme):
        code, consumer = await status(scheme, bearer(token(aud="api", iss="me", groups=["x"])))
        assert code == 0
        assert consumer is not None
        assert (consumer.tier, consumer.groups, consumer.priority) == ("gold", {"staff", "x"}, 3)
        plain: Any = make({**table, "lend": False}, place)
        _, stranger_of_that_name = await status(plain, bearer(token(aud="api", iss="me")))
        assert stranger_of_that_name is not None
        assert (stranger_of_that_name.tier, stranger_of_that_name.groups) == ("", frozenset())
        issuer.pages["/jwks"] = jwks(OLD, NEW)
        CLOCK.advance(2)
        assert (await status(scheme, bearer(token(NEW, aud="api", iss="me"))))[0] == 0
        issuer.pages["/jwks"] = Response(500)
        CLOCK.advance(2)
        stranger = ECKey.generate_key("P-256", {"kid": "stranger"})
        assert (await status(scheme, bearer(token(stranger, aud="api", iss="me"))))[0] == 401
        assert (await status(scheme, bearer(token(NEW, aud="api", iss="me", jti="2"))))[0] == 0
        again: Any = make(table, place)
        assert again.source is scheme.source
        assert again._tokens is scheme._tokens


async def test_an_issuer_that_is_down_at_the_start_is_503_until_it_is_there(issuer: Issuer) -> None:
    issuer.pages["/jwks"] = Response(503)
    scheme: Any = make({"type": "jwt", "jwks": issuer.url + "/jwks"}, site())
    async with running(scheme):
        assert (await status(scheme, bearer(token())))[0] == 503
        issuer.pages["/jwks"] = jwks(OLD)
        await until(lambda: scheme.source.loaded, every=0.05)
        assert (await status(scheme, bearer(token())))[0] == 0


async def test_keys_from_files_secrets_and_tables(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_bytes(jwks(OLD))
    (tmp_path / "new.pem").write_bytes(NEW.as_pem(private=False))
    place = site(tmp_path)
    for table in ({"jwks": "jwks.json"}, {"keys": [OLD.as_dict(private=False)]}, {"pem": ["new.pem"]}):
        scheme: Any = make({"type": "jwt", **table}, place)
        key = NEW if "pem" in table else OLD
        assert (await status(scheme, bearer(token(key))))[0] == 0
    (tmp_path / "jwks.json").write_bytes(jwks(NEW))
    follows: Any = make({"type": "jwt", "jwks": "jwks.json"}, site(tmp_path))
    assert (await status(follows, bearer(token(NEW))))[0] == 0


@pytest.mark.parametrize("table", [
    {}, {"type": "jtw"}, {"type": "jwt"}, {"type": "jwt", "secret": "s" * 32, "issuer": ""},
    {"type": "jwt", "secret": "s" * 32, "audience": []}, {"type": "jwt", "secret": "s" * 32, "issuer": ["https://id.example", ""]}, {"type": "jwt", "secret": "short"}, {"type": "jwt", "secret": "s" * 32, "pem": "x"},
    {"type": "jwt", "discovery": True},
    {"type": "jwt", "jwks": "http://keys.example/jwks"}, {"type": "jwt", "jwks": "missing.json"}, {"type": "jwt", "secret": "s" * 32,
    "leeway": "1h"},
    {"type": "jwt", "secret": "s" * 32, "header": "a", "cookie": "b"}, {"type": "jwt", "jwks": "https://keys.example/", "cooldown": 0},
    {"type": "jwt", "secret": "s" * 32, "unknown": 1}, {"type": "introspection", "endpoint": "https://x.example/"},
    {"type": "introspection", "endpoint": "http://x.example/", "client_id": "a", "client_secret": "b"}, {"type": "basic",
    "users": {"a": "clear"}},
    {"type": "api-key", "keys": {"clear": "alice"}}, {"type": "mtls", "names": {"alice": "alice"}},
])  # fmt: skip
def test_tables_that_cannot_be(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        make(table, site())


async def test_consumers_carry_keys_passwords_secrets_and_certificates() -> None:
    place = site(
        alice={
            "groups": ["staff"], "scopes": ["read"], "keys": [hash_key("k1"), {"hash": hash_key("k2"), "id": "two",
            "until": "2023-01-01T00:00:00Z"}],
            "password": hash_password("pw"), "secrets": {"s1": "x" * 32}, "certificates": ["CN:alice"],
        },
    )  # fmt: skip
    keys: Any = make(
        {"type": "api-key", "header": "authorization", "scheme": "Key", "keys": {hash_key("k3"): "robot"}}, place
    )
    code, consumer = await status(keys, Request("GET", "/", {"authorization": "Key k1"}))
    assert code == 0
    assert consumer is not None
    assert (consumer.name, consumer.scopes, consumer.method) == ("alice", {"read"}, "api-key")
    assert (await status(keys, Request("GET", "/", {"authorization": "Key k2"})))[0] == 401
    assert (await status(keys, Request("GET", "/", {"authorization": "key k3"})))[0] == 0
    basic: Any = make({"type": "basic"}, place)
    assert (await status(basic, Request("GET", "/", {"authorization": "Basic YWxpY2U6cHc="})))[0] == 0
    signed = Request("GET", "/", {"host": "h"})
    sign(signed, "s1", b"x" * 32, int(CLOCK.wall()))
    signature: Any = make({"type": "signature", "realm": "shop"}, place)
    assert signature.challenge == 'Signature realm="shop"'
    assert (await status(signature, signed))[0] == 0
    certified = Request(peer=Peer(certificate={"subject": ((("commonName", "alice"),),)}))
    assert (await status(make({"type": "mtls"}, place), certified))[0] == 0
    shared = site(a={"keys": [hash_key("k")]}, b={"keys": [hash_key("k")]})
    with pytest.raises(ConfigError):
        make({"type": "api-key"}, shared)
    with pytest.raises(ConfigError):
        make({"type": "api-key"}, site(a={"keys": [{"hash": hash_key("k"), "until": "2023-01-01T00:00:00"}]}))


async def test_an_introspection_endpoint_is_asked_with_the_clients_name(issuer: Issuer) -> None:
    issuer.pages["/introspect"] = json.dumps({"active": True, "sub": "bob", "scope": "a b"}).encode()
    scheme: Any = make(
        {"type": "introspection", "endpoint": issuer.url + "/introspect", "client_id": "gw", "client_secret": "s:x"},
        site(),
    )
    code, consumer = await status(scheme, bearer("opaque"))
    assert code == 0
    assert consumer is not None
    assert (consumer.name, consumer.scopes) == ("bob", {"a", "b"})
    asked = issuer.asked[-1]
    assert asked.method == "POST"
    assert asked.body == b"token=opaque&token_type_hint=access_token"
    assert asked.headers["authorization"] == "Basic Z3c6cyUzQXg="
