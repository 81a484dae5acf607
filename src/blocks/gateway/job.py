"""A job is long work with a state that can be asked for: running, done, failed or cancelled. Sans-IO."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from blocks.http.message import Headers, Pair, Response, Section

RUNNING, DONE, FAILED, CANCELLED, LOST = "running", "done", "failed", "cancelled", "lost"
ENDED = frozenset({DONE, FAILED, CANCELLED})


class Job(msgspec.Struct, array_like=True):
    """A job as it is kept. ``owner`` may see it; ``beat`` is when its gateway was last heard of; ``cancel``: somebody asked to stop it."""

    id: str
    owner: str
    state: str
    created: float
    beat: float
    cancel: bool = False
    reason: str = ""
    status: int = 0
    fields: list[tuple[bytes, bytes]] = []
    body: bytes = b""

    def seen(self, now: float, lease: float) -> str:
        """The state as a client is told: a running job whose gateway is silent for longer than ``lease`` is lost."""
        return LOST if self.state == RUNNING and now - self.beat > lease else self.state

    def told(self, base: str, now: float, lease: float) -> dict[str, Any]:
        """The status resource."""
        state = self.seen(now, lease)
        told: dict[str, Any] = {"id": self.id, "state": state, "created": self.created, "status": f"{base}/{self.id}"}
        if state == RUNNING and self.cancel:
            told["state"] = "cancelling"
        if state == DONE:
            told["result"] = f"{base}/{self.id}/result"
        if self.reason:
            told["reason"] = self.reason
        return told

    def result(self) -> Response:
        """The service's answer, as it was."""
        pairs: list[Pair] = [(bytes(name), bytes(value)) for name, value in self.fields]
        return Response(self.status, Headers.of(Section(pairs)), self.body)


def new_id() -> str:
    """An id that cannot be guessed (128 bits): who is not asked for credentials is known by it."""
    return secrets.token_urlsafe(16)


def wanted_wait(prefer: bytes | None) -> float | None:
    """The seconds of ``Prefer: wait=N`` that a client wants to wait for an answer before it takes a 202 (RFC 7240 §4.3)."""
    for part in (prefer or b"").lower().replace(b";", b",").split(b","):
        name, _, value = part.strip().partition(b"=")
        if name == b"wait" and value.strip(b'" ').isdigit():
            return float(value.strip(b'" ')[:6])
    return None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Job)


def pack(job: Job) -> bytes:
    """The job as bytes."""
    return _encoder.encode(job)


def unpack(data: bytes) -> Job:
    """The job of bytes that ``pack`` made. Raises ``msgspec.DecodeError``."""
    return _decoder.decode(data)
