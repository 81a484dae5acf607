"""The two small protocols by which HTTP blocks meet a message broker, whichever it is, and how one is reached by URL.

Layers above depend on these, never on the broker itself: a gateway publishes to a ``Publisher`` and streams from a ``Subscriber``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import Any, Protocol, cast

from .errors import ConfigError
from .masking import masked

# A scheme's client, by name and imported when it is asked for: whoever reads this table stands below the brokers and must not need them.
CLIENTS: dict[str, str] = {"blocks": "blocks.broker:connect", "blocks+tls": "blocks.broker:connect"}


class Receipt(Protocol):
    """What a publisher is told once the message is as durable as its broker promises."""

    @property
    def topic(self) -> str:
        """Where it went."""
        ...

    @property
    def offset(self) -> int:
        """Its place in the topic."""
        ...

    @property
    def duplicate(self) -> bool:
        """Whether a message of the same id was there already; then ``offset`` is that one's."""
        ...


class Delivery(Protocol):
    """A message handed to a subscriber."""

    @property
    def topic(self) -> str:
        """Where it was published."""
        ...

    @property
    def payload(self) -> bytes:
        """Its bytes."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers."""
        ...

    @property
    def key(self) -> bytes | None:
        """Its ordering key."""
        ...

    @property
    def offset(self) -> int:
        """Its place in the topic."""
        ...

    async def ack(self) -> None:
        """Say that it is done."""
        ...

    async def nack(self, delay: float = 0.0) -> None:
        """Give it back, to be delivered again after ``delay`` seconds."""
        ...


class Publisher(Protocol):
    """Takes messages."""

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        key: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
    ) -> Receipt:
        """Publish and return when it is acknowledged."""
        ...


class Subscriber(Protocol):
    """Hands messages out."""

    def subscribe(
        self, pattern: str, *, group: str | None = None, start: str | int | float = "latest", prefetch: int = 100
    ) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Messages of the topics that match ``pattern``, while the context is open."""
        ...


class Client(Publisher, Subscriber, Protocol):
    """A publisher and subscriber at the other end of a connection, which ``async with`` opens, once, and closes."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        ...

    async def __aenter__(self) -> Any:
        """Connect. Raises ``OSError`` or a ``BlocksError`` when nobody is there or we are not wanted."""
        ...

    async def __aexit__(self, *_: Any) -> Any:
        """Send what is left and close."""
        ...


def connect(url: str, **options: Any) -> Client:
    """The client of the broker at ``url``, not connected yet; its scheme chooses the kind (``CLIENTS``), which takes ``options``.

    Raises ``ConfigError`` for a scheme that nobody has named, and for what the kind has against the URL or the options.
    """
    scheme, colon, _ = url.partition("://")
    home = CLIENTS.get(scheme.lower()) if colon else None
    if home is None:
        known = " or ".join(f"{name}://" for name in CLIENTS)
        raise ConfigError(f"{masked(url)!r} is no broker's URL: it begins with {known}")
    module, _, name = home.partition(":")
    return cast(Client, getattr(import_module(module), name)(url, **options))
