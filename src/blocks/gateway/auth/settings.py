"""``[auth.NAME]`` as it is written, one shape for each ``type``; every default is stated where the value is used."""

from __future__ import annotations

from typing import Any

import msgspec

from blocks.core.config.kinds import Duration, Size


class Common(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What every kind has: ``type``, and ``realm``, the name told in challenges."""

    type: str
    realm: str = "gateway"


class CarrierSettings(Common):
    """Where a credential is: ``header`` (with ``scheme``), ``cookie`` or ``query``; ``hide``: it is not passed on to services."""

    header: str = ""
    scheme: str = ""
    cookie: str = ""
    query: str = ""
    hide: bool | None = None


class NamingSettings(CarrierSettings):
    """Which claims, by dotted path, are the consumer's ``name``, ``scopes``, ``groups`` and ``tier``; and what the claims must be.

    ``lend``: a ``[consumers.NAME]`` of the token's name lends its tier, groups and priority. Only for issuers that give names out
    themselves: where users choose their names, they would choose those of others.
    """

    issuer: str | list[str] | None = None
    audience: str | list[str] | None = None
    name: str | list[str] | None = None
    scopes: str | list[str] | None = None
    groups: str | list[str] | None = None
    tier: str = "tier"
    lend: bool = False
    leeway: Duration = "60s"
    verifications: str | None = None
    ttl: Duration | None = None


class JwtSettings(NamingSettings):
    """``type = "jwt"``: keys from one of ``jwks`` (URL or file), ``discovery``, ``keys``, ``pem`` (file), ``secret``."""

    jwks: str = ""
    discovery: bool | str = False
    keys: list[dict[str, Any]] = []
    pem: str | list[str] = []
    secret: str = ""
    algorithms: list[str] | None = None
    required: tuple[str, ...] = ("exp",)
    types: tuple[str, ...] = (
        "JWT",
        "at+jwt",
    )
    max_age: Duration | None = None
    max_token: Size = "8KiB"
    cache: int = 10_000
    verifications_total: str | None = None
    refresh: Duration = "10m"
    cooldown: Duration = "30s"
    timeout: Duration = "5s"
    max_document: Size = "512KiB"
    insecure: bool = False


class ApiKeySettings(CarrierSettings):
    """``type = "api-key"``: the keys are those of ``[consumers.NAME]``, or ``keys``: hash → consumer's name."""

    keys: dict[str, str] = {}


class BasicSettings(Common):
    """``type = "basic"``: the passwords are those of ``[consumers.NAME]``, or ``users``: name → hash."""

    users: dict[str, str] = {}
    hide: bool = True
    ttl: Duration = "5m"
    failures: str = "10/min"


class SignatureSettings(Common):
    """``type = "signature"``: the secrets are those of ``[consumers.NAME]``; ``window``, ``covered`` and ``max_body`` bound them.

    ``store``: where used signatures are remembered: ``memory`` (this process), ``disk:PATH`` or ``redis`` (all gateways).
    """

    store: str = "memory"

    covered: tuple[str, ...] = (
        "@method",
        "@authority",
        "@path",
        "@query",
    )
    window: Duration = "5m"
    max_body: Size = "1MiB"


class CertificateSettings(Common):
    """``type = "mtls"``: the names are those of ``[consumers.NAME] certificates``, or ``names``: certificate's name → consumer's name."""

    names: dict[str, str] = {}


class IntrospectionSettings(NamingSettings):
    """``type = "introspection"``: ``endpoint`` is asked as ``client_id`` with ``client_secret``."""

    endpoint: str = ""
    client_id: str = ""
    client_secret: str = ""
    timeout: Duration = "5s"
    insecure: bool = False


KINDS: dict[str, type[Common]] = {
    "jwt": JwtSettings,
    "api-key": ApiKeySettings,
    "basic": BasicSettings,
    "signature": SignatureSettings,
    "mtls": CertificateSettings,
    "introspection": IntrospectionSettings,
}
