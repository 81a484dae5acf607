"""An answer is taken whole when it is small enough; a larger one flows on as it came, nothing lost and nothing held."""

from __future__ import annotations

from collections.abc import AsyncIterator

from blocks.http.body import Stream
from blocks.http.message import Response


async def whole(response: Response, limit: int) -> tuple[Response, bytes | None]:
    """The response and its body if that is at most ``limit`` bytes; else the response with its body to be read on, and None.

    An event stream and a tunnel have no end to wait for: they pass as they are.
    """
    body = response.body
    if isinstance(body, bytes):
        return response, body if len(body) <= limit else None
    kind = response.headers.find(b"content-type") or b""
    if not isinstance(body, Stream) or kind.startswith(b"text/event-stream") or (body.length or 0) > limit:
        return response, None
    chunks: list[bytes] = []
    total = 0
    parts = body.__aiter__()
    async for chunk in parts:
        chunks.append(chunk)
        total += len(chunk)
        if total > limit:
            response.body = Stream.of(_on(chunks, parts), body.length)
            return response, None
    response.body = data = b"".join(chunks)
    return response, data


async def _on(chunks: list[bytes], parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    chunks.clear()
    async for chunk in parts:
        yield chunk
