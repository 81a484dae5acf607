"""A key says whose requests are counted together. Leaving out what a key is made of never opens a new bucket.

Who has no credential is counted by the address; a missing header or claim is one key for all who lack it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from blocks.core.errors import ConfigError
from blocks.http.message import Request, field_name

from ..address import Addresses
from ..context import Context
from ..site import Site

Key = Callable[[Request, Context], str]
MAX_KEY = (
    40  # characters kept as they are; longer keys are kept as 16 bytes of BLAKE2b, so that a key has a bounded size
)
KINDS = ("all", "route", "ip", "key", "consumer", "host", "country", "claim:NAME", "header:NAME", "param:NAME")


def short(text: str) -> str:
    """The text itself when it is short, else its hash: 128 bits, so that nobody finds two that meet."""
    return (
        text if len(text) <= MAX_KEY else hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
    )


def kinds_of(per: Any) -> list[str]:
    """The kinds that a key joins (``"ip+route"``); none for a function."""
    return [] if callable(per) else [kind.strip() for kind in str(per).split("+")]


def is_kind(kind: str) -> bool:
    """Whether ``kind`` is one of ``KINDS``; whether its parameter is there depends on the route."""
    word, colon, name = kind.partition(":")
    return (f"{word}:NAME" in KINDS and bool(name)) if colon else kind in KINDS


def key_of(per: Any, site: Site, addresses: Addresses) -> Key:
    """The function that makes the key of a request. Raises ``ConfigError`` for an unknown kind."""
    if callable(per):
        return lambda request, context: short(str(per(request, context)))
    kinds = kinds_of(per)
    made = [_one(kind, site, addresses) for kind in kinds]
    if len(made) == 1:
        # The same function for the same kind, so that limits of one request see that they have one key.
        return made[0] if kinds[0].startswith("param:") else site.prototypes.setdefault(("key", kinds[0]), made[0])

    def several(request: Request, context: Context) -> str:
        parts = [one(request, context) for one in made]
        return short(
            "".join([f"{len(part)}:{part}" for part in parts])
        )  # with lengths, so that no two lists read alike

    return several


def _one(kind: str, site: Site, addresses: Addresses) -> Key:
    word, _, name = kind.partition(":")
    if name:
        if word == "claim":
            return _claim(name, addresses)
        if word == "header":
            return _header(name)
        if word == "param":
            if name not in site.route.template.names:
                raise ConfigError(f"per = {kind!r}: {site.route.template.text} has no parameter {name!r}")
            return lambda request, context: short(str(context.params.get(name, "")))
    bucket = addresses.bucket
    if kind == "all":
        return lambda request, context: ""
    if kind == "route":
        return lambda request, context: short(context.route.name)
    if kind == "ip":
        return lambda request, context: bucket(context.client)
    if kind in ("key", "consumer"):
        return _credential(addresses) if kind == "key" else _consumer(addresses)
    if kind == "host":
        return lambda request, context: short(request.host.lower().partition(":")[0].rstrip("."))
    if kind == "country":
        return _country(site, addresses)
    raise ConfigError(f"per = {kind!r} is not known; there is {', '.join(KINDS)}")


def _credential(addresses: Addresses) -> Key:
    bucket = addresses.bucket

    def key(request: Request, context: Context) -> str:
        consumer = context.consumer
        return "\0" + bucket(context.client) if consumer is None else short(consumer.credential)

    return key


def _consumer(addresses: Addresses) -> Key:
    bucket = addresses.bucket

    def key(request: Request, context: Context) -> str:
        consumer = context.consumer
        if consumer is None:
            return "\0" + bucket(context.client)
        name = consumer.name
        return name if len(name) <= MAX_KEY else short(name)

    return key


def _claim(name: str, addresses: Addresses) -> Key:
    bucket = addresses.bucket

    def key(request: Request, context: Context) -> str:
        consumer = context.consumer
        if consumer is None:
            return "\0" + bucket(context.client)
        return short(str(consumer.claims.get(name, "")))

    return key


def _country(site: Site, addresses: Addresses) -> Key:
    country = site.country
    if country is not None:
        return lambda request, context: short(country(context.client))
    if not site.country_field:
        raise ConfigError(
            "per = 'country' needs [gateway] country_field, or Gateway(country=…): a function from an address to a code"
        )
    field = field_name(site.country_field)

    def key(request: Request, context: Context) -> str:
        value = request.headers.find(field) if addresses.believes(request) else None
        return "" if value is None else short(value.decode("latin-1").upper())

    return key


def _header(name: str) -> Key:
    field = field_name(name)

    def key(request: Request, context: Context) -> str:
        value = request.headers.find(field)
        return "" if value is None else short(value.decode("latin-1"))

    return key
