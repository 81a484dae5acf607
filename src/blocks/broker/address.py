"""Where a broker is: ``HOST:PORT`` to listen on, ``blocks://[USER:PASSWORD@|TOKEN@]HOST:PORT`` to connect to."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from blocks.core.errors import ConfigError

PORT = 7400


class Address(NamedTuple):
    """A host and a port; an IPv6 host is kept without brackets and written with them."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """``HOST:PORT``, ``:PORT`` (loopback) or ``[IPV6]:PORT``. Raises ``ConfigError``."""
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65535 or (":" in host and not host.startswith("[")):
            raise ConfigError(f"{text!r} is not an address: write HOST:PORT, like 127.0.0.1:{PORT} or [::1]:{PORT}")
        return cls(host.strip("[]") or "127.0.0.1", int(port))

    def with_port(self, port: int) -> Address:
        """The same host with another port."""
        return Address(self.host, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Target(NamedTuple):
    """What a ``blocks://`` URL says: where to connect, whether by TLS, and as whom."""

    address: Address
    tls: bool
    user: str | None
    password: str | None
    token: str | None

    @classmethod
    def parse(cls, url: str) -> Target:
        """A ``blocks://`` or ``blocks+tls://`` URL; the port is 7400 if none is given. Raises ``ConfigError``."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"{url!r} is not a broker's URL: {error}") from error
        if parts.scheme not in ("blocks", "blocks+tls") or not parts.hostname or parts.path not in ("", "/"):
            raise ConfigError(f"{url!r} is not a broker's URL: write blocks://HOST:PORT or blocks+tls://HOST:PORT")
        user = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password is not None else None
        token = None
        if password is None:
            user, token = None, user
        elif user is None:
            token, password = password, None
        address = Address(parts.hostname, PORT if port is None else port)
        return cls(address, parts.scheme == "blocks+tls", user, password, token)
