"""The upstream's side of an upgraded connection: bytes both ways, each side paused while the other does not keep up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from .body import Sink, Source
from .message import Headers

if TYPE_CHECKING:
    from .inbound import Inbound


class OutboundTunnel(asyncio.Protocol):
    """Takes over an upstream's transport after 101; the server connects it to the client (see ``body.Tunnel``)."""

    __slots__ = ("_early", "_gone", "_sink", "_source", "_transport", "_watchers")

    def __init__(self, transport: asyncio.Transport, early: bytes, gone: Callable[[OutboundTunnel], None]) -> None:
        self._transport = transport
        self._early = early  # came right behind the 101, before there was a client to give it to
        self._gone = gone
        self._sink: Sink | None = None
        self._source: Source | None = None
        self._watchers: tuple[Callable[[BaseException | None], None], ...] = ()
        transport.pause_reading()

    def watch(self, ended: Callable[[BaseException | None], None]) -> None:
        """Call ``ended(None)`` once, when the upstream's connection is gone: as ``Stream.watch``, for whoever counts what is under way."""
        self._watchers += (ended,)

    # -- called by the client's side

    def connect(self, sink: Sink, source: Source) -> None:
        """Send what the upstream says to ``sink`` from now on."""
        self._sink, self._source = sink, source
        if self._early:
            sink.write(self._early)
            self._early = b""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Bytes from the client."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def end(self) -> None:
        """The client has ended its side."""
        if not self._transport.is_closing():
            if self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._transport.close()

    def pause(self) -> None:
        """The client does not keep up."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """The client has caught up."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def cancel(self) -> None:
        """The client is gone."""
        self._sink = self._source = None
        self._transport.abort()

    # -- called by the transport

    def data_received(self, data: bytes) -> None:
        """Bytes from the upstream."""
        if self._sink is not None:
            self._sink.write(data)

    def eof_received(self) -> bool:
        """The upstream has ended its side; the client may still send."""
        if self._sink is not None:
            self._sink.end(None)
        return self._transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """The upstream is gone."""
        sink, self._sink, self._source = self._sink, None, None
        if sink is not None:
            if exc is None:
                sink.end(None)
            else:
                sink.abort(exc)
        self._gone(self)
        watchers, self._watchers = self._watchers, ()
        for ended in watchers:
            ended(None)

    def pause_writing(self) -> None:
        """The upstream does not keep up."""
        if self._source is not None:
            self._source.pause()

    def resume_writing(self) -> None:
        """The upstream has caught up."""
        if self._source is not None:
            self._source.resume()


class ClientEnd:
    """The client's side of an upgraded connection, as the sink and the source that a ``Tunnel`` is connected to."""

    __slots__ = ("_connection", "_transport")

    def __init__(self, connection: Inbound) -> None:
        self._connection = connection
        self._transport = connection.transport

    @classmethod
    def both(cls, connection: Inbound) -> tuple[ClientEnd, ClientEnd]:
        """The sink and the source: one object is both."""
        end = cls(connection)
        return end, end

    def write(self, data: bytes) -> None:
        """Bytes from the other side."""
        if not self._transport.is_closing():
            self._transport.write(data)
            self._connection.touch()

    def end(self, trailers: Headers | None) -> None:
        """The other side has ended; the client may still send."""
        self._connection.hang_up()

    def abort(self, error: BaseException) -> None:
        """The other side broke off."""
        self._transport.abort()

    def pause(self) -> None:
        """The other side does not keep up."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """The other side has caught up."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def cancel(self) -> None:
        """The other side is gone."""
        self._transport.abort()
