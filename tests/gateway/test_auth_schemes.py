from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from hashlib import scrypt
from typing import Any

import pytest
from joserfc import jws as jose
from joserfc.jwk import ECKey

from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError
from blocks.core.quantities import Rate
from blocks.gateway.auth import (
    ApiKeys,
    Authenticate,
    Basic,
    Certificates,
    InCookie,
    InQuery,
    Introspection,
    Jwt,
    KeySet,
    RefreshedKeys,
    Rules,
    Signatures,
    hash_key,
    new_key,
    sign,
    step,
)
from blocks.gateway.auth.allowance import MAX_CLIENTS, Allowance, subscriber
from blocks.gateway.auth.apikeys import ApiKey, read_hash
from blocks.gateway.auth.authorization import step as authorize
from blocks.gateway.auth.fetch import FetchError
from blocks.gateway.auth.outcome import Refusal
from blocks.gateway.auth.passwords import base64url, read_password
from blocks.gateway.auth.signature_base import parse_input, parse_signature, signature_base
from blocks.gateway.consumer import Consumer
from blocks.gateway.ownership import owner_of
from blocks.gateway.records import MemoryRecords
from blocks.http.body import Stream
from blocks.http.message import Peer, Request
from gateway.gateway_kit import context, passes

CLOCK = FakeClock()
OLD, NEW = (ECKey.generate_key("P-256", {"kid": kid}) for kid in ("old", "new"))


def keys(*made: ECKey) -> KeySet:
    return KeySet.from_jwks({"keys": [key.as_dict(private=False) for key in made]})


def token(key: ECKey = OLD, clock: FakeClock = CLOCK, **claims: Any) -> str:
    whole = {"exp": clock.wall() + 60, "sub": "alice", "scope": "read write", **claims}
    return str(jose.serialize_compact({"alg": "ES256", "kid": key.kid}, json.dumps(whole), key))


def bearer(text: str) -> Request:
    return Request("GET", "/", {"authorization": f"Bearer {text}"})


def jwt(source: Any = None, **settings: Any) -> Jwt:
    return Jwt(source or keys(OLD), Rules(leeway=0), clock=settings.pop("clock", CLOCK), **settings)


async def test_a_good_token_makes_a_consumer_and_is_verified_once() -> None:
    scheme = jwt()
    text = token(groups=["staff"], tier="gold")
    for _ in range(3):
        given = context()
        assert await passes(Authenticate((scheme,)), bearer(text), given) is None
        assert given.consumer is not None
        assert (given.consumer.name, given.consumer.tier, given.consumer.groups) == ("alice", "gold", {"staff"})
        assert given.consumer.scopes == {"read", "write"}
    assert scheme.figures()["cache_hits"] == 2
    assert scheme.figures()["cache_misses"] == 1


async def test_no_token_and_a_bad_one_get_401_with_the_right_challenge() -> None:
    guard = Authenticate((jwt(realm='a"b'),))
    answer = await passes(guard, Request())
    assert answer is not None
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="a\\"b"'
    answer = await passes(guard, bearer("nonsense"))
    assert answer is not None
    assert answer.status == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert answer.headers["cache-control"] == "no-store"
    assert await passes(guard, Request("GET", "/", {"authorization": "Basic abc"})) is not None


async def test_a_bad_token_is_never_taken_for_nobody() -> None:
    open_to_all = Authenticate((jwt(),), anonymous=True)
    assert await passes(open_to_all, Request()) is None
    answer = await passes(open_to_all, bearer(token() + "x"))
    assert answer is not None
    assert answer.status == 401


async def test_a_cached_token_ends_with_its_exp_and_with_its_keys() -> None:
    clock = FakeClock()
    source = RefreshedKeys(lambda: asyncio.sleep(0, keys(NEW)), keys=keys(OLD), clock=clock)
    scheme = jwt(source, clock=clock)
    text = token(clock=clock)
    request = bearer(text)
    assert isinstance(scheme.identify(request, context(now=clock.monotonic())), Consumer)
    source.keys = keys(NEW)
    outcome: Any = scheme.identify(request, context(now=clock.monotonic()))
    assert not isinstance(outcome, Consumer)
    assert isinstance(await outcome, Refusal)
    source.keys = keys(OLD)
    assert isinstance(scheme.identify(request, context(now=clock.monotonic())), Consumer)
    clock.advance(60)
    assert isinstance(scheme.identify(request, context(now=clock.monotonic())), Refusal)
    assert isinstance(scheme.identify(bearer(text), context(now=clock.monotonic())), Refusal)


async def test_an_unknown_kid_causes_one_fetch_for_all_and_none_in_the_cooldown() -> None:
    clock, fetched, gate = FakeClock(), 0, asyncio.Event()

    async def load() -> KeySet:
        nonlocal fetched
        fetched += 1
        await gate.wait()
        return keys(OLD, NEW)

    source = RefreshedKeys(load, keys=keys(OLD), clock=clock, cooldown=30)
    guard = Authenticate((jwt(source, clock=clock),))
    waiting = [asyncio.ensure_future(passes(guard, bearer(token(NEW, clock, jti=str(n))))) for n in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*waiting) == [None] * 20
    assert fetched == 1
    stranger = ECKey.generate_key("P-256", {"kid": "stranger"})
    for _ in range(5):
        answer = await passes(guard, bearer(token(stranger, clock)))
        assert answer is not None
        assert answer.status == 401
    assert fetched == 1
    clock.advance(31)
    assert await passes(guard, bearer(token(stranger, clock))) is not None
    assert fetched == 2


async def test_the_last_good_keys_serve_while_the_issuer_is_down_and_without_any_it_is_503() -> None:
    clock, down = FakeClock(), False

    async def load() -> KeySet:
        if down:
            raise FetchError("down")
        return keys(OLD)

    async with RefreshedKeys(load, clock=clock, cooldown=0.0) as source:
        down = True
        assert await source.fetch() is False
        assert source.failures == 1
        assert await passes(Authenticate((jwt(source, clock=clock),)), bearer(token(clock=clock))) is None
    async with RefreshedKeys(load, clock=clock) as nothing:
        answer = await passes(Authenticate((jwt(nothing, clock=clock),)), bearer(token(clock=clock)))
        assert answer is not None
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"


async def test_bad_signatures_use_up_the_ration_of_one_client_only() -> None:
    scheme = jwt(client=Rate(100, 1), total=None)
    forged = token()[:-6] + "AAAAAA"
    answers = []
    for n in range(10):
        answer = await passes(Authenticate((scheme,)), bearer(forged + "A" * (4 * n)), context(client="198.51.100.1"))
        assert answer is not None
        answers.append(answer.status)
    assert answers[:5] == [401] * 5
    assert 429 in answers
    assert await passes(Authenticate((scheme,)), bearer(token()), context(client="198.51.100.2")) is None


def test_an_allowance_forgets_and_stays_small() -> None:
    ration = Allowance(Rate(10, 1), Rate(1000, 1))
    for _ in range(20):
        ration.spend("a", 0.0)
    assert ration.wait("a", 0.0) == pytest.approx(1.1)
    assert ration.wait("a", 1.1) == 0.0
    for n in range(MAX_CLIENTS + 100):
        ration.spend(str(n), 0.0)
    assert len(ration._clients) == MAX_CLIENTS
    assert ration.wait("nobody", 0.0) > 0


async def test_credentials_in_cookie_and_query_are_hidden_and_ambiguity_is_refused() -> None:
    scheme = jwt(carrier=InCookie("session", hide=True))
    request = Request("GET", "/", {"cookie": f"a=1; session={token()}; b=2"})
    assert await passes(Authenticate((scheme,)), request) is None
    assert request.headers["cookie"] == "a=1; b=2"
    assert (
        await passes(Authenticate((scheme,)), Request("GET", "/", {"cookie": f"session={token()}; session=x"}))
        is not None
    )
    keyed = ApiKeys({hash_key("k1"): "alice"}, carriers=[InQuery("key")])
    request = Request("GET", "/x?a=1&key=k1&b=2")
    assert await passes(Authenticate((keyed,)), request) is None
    assert request.target == "/x?a=1&b=2"
    assert await passes(Authenticate((keyed,)), Request("GET", "/x?key=k1&key=k2")) is not None


async def test_a_token_in_the_query_is_not_remembered_with_the_headers() -> None:
    scheme = jwt(carrier=InQuery("access_token"))
    one = Request("GET", f"/?access_token={token()}")
    assert isinstance(scheme.identify(one, context()), Consumer)
    other = Request("GET", "/")
    other.headers = one.headers
    assert scheme.identify(other, context()) is None


async def test_api_keys_rotate_and_are_hashed_at_rest() -> None:
    first, kept_first = new_key()
    second, kept_second = new_key()
    now = CLOCK.wall()
    alice = Consumer("alice")
    scheme = ApiKeys(
        [ApiKey(read_hash(kept_first), alice, until=now + 10), ApiKey(read_hash(kept_second), alice, since=now - 10)],
        clock=CLOCK,
    )
    assert first not in repr(vars(scheme))
    for key in (first, second):
        request = Request("GET", "/", {"x-api-key": key})
        given = context()
        assert await passes(Authenticate((scheme,)), request, given) is None
        assert given.consumer is alice
        assert "x-api-key" not in request.headers
    later = FakeClock(now + 11)
    scheme._clock = later
    assert await passes(Authenticate((scheme,)), Request("GET", "/", {"x-api-key": first})) is not None
    for bad in ("", "x" * 600, second[:-1], kept_second):
        assert scheme.find(bad.encode()) is None
    for wrong in ("sha256:abc", second, "md5:" + "0" * 64):
        with pytest.raises(ConfigError):
            read_hash(wrong)


async def test_any_of_several_authenticators_lets_in() -> None:
    guard = Authenticate((ApiKeys({hash_key("k"): "robot"}), jwt(keys(NEW)), jwt(keys(OLD))))
    given = context()
    assert await passes(guard, bearer(token(OLD)), given) is None
    assert given.consumer is not None
    answer = await passes(guard, Request())
    assert answer is not None
    assert answer.headers.get_all("www-authenticate") == ['ApiKey realm="gateway"', 'Bearer realm="gateway"']


def quick(password: str) -> str:
    salt = b"saltsalt"
    return f"scrypt$8192$1$1${base64url.encode(salt)}$" + base64url.encode(
        scrypt(password.encode(), salt=salt, n=8192, r=1, p=1, dklen=32)
    )


async def test_basic() -> None:
    scheme = Basic({"alice": ([quick("old"), quick("new")], Consumer("alice"))}, failures=Rate(3, 60))

    async def status(credentials: str, client: str = "a") -> int:
        request = Request("GET", "/", {"authorization": "Basic " + b64encode(credentials.encode()).decode()})
        answer = await passes(Authenticate((scheme,)), request, context(client=client))
        return 200 if answer is None else answer.status

    assert [await status("alice:new"), await status("alice:old"), await status("alice:new")] == [200, 200, 200]
    assert scheme.figures()["cache_hits"] == 1
    assert [await status("alice:wrong"), await status("bob:new"), await status("alice:")] == [401, 401, 401]
    assert await status("alice:bad") == 429
    assert await status("alice:bad", "b") == 401
    assert await status("alice:old") == 200
    assert scheme.identify(Request("GET", "/", {"authorization": "Basic !!"}), context()) is not None


@pytest.mark.parametrize(
    "shown",
    [
        b64encode(b"alice:new\0"),
        b64encode(b"alice:new\n"),
        b64encode(b"al\0ice:new"),
        b"YWxpY2U6bmV3=",
        b"YWxpY2U6bmX=",
    ],
)
async def test_another_spelling_of_a_password_is_not_the_password(shown: bytes) -> None:
    scheme = Basic({"alice": ([quick("new")], Consumer("alice"))})
    for credentials, wanted in ((b64encode(b"alice:new"), None), (shown, 401)):
        request = Request("GET", "/", {"authorization": "Basic " + credentials.decode()})
        answer = await passes(Authenticate((scheme,)), request, context())
        assert (answer and answer.status) == wanted


def test_passwords_in_clear_or_weak_are_refused() -> None:
    for bad in (
        "hunter2",
        "scrypt$2$1$1$c2FsdHNhbHQ$AAAA",
        "pbkdf2-sha256$10$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
        "scrypt$x$1$1$a$b",
    ):
        with pytest.raises(ConfigError):
            read_password(bad)


def test_the_signature_base_is_that_of_rfc_9421_b_2_5() -> None:
    request = Request("POST", "/foo?param=Value&Pet=dog", {
        "host": "example.com", "date": "Tue, 20 Apr 2021 02:07:55 GMT", "content-type": "application/json",
        "signature-input": 'sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"',
        "signature": "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
    })  # fmt: skip
    secret = b64decode("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==")
    asked = parse_input(request.headers["signature-input"].encode())
    import hmac

    made = hmac.digest(secret, signature_base(request, asked.components, asked.text), "sha256")
    assert made == parse_signature(request.headers["signature"].encode(), asked.label)


SECRET = b"s" * 32


def signed(body: bytes = b"", *, at: float | None = None, nonce: str = "", **settings: Any) -> Request:
    request = Request("POST" if body else "GET", "/pay?x=1", {"host": "Api.example:80"}, body)
    sign(request, "k1", SECRET, int(CLOCK.wall() if at is None else at), nonce=nonce, **settings)
    return request


async def test_signed_requests() -> None:
    guard = Authenticate((Signatures({"k1": (SECRET, Consumer("alice"))}, clock=CLOCK),))
    given = context()
    assert await passes(guard, signed(), given) is None
    assert given.consumer is not None
    replayed = await passes(guard, signed())
    assert replayed is not None
    assert json.loads(replayed.body)["reason"] == "replay"
    assert await passes(guard, signed(nonce="2")) is None
    assert await passes(guard, signed(b"money", nonce="3")) is None
    streamed = signed(b"money", nonce="4")
    stream = Stream()
    stream.feed(b"money")
    stream.finish()
    streamed.body = stream
    assert await passes(guard, streamed) is None
    assert streamed.body == b"money"


async def test_a_replay_at_another_gateway_is_one_too() -> None:
    shared = MemoryRecords(clock=CLOCK)
    guards = [
        Authenticate((Signatures({"k1": (SECRET, Consumer("alice"))}, clock=CLOCK, records=shared),)) for _ in range(2)
    ]
    assert await passes(guards[0], signed(b"money", nonce="x")) is None
    for guard in guards:
        assert await passes(guard, signed(b"money", nonce="x")) is not None
    assert await passes(guards[1], signed(nonce="y")) is None


def _target(request: Request) -> None:
    request.target = "/pay?x=2"


def _method(request: Request) -> None:
    request.method = "PUT"


def _host(request: Request) -> None:
    request.headers["host"] = "evil.example"


def _body(request: Request) -> None:
    request.body = b"other"


def _digest(request: Request) -> None:
    request.headers["content-digest"] = "sha-256=:AAAA:"


def _unsigned(request: Request) -> None:
    request.headers.remove("signature")


def _two(request: Request) -> None:
    request.headers.add("signature-input", request.headers["signature-input"].replace("sig=", "two="))


@pytest.mark.parametrize("change", [_target, _method, _host, _body, _digest, _unsigned, _two])
async def test_a_changed_signed_request_is_refused(change: Any) -> None:
    request = signed(b"money")
    change(request)
    answer = await passes(Authenticate((Signatures({"k1": (SECRET, Consumer("alice"))}, clock=CLOCK),)), request)
    assert answer is not None
    assert answer.status == 401


async def test_old_future_thin_and_strangers_signatures_are_refused() -> None:
    guard = Authenticate((Signatures({"k1": (SECRET, Consumer("alice"))}, clock=CLOCK),))
    for request in (
        signed(at=CLOCK.wall() - 301), signed(at=CLOCK.wall() + 302), signed(components=("@method",)),
        signed(components=("@path",)),
    ):  # fmt: skip
        assert await passes(guard, request) is not None
    body_unsigned = signed()
    body_unsigned.body = b"added"
    assert await passes(guard, body_unsigned) is not None
    with pytest.raises(ConfigError):
        Signatures({"k": (b"short", Consumer("x"))})


async def test_introspection_asks_once_and_an_issuer_that_is_down_is_503() -> None:
    asked: list[bytes] = []
    answers: dict[bytes, Any] = {
        b"good": {"active": True, "username": "alice", "scope": "a", "exp": CLOCK.wall() + 100},
        b"gone": {"active": False}, b"odd": {"active": "true"}, b"late": {"active": True, "exp": CLOCK.wall() - 100}, b"list": [],
    }  # fmt: skip

    async def ask(token: bytes) -> bytes:
        asked.append(token)
        await asyncio.sleep(0)
        if token == b"down":
            raise FetchError("down")
        return json.dumps(answers[token]).encode()

    guard = Authenticate((Introspection(ask, clock=CLOCK),))
    assert await asyncio.gather(*(passes(guard, bearer("good")) for _ in range(5))) == [None] * 5
    assert asked == [b"good"]
    for text, status in (("gone", 401), ("gone", 401), ("odd", 401), ("late", 401), ("down", 503), ("list", 503)):
        answer = await passes(guard, bearer(text))
        assert answer is not None
        assert answer.status == status
    assert asked.count(b"gone") == 1


def certified(**names: Any) -> Request:
    return Request(peer=Peer(certificate={"subject": ((("commonName", "alice"),),), **names}))


async def test_certificates() -> None:
    scheme = Certificates(
        {"CN:alice": Consumer("alice"), "URI:spiffe://x/y": Consumer("mesh"), "DNS:A.example": Consumer("dns")},
        realm="shop",
    )
    guard = Authenticate((scheme,))
    for request, name in (
        (certified(), "alice"), (certified(subjectAltName=(("URI", "spiffe://x/y"),)), "mesh"),
        (certified(subjectAltName=(("DNS", "a.EXAMPLE"),)), "dns"),
    ):  # fmt: skip
        given = context()
        assert await passes(guard, request, given) is None
        assert given.consumer is not None
        assert given.consumer.name == name
    stranger = await passes(guard, Request(peer=Peer(certificate={"subject": ((("commonName", "bob"),),)})))
    assert stranger is not None
    assert stranger.status == 403
    nobody = await passes(guard, Request())
    assert nobody is not None
    assert nobody.status == 401
    assert nobody.headers["www-authenticate"] == 'Certificate realm="shop"'
    with pytest.raises(ConfigError):
        Certificates({"alice": Consumer("alice")})


@pytest.mark.parametrize(("settings", "status"), [
    ({"scopes": ["read"]}, 0), ({"scopes": "read write"}, 0), ({"scopes": ["admin"]}, 403), ({"groups": ["staff", "x"]}, 0),
    ({"groups": ["x"]}, 403),
    ({"claims": {"org": "acme"}}, 0), ({"claims": {"org": ["other", "acme"]}}, 0), ({"claims": {"org": "other"}}, 403),
    ({"claims": {"no": None}}, 403), ({"claims": {"roles": "b"}}, 0), ({"claims": {"one": True}}, 403), ({"scopes": ["read"],
    "groups": ["x"]}, 403),
])  # fmt: skip
async def test_authorization(settings: dict[str, Any], status: int) -> None:
    alice = Consumer(
        "alice", scopes={"read", "write"}, groups={"staff"}, claims={"org": "acme", "roles": ["a", "b"], "one": 1}
    )
    answer = await passes(authorize(settings, None), Request(), context(consumer=alice))  # type: ignore[arg-type]  # no site needed
    assert (answer.status if answer else 0) == status
    if answer is not None and "scopes" in settings and "groups" not in settings:
        assert answer.headers["www-authenticate"] == 'Bearer realm="gateway", error="insufficient_scope", scope="admin"'
    nobody = await passes(authorize(settings, None), Request())  # type: ignore[arg-type]  # no site needed
    assert nobody is not None
    assert nobody.status == 401


async def test_deny_and_anonymous_are_one_word() -> None:
    closed = await passes(step("deny", None), Request())  # type: ignore[arg-type]  # no site needed
    assert closed is not None
    assert closed.status == 403
    assert step("anonymous", None) is None  # type: ignore[arg-type]  # no site needed
    for bad in ([], ["deny", "anonymous"], [object()]):
        with pytest.raises(ConfigError):
            step(bad, None)  # type: ignore[arg-type]  # no site needed


async def test_names_of_two_issuers_are_two_owners_and_nameless_tokens_are_many() -> None:
    scheme = jwt()
    owners = set()
    for claims in ({"iss": "a"}, {"iss": "b"}, {"sub": "", "jti": "1"}, {"sub": "", "jti": "2"}):
        consumer = scheme.identify(bearer(token(**claims)), context())
        assert isinstance(consumer, Consumer)
        owners.add(owner_of(consumer))
    assert len(owners) == 4
    assert owner_of(Consumer("x", method="api-key", credential="key:1")) == owner_of(
        Consumer("x", method="api-key", credential="key:2")
    )
    assert subscriber("2001:db8::1") == subscriber("2001:db8::2") != subscriber("2001:db8:0:1::1")
    assert subscriber("192.0.2.1") == "192.0.2.1"


async def test_a_flood_of_distinct_tokens_leaves_a_bounded_memory() -> None:
    scheme = jwt(cache=10, client=None, total=None)
    for n in range(40):
        assert isinstance(scheme.identify(bearer(token(jti=str(n))), context()), Consumer)
    for n in range(40):
        assert isinstance(scheme.identify(bearer(token(jti=str(n)) + "A" * 4), context()), Refusal)
    assert len(scheme._tokens) == 10
    assert len(scheme.refused) == 1
