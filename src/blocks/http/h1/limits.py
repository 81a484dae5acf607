"""What one peer may make grow, and how long it may take: every bound of the HTTP data path, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on a message's head and framing, in bytes or counts.

    ``head`` covers the start line and all fields (nginx: 4 buffers of 8k). ``fields`` is their count (Apache: 100). ``target`` is the
    request target (nginx: one 8k buffer). ``extensions`` is the total of chunk extensions in one message, ``trailers`` the whole
    trailer section. ``blank`` counts empty lines before a request (RFC 9112 §2.2 asks for at least one). ``interim`` counts 1xx
    responses before the final one (Go: 5). ``body`` is the longest request body taken, None for no bound (nginx: 1 MiB).
    """

    head: int = 32 * 1024
    fields: int = 100
    target: int = 8 * 1024
    extensions: int = 4 * 1024
    trailers: int = 8 * 1024
    blank: int = 2
    interim: int = 8
    body: int | None = None


DEFAULT = Limits()
