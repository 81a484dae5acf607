"""One request at an ASGI application: its ``receive`` and ``send``, and the response that comes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from blocks.core.errors import Failure
from blocks.core.logging import events

from ..body import Stream
from ..message import Headers, Request, Response

# The server states the framing and the connection's options itself (RFC 9110 §7.6.1).
NOT_ENDS = frozenset([b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"])

INITIAL, STARTED, DONE = range(3)


class Exchange:
    """Drives one call of the application. It is the source of the response's stream: pausing it makes ``send`` wait."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._response: asyncio.Future[Response] = self._loop.create_future()
        self._head: Response | None = None
        self._stream: Stream | None = None
        self._trailers: Headers | None = None
        self._awaits_trailers = False
        self._body: AsyncIterator[bytes] | None = None
        self._state = INITIAL
        self._room: asyncio.Event | None = None  # cleared while the reader is full
        self._over = asyncio.Event()  # the response is complete, or the client is gone
        self._gone = False
        self._received = False

    async def answer(self) -> Response:
        """The response. Cancelled (the client left), it tells the application so."""
        try:
            return await self._response
        except asyncio.CancelledError:
            self._leave()
            raise

    async def run(self, app: Callable[[Any, Any, Any], Awaitable[None]], scope: dict[str, Any]) -> None:
        """Call the application to its end, background tasks included."""
        error: BaseException | None = None
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError as cancelled:
            self._fail(cancelled)
            raise
        except BaseException as failure:
            error = failure
        self._fail(error)

    def _fail(self, error: BaseException | None) -> None:
        """The application has ended; if the response has not, that is a failure."""
        if error is not None and not self._gone:
            events().error("asgi-app-failed", method=self._request.method, path=self._request.path, error=error)
        if self._state != DONE and not self._gone:
            how = "failed" if error is not None else "returned"
            failure = Failure(f"the ASGI application {how} before its response was complete", reason="app-failed")
            failure.__cause__ = error
            if self._stream is not None:
                self._stream.fail(failure)
            elif not self._response.done():
                self._response.set_exception(failure)
        self._state = DONE
        self._over.set()

    # -- what the application calls

    async def receive(self) -> dict[str, Any]:
        """``http.request`` until the body is complete; then, when there is something to tell, ``http.disconnect``."""
        if self._gone:
            return {"type": "http.disconnect"}
        if self._received:
            await self._over.wait()
            return {"type": "http.disconnect"}
        body = self._request.body
        if isinstance(body, bytes):
            self._received = True
            return {"type": "http.request", "body": body, "more_body": False}
        if self._body is None:
            self._body = body.__aiter__()
        try:
            chunk = await anext(self._body)
        except StopAsyncIteration:
            self._received = True
            return {"type": "http.request", "body": b"", "more_body": False}
        except (Failure, OSError):  # the body broke off: to an application a client that left
            self._received = self._gone = True
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Take a message of the application. Raises ``OSError`` when the client is gone (spec 2.4), ``RuntimeError`` out of turn."""
        kind = message["type"]
        if self._gone:
            raise ConnectionResetError("the client is gone")
        if kind == "http.response.start" and self._state == INITIAL:
            self._start(message)
        elif kind == "http.response.body" and self._state == STARTED:
            self._send_body(bytes(message.get("body", b"")), bool(message.get("more_body", False)))
            if self._room is not None and not self._room.is_set():
                await self._room.wait()
        elif kind == "http.response.trailers" and self._state == STARTED and self._awaits_trailers:
            fields = [*(self._trailers.raw if self._trailers else []), *_fields(message)]
            self._trailers = Headers(fields)
            if not message.get("more_trailers", False):
                self._finish()
        elif kind == "http.response.early_hint" and self._state == INITIAL:
            if self._request.inform is not None:
                self._request.inform(Response(103, [(b"link", link) for link in message.get("links", ())]))
        else:
            raise RuntimeError(f"the ASGI application sent {kind!r} out of turn")

    def _start(self, message: MutableMapping[str, Any]) -> None:
        self._head = Response(message["status"], [pair for pair in _fields(message) if pair[0].lower() not in NOT_ENDS])
        self._awaits_trailers = bool(message.get("trailers", False))
        self._state = STARTED
        # Most applications send the body right after the head: then it leaves as one. Events may take long: then the head goes first.
        self._loop.call_soon(self._begin_stream)

    def _send_body(self, data: bytes, more: bool) -> None:
        if not more and self._stream is None and not self._awaits_trailers:
            assert self._head is not None
            self._state = DONE
            if self._request.method != "HEAD":
                self._head.body = data
            self._over.set()
            if not self._response.done():
                self._response.set_result(self._head)
            return
        self._begin_stream()
        if self._stream is not None:
            self._stream.feed(data)
        if not more and not self._awaits_trailers:
            self._finish()

    def _begin_stream(self) -> None:
        """Give the response away with its body still to come."""
        if self._state != STARTED or self._stream is not None or self._gone:
            return
        head = self._head
        assert head is not None
        declared = head.headers.find(b"content-length")
        length = int(declared) if declared is not None and declared.isdigit() and len(declared) < 19 else None
        self._room = asyncio.Event()
        self._room.set()
        self._stream = head.body = Stream(self, length)
        if self._response.done():
            self._leave()
        else:
            self._response.set_result(head)

    def _finish(self) -> None:
        self._state = DONE
        if self._stream is not None:
            self._stream.finish(self._trailers)
        self._over.set()

    # -- the source of the response's body

    def pause(self) -> None:
        """The reader is full: ``send`` waits."""
        if self._room is not None:
            self._room.clear()

    def resume(self) -> None:
        """The reader has room."""
        if self._room is not None:
            self._room.set()

    def cancel(self) -> None:
        """The reader has left."""
        self._leave()

    def _leave(self) -> None:
        self._gone = True
        self._over.set()
        if self._room is not None:
            self._room.set()


def _fields(message: MutableMapping[str, Any]) -> list[tuple[bytes, bytes]]:
    return [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
