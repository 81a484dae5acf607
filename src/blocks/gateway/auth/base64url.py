"""Base64url without padding has one spelling for each byte string, and only that one is accepted.

Source: RFC 7515 §2 (no padding, no white space) and RFC 4648 §3.5 (the bits left over are zero). A second spelling of the same token
would be a second token to a cache or a revocation list, and the same token to a lax decoder.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from binascii import a2b_base64

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*\Z")
_STANDARD = bytes.maketrans(b"-_", b"+/")
_PADDING = (b"", None, b"==", b"=")
_LAST = (
    "",
    "",
    "AQgw",
    "AEIMQUYcgkosw048",
)  # by the length modulo 4: the last characters whose left-over bits are zero


def decode(text: str) -> bytes:
    """The bytes of a canonical base64url text. Raises ``ValueError`` for padding, foreign characters and non-zero left-over bits."""
    rest = len(text) % 4
    padding = _PADDING[rest]
    if padding is None or not _ALPHABET.match(text):
        raise ValueError("not base64url without padding (RFC 7515 §2)")
    if rest and text[-1] not in _LAST[rest]:
        raise ValueError("not canonical base64url: left-over bits are not zero (RFC 4648 §3.5)")
    return a2b_base64(text.encode("ascii").translate(_STANDARD) + padding)


def encode(data: bytes) -> str:
    """The canonical base64url text of ``data``, without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
