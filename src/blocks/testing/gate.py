"""A gate stands between a socket and the protocol that serves it, and spoils what passes as a fault says: bytes, not promises."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

from .faults import Faults
from .lag import Lag
from .rules import Effect

HIGH, LOW = 65536, 16384  # bytes held back by a slow answer at which its source is paused, and let go again
_END = b"\r\n\r\n"


class Gate(asyncio.Protocol):
    """Serves one accepted connection with ``inner``, whose transport it is. ``spoil`` says what happens to the answer that comes next."""

    def __init__(self, inner: asyncio.Protocol, faults: Faults, closed: Callable[[Gate], None]) -> None:
        self.inner = inner
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set when the connection is made
        self.outlet = Outlet(self)
        self._faults = faults
        self._closed = closed
        self._effect: Effect | None = None
        self._whole = False  # the effect holds for the connection, not for one answer
        self._deaf = False
        self._sent = 0  # bytes of this answer
        self._head = 0  # of them the head's, once it is known
        self._held = bytearray()
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._closing = False
        self._paused = False
        self._lag: Lag | None = None  # when the whole connection is slow
        self._late = 0.0

    # -- from the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected: a fault for the connection strikes here."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.inner.connection_made(self.outlet)
        effect = self._faults.connections.decide(transport.get_extra_info("peername"))
        if effect is None:
            return
        if effect.kind in ("pace", "cut-body", "corrupt-body"):
            self._effect, self._whole = effect, True
        elif effect.kind == "delay":
            self._lag, self._late = Lag(self._write_late), effect.delay
        elif effect.kind == "reset":
            self.reset()
        elif effect.kind == "close":
            transport.close()
        else:
            self.go_deaf()

    def data_received(self, data: bytes) -> None:
        """Bytes from the client, unless the gate is deaf."""
        if not self._deaf:
            self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        """The client has ended its side."""
        return True if self._deaf else self.inner.eof_received()

    def pause_writing(self) -> None:
        """The client does not keep up."""
        if not self._held:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if not self._held:
            self.inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
        if self._lag is not None:
            self._lag.stop()
        self._held.clear()
        self._closed(self)
        self.inner.connection_lost(exc)

    # -- what a fault does at once

    def reset(self) -> None:
        """End the connection with RST."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def go_deaf(self) -> None:
        """Read nothing more and say nothing more, but keep the connection open."""
        self._deaf = True
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def spoil(self, effect: Effect | None) -> None:
        """A request has come; ``effect`` is what happens to its answer."""
        if not self._whole and not self._held:
            self._effect, self._sent, self._head = effect, 0, 0

    # -- to the socket

    def write(self, data: bytes) -> None:
        """The inner protocol's bytes, passed on as the effect says."""
        if self._deaf or self._closing:
            return
        effect = self._effect
        if self._lag is not None:
            self._lag.put(bytes(data), self._late)
        elif effect is None:
            self.transport.write(data)
        elif effect.kind in ("pace", "duplicate"):
            self._hold(data, effect)
        else:
            if not self._head and not self._whole and _END in data:
                self._head = self._sent + data.index(_END) + len(_END)
            self._shape(bytes(data), effect)

    def _shape(self, data: bytes, effect: Effect) -> None:
        before, self._sent = self._sent, self._sent + len(data)
        if effect.kind == "cut-head":
            self._cut(data, (self._head // 2 if effect.size is None else effect.size) - before)
        elif effect.kind == "cut-body":
            self._cut(data, self._head + (effect.size or 0) - before)
        elif effect.kind == "corrupt-head":
            if before == 0:
                data = _flipped(data, effect.seed % min(8, len(data)), effect.seed)
            self.transport.write(data)
        elif effect.kind == "corrupt-body":
            start = max(0, self._head - before)
            if (self._head or self._whole) and start < len(data):
                data = _flipped(data, start + effect.seed % (len(data) - start), effect.seed)
                self._effect = None
            self.transport.write(data)
        else:
            self.transport.write(data)

    def _cut(self, data: bytes, keep: int) -> None:
        if keep >= len(data) and (self._head or self._whole):
            self.transport.write(data)
            if keep > len(data):
                return
        elif keep > 0:
            self.transport.write(data[:keep])
        self._closing = True
        self.transport.close()

    def _hold(self, data: bytes, effect: Effect) -> None:
        self._held += data
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._timer = loop.call_soon(self._twice) if effect.kind == "duplicate" else loop.call_soon(self._piece)
        if len(self._held) > HIGH and not self._paused and effect.kind == "pace":
            self._paused = True
            self.inner.pause_writing()

    def _twice(self) -> None:
        self._timer = None
        data = bytes(self._held)
        self._held.clear()
        self.transport.write(data + data)
        if self._closing:
            self.transport.close()

    def _piece(self) -> None:
        self._timer = None
        effect = self._effect
        if effect is None or self.transport.is_closing():
            return
        count = effect.size or 1
        self.transport.write(bytes(self._held[:count]))
        del self._held[:count]
        if self._paused and len(self._held) < LOW:
            self._paused = False
            self.inner.resume_writing()
        if self._held:
            self._timer = asyncio.get_running_loop().call_later(effect.delay, self._piece)
        elif self._closing:
            self.transport.close()

    def close(self) -> None:
        """The inner protocol is done; what is held back still goes out."""
        if self._deaf:
            return
        if self._lag is not None:
            self._lag.put(self.transport.close, self._late)
        elif self._held:
            self._closing = True
        else:
            self.transport.close()

    @property
    def closing(self) -> bool:
        """Whether the inner protocol should write no more."""
        return self._closing or self.transport.is_closing()

    @property
    def lagging(self) -> bool:
        """Whether the whole connection is slow."""
        return self._lag is not None

    @property
    def held(self) -> int:
        """Bytes held back."""
        return len(self._held) + (self._lag.held if self._lag is not None else 0)

    def end(self) -> None:
        """The inner protocol ends its side, after what is held back."""
        if self._lag is not None:
            self._lag.put(self._end_late, self._late)
        else:
            self.transport.write_eof()

    def _write_late(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def _end_late(self) -> None:
        if not self.transport.is_closing():
            self.transport.write_eof()


def _flipped(data: bytes, at: int, seed: int) -> bytes:
    """``data`` with the byte at ``at`` changed, always to another one."""
    changed = bytearray(data)
    changed[at] ^= 1 + seed % 255
    return bytes(changed)


class Outlet(asyncio.Transport):
    """The transport that a gate's inner protocol sees."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Through the gate."""
        self._gate.write(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        """Through the gate."""
        self._gate.write(b"".join(list_of_data))

    def close(self) -> None:
        """Once what is held back has gone out."""
        self._gate.close()

    def abort(self) -> None:
        """At once."""
        self._gate.transport.abort()

    def is_closing(self) -> bool:
        """Whether nothing more should be written."""
        return self._gate.closing

    def write_eof(self) -> None:
        """End our side."""
        self._gate.end()

    def can_write_eof(self) -> bool:
        """Not while bytes are held back."""
        return self._gate.transport.can_write_eof() and (self._gate.lagging or not self._gate.held)

    def pause_reading(self) -> None:
        """As the socket's."""
        self._gate.transport.pause_reading()

    def resume_reading(self) -> None:
        """As the socket's."""
        self._gate.transport.resume_reading()

    def is_reading(self) -> bool:
        """As the socket's."""
        return self._gate.transport.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As the socket's."""
        self._gate.transport.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """As the socket's."""
        return self._gate.transport.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        """With what is held back."""
        return self._gate.transport.get_write_buffer_size() + self._gate.held

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the socket's."""
        return self._gate.transport.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Replace the inner protocol."""
        self._gate.inner = protocol  # type: ignore[assignment]  # a protocol of bytes

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The inner protocol."""
        return self._gate.inner
