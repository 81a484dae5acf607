"""A webhook is signed so that its receiver knows who sent it, and that nobody changed it or sent it again much later.

Source: Standard Webhooks 1.0 (standardwebhooks.com): ``v1,`` and the base64 of HMAC-SHA256 over ``id.timestamp.body``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from blocks.core.errors import ConfigError

TOLERANCE = 300.0  # seconds between the clocks of sender and receiver: Stripe's and Svix's five minutes


def read_secret(text: str) -> bytes:
    """The key that ``text`` stands for: ``whsec_`` and base64, or any other text of 16 characters or more as it is."""
    if text.startswith("whsec_"):
        try:
            return base64.b64decode(text[6:], validate=True)
        except (ValueError, binascii.Error):
            raise ConfigError("a webhook secret that begins with whsec_ goes on in base64") from None
    if len(text) < 16:
        raise ConfigError("a webhook secret has at least 16 characters")
    return text.encode()


def sign(secret: bytes, ident: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers that sign ``body``; ``timestamp`` is wall-clock seconds."""
    return {
        "webhook-id": ident,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": _signature(secret, ident, str(timestamp), body),
    }


def is_signed(secret: bytes, headers: Mapping[str, str], body: bytes, now: float, tolerance: float = TOLERANCE) -> bool:
    """Whether ``headers`` (any case) sign ``body`` with ``secret``, not more than ``tolerance`` seconds from ``now``."""
    lower = {name.lower(): value for name, value in headers.items()}
    ident, timestamp = lower.get("webhook-id", ""), lower.get("webhook-timestamp", "")
    if not ident or not timestamp.isascii() or not timestamp.isdigit() or abs(now - int(timestamp)) > tolerance:
        return False
    wanted = _signature(secret, ident, timestamp, body).encode()
    shown = lower.get("webhook-signature", "").split()
    return any([hmac.compare_digest(wanted, one.encode()) for one in shown])  # noqa: C419  # all are compared, always


def _signature(secret: bytes, ident: str, timestamp: str, body: bytes) -> str:
    digest = hmac.new(secret, f"{ident}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()
