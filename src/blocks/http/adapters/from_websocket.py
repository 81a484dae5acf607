"""A WebSocket at an ASGI application: its ``receive`` and ``send``, and the tunnel that the client's connection becomes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from math import inf
from typing import Any

from blocks.core.errors import Failure
from blocks.core.logging import events
from blocks.core.sweeper import sweeper

from ..body import Sink, Source
from ..message import Headers, Pair, Request, Response
from ..refusal import refusal
from .conversation import ABNORMAL, INTERNAL, NORMAL, Conversation, Message, accept_key

CONNECTING, OPEN, CLOSED = range(3)
_PING = 20.0  # seconds of silence before the client is asked for a sign of life, and as many to give it (uvicorn's ws_ping_interval)
_CLOSE = 10.0  # seconds for the client to answer a close (websockets' close_timeout)
_INBOX = 256 * 1024  # bytes of messages that wait for the application before the client is paused
_REFUSAL = 1024 * 1024  # bytes of a refusal's body


class AsgiSocket:
    """Between one client and one call of the application. It is the body of the 101: what the client sends is written to it."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._loop = loop = asyncio.get_running_loop()
        self._response: asyncio.Future[Response] = loop.create_future()
        self._conversation = Conversation(server=True)
        self._state = CONNECTING
        self._sink: Sink | None = None
        self._source: Source | None = None
        self._inbox: deque[Message] = deque()
        self._held = 0  # bytes in it
        self._told = False  # the application has heard of the connection
        self._news = asyncio.Event()  # a message is there, or the end
        self._room = asyncio.Event()  # the client is there, and takes what is sent
        self._refusing: tuple[int, list[Pair], bytearray] | None = None
        self._watchers: tuple[Callable[[BaseException | None], None], ...] = ()
        self.deadline = inf
        self._asked = False  # a ping is out

    async def answer(self) -> Response:
        """What the opening handshake is answered with: 101 and this, or a refusal. Cancelled: the client has left."""
        try:
            return await self._response
        except asyncio.CancelledError:
            self._lost()
            raise

    async def run(self, app: Callable[[Any, Any, Any], Awaitable[None]], scope: dict[str, Any]) -> None:
        """Call the application to its end; a connection that it left open is closed then."""
        error: BaseException | None = None
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._end(None)
            raise
        except BaseException as failure:
            error = failure
            if self._conversation.closed is None or not isinstance(failure, OSError):
                events().error("asgi-app-failed", method="WEBSOCKET", path=self._request.path, error=failure)
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if self._state == CONNECTING:
            self._state = CLOSED
            if not self._response.done():
                how = "failed" if error is not None else "returned"
                failure = Failure(f"the ASGI application {how} before it took the WebSocket", reason="app-failed")
                failure.__cause__ = error
                self._response.set_exception(failure)
        else:
            self._close(NORMAL if error is None else INTERNAL, "")

    # -- what the application calls

    async def receive(self) -> dict[str, Any]:
        """``websocket.connect``, then each message, then ``websocket.disconnect``."""
        if not self._told:
            self._told = True
            return {"type": "websocket.connect"}
        while not self._inbox:
            closed = self._conversation.closed
            if closed is not None:
                return {"type": "websocket.disconnect", "code": closed[0], "reason": closed[1]}
            self._news.clear()
            await self._news.wait()
        message = self._inbox.popleft()
        self._held -= len(message)
        if self._held <= _INBOX // 2:
            self._read_on()
        kind = "text" if isinstance(message, str) else "bytes"
        return {"type": "websocket.receive", kind: message}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Take the connection, refuse it, send a message or close. Raises ``OSError`` once the client is gone (ASGI WebSocket 2.4)."""
        kind = message["type"]
        if self._state == CONNECTING:
            self._open(kind, message)
            if kind == "websocket.accept":
                await self._room.wait()
        elif kind == "websocket.send" and self._state == OPEN:
            if self._conversation.closing:
                raise OSError("the WebSocket is closed")
            text = message.get("text")
            self._conversation.send(text if text is not None else bytes(message.get("bytes") or b""))
            self._flush()
            if not self._room.is_set():
                await self._room.wait()
        elif kind == "websocket.close" and self._state == OPEN:
            self._close(message.get("code") or NORMAL, message.get("reason") or "")
        else:
            raise RuntimeError(f"{kind} is out of place here")

    def _open(self, kind: str, message: MutableMapping[str, Any]) -> None:
        if kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self._refuse(refusal(403, "refused-by-application"))
        elif kind == "websocket.http.response.start":
            pairs = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
            self._refusing = (message["status"], pairs, bytearray())
        elif kind == "websocket.http.response.body" and self._refusing is not None:
            status, pairs, body = self._refusing
            body += message.get("body", b"")
            if len(body) > _REFUSAL:
                raise ValueError(f"the body of a refusal has at most {_REFUSAL} bytes")
            if not message.get("more_body", False):
                self._refuse(Response(status, [pair for pair in pairs if pair[0] != b"content-length"], bytes(body)))
        else:
            raise RuntimeError(f"{kind} is out of place here")

    def _accept(self, message: MutableMapping[str, Any]) -> None:
        key = self._request.headers["sec-websocket-key"]
        headers = Headers([(bytes(name), bytes(value)) for name, value in message.get("headers") or ()])
        headers["sec-websocket-accept"] = accept_key(key)
        if message.get("subprotocol"):
            headers["sec-websocket-protocol"] = message["subprotocol"]
        if self._conversation.closed is not None:
            raise OSError("the client has left")
        self._state = OPEN
        self._response.set_result(Response(101, headers, self))

    def _refuse(self, response: Response) -> None:
        self._state = CLOSED
        self._conversation.closed = (ABNORMAL, "")
        self._news.set()
        if not self._response.done():
            self._response.set_result(response)

    def _close(self, code: int, reason: str) -> None:
        self._state = CLOSED
        if not self._conversation.closing:
            self._conversation.close(code, reason)
            self.deadline = self._loop.time() + _CLOSE
        self._flush()

    # -- the tunnel

    def connect(self, sink: Sink, source: Source) -> None:
        """The client's connection is ours: what was sent meanwhile goes out."""
        self._sink, self._source = sink, source
        self._room.set()
        self._heard()
        sweeper(self._loop).add(self)
        self._flush()

    def write(self, data: bytes) -> None:
        """Bytes of the client."""
        self._heard()
        for message in self._conversation.receive(data):
            self._inbox.append(message)
            self._held += len(message)
        self._news.set()
        self._flush()
        if self._held > _INBOX and self._source is not None:
            self._source.pause()

    def end(self) -> None:
        """The client has ended its side: without a close frame that is no proper end."""
        self._conversation.eof()
        self._news.set()
        self._flush()
        self._part()

    def pause(self) -> None:
        """The client takes no more: the application waits, and pings are not answered for ever."""
        self._room.clear()
        self.deadline = inf  # it is the server's send timeout that counts now
        if self._source is not None:
            self._source.pause()

    def resume(self) -> None:
        """The client has caught up."""
        self._room.set()
        self._heard()
        self._read_on()

    def cancel(self) -> None:
        """The client is gone."""
        self._lost()

    def watch(self, ended: Callable[[BaseException | None], None]) -> None:
        """Call ``ended(None)`` once, when the connection is gone."""
        self._watchers += (ended,)

    # -- inside

    def expire(self, now: float) -> None:
        """The client was silent for long: ask it; or it has not answered, or not closed: part."""
        if self._asked or self._conversation.closing or self._conversation.closed is not None:
            self._part()
            self._lost()
            return
        self._asked = True
        self._conversation.ping()
        self._flush()
        self.deadline = now + _PING

    def _heard(self) -> None:
        self._asked = False
        if not self._conversation.closing:
            self.deadline = self._loop.time() + _PING

    def _read_on(self) -> None:
        if self._source is not None and self._room.is_set() and self._held <= _INBOX // 2:
            self._source.resume()

    def _flush(self) -> None:
        if self._sink is None:
            return
        data, ended = self._conversation.outgoing()
        if data:
            self._sink.write(data)
        if ended:
            sink, self._sink = self._sink, None
            sink.end(None)
            self.deadline = min(self.deadline, self._loop.time() + _CLOSE)

    def _part(self) -> None:
        """Both ends have closed, or the client does not: the connection goes (RFC 6455 §7.1.1)."""
        source, self._source = self._source, None
        if source is not None:
            source.cancel()

    def _lost(self) -> None:
        """There is no client any more."""
        if self._conversation.closed is None:
            self._conversation.closed = (ABNORMAL, "")
        self._sink = self._source = None
        self.deadline = inf
        sweeper(self._loop).discard(self)
        self._news.set()
        self._room.set()
        watchers, self._watchers = self._watchers, ()
        for ended in watchers:
            ended(None)
