"""A durable message broker: an acknowledged message is on disk. ``Broker`` runs one, ``connect`` is its client."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .broker import Broker as Broker
    from .client import connect as connect
    from .message import Limits as Limits
    from .message import Message as Message
    from .message import Outgoing as Outgoing
    from .message import Receipt as Receipt
    from .message import SubscribeOptions as SubscribeOptions
    from .message import TopicOptions as TopicOptions

_HOMES = {
    "Broker": "broker",
    "connect": "client",
    "Limits": "message",
    "Message": "message",
    "Outgoing": "message",
    "Receipt": "message",
    "SubscribeOptions": "message",
    "TopicOptions": "message",
}

__all__ = list(_HOMES)  # the names are those of the table above


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'blocks.broker' has no attribute {name!r}")
    value = getattr(import_module(f"blocks.broker.{home}"), name)
    globals()[name] = value
    return value
