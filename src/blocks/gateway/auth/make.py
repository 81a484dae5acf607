"""The objects of ``[auth.NAME]`` tables; what they learn (keys, verified tokens, used signatures) survives a reload."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from blocks.core.config.complaint import ConfigErrors, below
from blocks.core.errors import ConfigError
from blocks.core.quantities import Rate, rate, seconds, size
from blocks.gateway.consumer import Consumer
from blocks.gateway.records import make_records

from .apikeys import ApiKey, ApiKeys, keys_of, read_hash
from .basic import Basic
from .certificates import Certificates
from .claims import Rules
from .complaints import authenticator_complaints
from .consumers import ConsumerSettings, configured, entries, known
from .credentials import Carrier, InCookie, InHeader, InQuery
from .introspection import CLIENT_RATE as QUESTIONS
from .introspection import TTL as INTROSPECTION_TTL
from .introspection import Introspection, endpoint
from .issuer import discovered, from_file, from_url, is_url, only_one
from .jwt import CLIENT_RATE, TOTAL_RATE, TTL, Jwt, Naming
from .keys import Key, KeySet
from .keysource import FixedKeys, KeySource, RefreshedKeys
from .outcome import Authenticator
from .settings import (
    KINDS,
    ApiKeySettings,
    BasicSettings,
    CarrierSettings,
    CertificateSettings,
    IntrospectionSettings,
    JwtSettings,
    NamingSettings,
    SignatureSettings,
)
from .signature import Seen, Signatures
from .verified import VerifiedTokens

if TYPE_CHECKING:
    from blocks.gateway.site import Site


def make(table: dict[str, Any], site: Site) -> Authenticator:
    """The authenticator of an ``[auth.NAME]`` table, by its ``type``. Raises ``ConfigError``."""
    kind = table.get("type")
    shape = KINDS.get(kind) if isinstance(kind, str) else None
    if shape is None:
        near = get_close_matches(str(kind), KINDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"type = {kind!r} is no kind of authenticator: {', '.join(KINDS)}{hint}")
    complaints = authenticator_complaints(shape, table)
    if complaints:
        raise ConfigErrors(complaints)
    settings = site.decode(shape, table)
    match settings:
        case JwtSettings():
            return make_jwt(settings, site)
        case IntrospectionSettings():
            return _introspection(settings, site)
        case ApiKeySettings():
            return _api_keys(settings, site)
        case BasicSettings():
            return _basic(settings, site)
        case SignatureSettings():
            return _signatures(settings, site)
        case CertificateSettings():
            return _certificates(settings, site)
    raise ConfigError(f"type = {kind!r} is no kind of authenticator")


def make_jwt(settings: JwtSettings, site: Site) -> Jwt:
    """The authenticator of JSON Web Tokens. Raises ``ConfigError``."""
    return Jwt(
        _keys(settings, site),
        _rules(settings),
        carrier=_carrier(settings, hide=False),
        naming=_naming(settings, Naming()),
        realm=settings.realm,
        known=known(site) if settings.lend else None,
        max_token=size(settings.max_token),
        ttl=TTL if settings.ttl is None else seconds(settings.ttl),
        cache=site.kept(
            ("jwt-tokens", sha256(repr((settings, site.consumers)).encode()).digest()),
            lambda: VerifiedTokens(settings.cache),
        ),
        client=_ration(settings.verifications, CLIENT_RATE),
        total=_ration(settings.verifications_total, TOTAL_RATE),
        clock=site.clock,
    )


def _keys(settings: JwtSettings, site: Site) -> KeySource:
    one = only_one(
        jwks=settings.jwks, discovery=settings.discovery, keys=settings.keys, pem=settings.pem, secret=settings.secret
    )
    allowed = settings.algorithms
    with below(one):
        if one == "keys":
            return FixedKeys(KeySet.from_jwks({"keys": settings.keys}, algorithms=allowed))
        if one == "pem":
            files = [settings.pem] if isinstance(settings.pem, str) else settings.pem
            return FixedKeys(KeySet(Key.from_pem(site.file(file), algorithms=allowed) for file in files))
        if one == "secret":
            return FixedKeys(KeySet([Key.from_secret(settings.secret, algorithms=allowed)]))
        return _refreshed(settings, site)


def _refreshed(settings: JwtSettings, site: Site) -> KeySource:
    limits: dict[str, Any] = {
        "algorithms": settings.algorithms, "insecure": settings.insecure,
        "limit": size(settings.max_document), "timeout": seconds(settings.timeout),
    }  # fmt: skip
    keys: KeySet | None = None
    if settings.discovery:
        if not isinstance(settings.issuer, str):
            raise ConfigError('discovery needs issuer = "https://…", which the document must name')
        url = settings.discovery if isinstance(settings.discovery, str) else ""
        load = discovered(settings.issuer, url=url, **limits)
    elif is_url(settings.jwks):
        load = from_url(settings.jwks, **limits)
    else:
        keys = KeySet.from_jwks(site.file(settings.jwks), algorithms=settings.algorithms)
        load = from_file(site.base / settings.jwks, algorithms=settings.algorithms)
    refresh, cooldown = seconds(settings.refresh), seconds(settings.cooldown)
    if refresh < 1 or cooldown < 1:
        raise ConfigError("refresh and cooldown are 1s at least: an issuer must not be flooded")
    identity = (settings.jwks, settings.discovery, repr(settings.issuer), refresh, cooldown, repr(limits))
    source = site.kept(
        ("jwt-keys", *identity), lambda: RefreshedKeys(load, refresh=refresh, cooldown=cooldown, clock=site.clock)
    )
    if keys is not None and keys.generation != source.keys.generation:
        source.keys, source.loaded = keys, True
    return source


def _introspection(settings: IntrospectionSettings, site: Site) -> Introspection:
    rules = _rules(settings)
    rules.audiences = rules.audiences or frozenset({"*"})
    return Introspection(
        endpoint(
            settings.endpoint, settings.client_id, settings.client_secret,
            timeout=seconds(settings.timeout), insecure=settings.insecure,
        ),
        rules=rules,
        carrier=_carrier(settings, hide=False),
        naming=_naming(settings, Naming(name=("username", "sub", "client_id"))),
        realm=settings.realm,
        known=known(site) if settings.lend else None,
        ttl=INTROSPECTION_TTL if settings.ttl is None else seconds(settings.ttl),
        client=_ration(settings.verifications, QUESTIONS),
        clock=site.clock,
    )  # fmt: skip


def _api_keys(settings: ApiKeySettings, site: Site) -> ApiKeys:
    people = configured(site)
    keys = keys_of(people)
    for text, name in settings.keys.items():
        credential = f"key:{text.partition(':')[2][:8]}"
        keys.append(ApiKey(read_hash(text), _named(people, name, "api-key", credential)))
    given = settings.header or settings.cookie or settings.query
    return ApiKeys(
        keys, carriers=(_carrier(settings, hide=True),) if given else (), realm=settings.realm, clock=site.clock
    )


def _basic(settings: BasicSettings, site: Site) -> Basic:
    people = configured(site)
    users: dict[str, tuple[list[str], Consumer]] = {}
    for name, person in people.items():
        if person.password:
            users[name] = (
                entries(person, "password"),
                person.consumer(name, method="basic", credential=f"basic:{name}"),
            )
    for name, hash in settings.users.items():
        users[name] = ([hash], _named(people, name, "basic", f"basic:{name}"))
    return Basic(
        users, realm=settings.realm, hide=settings.hide, ttl=seconds(settings.ttl), failures=rate(settings.failures)
    )


def _signatures(settings: SignatureSettings, site: Site) -> Signatures:
    secrets: dict[str, tuple[bytes, Consumer]] = {}
    for name, person in configured(site).items():
        for keyid, secret in person.secrets.items():
            if keyid in secrets:
                raise ConfigError(f"two consumers have a secret of the id {keyid!r}")
            secrets[keyid] = (secret.encode(), person.consumer(name, method="hmac", credential=f"hmac:{keyid}"))
    return Signatures(
        secrets,
        covered=tuple(settings.covered),
        window=seconds(settings.window),
        max_body=size(settings.max_body),
        realm=settings.realm,
        seen=site.kept(("signatures-seen",), Seen),
        records=None if settings.store == "memory" else make_records(settings.store, site, purpose="signatures"),
        clock=site.clock,
    )


def _certificates(settings: CertificateSettings, site: Site) -> Certificates:
    names: dict[str, Consumer] = {}
    people = configured(site)
    for name, person in people.items():
        for shown in person.certificates:
            names[shown] = person.consumer(name, method="mtls", credential=f"mtls:{shown}")
    for shown, name in settings.names.items():
        names[shown] = _named(people, name, "mtls", f"mtls:{shown}")
    return Certificates(names, realm=settings.realm)


def _named(people: Mapping[str, ConsumerSettings], name: str, method: str, credential: str) -> Consumer:
    """The configured consumer of that name, else one that has nothing but the name."""
    owner = people.get(name) or ConsumerSettings()
    return owner.consumer(name, method=method, credential=credential)


def _rules(settings: NamingSettings) -> Rules:
    leeway = seconds(settings.leeway)
    if leeway > 300:
        raise ConfigError("a leeway over 5m hides clocks that must be set right")
    rules = Rules(issuers=_set(settings.issuer), audiences=_set(settings.audience), leeway=leeway, required=())
    if isinstance(settings, JwtSettings):
        rules.required = tuple(settings.required)
        rules.types = frozenset(kind.lower().removeprefix("application/") for kind in settings.types)
        rules.oldest = None if settings.max_age is None else seconds(settings.max_age)
    return rules


def _carrier(settings: CarrierSettings, *, hide: bool) -> Carrier:
    given = [name for name in ("header", "cookie", "query") if getattr(settings, name)]
    if len(given) > 1:
        raise ConfigError(f"a credential is in one place; given: {', '.join(given)}")
    if settings.scheme and not settings.header:
        raise ConfigError("scheme goes with header")
    hide = hide if settings.hide is None else settings.hide
    if settings.cookie:
        return InCookie(settings.cookie, hide=hide)
    if settings.query:
        return InQuery(settings.query, hide=hide)
    if settings.header:
        return InHeader(settings.header, settings.scheme, hide=hide)
    return InHeader("authorization", "Bearer", hide=hide)


def _naming(settings: NamingSettings, default: Naming) -> Naming:
    return Naming(
        _tuple(settings.name) or default.name,
        _tuple(settings.scopes) or default.scopes,
        _tuple(settings.groups) or default.groups,
        settings.tier,
    )


def _ration(text: str | None, default: Rate) -> Rate | None:
    if text is None:
        return default
    return None if text == "unlimited" else rate(text)


def _set(value: str | list[str] | None) -> frozenset[str] | None:
    if value is None:
        return None
    found = frozenset(_tuple(value))
    if not found or "" in found:  # an empty variable must not switch the check off
        raise ConfigError("issuer and audience must not be empty; leave them out where they do not matter")
    return found


def _tuple(value: str | list[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())
