"""A connection from a client: requests in, one after another, each answered in its turn (RFC 9112 §9.3).

It is the protocol of the transport, the driver of the handler's coroutine, the source of the request's body and the sink of the
response's: one object a connection, and for a small request no task, no future and no timer.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any, cast

from blocks.core.errors import ClientFault, ClientGone, Failure
from blocks.core.pending import Driver

from .body import Stream, TooLarge, Tunnel
from .h1 import BadMessage, End, Part, RequestHead, RequestReader
from .h1.writer import CHUNKED, CLOSE, chunk, last_chunk, response_head
from .message import Headers, Peer, Request, Response, Section
from .refusal import refusal, response_to

if TYPE_CHECKING:
    from .service import Service

HEAD, BUSY, DRAIN, LINGER, TUNNEL, CLOSED = range(
    6
)  # awaiting a head | answering | answered, body still coming | refusing | both ways | gone

_WRITE_BUFFER = (
    256 * 1024
)  # bytes a client may leave unread before the other side is paused (measured: more brings nothing)
_PIPELINE = 64 * 1024  # bytes of later requests that may wait behind the one being answered
_DRAIN = 64 * 1024  # bytes of an unread request body that are worth reading to keep the connection
_LINGER = 1024 * 1024  # bytes that a refused client may go on sending before it is cut
_COPY = 64 * 1024  # up to here one joined write beats two


class _ClientTooSlow(ClientFault):
    """The body did not come at the least rate (408, RFC 9110 §15.5.9)."""

    status = 408
    reason = "body-timeout"


class Inbound(Driver, asyncio.Protocol):
    """One client's connection. ``service`` is what all connections of a server share."""

    __slots__ = (
        "_began", "_blocked", "_chunked", "_continue", "_download", "_eof", "_fault", "_head_began", "_keep", "_left", "_paused_at",
        "_reading", "_sent", "_stalled", "_started", "_state", "_status", "_transport", "_tunnel", "_turning", "_upload", "_uploaded",
        "_uploading_since", "deadline", "peer", "reader", "request", "service",
    )  # fmt: skip

    def __init__(self, service: Service) -> None:
        super().__init__(service.loop)
        self.service = service
        self.reader = RequestReader(service.limits)
        self.deadline = inf
        self.request: Request | None = None
        self._state = HEAD
        self._upload: Stream | None = None  # the request's body, while it is coming
        self._download: Stream | None = None  # the response's body, while it is leaving
        self._keep = True
        self._turning = False  # _turn is further down this stack
        self._reading = True
        self._blocked = False  # the client does not read: the write buffer is full
        self._eof = False
        self._started = False  # the response's head was sent
        self._head_began = False  # the first byte of the next request is there
        self._fault: Failure | None = None  # why the handler was cancelled
        self._tunnel: Tunnel | None = None
        self._began = 0.0
        self._status = 0
        self._sent = 0
        self._chunked = False
        self._continue = False
        self._left: float = 0
        self._uploaded = 0
        self._uploading_since = self._paused_at = 0.0
        self._stalled = 0

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        service = self.service
        transport.set_write_buffer_limits(_WRITE_BUFFER)
        self.peer = _peer(transport)
        self.deadline = self._loop.time() + service.timeouts.head
        service.connections.add(self)
        service.sweeper.add(self)
        if service.max_connections is not None and len(service.connections) > service.max_connections:
            service.refused += 1
            self._refuse(refusal(503, "too-many-connections"))

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        state = self._state
        if state == HEAD:
            self.reader.receive(data)
            self._turn()
        elif state == LINGER:
            self._left -= len(data)
            if self._left < 0:
                self._transport.abort()
        elif self._tunnel is not None:
            self.deadline = self._loop.time() + self.service.timeouts.tunnel
            self._tunnel.write(data)
        elif state != CLOSED:
            self.reader.receive(data)
            if self._upload is not None:
                self._pull(len(data))
            elif self.reader.buffered > _PIPELINE and self._reading:
                self._stop_reading()

    def eof_received(self) -> bool:
        """The client has ended its side: what it asked for is still answered, within a bound (a half-close looks like a leave)."""
        self._eof = True
        if self._tunnel is not None:
            self._tunnel.end()
            return self.peer.tls is None
        try:
            self.reader.eof()
        except BadMessage:
            self._keep = False
            if self._upload is not None:
                upload, self._upload = self._upload, None
                upload.fail(ClientGone("the client ended its side before its request was complete"))
        if self._state != BUSY or self.peer.tls is not None:
            return False
        self._keep = self._keep and self.reader.buffered > 0
        if not self._started:
            self.deadline = min(self.deadline, self._loop.time() + self.service.timeouts.half_close)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: whoever works for it is told to stop."""
        busy = self._state == BUSY
        self._state = CLOSED
        service = self.service
        service.connections.discard(self)
        service.sweeper.discard(self)
        gone = ClientGone("the client closed its connection")
        if self._upload is not None:
            upload, self._upload = self._upload, None
            upload.fail(gone)
        if self._download is not None:
            download, self._download = self._download, None
            download.cancel()
        if self._tunnel is not None:
            tunnel, self._tunnel = self._tunnel, None
            tunnel.cancel()
        if self.running:
            self.interrupt()
        if busy:
            self._record(gone)
        service.connection_gone()

    def pause_writing(self) -> None:
        """The client does not keep up: the response's source waits."""
        self._blocked = True
        self._stalled = self._transport.get_write_buffer_size()
        self.deadline = self._loop.time() + self.service.timeouts.send
        reader = self._tunnel or self._download
        if reader is not None:
            reader.pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._blocked = False
        if self._tunnel is not None:
            self._tunnel.resume()
        elif self._state == BUSY:
            self.deadline = (
                self._loop.time() + self.service.timeouts.body if self._upload is not None and self._reading else inf
            )
            if self._download is not None:
                self._download.resume()
        elif self._state == HEAD:
            self.deadline = self._loop.time() + self.service.timeouts.idle
            self._turn()

    # -- requests

    def _turn(self) -> None:
        """Answer requests in order for as long as they are there and answered at once."""
        if self._turning:
            return
        self._turning = True
        try:
            while self._state == HEAD and not self._blocked:
                try:
                    head = self.reader.event()
                except BadMessage as bad:
                    self.service.malformed += 1
                    self._refuse(refusal(bad.status, bad.reason))
                    return
                if head is None:
                    self._wait_for_head()
                    return
                self._begin(head)  # type: ignore[arg-type]  # between messages an event is a head
        finally:
            self._turning = False

    def _wait_for_head(self) -> None:
        if self._eof:
            self._transport.close()
            return
        if not self._reading:
            self._resume_reading()
        if self.reader.buffered and not self._head_began:
            self._head_began = True
            if self.request is not None:  # the first request's time runs from the accept on
                self.deadline = self._loop.time() + self.service.timeouts.head

    def _begin(self, head: RequestHead) -> None:
        service = self.service
        facts = head.facts
        self._state = BUSY
        self._started = False
        self._head_began = False
        self._keep = head.keep_alive
        self._began = self._loop.time() if service.observer is not None else 0.0
        self._sent = 0
        self.deadline = inf
        self.request = request = Request(
            head.method, head.target, Headers.of(facts.section), b"", peer=self.peer, version=head.version
        )  # fmt: skip
        if head.version == 11:
            request.inform = self._inform
        if head.body:
            self._receive_body(request, head)
        elif facts.upgrade and facts.upgrade in service.upgrades and head.method == "GET" and head.version == 11:
            request.upgrade = facts.upgrade
        service.requests += 1
        if head.method == "TRACE":
            self._answer(refusal(405, "trace-not-allowed"))  # nginx refuses it too: it echoes credentials
            return
        try:
            coroutine = service.handler(request)
        except Exception as error:
            self.raised(error)
            return
        self.start(coroutine, direct=service.direct)

    def _receive_body(self, request: Request, head: RequestHead) -> None:
        """The body as bytes when all of it is here, else as a stream."""
        self._continue = False
        self._uploaded = 0
        upload = Stream(self, head.facts.length)
        parts: list[bytes] = []
        try:
            while isinstance(event := self.reader.event(), Part):
                parts.append(event.data)
        except BadMessage as bad:
            self._keep = False
            upload.fail(ClientFault("the request's body is malformed", reason=bad.reason, status=bad.status))
            request.body = upload
            return
        data = b"".join(parts)
        self._uploaded = len(data)
        if isinstance(event, End) and event.trailers is None and not self._over():
            request.body = data
            return
        request.body = upload
        upload.feed(data)
        if isinstance(event, End):
            upload.finish(Headers.of(event.trailers) if event.trailers is not None else None)
            return
        self._upload = upload
        self._uploading_since = now = self._loop.time()
        self.deadline = now + self.service.timeouts.body
        if head.facts.expects and head.version == 11 and not data:
            self._continue = request.expects = True

    def _over(self) -> bool:
        limit = self.service.limits.body
        return limit is not None and self._uploaded > limit

    def _pull(self, size: int) -> None:
        """Take what came of the request's body to whoever reads it."""
        upload = self._upload
        assert upload is not None
        now = self._loop.time()
        timeouts = self.service.timeouts
        self._uploaded += size  # framing included: the rate is the wire's
        if not self._blocked:
            self.deadline = now + timeouts.body
        elapsed = now - self._uploading_since
        try:
            if elapsed > timeouts.body and self._uploaded < timeouts.min_rate * elapsed:
                raise _ClientTooSlow("the request's body comes too slowly", reason="body-too-slow")
            while (event := self.reader.event()) is not None:
                if isinstance(event, Part):
                    if self._over():
                        raise TooLarge("the request's body is over the limit")
                    upload.feed(event.data)
                elif isinstance(event, End):
                    self._upload = None
                    self.deadline = self.deadline if self._blocked else inf
                    upload.finish(Headers.of(event.trailers) if event.trailers is not None else None)
                    if self._state == DRAIN:
                        self._next()
                    return
        except BadMessage as bad:
            self.service.malformed += 1
            self._break_upload(ClientFault("the request's body is malformed", reason=bad.reason, status=bad.status))
        except ClientFault as fault:
            self._break_upload(fault)

    def _break_upload(self, fault: Failure) -> None:
        """The request's body cannot be had: its reader is told, and the connection ends with this answer."""
        upload, self._upload = self._upload, None
        self._keep = False
        self.reader.failed = True
        self.deadline = inf
        if self._state == DRAIN:
            self._close()
        elif upload is not None:
            unheard = upload.untouched and not self._started
            upload.fail(fault)
            if unheard and self._state == BUSY:
                self._fault = fault
                self.interrupt()

    # -- the request body's source

    def pause(self) -> None:
        """The reader of the body is full."""
        if self._reading:
            self._stop_reading()

    def resume(self) -> None:
        """The reader of the body wants it: a client that waits for 100 Continue may send it now (RFC 9110 §10.1.1)."""
        if self._continue:
            self._continue = False
            if not self._started and not self._transport.is_closing():
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self._uploading_since = now = self._loop.time()
                self.deadline = now + self.service.timeouts.body
        if not self._reading:
            self._resume_reading()

    def cancel(self) -> None:
        """Nobody reads the body on. The handler goes on, and what still comes is dropped, or left unread once the answer is out."""

    def _stop_reading(self) -> None:
        self._reading = False
        self._paused_at = self._loop.time()
        self._transport.pause_reading()
        if self._state == BUSY and not self._blocked:
            self.deadline = inf

    def _resume_reading(self) -> None:
        if self._state == CLOSED or self._transport.is_closing():
            return
        self._reading = True
        self._transport.resume_reading()
        if self._upload is not None:
            now = self._loop.time()
            self._uploading_since += now - self._paused_at
            if not self._blocked:
                self.deadline = now + self.service.timeouts.body

    # -- responses

    def returned(self, value: Any) -> None:
        """The handler has answered."""
        if type(value) is not Response and not isinstance(value, Response):
            self.raised(TypeError(f"the handler returned {value!r}, not a Response"))
        elif value.status < 200 and value.status != 101:
            value.discard()
            self.raised(ValueError(f"the handler returned {value!r}: an interim response goes to request.inform"))
        elif self._state != BUSY or self._started:
            value.discard()
        else:
            self._answer(value)

    def raised(self, error: BaseException) -> None:
        """The handler has failed."""
        if not isinstance(error, Failure | asyncio.CancelledError):
            self._loop.call_exception_handler({"message": f"a handler failed on {self.request!r}", "exception": error})
        if self._state != BUSY or self._started:
            return
        if isinstance(error, asyncio.CancelledError):
            error = self._fault or ClientGone("the client closed its connection")
        if isinstance(error, ClientGone):
            self._transport.abort()
            return
        self._answer(response_to(error), error)

    def _inform(self, response: Response) -> None:
        """Send an interim response on (RFC 9110 §15.2)."""
        if self._state == BUSY and not self._started and not self._transport.is_closing():
            self._transport.write(response_head(response.status, response.headers.section, b""))

    def _answer(self, response: Response, error: BaseException | None = None) -> None:
        """Write a response: a whole one in one write, else its head with what is there, and the rest as it comes."""
        request = self.request
        assert request is not None
        transport = self._transport
        if transport.is_closing():
            response.discard()
            return
        self._started = True
        self._status = status = response.status
        body = response.body
        if status == 101:
            self._open_tunnel(response)
            return
        if self._upload is not None or self.service.draining or self.reader.failed:
            self._settle_keep()
        section = response.headers.section
        if type(body) is not bytes or status in (204, 304) or request.method == "HEAD":
            extra, stream, body = self._frame(response, request)
            head = self._head(status, section, extra)
            if stream is not None:
                self._sent += len(head)
                self._pour(head, stream)
                return
            size = len(body)
        else:
            size = len(body)
            facts = (status, size, self._keep, request.version)
            sent = section.sent
            if sent is not None and sent[0] == facts:
                head = sent[1]
            else:
                head = self._head(status, section, b"Content-Length: %d\r\n" % size)
                if section.has_date:
                    section.sent = (facts, head)
        self._sent += len(head) + size
        if size <= _COPY:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        self._finish(error)

    def _head(self, status: int, section: Section, extra: bytes) -> bytes:
        """A response's head with what this connection has to say."""
        assert self.request is not None
        if not section.has_date:
            extra += self.service.date()
        if not self._keep:
            extra += CLOSE
        elif self.request.version == 10:
            extra += b"Connection: keep-alive\r\n"
        return response_head(status, section, extra)

    def _settle_keep(self) -> None:
        """Whether the connection stays, decided when the head is written."""
        if self.service.draining or self.reader.failed:
            self._keep = False
        elif self._upload is not None:
            left = self._upload.length
            unread = self._upload.untouched or self._upload.ended
            if self._continue or (unread and (left is None or left - self._uploaded > _DRAIN)):
                self._keep = False  # the rest of the body is not worth waiting for, or will never come

    def _frame(self, response: Response, request: Request) -> tuple[bytes, Stream | None, bytes]:
        """(framing lines, stream to pour or None, body to send) where it is not plainly bytes (RFC 9112 §6)."""
        body, status = response.body, response.status
        declared = response.headers.find(b"content-length")
        if request.method == "HEAD" or status in (204, 304) or status < 200:
            response.discard()
            if status == 204 or status < 200:
                return b"", None, b""
            if isinstance(body, Stream):
                declared = b"%d" % body.length if body.length is not None else declared
            elif body and status != 304:
                declared = b"%d" % len(body)
            return (b"Content-Length: " + declared + b"\r\n" if declared is not None else b""), None, b""
        if not isinstance(body, Stream):
            data = bytes(body)
            return b"Content-Length: %d\r\n" % len(data), None, data
        if body.length is not None:
            self._chunked = False
            self._left = body.length
            return b"Content-Length: %d\r\n" % body.length, body, b""
        self._left = inf
        self._chunked = request.version == 11
        if self._chunked:
            return CHUNKED, body, b""
        self._keep = False
        return b"", body, b""

    def _pour(self, head: bytes, stream: Stream) -> None:
        self._download = stream
        first = stream.take()
        if first and not self._chunked and len(first) <= min(_COPY, self._left):
            self._left -= len(first)
            self._sent += len(first)
            self._transport.write(head + first)
        else:
            self._transport.write(head)
            if first:
                self.write(first)
        if self._download is stream:
            stream.pour(self)
            if self._blocked and self._download is stream:
                stream.pause()

    # -- the response body's sink

    def write(self, data: bytes) -> None:
        """The next bytes of the response's body."""
        transport = self._transport
        if transport.is_closing():
            return
        if self._state != BUSY:
            if self._state == TUNNEL:
                transport.write(data)
            return
        size = len(data)
        self._sent += size
        if self._chunked:
            if size <= _COPY:
                transport.write(chunk(data))
            else:
                transport.writelines((b"%x\r\n" % size, data, b"\r\n"))
            return
        self._left -= size
        if self._left < 0:
            self._cut(
                Failure("the response's body is longer than its declared length", reason="body-longer-than-length")
            )
            return
        transport.write(data)

    def end(self, trailers: Headers | None) -> None:
        """The response's body is complete."""
        if self._state == TUNNEL:
            if self._eof or not self._transport.can_write_eof():
                self._transport.close()
            elif not self._transport.is_closing():
                self._transport.write_eof()
            return
        if self._state != BUSY or self._download is None:
            return
        self._download = None
        if self._transport.is_closing():
            return
        if self._chunked:
            self._transport.write(last_chunk(trailers.section if trailers is not None else None))
        elif 0 < self._left < inf:
            self._cut(
                Failure("the response's body is shorter than its declared length", reason="body-shorter-than-length")
            )
            return
        self._finish(None)

    def abort(self, error: BaseException) -> None:
        """The response's body broke off: the client must be able to see that it is not whole (RFC 9112 §8)."""
        if self._state == TUNNEL:
            self._transport.abort()
        elif self._state == BUSY:
            self._download = None
            self._cut(error)

    def _cut(self, error: BaseException) -> None:
        download, self._download = self._download, None
        if download is not None:
            download.cancel()
        self._record(error)
        self._state = DRAIN
        if self._chunked or self._left < inf:
            self._transport.close()  # the framing shows it, and what was written still arrives
        else:
            self._transport.abort()  # only a reset tells a cut body from a complete one

    def _finish(self, error: BaseException | None) -> None:
        """The response is written."""
        self._download = None
        if self.service.observer is not None:
            self._record(error)
        if not self._keep:
            self._close()
        elif self._upload is not None:
            self._state = DRAIN
            self.deadline = self._loop.time() + self.service.timeouts.linger
            self._upload.cancel()
            if not self._reading:
                self._resume_reading()
        else:
            self._next()

    def _next(self) -> None:
        self._state = HEAD
        self._started = False
        if self.service.draining and not self.reader.buffered:
            self._transport.close()
            return
        if not self._blocked:
            self.deadline = self._loop.time() + self.service.timeouts.idle
            if not self._turning and (self.reader.buffered or not self._reading or self._eof):
                self._turn()

    def _record(self, error: BaseException | None) -> None:
        observer = self.service.observer
        if observer is not None and self.request is not None:
            observer(self.request, self._status, self._sent, self._began, error)

    # -- ends

    def _refuse(self, response: Response) -> None:
        """Answer what is no request, and end the connection: its framing is in doubt."""
        self.request = Request("", "", version=11)
        self._state = BUSY
        self._began = self._loop.time()
        self._sent = 0
        self._keep = False
        self.reader.failed = True
        self._answer(response)

    def _close(self) -> None:
        """End the connection so that the client can read the answer: it may still be sending (RFC 9112 §9.6)."""
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.cancel()
        transport = self._transport
        if (
            not self._eof
            and (upload is not None or self.reader.failed or self.reader.buffered)
            and transport.can_write_eof()
        ):
            self._state = LINGER
            self._left = _LINGER
            self.deadline = self._loop.time() + self.service.timeouts.linger
            transport.write_eof()
            if not self._reading:
                self._reading = True
                transport.resume_reading()
        else:
            self._state = DRAIN
            transport.close()

    def retire(self) -> None:
        """The server drains: go when nothing is under way; what is, is answered with ``Connection: close``."""
        if self._state == HEAD and not self.reader.buffered:
            self._transport.close()

    def drop(self) -> None:
        """Go now."""
        self._transport.abort()

    def expire(self, now: float) -> None:
        """A deadline has passed: whose it was depends on the state."""
        self.deadline = inf
        if self._blocked:
            size = self._transport.get_write_buffer_size()
            if size < self._stalled:
                self._stalled = size
                self.deadline = now + self.service.timeouts.send
            else:
                self._transport.abort()
        elif self._state == HEAD:
            if self.reader.buffered:
                self._refuse(refusal(408, "head-timeout"))
            else:
                self._transport.close()
        elif self._state == BUSY:
            if self._eof:
                self._keep = False
                self.interrupt()
            elif self._upload is not None:
                self._break_upload(_ClientTooSlow("the request's body stopped coming"))
        else:
            self._transport.abort()

    def _open_tunnel(self, response: Response) -> None:
        """From here on bytes go both ways, as they come (RFC 9110 §7.8)."""
        assert self.request is not None
        extra = b"Connection: Upgrade\r\nUpgrade: " + self.request.upgrade.encode("latin-1") + b"\r\n"
        self._transport.write(response_head(101, response.headers.section, extra))
        self._record(None)
        self._state = TUNNEL
        self._tunnel = tunnel = response.body
        self.deadline = self._loop.time() + self.service.timeouts.tunnel
        tunnel.connect(self, self)
        data = self.reader.rest()
        if data:
            tunnel.write(data)
        if not self._reading:
            self._resume_reading()


def _peer(transport: asyncio.Transport) -> Peer:
    """Both ends, as the transport tells them."""
    tls = transport.get_extra_info("ssl_object")
    return Peer(
        _address(transport.get_extra_info("peername")),
        _address(transport.get_extra_info("sockname")),
        "http" if tls is None else "https",
        tls,
        None if tls is None else tls.getpeercert(),
    )


def _address(name: Any) -> tuple[str, int]:
    if isinstance(name, tuple) and len(name) >= 2:
        return name[0], name[1]
    return (name if isinstance(name, str) else ""), 0
