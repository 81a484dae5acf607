"""What keeps one client from deciding what others get: poisoning and deception defences of the safe profile.

Sources: Kettle, "Practical Web Cache Poisoning" (2018) and "Web Cache Entanglement" (2020); Gil, "Web Cache Deception" (2017);
Cloudflare's Cache Deception Armor.
"""

from __future__ import annotations

import re

from blocks.http.message import Pair, Section

# Fields that frameworks build URLs, schemes or methods from, and that no key contains. They are not forwarded unless the key has them.
UNKEYED = frozenset((
    b"forwarded", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix", b"x-forwarded-scheme",
    b"x-forwarded-server",
       b"x-forwarded-path", b"x-forwarded-ssl", b"x-host", b"x-original-host", b"x-original-url",
    b"x-rewrite-url", b"x-http-host-override",
    b"x-http-method", b"x-http-method-override", b"x-method-override", b"x-override-url",
))  # fmt: skip

_KINDS = {
    "css": ("text/css",),
    "js": ("javascript", "ecmascript"),
    "mjs": ("javascript",),
    "json": ("json",),
    "map": ("json", "octet-stream", "text/plain"),
    "txt": ("text/plain",),
    "xml": ("xml",),
    "pdf": ("pdf",),
    "zip": ("zip", "octet-stream"),
    "gz": ("gzip", "octet-stream"),
    "wasm": ("wasm",),
    **dict.fromkeys(
        ("png", "jpg", "jpeg", "gif", "webp", "avif", "svg", "ico", "bmp", "tif", "tiff"), ("image/", "octet-stream")
    ),
    **dict.fromkeys(("woff", "woff2", "ttf", "otf", "eot"), ("font", "octet-stream", "opentype")),
    **dict.fromkeys(("mp4", "webm", "mov", "m4v", "avi", "ts", "m3u8"), ("video/", "mpegurl", "octet-stream")),
    **dict.fromkeys(("mp3", "ogg", "wav", "flac", "m4a", "aac"), ("audio/", "ogg", "octet-stream")),
}
# Bytes at which some servers end a path, and dot segments that some resolve: after them the extension is not what the origin saw.
_AMBIGUOUS = re.compile(r"[;\\]|%(?:00|0a|0d|09|23|25|2e|2f|3b|3f|5c)|/\.\.?(?:/|$)|//", re.I)


def is_plain_path(path: str) -> bool:
    """Whether origin and cache read the path alike: no encoded delimiter, dot segment, matrix parameter or doubled slash in it."""
    return _AMBIGUOUS.search(path) is None


def is_deceptive(path: str, section: Section) -> bool:
    """Whether a static-looking path brought another kind of content: ``/account/x.css`` that is HTML (web cache deception)."""
    if "." not in path:
        return False
    name = path.rpartition("/")[2].lower()
    name = re.split(r"[;?#]|%3b|%3f|%23|%00|%0a", name)[-1] if not name.rpartition(".")[1] else name
    kinds = _KINDS.get(name.rpartition(".")[2])
    if kinds is None or "." not in name:
        return False
    lines = section.index.get(b"content-type")
    if lines is None:
        return False
    kind = lines[0].decode("latin-1").lower()
    return not any(part in kind for part in kinds)


def without_unkeyed(pairs: list[Pair], keyed: frozenset[bytes]) -> list[Pair]:
    """The request's fields without those that could change the answer outside the key."""
    return [pair for pair in pairs if pair[0] not in UNKEYED or pair[0] in keyed]
