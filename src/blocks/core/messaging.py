"""The two small protocols by which HTTP blocks meet a message broker, whichever it is.

Layers above depend on these, never on the broker itself: a gateway publishes to a ``Publisher`` and streams from a ``Subscriber``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol


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
