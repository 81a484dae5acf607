"""Signed URLs that expire: a link that the site's owner made works, any other is refused."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import sha256
from posixpath import normpath
from urllib.parse import quote, unquote

from blocks.core.clock import SYSTEM, Clock
from blocks.core.errors import ConfigError
from blocks.http.handler import Handler
from blocks.http.message import Request, Response

EXPIRES, KEY, SIGNATURE = "expires", "key-id", "signature"
_LEAST = 16  # bytes of a secret; RFC 2104 §3 discourages keys shorter than the hash's output, 16 is what can still not be guessed


def sign(target: str, secret: bytes | str, expires: int, *, key: str = "1", prefix: str = "") -> str:
    """``target`` (``/path?query``) with its expiry and signature appended; ``expires`` is a wall time in whole seconds.

    With ``prefix`` the signature is for every path below it (the segments of a video); the prefix goes into the query.
    """
    path, mark, query = target.partition("?")
    parts = [query] if mark and query else []
    if prefix:
        if not path.startswith(prefix):
            raise ConfigError(f"{path!r} is not below the prefix {prefix!r}")
        parts.append(f"prefix={quote(prefix, safe='/')}")
    parts += [f"{EXPIRES}={expires}", f"{KEY}={quote(key, safe='')}"]
    unsigned = "&".join(parts)
    meant = f"{prefix}*?{'&'.join(parts[-3:])}" if prefix else f"{path}?{unsigned}"
    return f"{path}?{unsigned}&{SIGNATURE}={_signature(secret, meant)}"


def _signature(secret: bytes | str, text: str) -> str:
    raw = secret.encode() if isinstance(secret, str) else secret
    return hmac.new(raw, text.encode("latin-1", "replace"), sha256).hexdigest()


class SignedUrls:
    """A filter that lets only signed, unexpired targets below ``prefixes`` through (403), and takes the signature off for what is inside.

    So every signature of one URL leads to one stored response. ``secrets`` are keys by id; several are there while one is replaced.
    Put it before the edge: ``chain(SignedUrls({"1": secret}), to=edge)``.
    """

    direct = True

    def __init__(
        self, secrets: Mapping[str, bytes | str], *, prefixes: tuple[str, ...] = ("/",), clock: Clock = SYSTEM
    ) -> None:
        if not secrets or any(len(secret) < _LEAST for secret in secrets.values()):
            raise ConfigError(
                f"signed URLs need secrets of at least {_LEAST} bytes by key id, like {{'1': secrets.token_bytes(32)}}"
            )
        self._secrets = dict(secrets)
        self._prefixes = prefixes
        self._clock = clock

    async def __call__(self, request: Request, next: Handler) -> Response:
        """Refuse, or go on without the signature."""
        path, _, query = request.target.partition("?")
        if not (path.startswith(self._prefixes) or _as_read(path).startswith(self._prefixes)):
            return await next(request)
        unsigned, mark, signature = query.rpartition(f"&{SIGNATURE}=")
        if not mark:
            return _refused("unsigned")
        fields = dict(part.partition("=")[::2] for part in unsigned.split("&")[-3:])
        reason = self._judge(path, unsigned, fields, signature)
        if reason:
            return _refused(reason)
        count = 3 if "prefix" in fields else 2
        rest = "&".join(unsigned.split("&")[:-count])
        inner = request.copy()
        inner.target = f"{path}?{rest}" if rest else path
        return await next(inner)

    def _judge(self, path: str, unsigned: str, fields: dict[str, str], signature: str) -> str:
        """Why the target is refused, or "". The signature is looked at first, so that nothing else can be found out without one."""
        secret = self._secrets.get(fields.get(KEY, ""))
        prefix = fields.get("prefix", "")
        meant = f"{prefix}*?{'&'.join(unsigned.split('&')[-3:])}" if prefix else f"{path}?{unsigned}"
        if secret is None or not hmac.compare_digest(_signature(secret, meant), signature):
            return "bad-signature"
        if prefix and (not quote(path, safe="/%").startswith(prefix) or "/.." in path or "%2e" in path.lower()):
            return "bad-signature"
        expires = fields.get(EXPIRES, "")
        return "" if expires.isdigit() and len(expires) < 16 and int(expires) > self._clock.wall() else "expired"


def _as_read(path: str) -> str:
    """The path as an origin may read it: decoded, doubled slashes and dot segments resolved, so that ``/%70rivate`` is ``/private``."""
    return "/" + normpath("/" + unquote(path).replace("\\", "/")).lstrip("/") + ("/" if path.endswith("/") else "")


def _refused(reason: str) -> Response:
    return Response(
        403, [("content-type", "text/plain"), ("cache-control", "no-store")], f"403 Forbidden: {reason}\n".encode()
    )
