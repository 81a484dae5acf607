"""An upstream is a handler that asks another machine."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from blocks.core.errors import Again, ConfigError, UpstreamFault
from blocks.core.quantities import seconds
from blocks.core.status import Status

from .body import Stream
from .h1 import DEFAULT as DEFAULT_LIMITS
from .h1 import Limits
from .h1.fields import BadMessage, check_host
from .message import Headers, Request, Response
from .pool import Pool

if TYPE_CHECKING:
    import ssl

# RFC 9110 §9.2.2. A request of these may be sent again when nobody knows whether it arrived.
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


class Upstream:
    """Asks the server at ``url`` (``http://``, ``https://`` or ``unix:/path``); a path in it is put before every target.

    ``timeout`` is the longest silence of the upstream, from the request's last byte to the head and between two reads of the body
    (nginx proxy_read_timeout: 60 s); ``connect_timeout`` bounds the TCP and TLS handshakes (HAProxy's examples: 5 s). ``host`` replaces the
    Host that the client asked for; by default that is passed on (HAProxy, Envoy, Traefik do so). ``tls`` is a client's ``ssl.SSLContext``.
    ``idle``, ``uses``, ``age`` and ``keep`` bound the kept-alive connections, see ``Pool``.

    Raises ``UpstreamFault`` and ``UpstreamTimeout`` that say whether a retry is safe. One retry it makes by itself: a kept-alive connection
    that closes before any byte of the answer is replaced by a fresh one, for idempotent requests whose body is at hand (RFC 9112 §9.3.1).
    """

    direct = True

    def __init__(
        self,
        url: str,
        *,
        name: str = "",
        timeout: float | str = 60.0,
        connect_timeout: float | str = 5.0,
        host: str | None = None,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        limits: Limits = DEFAULT_LIMITS,
        idle: float | str = 60.0,
        uses: int = 1000,
        age: float | str = 3600.0,
        keep: int = 256,
    ) -> None:
        self.url = url
        self._address, self._authority, self._prefix, secure = _parse(url)
        self.name = name or url
        self._host = host.encode("latin-1") if host else None
        self._own_host = b"Host: " + (self._host or self._authority) + b"\r\n"
        self._tls = tls
        self._secure = secure
        self._server_name = server_name or (self._address[0] if secure and not isinstance(self._address, str) else None)
        self._limits = limits
        self._timeout = seconds(timeout)
        self._connect_timeout = seconds(connect_timeout)
        self._idle = seconds(idle)
        self._uses = uses
        self._age = seconds(age)
        self._keep = keep
        self._pool: Pool | None = None

    def __repr__(self) -> str:
        return f"Upstream({self.url!r})"

    @property
    def address(self) -> tuple[str, int] | str:
        """(host, port), or the path of a Unix socket."""
        return self._address

    @property
    def status(self) -> Status:
        """OPEN: whether the server behind it is well is what a balancer's health checks find out."""
        return Status.OPEN

    @property
    def pool(self) -> Pool:
        """Its connections, on the running loop."""
        loop = asyncio.get_running_loop()
        pool = self._pool
        if pool is None or pool.loop is not loop or pool.closed:
            if self._secure and self._tls is None:
                import ssl

                self._tls = ssl.create_default_context()
            pool = self._pool = Pool(
                loop,
                self._address,
                tls=self._tls if self._secure else None,
                server_name=self._server_name,
                limits=self._limits,
                connect_timeout=self._connect_timeout,
                timeout=self._timeout,
                idle=self._idle,
                uses=self._uses,
                age=self._age,
                keep=self._keep,
            )
        return pool

    async def __aenter__(self) -> Upstream:
        self._pool = self.pool
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def __call__(self, request: Request) -> Response:
        """The upstream's answer; its body may still be coming."""
        pool = self._pool
        if pool is None or pool.closed:
            pool = self.pool
        target = request.target
        if self._prefix:
            target = self._prefix + target if target != "*" else target
        host = b""
        if self._host is not None:
            request.headers.replace((b"host",), ())
            host = self._own_host
        elif not request.headers.section.has(b"host"):
            host = self._own_host
        if request.method == "OPTIONS" and request.headers.find(b"max-forwards") is not None:
            last = _forward_once_less(request)
            if last is not None:
                return last
        connection = pool.take()
        if connection is not None:
            try:
                return await connection.send(request, target, host)
            except UpstreamFault as fault:
                if fault.again is not Again.REUSED or not may_repeat(request):
                    raise
        connection = await pool.connect(request.deadline)
        return await connection.send(request, target, host)


def may_repeat(request: Request) -> bool:
    """Whether a request that may have arrived can be sent again: idempotent, and its body still at hand (RFC 9110 §9.2.2)."""
    body = request.body
    return request.method in IDEMPOTENT and (not isinstance(body, Stream) or body.untouched)


def _forward_once_less(request: Request) -> Response | None:
    """Max-Forwards counts down on OPTIONS, and at zero we are the one who answers (RFC 9110 §7.6.2)."""
    value = request.headers.find(b"max-forwards") or b""
    if not value.isdigit() or len(value) > 9:
        return None
    if int(value) == 0:
        return Response(200, [("allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")])
    headers = Headers.of(request.headers.section)
    headers["max-forwards"] = str(int(value) - 1)
    request.headers = headers
    return None


def _parse(url: str) -> tuple[tuple[str, int] | str, bytes, str, bool]:
    """(address, authority for Host, path prefix, whether TLS). Raises ``ConfigError``."""
    if url.startswith("unix:"):
        path = url[5:].removeprefix("//")
        if not path:
            raise ConfigError(f"{url!r} names no socket; write unix:/run/app.sock")
        return path, b"localhost", "", False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is not an upstream's URL: {error}") from None
    if parts.scheme not in ("http", "https"):
        hint = f"; did you mean http://{url}?" if "://" not in url else "; its scheme must be http, https or unix"
        raise ConfigError(f"{url!r} is not an upstream's URL{hint}")
    if not parts.hostname:
        raise ConfigError(f"{url!r} names no host; write http://127.0.0.1:9001")
    if parts.query or parts.fragment or parts.username is not None:
        raise ConfigError(f"{url!r} is not an upstream's URL: it may have a scheme, a host, a port and a path, no more")
    secure = parts.scheme == "https"
    authority = parts.netloc.encode("idna" if not parts.netloc.isascii() else "ascii")
    try:
        check_host(authority, 11)
    except BadMessage:
        raise ConfigError(f"{url!r} is not an upstream's URL: {parts.netloc!r} is not a host") from None
    return (unquote(parts.hostname), port or (443 if secure else 80)), authority, parts.path.rstrip("/"), secure
