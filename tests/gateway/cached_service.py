"""A service that a file names: it says how often it was asked, and that its answers may be kept."""

from __future__ import annotations

from itertools import count

from blocks.http.message import Request, Response

_numbers = count(1)


async def counted(request: Request) -> Response:
    return Response(200, {"cache-control": "max-age=600", "content-type": "text/plain"}, str(next(_numbers)).encode())
