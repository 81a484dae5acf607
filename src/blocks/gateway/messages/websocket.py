"""The tunnel of a WebSocket that only sends: a feed's messages out; of the client pings, pongs and the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocks.http.body import Sink, Source

from .frames import CLOSE, GOING_AWAY, INTERNAL, NORMAL, PING, PONG, UNSUPPORTED, BadFrame, Reader, close, frame

if TYPE_CHECKING:
    from .feed import Feed

PING_FRAME = frame(PING, b"")


class Socket:
    """Stands between a client's connection and its feed; what a client sends as data is refused (1003): the stream goes one way."""

    __slots__ = ("_closing", "_ended", "_reader", "_sink", "_source", "feed")

    feed: Feed

    def __init__(self) -> None:
        self._reader = Reader()
        self._sink: Sink | None = None
        self._source: Source | None = None
        self._closing = False
        self._ended = False  # the client has ended its side

    # -- the feed's side

    def send(self, data: bytes) -> None:
        """A frame to the client."""
        if self._sink is not None and not self._closing:
            self._sink.write(data)

    def over(self, error: Exception | None) -> None:
        """The feed has ended: the client may come again."""
        self._close(INTERNAL if error is not None else GOING_AWAY)
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.end(None)
        self._part()

    # -- the server's side

    def connect(self, sink: Sink, source: Source) -> None:
        """The client is there: let the messages come."""
        self._sink, self._source = sink, source
        self.feed.resume()

    def write(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._closing:
            return
        try:
            for one in self._reader.receive(data):
                if one.opcode == PING:
                    self.send(frame(PONG, one.payload))
                elif one.opcode == CLOSE:
                    self._leave(NORMAL)
                    return
                elif one.opcode != PONG:
                    self._leave(UNSUPPORTED)
                    return
        except BadFrame as error:
            self._leave(error.code)

    def end(self) -> None:
        """The client has ended its side."""
        self._ended = True
        self._leave(NORMAL)
        self._part()

    def pause(self) -> None:
        """The client is full."""
        self.feed.pause()

    def resume(self) -> None:
        """The client has caught up."""
        self.feed.resume()

    def cancel(self) -> None:
        """The client is gone."""
        self._sink = self._source = None
        self._closing = True
        self.feed.cancel()

    def _part(self) -> None:
        """Both sides have ended: the connection goes (RFC 6455 §7.1.1, the server closes first)."""
        if self._ended and self._sink is None and self._source is not None:
            source, self._source = self._source, None
            source.cancel()

    def _leave(self, code: int) -> None:
        self._close(code)
        self.feed.cancel()

    def _close(self, code: int) -> None:
        if self._sink is not None and not self._closing:
            self._sink.write(close(code))
        self._closing = True
