"""An issuer's keys come from a file or a URL, which it may have named itself by OIDC discovery.

Source: RFC 7517 §5 (key sets), OpenID Connect Discovery 1.0 §4 (the document, and that its issuer is the one that was asked).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from blocks.core.errors import ConfigError

from . import strict_json
from .fetch import MAX_DOCUMENT, TIMEOUT, FetchError, checked_url, fetch, origin
from .keys import KeySet

Load = Callable[[], Awaitable[KeySet]]


def from_file(path: Path, *, algorithms: Iterable[str] | None = None) -> Load:
    """Reads a JWK set from ``path``, each time anew."""

    async def load() -> KeySet:
        data = await asyncio.get_running_loop().run_in_executor(None, path.read_bytes)
        return KeySet.from_jwks(data, algorithms=algorithms)

    return load


def from_url(
    url: str,
    *,
    algorithms: Iterable[str] | None = None,
    insecure: bool = False,
    limit: int = MAX_DOCUMENT,
    timeout: float = TIMEOUT,
) -> Load:
    """Fetches a JWK set from ``url``, the operator's own word. Raises ``ConfigError`` for a URL that is not https."""
    checked_url(url, insecure=insecure)
    trusted = frozenset({origin(url)})

    async def load() -> KeySet:
        return KeySet.from_jwks(
            await fetch(url, trusted=trusted, limit=limit, timeout=timeout), algorithms=algorithms, remote=True
        )

    return load


def discovered(
    issuer: str, *, url: str = "", algorithms: Iterable[str] | None = None, insecure: bool = False, limit: int = MAX_DOCUMENT,
    timeout: float = TIMEOUT,
) -> Load:  # fmt: skip
    """Fetches the discovery document of ``issuer`` (or at ``url``), then the key set that it names, which must not lead inside."""
    document = url or issuer.rstrip("/") + "/.well-known/openid-configuration"
    checked_url(document, insecure=insecure)
    trusted = frozenset({origin(document)})

    async def load() -> KeySet:
        found = strict_json.loads_object(await fetch(document, trusted=trusted, limit=limit, timeout=timeout))
        if found.get("issuer") != issuer:
            raise FetchError(f"{document} is of another issuer: {str(found.get('issuer'))[:200]!r}")
        address = found.get("jwks_uri")
        if not isinstance(address, str):
            raise FetchError(f"{document} names no jwks_uri")
        return KeySet.from_jwks(
            await fetch(address, trusted=trusted, limit=limit, timeout=timeout), algorithms=algorithms, remote=True
        )

    return load


def is_url(text: str) -> bool:
    """Whether ``text`` is meant as a URL and not as a file."""
    return text.startswith(("http://", "https://"))


def only_one(**given: object) -> str:
    """The name of the one setting that was given. Raises ``ConfigError`` for none or several."""
    names = [name for name, value in given.items() if value]
    if len(names) != 1:
        listed = ", ".join(given)
        raise ConfigError(f"a jwt authenticator has its keys from one of {listed}; given: {', '.join(names) or 'none'}")
    return names[0]
