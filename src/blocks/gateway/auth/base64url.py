"""Base64url without padding has one spelling for each byte string, and only that one is accepted.

Source: RFC 7515 §2 (no padding, no white space) and RFC 4648 §3.5 (the bits left over are zero). A second spelling of the same token
would be a second token to a cache or a revocation list, and the same token to a lax decoder.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*\Z")
_PADDING = ("", None, "==", "=")


def decode(text: str) -> bytes:
    """The bytes of a canonical base64url text. Raises ``ValueError`` for padding, foreign characters and non-zero left-over bits."""
    padding = _PADDING[len(text) % 4]
    if padding is None or not _ALPHABET.match(text):
        raise ValueError("not base64url without padding (RFC 7515 §2)")
    data = urlsafe_b64decode(text + padding)
    if encode(data) != text:
        raise ValueError("not canonical base64url: left-over bits are not zero (RFC 4648 §3.5)")
    return data


def encode(data: bytes) -> str:
    """The canonical base64url text of ``data``, without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
