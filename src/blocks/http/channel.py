"""Messages between a parent and a worker, over a pair of sockets: four bytes of length, then MessagePack."""

from __future__ import annotations

import socket

import msgspec

from .agreement import Message

MOST = 1 << 30  # bytes of a message: the texts of a configuration of 1,000 files
_HEAD = 4
_AT_ONCE = 1 << 18

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


class Channel:
    """One end. It never blocks: what cannot be sent yet waits in it, and ``waiting`` says that ``flush`` is to be called."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.end = end
        self.closed = False
        self._in = bytearray()
        self._out = bytearray()

    @property
    def waiting(self) -> bool:
        """Whether there is something to send when the other side takes it."""
        return bool(self._out)

    def send(self, message: Message) -> None:
        """Send it, now or as soon as there is room; to nobody when the other side is gone."""
        if self.closed:
            return
        data = _encode(message)
        if len(data) > MOST:
            raise ValueError(f"a message of {len(data)} bytes is longer than any should be")
        self._out += len(data).to_bytes(_HEAD, "big") + data
        self.flush()

    def flush(self) -> None:
        """Send as much of what waits as there is room for."""
        while self._out and not self.closed:
            try:
                del self._out[: self.end.send(self._out)]
            except BlockingIOError:
                return
            except OSError:  # the other side is gone
                self._close()

    def receive(self) -> list[Message]:
        """What has come, whole messages only; ``closed`` is set when the other side is gone."""
        while not self.closed:
            try:
                data = self.end.recv(_AT_ONCE)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self._close()
                break
            self._in += data
        found: list[Message] = []
        while len(self._in) >= _HEAD:
            length = int.from_bytes(self._in[:_HEAD], "big")
            if len(self._in) < _HEAD + length:
                break
            found.append(_decode(bytes(self._in[_HEAD : _HEAD + length])))
            del self._in[: _HEAD + length]
        return found

    def _close(self) -> None:
        self.closed = True
        self._out.clear()

    def close(self) -> None:
        """Give the socket back."""
        self._close()
        self.end.close()
