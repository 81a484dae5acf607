"""Cache-Status: what this cache did with a request, as one member of the field (RFC 9211)."""

from __future__ import annotations

from functools import lru_cache

from .structured import string, token_or_string

# Why a request went on to the origin (RFC 9211 §2.2).
BYPASS = "bypass"
METHOD = "method"
URI_MISS = "uri-miss"
VARY_MISS = "vary-miss"
REQUEST = "request"
STALE = "stale"
PARTIAL = "partial"


_named = lru_cache(maxsize=256)(token_or_string)  # names, reasons and details are few


def hit(name: str, ttl: float, detail: str = "") -> str:
    """``blocks; hit; ttl=123``: answered from the store; ``ttl`` is below 0 for a stale one (RFC 9211 §2.1, §2.4)."""
    return f"{_named(name)}; hit; ttl={int(ttl // 1)}{f'; detail={_named(detail)}' if detail else ''}"


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
    went = _went(name, reason, status, stored, collapsed)
    if ttl is not None:
        went = f"{went}; ttl={int(ttl)}"
    if key:
        went = f"{went}; key={string(key)}"
    return f"{went}; detail={_named(detail)}" if detail else went


@lru_cache(maxsize=256)
def _went(name: str, reason: str, status: int | None, stored: bool, collapsed: bool) -> str:
    parts = [token_or_string(name), f"fwd={reason}"]
    if status is not None:
        parts.append(f"fwd-status={status}")
    if stored:
        parts.append("stored")
    if collapsed:
        parts.append("collapsed")
    return "; ".join(parts)
