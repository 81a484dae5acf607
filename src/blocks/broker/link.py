"""A link is the client's side of one connection: it says who it is, notices a dead peer, and hands frames on."""

from __future__ import annotations

import asyncio
import math
import ssl
from typing import Any, Protocol, cast

from blocks.core.errors import Again
from blocks.core.sweeper import sweeper

from . import wire
from .address import Target
from .columns import error_of
from .errors import BrokerError, Closed
from .frames import Closing, Frame, Hello, Ping, Pong, Welcome

PINGS = 2  # unanswered; counted, not timed, so that a stall of this process is not taken for the peer's
WRITE_HIGH = 1024 * 1024  # bytes unsent when the outbox waits


class Listener(Protocol):
    """Who is told what comes over a link."""

    def receive(self, link: Link, frame: Frame) -> None:
        """A frame of the broker."""
        ...

    def writable(self, link: Link) -> None:
        """The link takes bytes again after it was full."""
        ...

    def lost(self, link: Link, error: BrokerError) -> None:
        """The link is over; nothing comes over it any more."""
        ...


class Link(asyncio.Protocol):
    """One connection to a broker. ``open`` makes it; ``write`` sends; ``close`` ends it."""

    __slots__ = (
        "_framer",
        "_gone",
        "_heard",
        "_heartbeat",
        "_listener",
        "_loop",
        "_over",
        "_pings",
        "_reason",
        "_transport",
        "_welcome",
        "deadline",
        "full",
        "limits",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, listener: Listener, encoder: wire.Encoder) -> None:
        self._loop = loop
        self._listener = listener
        self._framer = wire.Framer(wire.MAX_FRAME)
        self._transport: asyncio.Transport | None = None
        self._welcome: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._heard = loop.time()
        self._heartbeat = math.inf
        self._pings = 0  # sent since the broker was last heard
        self._reason: BrokerError | None = None
        self._over = False
        self._gone: asyncio.Future[None] = loop.create_future()
        self.full = False
        self.deadline = math.inf
        self.limits: dict[str, Any] = {}

    @classmethod
    async def open(
        cls,
        target: Target,
        hello: dict[str, Any],
        listener: Listener,
        encoder: wire.Encoder,
        tls: ssl.SSLContext | None,
        patience: float,
    ) -> Link:
        """A link whose broker has said welcome. Raises ``OSError`` or ``BrokerError`` (``Denied``), within ``patience`` s."""
        loop = asyncio.get_running_loop()
        link = cls(loop, listener, encoder)
        try:
            async with asyncio.timeout(patience):
                await loop.create_connection(lambda: link, target.address.host, target.address.port, ssl=tls)
                link.write(encoder.encode(Hello(wire.VERSION, hello)))
                link.limits = await link._welcome
        except TimeoutError:
            link.abort(Closed(f"no answer from {target.address} in {patience} s"))
            raise Closed(f"no answer from {target.address} in {patience} s") from None
        except BaseException:
            link.abort(Closed("given up"))
            raise
        heartbeat = link.limits.get("heartbeat")
        link._heartbeat = float(heartbeat) if isinstance(heartbeat, int | float) and heartbeat > 0 else 10.0
        link.deadline = loop.time() + link._heartbeat
        sweeper(loop).add(link)
        return link

    def write(self, data: bytes) -> None:
        """Send ``data``; nothing happens once the link is over."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    def close(self) -> None:
        """Send what was written, then close."""
        self._forget()
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: BrokerError) -> None:
        """Drop the connection now."""
        self._reason = self._reason or reason
        self._forget()
        self._refuse(self._reason)
        if self._transport is not None:
            self._transport.abort()

    async def gone(self, limit: float) -> None:
        """Return when the connection is over, or is cut after ``limit`` seconds."""
        await asyncio.wait([self._gone], timeout=limit)
        if not self._gone.done() and self._transport is not None:
            self._transport.abort()
            await asyncio.wait([self._gone], timeout=limit)

    def _refuse(self, reason: BrokerError) -> bool:
        """Whoever waits for the welcome gets ``reason`` instead; gives whether anybody did."""
        if self._welcome.done():
            return False
        self._welcome.set_exception(reason)
        self._welcome.exception()  # seen, though nobody may wait any more
        return True

    def _is_welcome(self) -> bool:
        return self._welcome.done() and not self._welcome.cancelled() and self._welcome.exception() is None

    def _forget(self) -> None:
        self.deadline = math.inf
        sweeper(self._loop).discard(self)

    # what the sweeper calls

    def expire(self, now: float) -> None:
        """Ping a broker that was silent for a heartbeat, and again; give up on one that answers neither (half-open)."""
        quiet = now - self._heard
        if self._pings >= PINGS:
            self.abort(Closed(f"the broker was silent for {quiet:.1f} s", again=Again.NEVER))
            return
        if quiet < self._heartbeat:
            self.deadline = self._heard + self._heartbeat
            return
        self._pings += 1
        self.deadline = now + self._heartbeat / 2
        self.write(_PING)

    # what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a connection."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH, low=WRITE_HIGH // 4)

    def data_received(self, data: bytes) -> None:
        """Bytes of the broker."""
        self._heard = self._loop.time()
        self._pings = 0
        try:
            for body in self._framer.receive(data):
                self._receive(wire.decode(body))
        except wire.ProtocolError as error:
            self.abort(Closed(f"the broker sent what is not of the protocol: {error}"))
        except Exception as error:
            self._loop.call_exception_handler({"message": "a broker link failed", "exception": error, "protocol": self})
            self.abort(Closed(f"the client failed on what the broker sent: {error!r}"))

    def _receive(self, frame: Frame) -> None:
        kind = type(frame)
        if kind is Pong:
            return
        if kind is Ping:
            self.write(_PONG)
            return
        if kind is Welcome:
            if not self._welcome.done():
                self._welcome.set_result(frame.options)  # type: ignore[union-attr]  # a Welcome
            return
        if kind is Closing:
            self._reason = error_of(frame.code, frame.message)  # type: ignore[union-attr]  # a Closing
        if not self._over and self._is_welcome():
            self._listener.receive(self, frame)

    def pause_writing(self) -> None:
        """The broker does not read as fast as it is written to."""
        self.full = True

    def resume_writing(self) -> None:
        """The broker has read."""
        self.full = False
        self._listener.writable(self)

    def eof_received(self) -> bool:
        """The broker writes no more: the link is over."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The link is over."""
        self._forget()
        self._over = True
        if not self._gone.done():
            self._gone.set_result(None)
        reason = self._reason or Closed(f"the connection to the broker was lost: {error or 'it closed'}")
        if not self._refuse(reason) and self._is_welcome():
            self._listener.lost(self, reason)


_PING = wire.Encoder().encode(Ping(0))
_PONG = wire.Encoder().encode(Pong(0))
