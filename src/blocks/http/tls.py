"""TLS contexts: several certificates by SNI, new ones without a dropped connection, client certificates.

A listener keeps one context for its whole life; each handshake is moved to the context that its SNI asks for (RFC 6066 §3). So a
reload is an assignment: handshakes after it see the new certificates, connections before it keep what they have.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterable, Sequence

from blocks.core.clock import SYSTEM, Clock
from blocks.core.errors import ConfigError
from blocks.core.logging import events

from .certificate import Certificate, certificate_in

_MINIMUM = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
# Mozilla's "intermediate" list (server side TLS 5.7) for TLS 1.2: forward secrecy and AEAD only. TLS 1.3 has its own.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_WARN = 14 * 86400.0  # seconds before its end that a certificate is told about (Let's Encrypt renews 30 days before)

Names = str | os.PathLike[str]


class Certificates:
    """A server's certificates: ``context`` is what a listener is given, ``reload()`` reads the files anew.

    ``files`` are (certificate chain, key) in PEM; the first is for clients that name no host or an unknown one. Names and
    wildcards are those of each certificate (RFC 6125 §6.4.3). With ``client_ca`` a client must show a certificate of that authority
    (``required=False``: may). ``alpn`` are the protocols offered; ``minimum`` is TLSv1.2 (as nginx and Go have it) or TLSv1.3.

    Raises ``ConfigError`` for a missing file, a key that is not the certificate's, an encrypted key, a file that is no PEM. Expired
    certificates are used all the same, and told as an event: a server with an old certificate beats none.
    """

    def __init__(
        self,
        files: Iterable[tuple[Names, Names]],
        *,
        client_ca: Names | None = None,
        required: bool = True,
        alpn: Sequence[str] = ("http/1.1",),
        minimum: str = "TLSv1.2",
        clock: Clock = SYSTEM,
    ) -> None:
        self.files = [(os.fspath(certificate), os.fspath(key)) for certificate, key in files]
        if not self.files:
            raise ConfigError("a TLS server needs at least one certificate")
        if minimum not in _MINIMUM:
            raise ConfigError(f"{minimum!r} is no TLS version that is served; it is one of {', '.join(_MINIMUM)}")
        self._client_ca = None if client_ca is None else os.fspath(client_ca)
        self._required = required
        self._alpn = list(alpn)
        self._minimum = _MINIMUM[minimum]
        self._clock = clock
        self._table = self._load()
        self.context = self._bare()
        self.context.load_cert_chain(*self.files[0])
        self.context.sni_callback = self._chosen

    def reload(self) -> None:
        """Read the files anew, for handshakes from now on. Raises ``ConfigError`` and changes nothing when one of them is bad."""
        self.prepare()()

    def prepare(self) -> Callable[[], None]:
        """Read the files anew; what it returns puts them into force, and cannot fail. Raises ``ConfigError`` when one of them is bad."""
        table = self._load()

        def take() -> None:
            self._table = table
            events().info("certificates-reloaded", certificates=[certificate for certificate, _ in self.files])

        return take

    @property
    def expires(self) -> float:
        """When the first of the certificates ends, in seconds since 1970."""
        return self._table.expires

    def _load(self) -> _Table:
        table = _Table()
        for certificate, key in self.files:
            context = self._bare()
            facts = load_pair(context, certificate, key)
            table.add(context, facts)
            self._warn(certificate, facts.ends)
        return table

    def _bare(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._minimum
        context.set_ciphers(_CIPHERS)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(self._alpn)
        if self._client_ca is not None:
            load_authority(context, self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED if self._required else ssl.CERT_OPTIONAL
            # A session ticket would let a client in that the authority of now would refuse.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
        return context

    def _chosen(self, handshake: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        handshake.context = self._table.find(name)

    def _warn(self, certificate: str, ends: float) -> None:
        left = ends - self._clock.wall()
        if left < _WARN:
            told = "certificate-expired" if left <= 0 else "certificate-expires-soon"
            events().warning(told, certificate=certificate, days_left=round(left / 86400, 1))


class _Table:
    """Contexts by host name; wildcards stand for exactly one label."""

    __slots__ = ("_exact", "_first", "_wild", "expires")

    def __init__(self) -> None:
        self._exact: dict[str, ssl.SSLContext] = {}
        self._wild: dict[str, ssl.SSLContext] = {}
        self._first: ssl.SSLContext | None = None
        self.expires = float("inf")

    def add(self, context: ssl.SSLContext, facts: Certificate) -> None:
        if self._first is None:
            self._first = context
        self.expires = min(self.expires, facts.ends)
        for name in facts.names:
            if name.startswith("*."):
                self._wild.setdefault(name[2:], context)
            else:
                self._exact.setdefault(name, context)

    def find(self, name: str | None) -> ssl.SSLContext:
        assert self._first is not None
        if not name:
            return self._first
        name = name.lower().rstrip(".")
        return self._exact.get(name) or self._wild.get(name.partition(".")[2]) or self._first


def server_context(
    certificates: Iterable[tuple[Names, Names]],
    *,
    client_ca: Names | None = None,
    alpn: Sequence[str] = ("http/1.1",),
    minimum: str = "TLSv1.2",
) -> ssl.SSLContext:
    """The context of a server that never reloads: ``Certificates(...).context``."""
    return Certificates(certificates, client_ca=client_ca, alpn=alpn, minimum=minimum).context


def client_context(
    *,
    ca: Names | None = None,
    certificate: tuple[Names, Names] | None = None,
    verify: bool = True,
    alpn: Sequence[str] = ("http/1.1",),
    minimum: str = "TLSv1.2",
) -> ssl.SSLContext:
    """The context of an upstream's side. The name that is verified and sent as SNI is the connection's ``server_hostname``.

    ``ca`` is the authority to trust instead of the system's, ``certificate`` (chain, key) what is shown to a server that asks.
    ``verify=False`` accepts anybody: for tests, and networks that are trusted anyway. Raises ``ConfigError`` for files that are no good.
    """
    if minimum not in _MINIMUM:
        raise ConfigError(f"{minimum!r} is no TLS version that is used; it is one of {', '.join(_MINIMUM)}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = _MINIMUM[minimum]
    context.options |= ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(list(alpn))
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca is not None:
        load_authority(context, os.fspath(ca))
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if certificate is not None:
        load_pair(context, os.fspath(certificate[0]), os.fspath(certificate[1]))
    return context


def load_pair(context: ssl.SSLContext, certificate: str, key: str) -> Certificate:
    """Load a chain and its key; returns the facts of the first certificate. Raises ``ConfigError``."""
    pem = _read(certificate, "certificate")
    _read(key, "key")
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _Encrypted:
        raise ConfigError(
            f"the key {key!r} is encrypted; give one that is not: a server starts without anybody there"
        ) from None
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            raise ConfigError(f"the key {key!r} is not the one of the certificate {certificate!r}") from None
        raise ConfigError(
            f"the certificate {certificate!r} and the key {key!r} cannot be used: {_said(error)}"
        ) from None
    try:
        return certificate_in(pem)
    except ValueError as error:
        raise ConfigError(f"the certificate {certificate!r} cannot be read: {error}") from None


def load_authority(context: ssl.SSLContext, path: str) -> None:
    """Trust the authorities in a PEM file. Raises ``ConfigError``."""
    _read(path, "authority")
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigError(f"the authority {path!r} cannot be used: {_said(error)}") from None


class _Encrypted(Exception):
    """The key asks for a password."""


def _no_password() -> str:
    raise _Encrypted


def _read(path: str, what: str) -> str:
    try:
        with open(path, encoding="latin-1") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise ConfigError(f"cannot read the {what} {path!r}: {error.strerror or error}") from None


def _said(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()
