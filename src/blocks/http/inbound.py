"""A connection from a client: requests in, one after another, each answered in its turn (RFC 9112 §9.3).

It is the protocol of the transport and the driver of the handler's coroutine: one object a connection, and for a small request
no task, no future and no timer. A request body that does not come at once is an ``Upload``, a response body that is
still coming a ``Download``; each is made when it is needed.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any, cast

from blocks.core.errors import ClientGone, Failure
from blocks.core.pending import Driver

from .body import Stream, Tunnel
from .download import COPY, Download
from .ends import peer_of
from .h1 import BadMessage, RequestHead, RequestReader
from .h1.writer import CHUNKED, CLOSE, response_head
from .message import Headers, Request, Response, Section
from .refusal import refusal, response_to
from .reset import reset
from .tunnel import ClientEnd
from .upload import ClientTooSlow, Upload

if TYPE_CHECKING:
    from .service import Service

HEAD, BUSY, DRAIN, LINGER, TUNNEL, CLOSED = range(
    6
)  # awaiting a head | answering | answered, body still coming | refusing | both ways | gone

_WRITE_BUFFER = (
    256 * 1024
)  # bytes a client may leave unread before the other side pauses (measured: more brings nothing)
_PIPELINE = 64 * 1024  # bytes of later requests that may wait behind the one being answered
_DRAIN = 64 * 1024  # bytes of an unread request body that are worth reading to keep the connection
_LINGER = 1024 * 1024  # bytes that a refused client may go on sending before nobody reads them


class Inbound(Driver, asyncio.Protocol):
    """One client's connection. ``service`` is what all connections of a server share."""

    __slots__ = (
        "_began", "_download", "_eof", "_fault", "_head_began", "_keep", "_linger", "_reading", "_sent", "_stalled", "_state",
        "_status", "_tunnel", "_turning", "_upload", "blocked", "deadline", "peer", "reader", "request", "service", "started",
        "transport",
    )  # fmt: skip

    def __init__(self, service: Service) -> None:
        super().__init__(service.loop)
        self.service = service
        self.reader = RequestReader(service.limits)
        self.deadline = inf
        self.request: Request | None = None
        self._state = HEAD
        self._upload: Upload | None = None  # the request's body, while it is coming
        self._download: Download | None = None  # the response's body, while it is leaving
        self._tunnel: Tunnel | None = None
        self._keep = True
        self._turning = False  # _turn is further down this stack
        self._reading = True
        self._eof = False
        self._head_began = False  # the first byte of the next request is there
        self._fault: Failure | None = None  # why the handler was interrupted
        self._began = 0.0
        self._status = 0
        self._sent = 0
        self._stalled = 0
        self._linger = 0
        self.blocked = False  # the client does not read: the write buffer is full
        self.started = False  # the response's head was sent

    @property
    def answering(self) -> Request | None:
        """The request that is being answered, or was upgraded to what goes on; None between two of them."""
        return self.request if self._state in (BUSY, TUNNEL) else None

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self.transport = transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        service = self.service
        transport.set_write_buffer_limits(_WRITE_BUFFER)
        self.peer = peer_of(transport)
        self.deadline = self._loop.time() + service.timeouts.head
        service.connections.add(self)
        service.sweeper.add(self)
        reason = service.refuses(transport)
        if reason:
            self._refuse(refusal(503, reason))
            transport.close()  # at once: to linger would hold what there is too little of

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        state = self._state
        if state == HEAD:
            self.reader.receive(data)
            self._turn()
            if self.blocked and self.reader.buffered > _PIPELINE:
                self.stop_reading()
        elif state == LINGER:
            self._linger -= len(data)
            if self._linger < 0:
                self.stop_reading()  # to cut it now would take the answer away unread
        elif self._tunnel is not None:
            self.touch()
            self._tunnel.write(data)
        elif state != CLOSED:
            self.reader.receive(data)
            if self._upload is not None:
                self._upload.receive(len(data))
            elif self.reader.buffered > _PIPELINE:
                self.stop_reading()

    def eof_received(self) -> bool:
        """The client has ended its side: what it asked for is still answered, within a bound (a half-close looks like a leave)."""
        self._eof = True
        if self._tunnel is not None:
            self._tunnel.end()
            return self._keep and self.peer.tls is None
        try:
            self.reader.eof()
        except BadMessage:
            self._keep = False
            if self._upload is not None:
                upload, self._upload = self._upload, None
                upload.stream.fail(ClientGone("the client ended its side before its request was complete"))
        waits = self._state == HEAD and self.blocked and self.reader.buffered > 0  # for the client to read its answers
        if not (self._state == BUSY or waits) or self.peer.tls is not None:
            return False
        self._keep = self._keep and self.reader.buffered > 0
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
            upload.stream.fail(gone)
        if self._download is not None:
            download, self._download = self._download, None
            download.stream.cancel()
        if self._tunnel is not None:
            tunnel, self._tunnel = self._tunnel, None
            tunnel.cancel()
        if self.running:
            self.interrupt()
        if busy:
            self._record(gone)
        else:
            self.request = (
                None  # it holds this connection by ``inform``: the two would be left to the garbage collector
            )
        service.connection_gone()

    def pause_writing(self) -> None:
        """The client does not keep up: the response's source waits."""
        self.blocked = True
        self._stalled = self.transport.get_write_buffer_size()
        self.deadline = self._loop.time() + self.service.timeouts.send
        if self._tunnel is not None:
            self._tunnel.pause()
        elif self._download is not None:
            self._download.stream.pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.blocked = False
        if self._tunnel is not None:
            self.touch()
            self._tunnel.resume()
        elif self._state == BUSY:
            body = self.service.timeouts.body
            self.deadline = self._loop.time() + body if self._upload is not None and self._reading else inf
            if self._download is not None:
                self._download.stream.resume()
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
            while self._state == HEAD and not self.blocked:
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
            self.transport.close()
            return
        self.resume_reading()
        if self.reader.buffered and not self._head_began:
            self._head_began = True
            if self.request is not None:  # the first request's time runs from the accept on
                self.deadline = self._loop.time() + self.service.timeouts.head

    def _begin(self, head: RequestHead) -> None:
        service = self.service
        facts = head.facts
        self._state = BUSY
        self.started = False
        self._head_began = False
        self._keep = head.keep_alive
        self._began = service.exact() if service.observer is not None else 0.0
        self._sent = 0
        self.deadline = inf
        self.request = request = Request(
            head.method, head.target, Headers.of(facts.section), b"", peer=self.peer, version=head.version
        )  # fmt: skip
        if head.version == 11:
            request.inform = self._inform
        if head.body:
            self._fault = None
            self._receive_body(request, head)
        elif facts.upgrade and facts.upgrade in service.upgrades and head.method == "GET" and head.version == 11:
            request.upgrade = facts.upgrade
        service.requests += 1
        if self._eof and self._upload is not None:  # the rest of its body will never come
            self._upload = None
            self._state = DRAIN
            self.transport.close()
            return
        if self._fault is not None:  # its body is malformed already: nobody is bothered with it
            self._answer(response_to(self._fault), self._fault)
            return
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
        data = self.reader.whole()
        if data is not None:
            request.body = data
            return
        self._upload = upload = Upload(self, head.facts.length)
        upload.receive(0)
        data = upload.stream.whole()
        request.body = upload.stream if data is None else data
        if self._upload is upload and head.facts.expects and head.version == 11 and not upload.received:
            upload.expects = request.expects = True

    def uploaded(self) -> None:
        """The request's body is complete."""
        self._upload = None
        if not self.blocked:
            self.deadline = inf
        if self._state == DRAIN:
            self._next()

    def break_upload(self, fault: Failure) -> None:
        """The request's body cannot be had: its reader is told, and the connection ends with this answer."""
        upload, self._upload = self._upload, None
        self._keep = False
        self.reader.failed = True
        self.deadline = inf
        if self._state == DRAIN:
            self._close()
        elif upload is not None:
            unheard = upload.stream.untouched and not self.started
            upload.stream.fail(fault)
            if unheard and self._state == BUSY:
                self._fault = fault
                if self.running:
                    self.interrupt()

    def stop_reading(self) -> None:
        """Take no more from the client for now."""
        if not self._reading:
            return
        self._reading = False
        self.transport.pause_reading()
        if self._state == BUSY and not self.blocked:
            self.deadline = inf

    def resume_reading(self) -> bool:
        """Take more from the client; whether that was stopped."""
        if self._reading or self._state == CLOSED or self.transport.is_closing():
            return False
        self._reading = True
        self.transport.resume_reading()
        return True

    # -- responses

    def returned(self, value: Any) -> None:
        """The handler has answered."""
        if type(value) is not Response and not isinstance(value, Response):
            self.raised(TypeError(f"the handler returned {value!r}, not a Response"))
        elif (type(value.body) is not bytes or value.status < 200) and (wrong := self._wrong(value)) is not None:
            value.discard()
            self.raised(wrong)
        elif self._state != BUSY or self.started:
            value.discard()
        else:
            self._answer(value)

    def _wrong(self, response: Response) -> Exception | None:
        """Why what the handler returned cannot be sent."""
        body = response.body
        if response.status == 101:
            if self.request is None or not self.request.upgrade or not hasattr(body, "connect"):
                return ValueError(f"the handler returned {response!r} without a tunnel, or unasked")
        elif response.status < 200:
            return ValueError(f"the handler returned {response!r}: an interim response goes to request.inform")
        elif not isinstance(body, Stream | bytes | bytearray | memoryview):
            return TypeError(f"the body of {response!r} is {type(body).__name__}, not bytes or a Stream")
        return None

    def raised(self, error: BaseException) -> None:
        """The handler has failed."""
        if not isinstance(error, Failure | asyncio.CancelledError):
            self._loop.call_exception_handler({"message": f"a handler failed on {self.request!r}", "exception": error})
        if self._state != BUSY or self.started:
            return
        if isinstance(error, asyncio.CancelledError):
            error = self._fault or ClientGone("the client closed its connection")
        if isinstance(error, ClientGone):
            self.transport.abort()
            return
        self._answer(response_to(error), error)

    def _inform(self, response: Response) -> None:
        """Send an interim response on (RFC 9110 §15.2)."""
        if self._state == BUSY and not self.started and not self.transport.is_closing():
            self.transport.write(response_head(response.status, response.headers.section, b""))

    def _answer(self, response: Response, error: BaseException | None = None) -> None:
        """Write a response: a whole one in one write, else its head with what is there, and the rest as it comes."""
        request = self.request
        assert request is not None
        transport = self.transport
        if transport.is_closing():
            response.discard()
            return
        self.started = True
        self._status = status = response.status
        body = response.body
        if status == 101:
            self._open_tunnel(response)
            return
        if self._upload is not None or self.service.draining or self.reader.failed:
            self._settle_keep()
        section = response.headers.section
        if type(body) is not bytes or status in (204, 304) or request.method == "HEAD":
            extra, download, body = self._frame(response, request)
            head = self._head(status, section, extra)
            if download is not None:
                self._sent += len(head)
                self._download = download
                download.start(head, self.blocked)
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
        if size <= COPY:
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
        upload = self._upload
        if self.service.draining or self.reader.failed or (upload is not None and not upload.worth_waiting(_DRAIN)):
            self._keep = False

    def _frame(self, response: Response, request: Request) -> tuple[bytes, Download | None, bytes]:
        """(framing lines, download or None, body to send) where it is not plainly bytes (RFC 9112 §6)."""
        body, status = response.body, response.status
        if request.method == "HEAD" or status in (204, 304):
            declared = response.headers.find(b"content-length")
            response.discard()
            if status == 204:
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
            return b"Content-Length: %d\r\n" % body.length, Download(self, body, body.length, chunked=False), b""
        if request.version == 11:
            return CHUNKED, Download(self, body, inf, chunked=True), b""
        self._keep = False  # HTTP/1.0 knows no chunks: the connection's end is the body's
        return b"", Download(self, body, inf, chunked=False), b""

    def downloaded(self, size: int) -> None:
        """The response's body has left, ``size`` bytes of it."""
        self._sent += size
        if self._state == BUSY and not self.transport.is_closing():
            self._finish(None)

    def cut(self, size: int, error: BaseException, *, visible: bool) -> None:
        """The response's body broke off after ``size`` bytes: the client must be able to see that it is not whole (RFC 9112 §8)."""
        if self._state != BUSY:
            return
        self._sent += size
        self._download = None
        self._record(error)
        self._state = DRAIN
        if visible:
            self.transport.close()  # the framing shows it, and what was written still arrives
        else:
            reset(self.transport)  # only that tells a cut body from a complete one

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
            self._upload.stream.cancel()
            self.resume_reading()
        else:
            self._next()

    def _next(self) -> None:
        self._state = HEAD
        self.started = False
        if self.service.draining and not self.reader.buffered:
            self.retire(self.service.last_call)
            return
        if not self.blocked:
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
        self._began = self.service.exact()
        self._sent = 0
        self._keep = False
        self.reader.failed = True
        self._answer(response)

    def _close(self) -> None:
        """End the connection so that the client can read the answer: it may still be sending (RFC 9112 §9.6)."""
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.stream.cancel()
        transport = self.transport
        sending = upload is not None or self.reader.failed or self.reader.buffered > 0
        if sending and not self._eof and transport.can_write_eof():
            self._state = LINGER
            self._linger = _LINGER
            self.deadline = self._loop.time() + self.service.timeouts.linger
            transport.write_eof()
            self.resume_reading()
        else:
            self._state = DRAIN
            transport.close()

    def retire(self, last_call: float) -> None:
        """The server drains: go when nothing is under way for ``last_call`` seconds; what is, is answered with ``Connection: close``."""
        if self._state == HEAD and not self.reader.buffered:
            if last_call:
                self.deadline = min(self.deadline, self._loop.time() + last_call)
            else:
                self.transport.close()

    def drop(self) -> None:
        """Go now."""
        self.transport.abort()

    def expire(self, now: float) -> None:
        """A deadline has passed: whose it was depends on the state."""
        self.deadline = inf
        if self.blocked:
            size = self.transport.get_write_buffer_size()
            if size < self._stalled:
                self._stalled = size
                self.deadline = now + self.service.timeouts.send
            else:
                self.transport.abort()
        elif self._state == HEAD:
            if self.reader.buffered:
                self._refuse(refusal(408, "head-timeout"))
            else:
                self.transport.close()
        elif self._state == BUSY:
            if self._eof and self._download is not None and self._download.moved():
                self.deadline = now + self.service.timeouts.half_close
            elif self._eof and self.started:
                self.transport.abort()  # it has left, or it waits for what does not come: the upstream's work ends here
            elif self._eof:
                self._keep = False
                self.interrupt()
            elif self._upload is not None:
                self.break_upload(ClientTooSlow("the request's body stopped coming"))
        else:
            self.transport.abort()

    def _open_tunnel(self, response: Response) -> None:
        """From here on bytes go both ways, as they come (RFC 9110 §7.8)."""
        assert self.request is not None
        extra = b"Connection: Upgrade\r\nUpgrade: " + self.request.upgrade.encode("latin-1") + b"\r\n"
        self.transport.write(response_head(101, response.headers.section, extra))
        self._record(None)
        self._state = TUNNEL
        self._keep = True
        self._tunnel = tunnel = response.body
        self.touch()
        tunnel.connect(*ClientEnd.both(self))
        data = self.reader.rest()
        if data:
            tunnel.write(data)
        self.resume_reading()

    def hang_up(self) -> None:
        """The tunnel's other side has ended; the client may still send, if it has not ended too."""
        transport = self.transport
        if self._eof or not transport.can_write_eof():
            transport.close()
        elif not transport.is_closing():
            self._keep = False
            transport.write_eof()

    def touch(self) -> None:
        """Bytes went through the tunnel, one way or the other."""
        if not self.blocked:
            self.deadline = self._loop.time() + self.service.timeouts.tunnel
