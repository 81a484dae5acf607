"""A client that repeats a request under one key gets one effect and one answer (draft-ietf-httpapi-idempotency-key-header-07).

``step`` makes a route's ``idempotency`` step; what is decided is in ``rules``.
"""

from __future__ import annotations

from .step import Idempotency, Settings, step

SHORTHAND = (bool,)

__all__ = ["SHORTHAND", "Idempotency", "Settings", "step"]
