"""A release is a manifest: which path is which bytes (by digest) under which fields. It cannot name a place outside the store. Sans-IO."""

from __future__ import annotations

import base64
import re
from typing import Literal
from urllib.parse import unquote_to_bytes

import msgspec

from blocks.core.errors import ConfigError
from blocks.http.message import Pair, field_name, field_value

MAX_FILES = 100_000
MAX_MANIFEST = 32 * 1024 * 1024  # bytes
MAX_PATH = 2048  # bytes
MAX_FIELDS = 64  # of one file
MAX_FIELD_BYTES = 16 * 1024

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?")
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")
# Connections and the server own these (RFC 9110 §7.6.1), or they are made for each answer, or they are nobody's to push.
_REFUSED = frozenset(
    (b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-connection", b"content-length",
     b"content-range", b"age", b"date", b"set-cookie", b"cache-status", b"etag", b"repr-digest", b"content-digest")
)  # fmt: skip


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One path of a release: ``digest`` as RFC 9530 writes it (``sha-256=:…:``), ``size`` in bytes."""

    path: str
    digest: str
    size: int
    headers: list[tuple[str, str]] = []

    @property
    def object(self) -> str:
        """The name of its bytes in the store: the digest in hex."""
        return hex_of(self.digest)

    @property
    def pairs(self) -> list[Pair]:
        """Its fields."""
        return [(field_name(name), field_value(value)) for name, value in self.headers]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A release of a site.

    It owns everything below ``prefix`` on ``hosts`` (all, if empty). What is asked for there and is not in ``files`` is a 404 (with the
    body of ``not_found``, if given) or goes to the origin, as ``miss`` says; ``fallback`` is served instead (an application's one page).
    """

    release: str
    files: list[File]
    site: str = "default"
    prefix: str = "/"
    hosts: list[str] = []
    miss: Literal["404", "pull"] = "404"
    not_found: str = ""
    fallback: str = ""

    @property
    def objects(self) -> dict[str, int]:
        """Size by object: what an edge must have for it."""
        return {file.object: file.size for file in self.files}

    @property
    def size(self) -> int:
        """Bytes of all its distinct objects."""
        return sum(self.objects.values())


def digest_field(sha256: bytes) -> str:
    """A SHA-256 as Repr-Digest and Content-Digest have it (RFC 9530 §2)."""
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


def hex_of(digest: str) -> str:
    """The hex form of a digest field. Raises ``ConfigError``."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise ConfigError(f"{digest!r} is not a digest like sha-256=:…: (RFC 9530)")
    return base64.b64decode(match[1]).hex()


def encode(manifest: Manifest) -> bytes:
    """The manifest as JSON; the same manifest always gives the same bytes."""
    return msgspec.json.encode(manifest)


def decode(data: bytes) -> Manifest:
    """A manifest that was checked in every part. Raises ``ConfigError`` that names the part."""
    if len(data) > MAX_MANIFEST:
        raise ConfigError(f"a manifest of {len(data)} bytes is over the limit of {MAX_MANIFEST}")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ConfigError(f"not a manifest: {error}") from None
    check(manifest)
    return manifest


def check(manifest: Manifest) -> None:
    """Raises ``ConfigError`` for the first part that is not as it must be."""
    check_name("release", manifest.release)
    check_name("site", manifest.site)
    if len(manifest.files) > MAX_FILES:
        raise ConfigError(f"{len(manifest.files)} files are over the limit of {MAX_FILES} for one release")
    check_path(manifest.prefix)
    if not manifest.prefix.endswith("/"):
        raise ConfigError(f"the prefix {manifest.prefix!r} must end with /")
    for host in manifest.hosts:
        if not _HOST.fullmatch(host):
            raise ConfigError(f"{host!r} is not a host")
    paths: set[str] = set()
    sizes: dict[str, int] = {}
    for file in manifest.files:
        _check_file(file, manifest.prefix)
        if file.path in paths:
            raise ConfigError(f"{file.path} is there twice")
        paths.add(file.path)
        if sizes.setdefault(file.digest, file.size) != file.size:
            raise ConfigError(f"{file.path}: one digest with two sizes")
    for role, path in (("not_found", manifest.not_found), ("fallback", manifest.fallback)):
        if path and path not in paths:
            raise ConfigError(f"{role} is {path!r}, which is not in the release")


def check_name(what: str, name: str) -> None:
    """A release or a site is named by letters, digits and ``. _ + -``, so that it can be a file's name. Raises ``ConfigError``."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise ConfigError(
            f"{name!r} cannot be the name of a {what}: use letters, digits, . _ + - (128 at most), a letter or digit first"
        )


def check_path(path: str) -> None:
    """A path is absolute, canonical and plain text: no dot segments, empty segments, backslashes or controls. Raises ``ConfigError``."""
    if not path.startswith("/") or len(path.encode("utf-8", "replace")) > MAX_PATH:
        raise ConfigError(f"{path[:80]!r} is not a path from / of at most {MAX_PATH} bytes")
    if (
        any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in path)
        or "\\" in path
        or "?" in path
        or "#" in path
    ):
        raise ConfigError(f"{path!r} has a character that a path must not have")
    segments = path[1:].split("/")
    if any(s in (".", "..") for s in segments) or "" in segments[:-1]:
        raise ConfigError(f"{path!r} has an empty or a dot segment")


def asked_path(raw: str) -> str | None:
    """The path that a request means, decoded; None for one that no release can have (an encoded slash, dot segments, bad UTF-8)."""
    if "%" not in raw:
        return raw if raw.isascii() and "/." not in raw else _plain(raw.encode("latin-1", "replace"))
    lower = raw.lower()
    if "%2f" in lower or "%5c" in lower or "%00" in lower:
        return None
    return _plain(unquote_to_bytes(raw))


def _plain(raw: bytes) -> str | None:
    try:
        path = raw.decode("utf-8")
        check_path(path)
    except (UnicodeDecodeError, ConfigError):
        return None
    return path


def _check_file(file: File, prefix: str) -> None:
    check_path(file.path)
    if not file.path.startswith(prefix):
        raise ConfigError(f"{file.path} is not below the release's prefix {prefix}")
    hex_of(file.digest)
    if file.size < 0 or file.size > 1 << 50:
        raise ConfigError(f"{file.path}: {file.size} is not a size")
    if len(file.headers) > MAX_FIELDS or sum(len(n) + len(v) for n, v in file.headers) > MAX_FIELD_BYTES:
        raise ConfigError(f"{file.path}: more fields than {MAX_FIELDS} or {MAX_FIELD_BYTES} bytes of them")
    try:
        names = {name for name, _ in file.pairs}
    except ValueError as error:
        raise ConfigError(f"{file.path}: {error}") from None
    refused = names & _REFUSED
    if refused:
        raise ConfigError(f"{file.path}: the field {min(refused).decode()} cannot be pushed")
