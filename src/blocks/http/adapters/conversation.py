"""Messages over WebSocket frames (RFC 6455), one end of a connection, without I/O. The library websockets reads and writes the frames."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING

from blocks.core.errors import MissingExtra

from ..message import Request, Response
from ..refusal import refusal

if TYPE_CHECKING:
    from websockets.frames import Frame

Message = str | bytes

MAX_MESSAGE = 16 * 1024 * 1024  # bytes of a message, put together (uvicorn's ws_max_size)
NORMAL, GOING_AWAY, NO_STATUS, ABNORMAL, BAD_DATA, INTERNAL = 1000, 1001, 1005, 1006, 1007, 1011
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


class Conversation:
    """Bytes to messages and back. ``server`` says which end this is; only a client masks (RFC 6455 §5.3).

    ``closed`` is (code, reason) once the other end has closed or has broken the protocol, else None.
    What is to be sent gathers for ``outgoing``.
    """

    def __init__(self, *, server: bool, max_message: int = MAX_MESSAGE) -> None:
        try:
            from websockets.frames import Opcode
            from websockets.protocol import CLIENT, OPEN, SERVER, Protocol
        except ImportError as error:
            raise MissingExtra("WebSockets of ASGI applications", "websocket") from error
        self._opcode, self._open = Opcode, OPEN
        self._protocol = Protocol(SERVER if server else CLIENT, state=OPEN, max_size=max_message)
        self._parts = bytearray()  # of a message that comes in fragments
        self._text = False
        self.closed: tuple[int, str] | None = None
        self.heard = False  # something has come since this was last set to False

    @property
    def closing(self) -> bool:
        """Whether a close was sent: no message may follow it (RFC 6455 §5.5.1)."""
        return self._protocol.state is not self._open or self.closed is not None

    def receive(self, data: bytes) -> list[Message]:
        """The messages that are complete with these bytes."""
        self.heard = True
        self._protocol.receive_data(data)
        messages: list[Message] = []
        for frame in self._protocol.events_received():
            message = self._take(frame)  # type: ignore[arg-type]  # after the handshake there are frames only
            if message is not None:
                messages.append(message)
        if self.closed is None and self._protocol.parser_exc is not None:
            sent = self._protocol.close_sent
            self.closed = (ABNORMAL, "") if sent is None else (sent.code, sent.reason)
        return messages

    def _take(self, frame: Frame) -> Message | None:
        opcode = self._opcode
        if frame.opcode is opcode.CLOSE:
            received = self._protocol.close_rcvd
            self.closed = (received.code, received.reason) if received is not None else (NO_STATUS, "")
            return None
        if frame.opcode not in (opcode.TEXT, opcode.BINARY, opcode.CONT) or self.closed is not None:
            return None
        if frame.opcode is not opcode.CONT:
            self._text = frame.opcode is opcode.TEXT
        if not frame.fin or self._parts:
            self._parts += frame.data
        if not frame.fin:
            return None
        whole = bytes(self._parts or frame.data)
        self._parts.clear()
        if not self._text:
            return whole
        try:
            return whole.decode()
        except UnicodeDecodeError:
            self._protocol.fail(BAD_DATA, "a text message is not UTF-8")  # RFC 6455 §8.1
            self.closed = (BAD_DATA, "a text message is not UTF-8")
            return None

    def eof(self) -> None:
        """The other end has ended the connection."""
        self._protocol.receive_eof()
        if self.closed is None:
            self.closed = (ABNORMAL, "")

    def send(self, message: Message) -> None:
        """A message, in one frame."""
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._protocol.send_ping(b"")

    def close(self, code: int, reason: str = "") -> None:
        """Begin to close. Raises ``ValueError`` for a code that may not be sent (RFC 6455 §7.4)."""
        try:
            self._protocol.send_close(code, reason)
        except Exception as error:
            raise ValueError(f"a WebSocket cannot be closed with {code} {reason!r}: {error}") from error

    def outgoing(self) -> tuple[bytes, bool]:
        """What is to be sent, and whether the connection is to be ended behind it."""
        chunks = self._protocol.data_to_send()
        return b"".join(chunks), b"" in chunks


def handshake_refusal(request: Request) -> Response | None:
    """The answer to an opening handshake that is none (RFC 6455 §4.2.1), or None."""
    version = request.headers.get("sec-websocket-version")
    if version != "13":
        response = refusal(426, "websocket-version")
        response.headers["sec-websocket-version"] = "13"
        response.headers["upgrade"] = "websocket"
        return response
    try:
        key = base64.b64decode(request.headers.get("sec-websocket-key") or "", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if request.method != "GET" or len(key) != 16:
        return refusal(400, "bad-websocket-handshake")
    return None


def accept_key(key: str) -> str:
    """``Sec-WebSocket-Accept`` for a ``Sec-WebSocket-Key`` (RFC 6455 §4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.strip().encode("ascii") + _GUID).digest()).decode("ascii")
