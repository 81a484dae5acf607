"""Which requests carry a key, when two are the same, and which answers are kept: sans-IO.

Source: draft-ietf-httpapi-idempotency-key-header-07, and Stripe's practice where the draft is silent.
"""

from __future__ import annotations

import re
from hashlib import sha256

import msgspec

from blocks.http.message import Headers, Pair, Response, Section

MAX_KEY = 255  # characters; Stripe's
RUNNING, DONE, GONE = "running", "done", "gone"  # under way; answered; answered, but too large to be kept
_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"\Z')  # sf-string, RFC 8941 §3.3.3
_TOKEN = re.compile(r"[A-Za-z0-9._~:/+=@-]+\Z")  # what clients send without quotes, UUIDs above all
_PASSING = frozenset({408, 425, 429})  # answers that say "again later"; they settle nothing
_NEVER_KEPT = frozenset({b"date", b"connection", b"transfer-encoding", b"content-length", b"age"})


class Record(msgspec.Struct, array_like=True):
    """What is kept under a key. ``owner`` tells one attempt from the next; ``fingerprint`` what was asked."""

    state: str
    owner: str
    fingerprint: bytes
    status: int = 0
    fields: list[tuple[bytes, bytes]] = []
    body: bytes = b""


def read_key(value: bytes) -> str | None:
    """The key of the field, quoted or bare; None when it is malformed, empty or longer than ``MAX_KEY``."""
    text = value.decode("latin-1")
    match = _STRING.match(text)
    key = re.sub(r"\\(.)", r"\1", match.group(1)) if match else text if _TOKEN.match(text) else ""
    return key if 0 < len(key) <= MAX_KEY else None


def record_key(route: str, consumer: str, key: str) -> bytes:
    """Where the record is kept: one client's key is never another's, and one route's never another's."""
    return sha256("\0".join((route, consumer, key)).encode()).digest()


def fingerprint(method: str, target: str, content_type: bytes | None, body: bytes) -> bytes:
    """The same for the same request: method, target, media type and body."""
    head = f"{method}\0{target}\0".encode() + (content_type or b"") + b"\0"
    return sha256(head + body).digest()[:16]


def settles(status: int, *, errors: bool) -> bool:
    """Whether an answer is final: not "again later", and not a server's error (unless ``errors`` are kept, too)."""
    return status not in _PASSING and (status < 500 or errors)


def kept_fields(headers: Headers) -> list[Pair]:
    """The fields that are replayed."""
    return [(name, value) for name, value in headers.raw if name not in _NEVER_KEPT]


def replay(record: Record) -> Response:
    """The kept answer again, marked as such."""
    pairs: list[Pair] = [(bytes(name), bytes(value)) for name, value in record.fields]
    return Response(record.status, Headers.of(Section([*pairs, (b"idempotent-replayed", b"true")])), record.body)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def pack(record: Record) -> bytes:
    """The record as bytes."""
    return _encoder.encode(record)


def unpack(data: bytes) -> Record:
    """The record of bytes that ``pack`` made. Raises ``msgspec.DecodeError``."""
    return _decoder.decode(data)
