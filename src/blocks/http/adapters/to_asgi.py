"""A handler as an ASGI application: ``to_asgi(handler)`` runs under uvicorn, hypercorn, or mounted in Starlette.

The lifespan enters ``running(handler)``. Bodies stream both ways; a client that leaves cancels the handler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack
from typing import Any

from blocks.core.errors import ClientGone, Failure

from ..body import Stream
from ..handler import Handler, bind, running
from ..message import Headers, Peer, Request, Response
from ..refusal import refusal, response_to
from .exchange import NOT_ENDS
from .to_websocket import pass_on

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class AsgiApp:
    """Made by ``to_asgi``: an ASGI 3.0 application of types http, websocket and lifespan."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.parts = (handler,)
        self._call = bind(handler)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one scope."""
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        elif kind == "websocket":
            await pass_on(self._call, _request({"method": "GET", **scope}, _Inbox(receive), send), scope, receive, send)
        else:
            raise ValueError(f"an ASGI scope of type {kind!r} is not known here")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(running(self.handler))
            except Exception as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
            try:
                await stack.aclose()
            except Exception as error:
                await send({"type": "lifespan.shutdown.failed", "message": str(error)})
                return
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        inbox = _Inbox(receive)
        request = _request(scope, inbox, send)
        work = asyncio.get_running_loop().create_task(self._answer(request, scope, send))
        inbox.work = work
        if request.body == b"":
            inbox.watch()
        try:
            await work
        except asyncio.CancelledError:
            if not inbox.gone:
                raise
        except ClientGone:
            pass
        finally:
            await inbox.close()

    async def _answer(self, request: Request, scope: Message, send: Send) -> None:
        try:
            response = await self._call(request)
        except ClientGone:
            raise
        except Failure as failure:
            response = response_to(failure)
        body = response.body
        if not isinstance(body, bytes | Stream):
            response.discard()
            response = refusal(501, "upgrade-not-supported")
            body = response.body
        try:
            await _send_response(request, response, body, scope, send)
        except OSError as error:
            raise ClientGone("the client closed its connection") from error
        finally:
            if isinstance(body, Stream):
                body.cancel()


def to_asgi(handler: Handler) -> AsgiApp:
    """An ASGI application that asks ``handler``. Under a server with ``lifespan="off"`` enter ``running(handler)`` yourself."""
    return AsgiApp(handler)


class _Inbox:
    """The one reader of ``receive``: first the source of the request's body, then the watch for a client that leaves."""

    def __init__(self, receive: Receive) -> None:
        self.work: asyncio.Task[None] | None = None
        self.gone = False
        self.stream: Stream | None = None
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()

    def watch(self) -> None:
        """Wait for the disconnect; there is no body, or it was given up."""
        self._start()

    def resume(self) -> None:
        """The body is wanted."""
        self._room.set()
        self._start()

    def pause(self) -> None:
        """The reader of the body is full."""
        self._room.clear()

    def cancel(self) -> None:
        """The body is not wanted: what still comes is read over."""
        self._room.set()

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        while True:
            message = await self._receive()
            stream = self.stream
            if message["type"] == "http.disconnect":
                break
            if stream is not None:
                stream.feed(bytes(message.get("body", b"")))
                if not message.get("more_body", False):
                    stream.finish()
                    self.stream = None
                await self._room.wait()
        self.gone = True
        if self.stream is not None:
            self.stream.fail(ClientGone("the client left before its request was complete"))
        if self.work is not None:
            self.work.cancel()

    async def close(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _request(scope: Message, inbox: _Inbox, send: Send) -> Request:
    pairs = [(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]]
    headers = Headers([pair for pair in pairs if pair[0] not in NOT_ENDS])
    index = headers.section.index
    length = headers.find(b"content-length")
    body: bytes | Stream = b""
    chunked = any(name == b"transfer-encoding" for name, _ in pairs) or (
        scope["http_version"] >= "2" and length is None and scope["method"] not in ("GET", "HEAD")
    )
    if chunked or (length is not None and length.isdigit() and int(length) > 0):
        body = inbox.stream = Stream(inbox, int(length) if length is not None and not chunked else None)
    raw = scope.get("raw_path")
    if raw is None:
        from urllib.parse import quote

        raw = quote(scope["path"], safe="/:@!$&'()*+,;=-._~").encode("ascii")
    target = raw.decode("latin-1")
    if scope.get("query_string"):
        target += "?" + scope["query_string"].decode("latin-1")
    client, server = scope.get("client") or ("", 0), scope.get("server") or ("", 0)
    peer = Peer((client[0], client[1] or 0), (server[0], server[1] or 0), scope.get("scheme", "http"))
    if b"host" not in index and server[0]:
        headers.add("host", server[0])
    version = 10 if scope["http_version"] == "1.0" else 11
    request = Request(scope["method"], target or "/", headers, body, peer=peer, version=version)
    request.state["asgi"] = scope
    return request


async def _send_response(
    request: Request, response: Response, body: bytes | Stream, scope: Message, send: Send
) -> None:
    pairs = [pair for pair in response.headers.raw if pair[0] != b"content-length"]
    bare = request.method == "HEAD" or response.status in (204, 304)
    length = len(body) if isinstance(body, bytes) else body.length
    declared = response.headers.find(b"content-length")
    if bare and declared is not None and not (isinstance(body, bytes) and body) and response.status != 204:
        pairs.append((b"content-length", declared))
    elif length is not None and not (bare and response.status in (204, 304)):
        pairs.append((b"content-length", b"%d" % length))
    trailing = (
        isinstance(body, Stream) and length is None and "http.response.trailers" in (scope.get("extensions") or {})
    )
    await send({"type": "http.response.start", "status": response.status, "headers": pairs, "trailers": trailing})
    if bare or isinstance(body, bytes):
        await send({"type": "http.response.body", "body": b"" if bare else body})
        if bare and trailing:
            await send({"type": "http.response.trailers", "headers": []})
        return
    async for chunk in body:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    if trailing:
        await send({"type": "http.response.trailers", "headers": body.trailers.raw if body.trailers else []})
