"""What is kept for a consumer (an answer, a job, a cursor) is kept under a name that nobody else can have."""

from __future__ import annotations

from .consumer import Consumer

_ISSUED = frozenset({"jwt", "introspection"})


def owner_of(consumer: Consumer | None) -> str:
    """The owner's name; "" for nobody. Two issuers' subjects of the same name are two owners; a rotated API key is the same one."""
    if consumer is None:
        return ""
    return consumer.credential if consumer.method in _ISSUED else f"{consumer.method}:{consumer.name}"
