"""Who may use the admin API: the operator of this machine, or whoever shows the token.

Off loopback a bearer token is asked for, always; Host and Origin are checked on loopback too, so that a web page in an operator's
browser can neither read nor change anything (DNS rebinding, cross-site requests).
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from blocks.core.errors import ConfigError

from .server import parse_address

_Next = Callable[[web.Request], Awaitable[web.StreamResponse]]
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.\-]+))(?::\d{1,5})?")
_SHORTEST = 16  # characters of a token


def read_token(address: str, token_file: str | None) -> str | None:
    """The token that callers of the API at ``address`` must show; None on loopback and Unix sockets.

    Raises ``ConfigError`` when one is needed and missing, unreadable or short.
    """
    if token_file is not None:
        try:
            token = Path(token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{token_file}: the admin token cannot be read: {error}") from None
        if len(token) < _SHORTEST:
            raise ConfigError(f"{token_file}: an admin token has at least {_SHORTEST} characters")
        return token
    parsed = parse_address(address)
    if isinstance(parsed, str) or _is_loopback(parsed[0]):
        return None
    raise ConfigError(
        f"--admin {address} can be reached from other machines: give it --admin-token-file, or listen on 127.0.0.1"
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _names_loopback(field: str) -> bool:
    """Whether a Host field is that of somebody on this machine: a loopback name, and a port or none."""
    match = _HOST.fullmatch(field)
    return match is not None and _is_loopback((match[1] or match[2]).lower())


def guard(token: str | None) -> Any:
    """The middleware that lets only the operator in."""
    expected = f"Bearer {token}".encode() if token is not None else None

    @web.middleware
    async def check(request: web.Request, handler: _Next) -> web.StreamResponse:
        if expected is not None:
            if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), expected):
                return web.json_response(
                    {"error": "a bearer token is needed"}, status=401, headers={"WWW-Authenticate": "Bearer"}
                )
        elif not _names_loopback(request.headers.get("Host", "")):
            return web.json_response({"error": "Host must be a loopback name: this API has no token"}, status=421)
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"{request.scheme}://{request.host}":
            return web.json_response({"error": "cross-origin requests are refused"}, status=403)
        return await handler(request)

    return check
