"""Which fields a pushed file gets: content type by extension, lifetime in browsers by name, then the user's own rules. Sans-IO."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from blocks.core.errors import ConfigError
from blocks.http.message import field_name, field_value

# The web's types (WHATWG MIME Sniffing, IANA); the standard library's table differs between machines as it reads /etc/mime.types.
_TYPES = {
    "html": "text/html; charset=utf-8", "htm": "text/html; charset=utf-8", "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8", "mjs": "text/javascript; charset=utf-8", "json": "application/json",
    "map": "application/json", "webmanifest": "application/manifest+json", "xml": "application/xml", "rss": "application/rss+xml",
    "atom": "application/atom+xml", "txt": "text/plain; charset=utf-8", "md": "text/markdown; charset=utf-8",
    "csv": "text/csv; charset=utf-8", "svg": "image/svg+xml", "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg",
    "gif": "image/gif", "webp": "image/webp", "avif": "image/avif", "ico": "image/x-icon", "woff": "font/woff", "woff2": "font/woff2",
    "ttf": "font/ttf", "otf": "font/otf", "wasm": "application/wasm", "pdf": "application/pdf", "mp4": "video/mp4",
    "webm": "video/webm", "mp3": "audio/mpeg", "ogg": "audio/ogg", "wav": "audio/wav", "m3u8": "application/vnd.apple.mpegurl",
    "ts": "video/mp2t", "zip": "application/zip", "gz": "application/gzip", "tar": "application/x-tar", "vtt": "text/vtt; charset=utf-8",
}  # fmt: skip
_FINGERPRINT = re.compile(r"[.\-_](?=[0-9a-zA-Z_-]*[0-9])[0-9a-zA-Z_-]{8,64}\.[a-z0-9]+(\.map)?$")

PAGES = "public, max-age=0, must-revalidate"  # a page must show the new release at once (Netlify's default)
FINGERPRINTED = "public, max-age=31536000, immutable"  # its name changes with its bytes (RFC 8246)
OTHERS = "public, max-age=300"  # seconds; images and the like whose names stay


@dataclass(frozen=True, slots=True)
class Rule:
    """Paths that match ``pattern`` (``/assets/*``, ``*.pdf``) get ``fields``; a later rule overrides an earlier one, "" drops a field."""

    pattern: str
    fields: tuple[tuple[str, str], ...]


def rules_of(data: dict[str, Any]) -> list[Rule]:
    """The rules of a TOML file: ``[[rule]]`` with ``match`` and ``headers``. Raises ``ConfigError``."""
    unknown = set(data) - {"rule"}
    if unknown:
        raise ConfigError(f"unknown key {min(unknown)!r}; rules are [[rule]] tables with match and headers")
    rules = []
    for number, table in enumerate(data.get("rule", []), 1):
        pattern, fields = table.get("match"), table.get("headers")
        if not isinstance(pattern, str) or not isinstance(fields, dict) or set(table) != {"match", "headers"}:
            raise ConfigError(f"rule {number} needs match (a pattern) and headers (a table), and nothing else")
        try:
            for name, value in fields.items():
                field_name(name)
                field_value(value)
        except (ValueError, AttributeError) as error:
            raise ConfigError(f"rule {number}: {error}") from None
        rules.append(Rule(pattern, tuple((name.lower(), value) for name, value in fields.items())))
    return rules


def fields_of(path: str, rules: list[Rule]) -> list[tuple[str, str]]:
    """The fields that a path is pushed with."""
    fields = {
        "content-type": content_type(path),
        "cache-control": _cache_control(path),
        "x-content-type-options": "nosniff",
    }
    for rule in rules:
        if fnmatchcase(path, rule.pattern) or fnmatchcase(path.rpartition("/")[2], rule.pattern):
            fields.update(rule.fields)
    return [(name, value) for name, value in fields.items() if value]


def content_type(path: str) -> str:
    """The media type of a path by its extension; application/octet-stream when it is not known."""
    return _TYPES.get(path.rpartition("/")[2].rpartition(".")[2].lower(), "application/octet-stream")


def _cache_control(path: str) -> str:
    if _FINGERPRINT.search(path):
        return FINGERPRINTED
    return PAGES if content_type(path).startswith("text/html") else OTHERS
