"""The consumers that the configuration names: their tier, groups and scopes, and the hashes of what they may show."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from blocks.core.errors import ConfigError
from blocks.gateway.consumer import Consumer

if TYPE_CHECKING:
    from blocks.gateway.site import Site


class KeySettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An API key as it is at rest: ``hash`` (``sha256:`` and 64 hex digits), an ``id`` for logs, and the time it is good for."""

    hash: str
    id: str = ""
    since: datetime | None = None
    until: datetime | None = None
    scopes: list[str] | None = None


class ConsumerSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``[consumers.NAME]``: ``keys`` (hashes), ``password`` (a hash), ``secrets`` (id → secret for signatures), ``certificates``."""

    tier: str = ""
    groups: list[str] = []
    scopes: list[str] = []
    priority: int | None = None
    keys: list[str | KeySettings] = []
    password: str | list[str] = []
    secrets: dict[str, str] = {}
    certificates: list[str] = []

    def consumer(
        self, name: str, *, method: str = "", credential: str = "", scopes: list[str] | None = None
    ) -> Consumer:
        """The consumer of these settings, known by ``credential``."""
        return Consumer(
            name,
            tier=self.tier,
            groups=frozenset(self.groups),
            scopes=frozenset(self.scopes if scopes is None else scopes),
            credential=credential or name,
            method=method,
            priority=self.priority,
        )


def configured(site: Site) -> Mapping[str, ConsumerSettings]:
    """The ``[consumers.NAME]`` tables, decoded. Raises ``ConfigError``."""
    found: dict[str, ConsumerSettings] = {}
    for name, table in site.consumers.items():
        try:
            found[name] = table if isinstance(table, ConsumerSettings) else site.decode(ConsumerSettings, table)
        except ConfigError as error:
            raise ConfigError(f"consumers.{name}: {error}") from None
    return found


def known(site: Site) -> dict[str, Consumer]:
    """The configured consumers by name, without credentials: what a token's subject is looked up in."""
    return {name: settings.consumer(name) for name, settings in configured(site).items()}


def epoch(moment: datetime | None, default: float) -> float:
    """Seconds since 1970 of a date with its zone; ``default`` for None. Raises ``ConfigError`` without a zone."""
    if moment is None:
        return default
    if moment.tzinfo is None:
        raise ConfigError(f"{moment.isoformat()} has no time zone; write 2027-01-31T00:00:00Z")
    return moment.timestamp()


def entries(settings: ConsumerSettings, what: str) -> list[Any]:
    """A setting that may be one value or a list of them, as a list."""
    value = getattr(settings, what)
    return value if isinstance(value, list) else [value]
