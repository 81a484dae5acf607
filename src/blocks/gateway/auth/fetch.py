"""Documents of an issuer are fetched within bounds that a hostile issuer cannot move: size, time, redirects, inner addresses."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from blocks.core.errors import ConfigError

if TYPE_CHECKING:
    import aiohttp

MAX_DOCUMENT = 512 * 1024  # bytes; Envoy's remote data default is 1 MiB, real key sets are under 20 KiB
TIMEOUT = 5.0  # seconds for the whole exchange; Envoy's usual http_uri timeout


class FetchError(Exception):
    """A document could not be had, or not be trusted."""


def checked_url(url: str, *, insecure: bool = False) -> SplitResult:
    """The parts of an https URL; http passes for loopback names and where ``insecure`` says so. Raises ``ConfigError``."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host or parts.username is not None or parts.fragment or port == 0:
        raise ConfigError(f"{url!r} is not an http(s) URL without user and fragment")
    if parts.scheme == "http" and not insecure and not _is_loopback(host):
        raise ConfigError(
            f"{url!r} is not https: whoever is on the way could swap the keys (insecure = true allows it)"
        )
    return parts


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454 §4)."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def is_inner(address: str) -> bool:
    """Whether an IP address is not the Internet's: loopback, private, link-local, multicast, reserved; IPv4 inside IPv6 counts as IPv4."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return not inner.is_global
    return not ip.is_global or ip.is_multicast


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def fetch(
    url: str,
    *,
    trusted: frozenset[tuple[str, str, int]],
    form: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    limit: int = MAX_DOCUMENT,
    timeout: float = TIMEOUT,
) -> bytes:
    """The body of a 200 answer to GET ``url``, or to POST of ``form``. Raises ``FetchError``.

    Redirects are not followed. A URL whose origin the operator did not name (not in ``trusted``: it came out of a document) must be
    https and must not lead to an inner address, by name or by number.
    """
    import aiohttp  # 300 ms that only those who fetch pay

    known = origin(url) in trusted
    try:
        parts = checked_url(url, insecure=known)
    except ConfigError as error:
        raise FetchError(str(error)) from None
    if not known and (parts.scheme != "https" or parts.hostname == "localhost" or is_inner(parts.hostname or "")):
        raise FetchError(f"{url} was named by a document and leads inside; it is not asked")
    connector = aiohttp.TCPConnector(limit=1, force_close=True, resolver=None if known else _outer_resolver())
    sent = {"accept": "application/json", "accept-encoding": "identity", **(headers or {})}
    try:
        async with (
            asyncio.timeout(timeout),
            aiohttp.ClientSession(connector=connector, auto_decompress=False, trust_env=False) as session,
            session.request(
                "GET" if form is None else "POST", url, data=form, headers=sent, allow_redirects=False
            ) as answer,
        ):
            return await _read(url, answer, limit)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise FetchError(f"{url} cannot be fetched: {error or type(error).__name__}") from error


async def _read(url: str, answer: aiohttp.ClientResponse, limit: int) -> bytes:
    if answer.status != 200:
        what = "redirects, which is not followed" if 300 <= answer.status < 400 else f"answers {answer.status}"
        raise FetchError(f"{url} {what}")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise FetchError(f"{url} answers in a coding that was not asked for")
    chunks: list[bytes] = []
    size = 0
    async for chunk in answer.content.iter_chunked(65536):
        size += len(chunk)
        if size > limit:
            raise FetchError(f"{url} answers with more than {limit} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _outer_resolver() -> Any:
    from aiohttp.resolver import ThreadedResolver

    class Outer(ThreadedResolver):
        """Resolves names, and refuses those that lead to an inner address: what is checked is what is connected to."""

        async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> Any:
            found = await super().resolve(host, port, family)
            if any(is_inner(entry["host"]) for entry in found):
                raise OSError(f"{host} leads to an inner address")
            return found

    return Outer()
