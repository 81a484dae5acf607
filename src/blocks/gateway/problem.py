"""A refusal is a problem document: ``application/problem+json`` with type, title, status and detail (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from blocks.http.message import Headers, Pair, Response, Section

PROBLEM_TYPE = b"application/problem+json"


def problem(
    status: int,
    title: str,
    detail: str = "",
    *,
    type: str = "about:blank",
    headers: Iterable[Pair] = (),
    **members: Any,
) -> Response:
    """A response whose body says what is wrong; ``members`` are extension members (RFC 9457 §3.2), ``headers`` raw pairs.

    It is never stored by a cache: a refusal belongs to the moment (RFC 9111 §5.2.2.5).
    """
    body: dict[str, Any] = {"type": type, "title": title, "status": status}
    if detail:
        body["detail"] = detail
    body.update(members)
    pairs: list[Pair] = [(b"content-type", PROBLEM_TYPE), (b"cache-control", b"no-store"), *headers]
    return Response(status, Headers.of(Section(pairs)), json.dumps(body, ensure_ascii=False).encode())
