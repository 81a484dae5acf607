"""A request's body on its way in: pulled through the reader, handed to whoever reads it, and held to a least rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocks.core.errors import ClientFault

from .body import Stream, TooLarge
from .h1 import BadMessage, End, Part
from .message import Headers

if TYPE_CHECKING:
    from .inbound import Inbound


class ClientTooSlow(ClientFault):
    """The body did not come, or not at the least rate (408, RFC 9110 §15.5.9)."""

    status = 408
    reason = "body-timeout"


class Upload:
    """The source of one request's body. ``expects``: the client waits for 100 Continue; ``received`` counts the wire's bytes."""

    __slots__ = ("_connection", "_length", "_paused_at", "_since", "_taken", "expects", "received", "stream")

    def __init__(self, connection: Inbound, length: int | None) -> None:
        self._connection = connection
        self._length = length
        self._since = connection.service.loop.time()
        self._paused_at = 0.0
        self._taken = 0
        self.stream = Stream(self, length)
        self.expects = False
        self.received = connection.reader.buffered

    def receive(self, size: int) -> None:
        """Take ``size`` bytes more, which the reader has, to whoever reads the body."""
        connection = self._connection
        now = connection.service.loop.time()
        self.received += size  # framing included: the rate is the wire's
        if not connection.blocked:
            connection.deadline = now + connection.service.timeouts.body
        try:
            self._hold_to_rate(now)
            self._pull()
        except BadMessage as bad:
            connection.service.malformed += 1
            connection.break_upload(
                ClientFault("the request's body is malformed", reason=bad.reason, status=bad.status)
            )
        except ClientFault as fault:
            connection.break_upload(fault)

    def _hold_to_rate(self, now: float) -> None:
        timeouts = self._connection.service.timeouts
        elapsed = now - self._since
        if elapsed > timeouts.body and self.received < timeouts.min_rate * elapsed:
            raise ClientTooSlow("the request's body comes too slowly", reason="body-too-slow")

    def _pull(self) -> None:
        connection = self._connection
        limit = connection.service.limits.body
        while (event := connection.reader.event()) is not None:
            if isinstance(event, Part):
                self._taken += len(event.data)
                if limit is not None and self._taken > limit:
                    raise TooLarge("the request's body is over the limit")
                self.stream.feed(event.data)
            elif isinstance(event, End):
                connection.uploaded()
                self.stream.finish(Headers.of(event.trailers) if event.trailers is not None else None)
                return

    def worth_waiting(self, limit: int) -> bool:
        """Whether the rest, which nobody may want any more, is short enough to be read so that the connection can stay."""
        if self.expects:
            return False  # the client was never told to send it
        unread = self.stream.untouched or self.stream.ended
        return not unread or (self._length is not None and self._length - self._taken <= limit)

    # -- as the stream's source

    def pause(self) -> None:
        """The reader of the body is full."""
        self._paused_at = self._connection.service.loop.time()
        self._connection.stop_reading()

    def resume(self) -> None:
        """The reader of the body wants it: a client that waits for 100 Continue may send it now (RFC 9110 §10.1.1)."""
        connection = self._connection
        now = connection.service.loop.time()
        if self.expects:
            self.expects = False
            if not connection.started and not connection.transport.is_closing():
                connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self._since = now
                connection.deadline = now + connection.service.timeouts.body
        if connection.resume_reading():
            self._since += now - self._paused_at
            if not connection.blocked:
                connection.deadline = now + connection.service.timeouts.body

    def cancel(self) -> None:
        """Nobody reads the body on. The handler goes on, and what still comes is dropped, or left unread once the answer is out."""
