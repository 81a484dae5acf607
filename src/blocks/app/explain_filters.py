"""What a request would meet in the filters of a server and before an edge: those that decide are asked, the others told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blocks.core.quantities import seconds
from blocks.http.filters.real_client import RealClient
from blocks.http.handler import Filter
from blocks.http.message import Request, Response

from .sense.defaults import default_of
from .tables import AgainTable, CompressTable, ServerTable

_KEYS = ("request_id", "trace", "timeout", "compress")


def told_of_filters(table: ServerTable, filters: Sequence[Filter], request: Request) -> dict[str, Any]:
    """What stands before a server's handler; a trusted proxy's ``request`` becomes that of its client."""
    says: dict[str, Any] = {}
    for filter in filters:
        if isinstance(filter, RealClient):
            _asked(filter, request)
            says["client"] = f"{request.peer.client[0] or 'unknown'}, by {request.peer.scheme} (trusted)"
    words = [_words(table, key) for key in _KEYS if getattr(table, key) not in (None, False)]
    return says | ({"filters": ", ".join(words)} if words else {})


def told_of_guards(guards: Sequence[Filter], request: Request) -> tuple[dict[str, Any], str]:
    """What to say of the guards before an edge, and why they refuse ("" when they do not; ``request`` is then as they leave it)."""
    for guard in guards:
        response = _asked(guard, request)
        if response is not None:
            body = response.body.decode().strip() if isinstance(response.body, bytes) else ""
            return {}, body or str(response.status)
    names = ", ".join(type(guard).__name__ for guard in guards)
    return ({"guards": f"let through by {names}"} if names else {}), ""


def tries_of(retries: AgainTable | int) -> str:
    """How often an upstream is asked at most."""
    if isinstance(retries, int):
        return str(retries + 1)
    return str(default_of(AgainTable, "tries") if retries.tries is None else retries.tries)


def _words(table: ServerTable, key: str) -> str:
    value = getattr(table, key)
    if key == "timeout":
        return f"timeout {seconds(value):g} s"
    if key == "compress":
        chosen = value.codings if isinstance(value, CompressTable) else None if value is True else value
        return "compress " + ", ".join(chosen or ("gzip",))
    return key


def _asked(filter: Filter, request: Request) -> Response | None:
    """What the filter answers by itself; None when it passes ``request`` on, which then is as it passed it."""
    passed: list[Request] = []

    async def beyond(inner: Request) -> Response:
        passed.append(inner)
        return Response(200)

    work = filter(request, beyond)
    try:
        work.send(None)
    except StopIteration as end:
        answer: Response = end.value
    else:
        raise AssertionError("a filter that decides waits for nothing")
    if not passed:
        return answer
    request.target, request.peer = passed[0].target, passed[0].peer
    return None
