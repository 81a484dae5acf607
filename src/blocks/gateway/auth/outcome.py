"""What a scheme says of a request: nobody, a consumer, or a refusal that a client can act on."""

from __future__ import annotations

from collections.abc import Awaitable
from math import ceil
from typing import Protocol

from blocks.gateway.consumer import Consumer
from blocks.gateway.context import Context
from blocks.gateway.problem import problem
from blocks.http.message import Pair, Request, Response


class Refusal:
    """Credentials were given and are not good: ``reason`` is a short constant for metrics, ``detail`` is told to the client."""

    __slots__ = ("challenge", "detail", "reason", "retry_after", "status")

    def __init__(
        self, reason: str, detail: str, *, challenge: str = "", status: int = 401, retry_after: float | None = None
    ) -> None:
        self.reason = reason
        self.detail = detail
        self.challenge = challenge
        self.status = status
        self.retry_after = retry_after


Outcome = Consumer | Refusal | None


class Authenticator(Protocol):
    """Reads one kind of credentials. ``identify`` gives None when the request carries none of its kind."""

    @property
    def challenge(self) -> str:
        """The WWW-Authenticate challenge for a request without credentials (RFC 9110 §11.6.1); empty when the kind has none."""
        ...

    def identify(self, request: Request, context: Context) -> Outcome | Awaitable[Outcome]:
        """Who asks. An awaitable is returned only where an answer must be waited for."""
        ...


_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


def refuse(refusal: Refusal, challenges: tuple[str, ...] = ()) -> Response:
    """The refusal as an answer; a 401 always carries a challenge (RFC 9110 §15.5.2)."""
    fields: list[Pair] = []
    if refusal.status in (400, 401, 403):
        told = (refusal.challenge,) if refusal.challenge else challenges
        if refusal.status == 401 and not any(told):
            told = ('Gateway realm="gateway"',)
        fields.extend((b"www-authenticate", text.encode("latin-1", "replace")) for text in told if text)
    if refusal.retry_after is not None:
        fields.append((b"retry-after", str(max(1, ceil(refusal.retry_after))).encode()))
    title = _TITLES.get(refusal.status, "Refused")
    return problem(refusal.status, title, refusal.detail, headers=fields, reason=refusal.reason)


def quoted(text: str) -> str:
    """A quoted-string (RFC 9110 §5.6.4) of printable ASCII; anything else is left out."""
    kept = "".join(character for character in text if " " <= character <= "~")
    return '"' + kept.replace("\\", "\\\\").replace('"', '\\"') + '"'


def challenge(scheme: str, realm: str, **parameters: str) -> str:
    """A challenge with its parameters, as ``Bearer realm="api", error="invalid_token"`` (RFC 6750 §3)."""
    listed = [f"realm={quoted(realm)}", *(f"{name}={quoted(value)}" for name, value in parameters.items() if value)]
    return f"{scheme} " + ", ".join(listed)
