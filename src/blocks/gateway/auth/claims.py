"""Claims say whom a token is for, from whom, and when; a claim of the wrong type is as bad as a wrong one.

Source: RFC 7519 §4.1 (claims), RFC 8725 §3.8–3.11 (issuer, audience, types), RFC 9068 (access tokens: exp is required).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from .jws import InvalidToken

ANY = "*"
LEEWAY = 60.0  # seconds; Envoy's clock_skew_seconds
_TYPES = frozenset({"jwt", "at+jwt"})  # RFC 7519 §5.1, RFC 9068 §2.1; not logout+jwt, secevent+jwt …


class Rules:
    """What the claims of a token must be.

    ``issuers``: one of these (None: not looked at). ``audiences``: one of these must be among aud; None refuses tokens that carry an aud
    (RFC 7519 §4.1.3), ``frozenset({"*"})`` takes any. ``leeway``: seconds that clocks may differ. ``required``: claims that must be there.
    ``oldest``: seconds since iat after which a token is refused (None: never). ``types``: allowed header typ, lower-case.
    """

    __slots__ = ("audiences", "issuers", "leeway", "oldest", "required", "types")

    def __init__(
        self,
        *,
        issuers: frozenset[str] | None = None,
        audiences: frozenset[str] | None = None,
        leeway: float = LEEWAY,
        required: tuple[str, ...] = ("exp",),
        oldest: float | None = None,
        types: frozenset[str] = _TYPES,
    ) -> None:
        self.issuers = issuers
        self.audiences = audiences
        self.leeway = leeway
        self.required = required
        self.oldest = oldest
        self.types = types


def check_type(header: Mapping[str, Any], rules: Rules) -> None:
    """The header says that this is a JWT for us, or nothing. Raises ``InvalidToken``: one kind of token must not pass as another."""
    kind = header.get("typ")
    if kind is not None and not (isinstance(kind, str) and kind.lower().removeprefix("application/") in rules.types):
        raise InvalidToken("type", "the token is of another type")
    if "cty" in header:
        raise InvalidToken("type", "the token is nested")


def check_claims(claims: Mapping[str, Any], rules: Rules, now: float) -> float | None:
    """The time until which the claims hold (exp, epoch seconds; None without exp). Raises ``InvalidToken`` when they do not at ``now``."""
    for name in rules.required:
        if name not in claims:
            raise InvalidToken("claim-missing", f"the token has no {name}")
    expires = _date(claims, "exp")
    begins = _date(claims, "nbf")
    issued = _date(claims, "iat")
    if expires is not None and now >= expires + rules.leeway:
        raise InvalidToken("expired", "the token has expired")
    if begins is not None and now < begins - rules.leeway:
        raise InvalidToken("not-yet", "the token is not valid yet")
    if issued is not None and now < issued - rules.leeway:
        raise InvalidToken("not-yet", "the token was issued in the future")
    if rules.oldest is not None and (issued is None or now >= issued + rules.oldest + rules.leeway):
        raise InvalidToken("expired", "the token is too old")
    for name in ("iss", "sub", "jti", "client_id", "azp"):
        if not isinstance(claims.get(name, ""), str):
            raise InvalidToken("claim-type", f"the token's {name} is not a string")
    if rules.issuers is not None and claims.get("iss") not in rules.issuers:
        raise InvalidToken("issuer", "the token is from another issuer")
    _check_audience(claims.get("aud"), rules)
    return expires


def _date(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken("claim-type", f"the token's {name} is not a number (RFC 7519 §2, NumericDate)")
    try:
        date = float(value)
    except OverflowError:
        date = float("inf")
    if not isfinite(date) or not 0 <= date < 1e12:  # the year 33658; milliseconds given by mistake lie beyond
        raise InvalidToken("claim-type", f"the token's {name} is not a date")
    return date


def _check_audience(audience: Any, rules: Rules) -> None:
    if audience is None and rules.audiences is None:
        return
    listed = [audience] if isinstance(audience, str) else audience
    if listed is not None and not (isinstance(listed, list) and all(isinstance(item, str) for item in listed)):
        raise InvalidToken("claim-type", "the token's aud is neither a string nor a list of strings")
    if rules.audiences is None or (rules.audiences != {ANY} and rules.audiences.isdisjoint(listed or ())):
        raise InvalidToken("audience", "the token is for another audience")


def words(value: Any) -> frozenset[str]:
    """Scopes or groups as a set, from a text of words (RFC 8693 §4.2) or a list of strings; anything else holds none."""
    if isinstance(value, str):
        return frozenset(value.split())
    if isinstance(value, list):
        return frozenset(item for item in value if isinstance(item, str))
    return frozenset()


def lookup(claims: Mapping[str, Any], path: str) -> Any:
    """The claim at a dotted path (``realm_access.roles``); a name that holds the dots itself goes first. None when absent."""
    if path in claims or "." not in path:
        return claims.get(path)
    value: Any = claims
    for step in path.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return None
        value = value[step]
    return value
