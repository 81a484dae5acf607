"""The server's side of WebSocket frames, sans-IO: bytes in, events out; bytes of frames to send (RFC 6455 §5).

No extension is agreed to, so a reserved bit is an error; a client's frames are masked, ours are not.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from hashlib import sha1
from typing import NamedTuple

from blocks.http.message import Request

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
NORMAL, GOING_AWAY, PROTOCOL, UNSUPPORTED, POLICY, TOO_BIG, INTERNAL, LATER = (
    1000,
    1001,
    1002,
    1003,
    1008,
    1009,
    1011,
    1013,
)
MAX_FRAME = 65536  # bytes of one message of a client
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_OPCODES = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})


class Frame(NamedTuple):
    """A whole frame of the client, unmasked."""

    opcode: int
    final: bool
    payload: bytes


class BadFrame(ValueError):
    """The client does not keep to the protocol; ``code`` is what the connection is closed with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def accept(request: Request) -> bytes | None:
    """The Sec-WebSocket-Accept of a good handshake (RFC 6455 §4.2), or None."""
    if (
        request.upgrade != "websocket"
        or request.method != "GET"
        or request.headers.find(b"sec-websocket-version") != b"13"
    ):
        return None
    key = request.headers.find(b"sec-websocket-key") or b""
    try:
        good = len(b64decode(key, validate=True)) == 16
    except Base64Error:
        good = False
    return b64encode(sha1(key + _GUID, usedforsecurity=False).digest()) if good else None


def frame(opcode: int, payload: bytes) -> bytes:
    """A final, unmasked frame."""
    length = len(payload)
    if length < 126:
        return bytes((0x80 | opcode, length)) + payload
    if length < 65536:
        return bytes((0x80 | opcode, 126)) + length.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + length.to_bytes(8, "big") + payload


def close(code: int, reason: str = "") -> bytes:
    """A close frame."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode()[:123])


class Reader:
    """Turns bytes into frames, however they are cut. Raises ``BadFrame``."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def receive(self, data: bytes) -> list[Frame]:
        """The frames that are complete now."""
        self._buffer += data
        frames: list[Frame] = []
        while (found := self._next()) is not None:
            frames.append(found)
        return frames

    def _next(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        opcode, final, length = buffer[0] & 0x0F, bool(buffer[0] & 0x80), buffer[1] & 0x7F
        if buffer[0] & 0x70 or opcode not in _OPCODES or not buffer[1] & 0x80:
            raise BadFrame(PROTOCOL, "a reserved bit, an unknown opcode, or no mask")
        if opcode >= CLOSE and (not final or length > 125):
            raise BadFrame(PROTOCOL, "a control frame is whole and at most 125 bytes")
        head = {126: 4, 127: 10}.get(length, 2)
        if len(buffer) < head:
            return None
        if head > 2:
            length = int.from_bytes(buffer[2:head], "big")
        if length > self._limit:
            raise BadFrame(TOO_BIG, "the frame is too large")
        end = head + 4 + length
        if len(buffer) < end:
            return None
        payload = _unmask(bytes(buffer[head + 4 : end]), bytes(buffer[head : head + 4]))
        del buffer[:end]
        return Frame(opcode, final, payload)


def _unmask(data: bytes, mask: bytes) -> bytes:
    if not data:
        return data
    whole = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(whole, "big")).to_bytes(len(data), "big")
