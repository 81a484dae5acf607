"""How long a client may take over each part of an exchange."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, and one rate in bytes a second.

    ``head``: from the first byte of a request (from the accept, for the first one) to the end of its head (HAProxy's advice for
    ``timeout http-request``: 5 to 10 s). ``body``: between two reads of a body (half of nginx's 60 s); after that long, ``min_rate``
    must be kept on average too (Apache mod_reqtimeout: MinRate=500), so that a dripped body ends. ``idle``: between two requests
    (nginx: 75 s). ``send``: without the client taking a byte (nginx send_timeout: 60 s). ``half_close``: for an answer to a client that
    has ended its side, before it counts as gone. ``linger``: to let a client read a refusal while it is still sending (nginx
    lingering_timeout: 5 s). ``tunnel``: without a byte either way after an upgrade (HAProxy's examples for ``timeout tunnel``: 1 h).
    """

    head: float = 10.0
    body: float = 30.0
    idle: float = 60.0
    send: float = 60.0
    half_close: float = 1.0
    linger: float = 2.0
    tunnel: float = 3600.0
    min_rate: float = 500.0


DEFAULT = Timeouts()
