"""A WebSocket of an ASGI server, passed on to a handler: messages become frames for the tunnel that the handler gives, and back."""

from __future__ import annotations

import asyncio
import base64
import os
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from blocks.core.errors import Failure

from ..body import Stream, Tunnel
from ..handler import Handler
from ..message import Headers, Request, Response
from ..refusal import response_to
from .conversation import ABNORMAL, GOING_AWAY, NO_STATUS, Conversation, Message, accept_key

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

_HELD = 256 * 1024  # bytes of messages that wait for the client before the other side is paused
_HANDSHAKE = frozenset([b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol"])


def websocket_request(request: Request) -> Request:
    """The opening handshake as ours: a key of its own, and no extensions, as the messages were taken out of their frames already."""
    drop = (b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions")
    key = base64.b64encode(os.urandom(16))
    request.headers.replace(drop, [(b"sec-websocket-key", key), (b"sec-websocket-version", b"13")])
    request.upgrade = "websocket"
    return request


async def pass_on(call: Handler, request: Request, scope: Event, receive: Receive, send: Send) -> None:
    """One WebSocket from its opening to its end."""
    await receive()  # websocket.connect
    try:
        response = await call(websocket_request(request))
    except Failure as failure:
        response = response_to(failure)
    tunnel = response.body
    if response.status != 101 or isinstance(tunnel, bytes | Stream):
        await _refuse(response, scope, send)
        return
    if response.headers.get("sec-websocket-accept") != accept_key(request.headers["sec-websocket-key"]):
        tunnel.cancel()
        await send({"type": "websocket.close", "code": ABNORMAL})
        return
    link = _Link(tunnel)
    try:
        await send(_acceptance(response.headers))
        await link.run(receive, send)
    finally:
        link.tunnel.cancel()


def _acceptance(headers: Headers) -> Event:
    pairs = [pair for pair in headers.raw if pair[0] not in _HANDSHAKE]
    return {"type": "websocket.accept", "subprotocol": headers.get("sec-websocket-protocol"), "headers": pairs}


async def _refuse(response: Response, scope: Event, send: Send) -> None:
    """The handler's answer as it is, where the server can pass it on; else a close, which the server makes a 403."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        response.discard()
        await send({"type": "websocket.close", "code": 1000})
        return
    body = response.body
    await send({"type": "websocket.http.response.start", "status": response.status, "headers": response.headers.raw})
    if isinstance(body, Stream):
        async for chunk in body:
            await send({"type": "websocket.http.response.body", "body": chunk, "more_body": True})
    last = body if isinstance(body, bytes) else b""
    await send({"type": "websocket.http.response.body", "body": last, "more_body": False})


class _Link:
    """The client's end of the tunnel: a sink of frames that become messages, a source of messages that become frames."""

    def __init__(self, tunnel: Tunnel) -> None:
        self.tunnel = tunnel
        self._conversation = Conversation(server=False)
        self._inbox: deque[Message] = deque()
        self._held = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def run(self, receive: Receive, send: Send) -> None:
        """Both ways, until one end closes."""
        self.tunnel.connect(self, self)
        reading = asyncio.get_running_loop().create_task(self._read(receive))
        try:
            await self._write(send)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, receive: Receive) -> None:
        """Messages of the client."""
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                self._leave(event.get("code") or NO_STATUS)
                return
            if not self._conversation.closing:
                text = event.get("text")
                self._conversation.send(text if text is not None else bytes(event.get("bytes") or b""))
                self._flush()
            await self._room.wait()

    def _leave(self, code: int) -> None:
        """The client has gone: the other side is told why, if that can be said on a wire (RFC 6455 §7.4.1)."""
        if not self._conversation.closing:
            self._conversation.close(GOING_AWAY if code in (NO_STATUS, ABNORMAL) else code)
            self._flush()
        self._conversation.closed = self._conversation.closed or (code, "")
        self._news.set()
        self.tunnel.end()

    async def _write(self, send: Send) -> None:
        """Messages of the other side, then how it closed."""
        while True:
            while self._inbox:
                message = self._inbox.popleft()
                self._held -= len(message)
                if self._held <= _HELD // 2:
                    self.tunnel.resume()
                await send({"type": "websocket.send", "text" if isinstance(message, str) else "bytes": message})
            closed = self._conversation.closed
            if closed is not None:
                code = GOING_AWAY if closed[0] in (NO_STATUS, ABNORMAL) else closed[0]
                try:
                    await send({"type": "websocket.close", "code": code, "reason": closed[1]})
                except (OSError, RuntimeError):
                    pass  # it is the client who has left
                return
            self._news.clear()
            await self._news.wait()

    def _flush(self) -> None:
        data, _ = self._conversation.outgoing()
        if data:
            self.tunnel.write(data)

    # -- what the tunnel calls

    def write(self, data: bytes) -> None:
        """Frames of the other side."""
        for message in self._conversation.receive(data):
            self._inbox.append(message)
            self._held += len(message)
        if self._held > _HELD:
            self.tunnel.pause()
        self._flush()
        self._news.set()

    def end(self, trailers: Headers | None) -> None:
        """The other side has ended."""
        self._conversation.eof()
        self._news.set()

    def abort(self, error: BaseException) -> None:
        """The other side broke off."""
        self.end(None)

    def pause(self) -> None:
        """The other side takes no more."""
        self._room.clear()

    def resume(self) -> None:
        """The other side has caught up."""
        self._room.set()

    def cancel(self) -> None:
        """The other side is gone."""
        self._room.set()
        self.end(None)
