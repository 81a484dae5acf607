"""A connection to an upstream: one request out, its response in, then the next (RFC 9112 §9.3).

The answer is resolved at the end of ``data_received``, when everything that came in that read has been looked at: a small
response reaches the handler whole, as bytes, and leaves for the client in one write.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, cast

from blocks.core.errors import Again, Failure, UpstreamFault, UpstreamTimeout
from blocks.core.pending import Pending

from .body import Stream
from .h1 import BadMessage, End, Part, ResponseHead, ResponseReader
from .h1.writer import CHUNKED, chunk, last_chunk, request_head
from .message import Headers, Request, Response
from .tunnel import OutboundTunnel

if TYPE_CHECKING:
    from .pool import Pool

_WRITE_BUFFER = 256 * 1024  # bytes an upstream may leave unread before the client is paused
_COPY = 64 * 1024  # up to here one joined write beats two
_CONTINUE_WAIT = 1.0  # seconds to wait for 100 Continue before the body is sent anyway (curl; RFC 9110 §10.1.1)
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})  # say Content-Length: 0 when they have none (RFC 9110 §8.6)


class Exchange(Pending[Response]):
    """The answer that one request waits for."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Outbound) -> None:
        self._driver = self._future = self._value = self._error = None
        self.done = False
        self._connection = connection

    def abandoned(self) -> None:
        """Nobody waits any more: the upstream's work is stopped by closing its connection, the only way HTTP/1.1 has."""
        self._connection.abandon(self)


class Outbound(asyncio.Protocol):
    """One connection to an upstream. It is the sink of the request's body and the source of the response's."""

    __slots__ = (
        "_awaiting", "_blocked", "_chunked", "_download", "_exchange", "_head", "_left", "_loop", "_paused", "_pool", "_request",
        "_transport", "_upload", "born", "deadline", "reader", "timeout", "uses",
    )  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        self._loop = pool.loop
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self.reader = ResponseReader(pool.limits)
        self.timeout = pool.timeout
        self.deadline = inf
        self.born = pool.loop.time()
        self.uses = 0
        self._exchange: Exchange | None = None
        self._request: Request | None = None
        self._head: ResponseHead | None = None
        self._upload: Stream | None = None  # the request's body, while it is leaving
        self._download: Stream | None = None  # the response's body, while it is coming
        self._awaiting = False  # the body waits for 100 Continue
        self._blocked = False
        self._paused = False
        self._chunked = False
        self._left = 0

    @property
    def closing(self) -> bool:
        """Whether it takes no request any more."""
        return self._transport is None or self._transport.is_closing()

    # -- requests

    def send(self, request: Request, target: str, host: bytes) -> Exchange:
        """Send ``request`` for ``target``; ``host`` is the Host line to add, or empty. Await the result."""
        transport = self._transport
        assert transport is not None
        self.uses += 1
        self._request = request
        self._exchange = exchange = Exchange(self)
        self.reader.method = method = request.method
        self.deadline = min(self._loop.time() + self.timeout, request.deadline)
        body = request.body
        if type(body) is bytes and not request.upgrade:
            extra = b"%bContent-Length: %d\r\n" % (host, len(body)) if body or method in _WITH_BODY else host
            head = request_head(method, target, request.headers.section, extra)
            if len(body) <= _COPY:
                transport.write(head + body)
            else:
                transport.write(head)
                transport.write(body)
            return exchange
        transport.write(request_head(method, target, request.headers.section, host + self._framing(request)))
        if isinstance(body, Stream):
            self._upload = body
            if request.expects:
                self._awaiting = True
                self.deadline = min(self.deadline, self._loop.time() + _CONTINUE_WAIT)
            else:
                self._pour()
        return exchange

    def _framing(self, request: Request) -> bytes:
        """The lines for a body that is a stream, an expectation, an upgrade."""
        lines = b""
        body = request.body
        if isinstance(body, Stream):
            self._chunked = body.length is None
            self._left = body.length or 0
            lines = CHUNKED if body.length is None else b"Content-Length: %d\r\n" % body.length
            if request.expects:
                lines += b"Expect: 100-continue\r\n"
        if request.upgrade:
            lines += b"Connection: Upgrade\r\nUpgrade: " + request.upgrade.encode("latin-1") + b"\r\n"
        return lines

    def _pour(self) -> None:
        self._awaiting = False
        upload = self._upload
        if upload is not None:
            self._wait()
            upload.pour(self)
            if self._blocked:
                upload.pause()

    def _wait(self) -> None:
        """The upstream's silence counts from now on, but not while it is the client who has to send."""
        assert self._request is not None
        until = self._request.deadline
        if self._upload is None or self._blocked:
            until = min(self._loop.time() + self.timeout, until)
        self.deadline = until

    # -- the request body's sink

    def write(self, data: bytes) -> None:
        """The next bytes of the request's body."""
        transport = self._transport
        if self._upload is None or transport is None or transport.is_closing():
            return
        if self._chunked:
            if len(data) <= _COPY:
                transport.write(chunk(data))
            else:
                transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))
            return
        self._left -= len(data)
        if self._left < 0:
            self._give_up(
                Failure("the request's body is longer than its declared length", reason="body-longer-than-length")
            )
            return
        transport.write(data)

    def end(self, trailers: Headers | None) -> None:
        """The request's body is complete."""
        if self._upload is None:
            return
        self._upload = None
        if self.closing:
            return
        if self._exchange is not None:
            self._wait()
        if self._chunked:
            assert self._transport is not None
            self._transport.write(last_chunk(trailers.section if trailers is not None else None))
        elif self._left > 0:
            self._give_up(
                Failure("the request's body is shorter than its declared length", reason="body-shorter-than-length")
            )

    def abort(self, error: BaseException) -> None:
        """The request's body broke off: the upstream must not take it for whole."""
        self._upload = None
        self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        """End the connection; whoever waits on it gets ``error``."""
        if self._transport is not None:
            self._transport.abort()
        self._fail(error)

    # -- the response body's source

    def pause(self) -> None:
        """The reader of the response's body is full."""
        self._paused = True
        self.deadline = inf
        if not self.closing:
            assert self._transport is not None
            self._transport.pause_reading()

    def resume(self) -> None:
        """The reader of the response's body has room."""
        if self._paused:
            self._paused = False
            self.deadline = self._loop.time() + self.timeout
            if not self.closing:
                assert self._transport is not None
                self._transport.resume_reading()

    def cancel(self) -> None:
        """The response's body will not be read on: close, as the rest of it stands in the way of the next response."""
        self._download = None
        self._drop_upload()
        if self._transport is not None:
            self._transport.abort()

    def abandon(self, exchange: Exchange) -> None:
        """``exchange`` is not waited for any more."""
        if self._exchange is exchange:
            self._exchange = None
            self._drop_upload()
            if self._transport is not None:
                self._transport.abort()
        elif self._download is not None and self._download.untouched:
            self._download.cancel()

    def close(self) -> None:
        """End an idle connection."""
        if self._transport is not None:
            self._transport.close()

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The upstream has accepted."""
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        transport.set_write_buffer_limits(_WRITE_BUFFER)
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        """Bytes from the upstream."""
        reader = self.reader
        reader.receive(data)
        try:
            if self._download is not None:
                self._read_body(self._download)
            elif self._exchange is not None:
                self._read_head()
            else:
                self.close()  # it speaks without having been asked: never trust what it says next
        except BadMessage as bad:
            self._give_up(UpstreamFault(f"the upstream's response is malformed: {bad.reason}", reason=bad.reason))

    def _read_head(self) -> None:
        reader = self.reader
        while (event := reader.event()) is not None:
            assert isinstance(event, ResponseHead)
            if not event.interim:
                self._respond(event)
                return
            self._interim(event)
        if not self._awaiting:
            self._wait()

    def _interim(self, head: ResponseHead) -> None:
        """100 lets the body go; the others (103, RFC 8297) go on to a client that can take them (RFC 9110 §15.2)."""
        if head.status == 100:
            if self._awaiting:
                self._pour()
        elif self._request is not None and self._request.inform is not None:
            self._request.inform(Response(head.status, Headers.of(head.facts.section)))

    def _respond(self, head: ResponseHead) -> None:
        exchange, request = self._exchange, self._request
        assert exchange is not None
        assert request is not None
        response = Response(head.status, Headers.of(head.facts.section))
        self._head = head
        self._awaiting = False
        if head.status == 101:
            self._upgrade(response, request, head)
            return
        if head.body:
            whole = self.reader.whole()
            if whole is None:
                self._receive_body(response, head)
            else:
                response.body = whole
        self._exchange = None
        if self._download is None:
            self._done()
        exchange.resolve(response)

    def _receive_body(self, response: Response, head: ResponseHead) -> None:
        """The body as bytes when all of it is here, else as a stream."""
        parts: list[bytes] = []
        while isinstance(event := self.reader.event(), Part):
            parts.append(event.data)
        if isinstance(event, End) and event.trailers is None:
            response.body = parts[0] if len(parts) == 1 else b"".join(parts)
            return
        response.body = stream = Stream(self, head.facts.length if not head.facts.chunked else None)
        for part in parts:
            stream.feed(part)
        if isinstance(event, End):
            stream.finish(Headers.of(event.trailers) if event.trailers is not None else None)
            return
        self._download = stream
        if not self._paused:
            self.deadline = self._loop.time() + self.timeout

    def _read_body(self, download: Stream) -> None:
        if not self._paused:
            self.deadline = self._loop.time() + self.timeout
        while (event := self.reader.event()) is not None:
            if isinstance(event, Part):
                download.feed(event.data)
                if self._download is None:
                    return  # its reader gave it up while it was fed
            elif isinstance(event, End):
                self._download = None
                self._done()
                download.finish(Headers.of(event.trailers) if event.trailers is not None else None)
                return

    def _done(self) -> None:
        """The response is complete: keep the connection when nothing about it is in doubt (RFC 9112 §9.3)."""
        head = self._head
        assert head is not None
        self._request = None
        if self._upload is not None:
            self._drop_upload()
        elif head.keep_alive and not self.reader._buffer and not self.closing:
            if self._paused:
                self.resume()
            self._pool.release(self)
            return
        self.close()

    def _drop_upload(self) -> None:
        upload, self._upload = self._upload, None
        self._awaiting = False
        if upload is not None:
            upload.cancel()

    def _upgrade(self, response: Response, request: Request, head: ResponseHead) -> None:
        exchange, self._exchange = self._exchange, None
        transport = self._transport
        assert exchange is not None
        assert transport is not None
        if not request.upgrade or head.facts.upgrade != request.upgrade:
            self._exchange = exchange
            raise BadMessage("unasked-upgrade")
        tunnel = OutboundTunnel(transport, self.reader.rest(), self._pool.tunnel_closed)
        self._pool.became_tunnel(self, tunnel)
        transport.set_protocol(tunnel)
        response.body = tunnel
        exchange.resolve(response)

    def eof_received(self) -> bool:
        """The upstream has ended its side."""
        download = self._download
        if download is not None:
            try:
                self.reader.eof()
                self._read_body(download)
            except BadMessage as bad:
                self._fail(UpstreamFault("the upstream's response was cut short", reason=bad.reason))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._pool.lost(self)
        self._blocked = False
        if self._exchange is not None:
            untouched = self.reader.silent
            reused = self.uses > 1
            reason = "reset-before-answer" if exc is not None else "closed-before-answer"
            again = Again.REUSED if untouched and reused else Again.NEVER
            self._fail(
                UpstreamFault("the upstream closed the connection before it answered", reason=reason, again=again)
            )
        elif self._download is not None:
            self._fail(UpstreamFault("the upstream's response was cut short", reason="truncated-body"))
        self._drop_upload()

    def _fail(self, error: BaseException) -> None:
        """Tell whoever waits for the response, or reads its body."""
        exchange, self._exchange = self._exchange, None
        download, self._download = self._download, None
        if exchange is not None:
            self._drop_upload()
            exchange.fail(error)
        elif download is not None:
            download.fail(error)
            self._drop_upload()

    def pause_writing(self) -> None:
        """The upstream does not keep up with the request's body."""
        self._blocked = True
        if self._upload is not None:
            if self._exchange is not None:
                self._wait()
            self._upload.pause()

    def resume_writing(self) -> None:
        """The upstream has caught up."""
        self._blocked = False
        if self._upload is not None:
            if self._exchange is not None:
                self._wait()
            self._upload.resume()

    def expire(self, now: float) -> None:
        """A deadline has passed."""
        self.deadline = inf
        if self._awaiting:
            self._pour()
        elif self._exchange is None and self._download is None:
            self.close()
        elif self._request is not None and self._request.deadline <= now:
            self._give_up(UpstreamTimeout("the request's deadline passed", reason="deadline"))
        else:
            self._give_up(UpstreamTimeout("the upstream was silent for too long"))
