"""A client certificate that the TLS handshake has verified names its consumer by subject, alternative name or fingerprint.

Source: RFC 5280 §4.1.2.6 (subject), §4.2.1.6 (alternative names); SPIFFE ids are alternative names of the kind URI.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from blocks.core.errors import ConfigError
from blocks.gateway.consumer import Consumer
from blocks.gateway.context import Context
from blocks.http.message import Peer, Request

from .outcome import Outcome, Refusal, challenge

_KINDS = {"cn": "CN", "dns": "DNS", "uri": "URI", "email": "email", "sha256": "sha256"}
_SUBJECT = {"commonName": "CN"}


class Certificates:
    """The authenticator by client certificate. ``names``: ``CN:…``, ``DNS:…``, ``URI:…``, ``email:…`` or ``sha256:<hex>`` → consumer.

    Which authorities are believed is the listener's setting: what arrives here was verified by TLS, or there is no certificate.
    """

    def __init__(self, names: Mapping[str, Consumer], *, realm: str = "gateway") -> None:
        self.challenge = challenge(
            "Certificate", realm
        )  # no scheme is registered for what the handshake does; a 401 must carry one
        self._names = {read_name(name): consumer for name, consumer in names.items()}
        self._fingerprints = any(name.startswith("sha256:") for name in self._names)
        self.refused = 0

    def identify(self, request: Request, context: Context) -> Outcome:
        """The consumer of the connection's certificate; one answer for each header section, which lives with the connection."""
        peer = request.peer
        if not peer.certificate:
            return None
        memo: tuple[Peer, Consumer] | None = request.headers.section.derived.get(self)
        if memo is not None and memo[0] is peer:
            return memo[1]
        for name in self._shown(peer):
            consumer = self._names.get(name)
            if consumer is not None:
                request.headers.section.derived[self] = (peer, consumer)
                return consumer
        self.refused += 1
        return Refusal("certificate", "the client certificate is nobody's", challenge=self.challenge, status=403)

    def figures(self) -> dict[str, int]:
        """Counters for the metrics."""
        return {"refused_certificate": self.refused}

    def _shown(self, peer: Peer) -> Iterable[str]:
        """The certificate's names, the most exact first."""
        if self._fingerprints and peer.tls is not None:
            der = peer.tls.getpeercert(True)
            if der:
                yield "sha256:" + sha256(der).hexdigest()
        yield from names_of(peer.certificate or {})


def names_of(certificate: Mapping[str, Any]) -> list[str]:
    """The alternative names, then the common name, of a certificate in the form of ``ssl.SSLSocket.getpeercert()``."""
    names = []
    for kind, value in certificate.get("subjectAltName", ()):
        if kind in ("DNS", "URI", "email"):
            names.append(f"{kind}:{value.lower() if kind == 'DNS' else value}")
    for part in certificate.get("subject", ()):
        names.extend(f"{_SUBJECT[kind]}:{value}" for kind, value in part if kind in _SUBJECT)
    return names


def read_name(text: str) -> str:
    """A configured name in its one spelling. Raises ``ConfigError``."""
    kind, colon, value = text.partition(":")
    known = _KINDS.get(kind.lower())
    if not colon or not value or known is None:
        raise ConfigError(f"{text!r} is not a certificate's name; write CN:…, DNS:…, URI:…, email:… or sha256:…")
    if known == "sha256":
        value = value.replace(":", "").lower()
        if len(value) != 64:
            raise ConfigError(f"{text!r} is not a SHA-256 fingerprint of 64 hex digits")
    return f"{known}:{value.lower() if known == 'DNS' else value}"
