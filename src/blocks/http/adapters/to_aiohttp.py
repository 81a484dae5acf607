"""A handler as an aiohttp handler: a service that runs on aiohttp puts a balancer or an edge under one of its routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from blocks.core.errors import Failure

from ..body import Stream
from ..handler import Handler, bind, running
from ..message import Headers, Peer, Request, Response
from ..refusal import refusal, response_to
from .exchange import NOT_ENDS

if TYPE_CHECKING:
    from aiohttp import web


class AiohttpHandler(Protocol):
    """What ``to_aiohttp`` makes: an aiohttp handler; its ``cleanup`` belongs into ``app.cleanup_ctx``."""

    cleanup: Callable[[web.Application], AsyncIterator[None]]

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Ask the handler; a failure becomes its response."""
        ...


def to_aiohttp(handler: Handler) -> AiohttpHandler:
    """An aiohttp handler that asks ``handler``: ``app.router.add_route("*", "/{rest:.*}", h); app.cleanup_ctx.append(h.cleanup)``."""
    call = bind(handler)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            response = await call(_request(request))
        except Failure as failure:
            response = response_to(failure)
        if not isinstance(response.body, bytes | Stream):
            response.discard()
            response = refusal(501, "upgrade-not-supported")
        return await _send(request, response, response.body)

    async def cleanup(app: web.Application) -> AsyncIterator[None]:
        async with running(handler):
            yield

    made = cast(AiohttpHandler, handle)  # aiohttp takes coroutine functions only, so it is one, with an attribute
    made.cleanup = cleanup
    return made


def _request(request: web.BaseRequest) -> Request:
    headers = Headers(
        [
            (bytes(name).lower(), bytes(value))
            for name, value in request.raw_headers
            if bytes(name).lower() not in NOT_ENDS
        ]
    )
    body: bytes | Stream = b""
    if request.can_read_body:
        body = Stream.of(_chunks(request), request.content_length)
    transport = request.transport
    client: Any = transport.get_extra_info("peername") if transport is not None else None
    server: Any = transport.get_extra_info("sockname") if transport is not None else None
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    peer = Peer(_address(client), _address(server), request.scheme, tls, certificate)
    target = request.raw_path if request.raw_path.startswith("/") else request.rel_url.raw_path_qs or "/"
    version = 10 if request.version.minor == 0 else 11
    return Request(request.method, target, headers, body, peer=peer, version=version)


async def _chunks(request: web.BaseRequest) -> AsyncIterator[bytes]:
    async for chunk in request.content.iter_any():
        yield chunk


def _address(name: Any) -> tuple[str, int]:
    if isinstance(name, tuple):
        return name[0], name[1]
    return (name, 0) if isinstance(name, str) else ("", 0)


async def _send(request: web.BaseRequest, response: Response, body: bytes | Stream) -> web.StreamResponse:
    from aiohttp import web

    bare = request.method == "HEAD" or response.status in (204, 304)
    answer = web.StreamResponse(status=response.status)
    for name, value in response.headers.items():
        if name != "content-length":
            answer.headers.add(name, value)
    length = len(body) if isinstance(body, bytes) else body.length
    declared = response.headers.get("content-length")
    if bare and declared is not None and declared.isdigit() and not (isinstance(body, bytes) and body):
        length = int(declared)
    if length is not None and response.status not in (204, 304):
        answer.content_length = length
    elif not bare and request.version.minor > 0:
        answer.enable_chunked_encoding()
    try:
        await answer.prepare(request)
        if isinstance(body, bytes):
            if body and not bare:
                await answer.write(body)
        elif not bare:
            async for chunk in body:
                await answer.write(chunk)
        await answer.write_eof()
    finally:
        if isinstance(body, Stream):
            body.cancel()
    return answer
