"""An answer to a request goes straight to the asker's inbox: it is not stored, and is gone if nobody is there.

Inboxes are topics ``$inbox.WORD`` whose word is random and known to the asker and to those it asked. What is published
to one is handed over at once; a publisher to an inbox that is not open is told ``NotFound``.
"""

from __future__ import annotations

from collections.abc import Callable

from .errors import BadRequest, BrokerError, NotFound
from .message import Deliveries, Publication, Receipts

PREFIX = "$inbox."
CORRELATION = "correlation"  # the header by which an asker knows which of its requests is answered


def is_inbox(topic: str) -> bool:
    """Whether ``topic`` is an inbox and not a stored topic."""
    return topic.startswith(PREFIX)


class Inboxes:
    """The open inboxes of one broker, by name."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[str, Callable[[Deliveries], None]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, name: str, receive: Callable[[Deliveries], None]) -> None:
        """Give ``receive`` what is published to ``name`` from now on; who had the name before has it no more."""
        if not is_inbox(name) or len(name) < len(PREFIX) + 16 or name.count(".") != 1:
            raise BadRequest(f"an inbox is named {PREFIX} and a random word of at least 16 characters")
        self._open[name] = receive

    def close(self, name: str, receive: Callable[[Deliveries], None]) -> None:
        """Stop, if ``receive`` is the one who has ``name`` now."""
        if self._open.get(name) == receive:
            del self._open[name]

    def route(self, publication: Publication, now: float) -> Receipts:
        """Hand the messages over; the receipts say ``memory``, and ``NotFound`` for an inbox that is not open."""
        errors: dict[int, BrokerError] = {}
        for place, payload in enumerate(publication.payloads):
            topic = publication.topic if publication.topics is None else publication.topics[place]
            receive = self._open.get(topic)
            if receive is None:
                errors[place] = NotFound(f"nobody waits at {topic} any more")
                continue
            headers = publication.headers[place] if publication.headers is not None else None
            receive(Deliveries(topic, 0, range(1), [payload], now, len(payload), headers=[dict(headers or {})]))
        offsets = [-1 if place in errors else 0 for place in range(len(publication.payloads))]
        return Receipts(publication, offsets, "memory", errors=errors)
