"""One function turns a failure into the response that tells a client about it."""

from __future__ import annotations

from blocks.core.errors import Failure

from .h1.writer import phrase
from .message import Response


def response_to(error: BaseException) -> Response:
    """The answer to a request that failed: the failure's status, and its reason as a line of text.

    The reason is one of our constants, never an exception's words: what a client is told must not carry addresses or paths.
    """
    if isinstance(error, Failure):
        status, reason = error.status, error.reason
    else:
        status, reason = 500, "internal"
    return refusal(status, reason)


def refusal(status: int, reason: str) -> Response:
    """A plain response of ``status`` whose body says why in one line."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"))
    if status in (429, 503):
        headers.append((b"retry-after", b"1"))
    return Response(status, headers, f"{status} {phrase(status)}: {reason}\n".encode())
