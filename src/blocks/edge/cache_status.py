"""Cache-Status: what this cache did with a request, as one member of the field (RFC 9211)."""

from __future__ import annotations

from .structured import string, token_or_string

# Why a request went on to the origin (RFC 9211 §2.2).
BYPASS = "bypass"
METHOD = "method"
URI_MISS = "uri-miss"
VARY_MISS = "vary-miss"
REQUEST = "request"
STALE = "stale"
PARTIAL = "partial"


def hit(name: str, ttl: float, detail: str = "") -> str:
    """``blocks; hit; ttl=123``: answered from the store; ``ttl`` is below 0 for a stale one (RFC 9211 §2.1, §2.4)."""
    return f"{token_or_string(name)}; hit; ttl={int(ttl // 1)}" + (
        f"; detail={token_or_string(detail)}" if detail else ""
    )


def forwarded(
    name: str,
    reason: str,
    status: int | None = None,
    *,
    stored: bool = False,
    collapsed: bool = False,
    ttl: float | None = None,
    key: str = "",
    detail: str = "",
) -> str:
    """``blocks; fwd=uri-miss; fwd-status=200; stored``: it went to the origin, why, and what became of the answer (RFC 9211 §2)."""
    parts = [token_or_string(name), f"fwd={reason}"]
    if status is not None:
        parts.append(f"fwd-status={status}")
    if stored:
        parts.append("stored")
    if collapsed:
        parts.append("collapsed")
    if ttl is not None:
        parts.append(f"ttl={int(ttl)}")
    if key:
        parts.append(f"key={string(key)}")
    if detail:
        parts.append(f"detail={token_or_string(detail)}")
    return "; ".join(parts)
